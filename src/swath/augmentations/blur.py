"""Gaussian blur of batches."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_blur(image: Tensor, sigma: Tensor, shown: Tensor | None = None) -> Tensor:
    """Gaussian blur, each sample with its own width.

    Args:
        image: [B, C, H, W].
        sigma: [B, 1, 1, 1] in pixels; 0 leaves a sample as it is.
        shown: [B, 1, H, W] bool; other pixels lend nothing. Beyond the edge there is nothing either: weights
            are shared among the pixels that there are.
    """
    down, across = (_gaussian(side, sigma) for side in image.shape[-2:])
    spread = down @ image @ across.transpose(-1, -2)
    if shown is None or (shown.device.type == "cpu" and bool(shown.all())):
        return spread
    weight = shown.to(image.dtype)
    spread = down @ (image * weight) @ across.transpose(-1, -2)
    return spread / (down @ weight @ across.transpose(-1, -2)).clamp_min(1e-6)


def _gaussian(side: int, sigma: Tensor) -> Tensor:
    """[B, 1, side, side]: row i holds the weights of all pixels in the blurred pixel i."""
    place = torch.arange(side, dtype=torch.float32, device=sigma.device)
    distance = (place[:, None] - place) / sigma.clamp_min(1e-3)
    return torch.softmax(-0.5 * distance.square(), dim=-1)
