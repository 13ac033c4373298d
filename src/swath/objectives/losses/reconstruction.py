"""Targets in frequency bands, and losses over masked patches in which no nodata pixel takes part.

Averages are of valid pixels only: every resampling here carries the weight of what was valid, so a nodata
pixel neither counts in a loss nor bleeds into a neighbor's target. Where all is valid the weights are one
and nothing changes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from swath.objectives.losses.precision import full_precision

_TINY = 1e-9


def area_resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Area average (adaptive average pooling) of [B, C, H, W] to `size`; a no-op at equal size."""
    return image if image.shape[-2:] == size else F.interpolate(image, size=size, mode="area")


def masked_area_resize(
    image: Tensor, valid: Tensor | None, size: tuple[int, int]
) -> tuple[Tensor, Tensor | None]:
    """Area average over valid pixels.

    Args:
        image: [B, C, H, W].
        valid: [B, 1, H, W] weights in [0, 1], or None when all is valid.
        size: (h, w) of the result.

    Returns:
        The averages [B, C, h, w] (0 where nothing is valid) and the valid share [B, 1, h, w] of each.
    """
    if valid is None:
        return area_resize(image, size), None
    share = area_resize(valid, size)
    return area_resize(image * valid, size) / share.clamp_min(_TINY), share


def low_pass(image: Tensor, valid: Tensor | None, low_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """An image area-averaged to `low_size`, then bilinearly enlarged to `size`.

    Args:
        image: [B, C, H, W].
        valid: [B, 1, H, W] weights, or None.
        low_size: (h, w) of the small map: keeps structures larger than H / h pixels.
        size: (h, w) of the result.
    """

    def detour(x: Tensor) -> Tensor:
        return F.interpolate(area_resize(x, low_size), size=size, mode="bilinear", align_corners=False)

    if valid is None:
        return detour(image)
    return detour(image * valid) / detour(valid).clamp_min(_TINY)


class _TakePatches(torch.autograd.Function):
    """Gather of distinct patches; its gradient is a plain copy back, where autograd would add atomically."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, index: Tensor, grid: tuple[int, int]) -> Tensor:
        batch, height, width, channels = image.shape
        ctx.shape = (batch, grid[0], height // grid[0], grid[1], width // grid[1], channels)
        ctx.place = (
            torch.arange(batch, device=index.device).unsqueeze(1),
            index // grid[1],
            index % grid[1],
        )
        return image.reshape(ctx.shape).permute(0, 1, 3, 2, 4, 5)[ctx.place]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad = grads[0].new_zeros(ctx.shape)
        grad.permute(0, 1, 3, 2, 4, 5)[ctx.place] = grads[0]
        batch, rows, tall, columns, wide, channels = ctx.shape
        return grad.view(batch, rows * tall, columns * wide, channels), None, None


def take_patches(image: Tensor, index: Tensor, grid: tuple[int, int]) -> Tensor:
    """Some patches of a channels-last image.

    Args:
        image: [B, H, W, C].
        index: [B, M] flat patch indices, no index twice in a sample.
        grid: Patches in a column and in a row; H and W are multiples of them.

    Returns:
        [B, M, H / grid_h, W / grid_w, C].
    """
    patches: Tensor = _TakePatches.apply(image, index, grid)
    return patches


def patch_loss(
    prediction: Tensor, target: Tensor, weight: Tensor | None, kind: Literal["l1", "l2"]
) -> Tensor:
    """Error of predicted patches, one number a sample: a weighted mean over pixels, summed over bands.

    The mean is each sample's own, over its own valid pixels, so that a mean over samples is the same however
    samples are spread over batches and ranks. A sample without valid pixels among them has loss 0.

    Args:
        prediction: [B, M, h, w, C].
        target: The same.
        weight: [B, M, h, w, 1] valid share of each pixel, or None when all is valid.
        kind: Absolute ("l1") or squared ("l2") error.

    Returns:
        [B] float32.
    """
    error = full_precision(prediction) - target
    error = error.abs() if kind == "l1" else error.square()
    if weight is None:
        return error.sum(dim=(1, 2, 3, 4)) / (error[0, ..., 0].numel() + _TINY)
    return (error * weight).sum(dim=(1, 2, 3, 4)) / (weight.sum(dim=(1, 2, 3, 4)) + _TINY)
