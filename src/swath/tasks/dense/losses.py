"""Losses of classes, for images and for pixels alike.

Legend: N places (images, or the pixels that count), K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255  # the class of pixels that do not count, as most data sets have it
DenseLoss = Literal["ce", "focal", "dice"]


def weighted_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over places of - sum_k w_k t_k log p_k.

    Args:
        logits: [N, K].
        target: [N, K] shares of classes.
        weights: [K] or None for 1 each. They are not divided out again, so that parts of a batch can be
            averaged: `class_weights` gives weights of mean 1 over places.
    """
    terms = -target * F.log_softmax(logits, dim=1)
    return (terms if weights is None else terms * weights).sum(dim=1).mean()


def dense_losses(
    logits: Tensor, mask: Tensor, weights_by_loss: Mapping[DenseLoss, float], weights: Tensor | None = None
) -> dict[str, Tensor]:
    """The wanted losses of a segmentation, by name, and their weighted sum `total`.

    Args:
        logits: [B, K, H, W].
        mask: [B, H, W] class indices; `IGNORE` where nothing is known.
        weights_by_loss: Weight of each loss in the total.
        weights: [K] of cross entropy and focal loss.

    Returns:
        ``ce``: cross entropy. ``focal``: (1 - p)^2 times it (Lin et al. 2017). ``dice``: 1 - 2 |p t| /
        (|p| + |t|) of each class over the whole batch, then the mean over classes that occur (Milletari et
        al. 2016). All are 0 where no pixel counts.
    """
    counts = mask != IGNORE
    flat = logits.float().movedim(1, -1)[counts]  # [N, K]
    truth = mask[counts].long()
    losses: dict[str, Tensor] = {}
    log_p = F.log_softmax(flat, dim=1)
    terms = -log_p.gather(1, truth[:, None])[:, 0]
    share = 1.0 if weights is None else weights[truth]
    number = max(1, len(truth))
    if "ce" in weights_by_loss:
        losses["ce"] = (share * terms).sum() / number
    if "focal" in weights_by_loss:
        losses["focal"] = (share * (1 - torch.exp(-terms)) ** 2 * terms).sum() / number
    if "dice" in weights_by_loss:
        p, t = log_p.exp(), F.one_hot(truth, flat.shape[1]).to(flat.dtype)
        there = t.sum(dim=0) > 0
        dice = 2 * (p * t).sum(dim=0) / (p.sum(dim=0) + t.sum(dim=0)).clamp_min(1e-6)
        losses["dice"] = ((1 - dice) * there).sum() / there.sum().clamp_min(1)
    losses["total"] = torch.stack([weight * losses[name] for name, weight in weights_by_loss.items()]).sum()
    return losses


def class_weights(counts: Tensor) -> Tensor:
    """Weights [K] that undo imbalance half-way: 1 / sqrt(share), scaled to a mean of 1 over places.

    The full inverse makes a rare class's few places drown everything else.

    Args:
        counts: [K] places of each class in the training data; a class without any gets weight 1.
    """
    counts = counts.double()
    share = counts / counts.sum().clamp_min(1)
    weights = torch.where(counts > 0, share.clamp_min(1e-6) ** -0.5, 0)
    weights = weights / (weights * share).sum().clamp_min(1e-12)
    return torch.where(counts > 0, weights, 1.0).float()
