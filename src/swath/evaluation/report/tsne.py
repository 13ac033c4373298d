"""Embeddings on a sheet of paper: principal components, or t-SNE, and always with the name of the method.

A map in two dimensions lies about distances. Principal components lie least: they are a shadow, and say what
share of the variance it holds. t-SNE (van der Maaten and Hinton 2008; here exact, not approximated) shows who
is whose neighbor; sizes of its islands and distances between them mean nothing.

Legend: N images, D feature dimensions.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from swath.errors import SwathError

MOST = 2000  # points of an exact t-SNE: memory and time grow with the square


def tsne(
    features: Tensor, *, perplexity: float = 30.0, steps: int = 400, rate: float | None = None
) -> tuple[Tensor, float]:
    """t-SNE of the unit vectors of [N, D], from its principal components: no luck in it, the same every time.

    Args:
        features: 5 to 2,000 images.
        perplexity: About how many neighbors count; at most a third of the images.
        steps: Of gradient descent; the first quarter exaggerates attraction twelvefold.
        rate: Learning rate; default N / 12, 50 at least (Belkina et al. 2019).

    Returns:
        [N, 2] float64, and the Kullback-Leibler divergence that is left (0 is a perfect map).

    Raises:
        SwathError: Too few or too many images.
    """
    count = len(features)
    if not 5 <= count <= MOST:
        raise SwathError(f"a t-SNE map is made of 5 to {MOST:,} images, not {count:,}")
    unit = F.normalize(features.double(), dim=1)
    squares = (2 - 2 * unit @ unit.T).clamp_min(0)
    likely = _affinities(squares, min(perplexity, (count - 1) / 3))
    centered = unit - unit.mean(dim=0)
    u, s, _ = torch.linalg.svd(centered, full_matrices=False)
    y = u[:, :2] * s[:2]
    if y.shape[1] < 2:
        y = torch.cat([y, torch.zeros(count, 1, dtype=torch.float64)], dim=1)
    y = y * (1e-2 / y[:, 0].std().clamp_min(1e-12))
    # Copies of one image would never part, and gradients of equal points are 0: a step aside for each.
    turn = torch.arange(count, dtype=torch.float64) * 2.399963
    y = y + 1e-5 * torch.stack([turn.cos(), turn.sin()], dim=1)
    speed, gain = torch.zeros_like(y), torch.ones_like(y)
    step_size = rate if rate is not None else max(50.0, count / 12)
    for step in range(steps):
        early = step < steps // 4
        near = 1 / (1 + torch.cdist(y, y).square())
        near.fill_diagonal_(0)
        fraction = near / near.sum()
        force = (likely * (12.0 if early else 1.0) - fraction) * near
        gradient = 4 * (force.sum(dim=1, keepdim=True) * y - force @ y)
        gain = torch.where(gradient.sign() == speed.sign(), gain * 0.8, gain + 0.2).clamp_min(0.01)
        speed = (0.5 if early else 0.8) * speed - step_size * gain * gradient
        y = y + speed
        y = y - y.mean(dim=0)
    near = 1 / (1 + torch.cdist(y, y).square())
    near.fill_diagonal_(0)
    fraction = (near / near.sum()).clamp_min(1e-12)
    return y, float((likely * (likely.clamp_min(1e-12) / fraction).log()).sum())


def _affinities(squares: Tensor, perplexity: float) -> Tensor:
    """[N, N] symmetric shares of neighborhood; each row's width gives it the perplexity, by bisection."""
    count, requested = len(squares), math.log(perplexity)
    off = squares + torch.diag(torch.full((count,), torch.inf, dtype=squares.dtype))
    low = torch.full((count, 1), 1e-6, dtype=torch.float64)
    high = torch.full((count, 1), 1e6, dtype=torch.float64)
    for _ in range(60):
        beta = (low * high).sqrt()
        row = torch.softmax(-beta * off, dim=1)
        entropy = -(row * row.clamp_min(1e-300).log()).sum(dim=1, keepdim=True)
        wide = entropy > requested
        low, high = torch.where(wide, beta, low), torch.where(wide, high, beta)
    row = torch.softmax(-(low * high).sqrt() * off, dim=1)
    return (row + row.T) / (2 * count)
