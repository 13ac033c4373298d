"""Measures of an embedding: rank, uniformity, alignment, intrinsic dimension."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from swath.training.monitoring.collapse import rankme

_SAMPLE = 4000  # images that pairs are made of: 8 million pairs


def effective_rank(features: Tensor) -> float:
    """Roy and Vetterli's effective rank of features [N, D] less their mean: 1 to min(N - 1, D)."""
    return rankme(features.double() - features.double().mean(dim=0))


def participation_ratio(features: Tensor) -> float:
    """(sum of variances)^2 / sum of squared variances along the principal axes of [N, D]: 1 to D."""
    variances = torch.linalg.svdvals(_centered(features)).square()
    return float(variances.sum().square() / variances.square().sum().clamp_min(1e-300))


def uniformity(features: Tensor, *, t: float = 2.0) -> float:
    """log of the mean of exp(-t |x - y|^2) over pairs of unit vectors made of [N, D]; lower is more even.

    0 where all are one point; near -2 t for points even on a sphere of many dimensions. Computed on 4,000
    images drawn evenly where there are more.
    """
    unit = F.normalize(_sample(features), dim=1)
    total, count = 0.0, len(unit)
    for start in range(0, count, 1000):
        squares = 2 - 2 * (unit[start : start + 1000] @ unit.T)
        total += float(torch.exp(-t * squares.clamp_min(0)).sum())
    return math.log(max(total - count, 1e-300) / max(count * (count - 1), 1))


def alignment(first: Tensor, second: Tensor, *, power: float = 2.0) -> float:
    """Mean distance^power between unit vectors of two views of the same images, [N, D] each; 0 is perfect."""
    gap = F.normalize(first.double(), dim=1) - F.normalize(second.double(), dim=1)
    return float(gap.norm(dim=1).pow(power).mean())


def class_alignment(features: Tensor, labels: Tensor) -> float | None:
    """Mean squared distance of two unit vectors of one class, over that of any two images.

    Below 1 where classes are gathered; 1 for features that know nothing of them. None where there is no pair
    of one class, or all features are one point.
    """
    unit = F.normalize(features.double(), dim=1)
    within, pairs = 0.0, 0
    for label in labels.unique():  # type: ignore[no-untyped-call]
        part = unit[labels == label]
        count = len(part)
        within += 2 * (count**2 - float(part.sum(dim=0).square().sum()))
        pairs += count * (count - 1)
    count = len(unit)
    among = 2 * (count**2 - float(unit.sum(dim=0).square().sum())) / max(count * (count - 1), 1)
    return within / pairs / among if pairs and among > 1e-9 else None


def two_nn(features: Tensor, *, discard: float = 0.1) -> float | None:
    """Intrinsic dimension by the two nearest neighbors.

    Locally the ratio mu of the distances to the second and first neighbor follows F(mu) = 1 - mu^-d, so
    -log(1 - F) is a line through the origin of slope d over log mu; it is fitted without the largest ratios.

    Args:
        features: [N, D].
        discard: Share of the largest ratios, where the density is not even, that is left out.

    Returns:
        The dimension, or None with fewer than 20 points that differ. Copies of a point are counted once.
    """
    points: Tensor = torch.unique(features.double(), dim=0)
    if len(points) < 20:
        return None
    points = _sample(points)
    logs = []
    for start in range(0, len(points), 512):
        part = points[start : start + 512]
        near = torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist").topk(3, largest=False)
        logs.append(torch.log(near.values[:, 2] / near.values[:, 1].clamp_min(1e-300)))
    ratio = torch.cat(logs).sort().values
    count = len(ratio)
    kept = max(10, int(count * (1 - discard)))
    x = ratio[:kept]
    y = -torch.log1p(-torch.arange(1, count + 1, dtype=torch.float64) / count)[:kept]
    return float((x @ y) / (x @ x)) if float(x @ x) > 0 else None


def _centered(features: Tensor) -> Tensor:
    values = features.double()
    return values - values.mean(dim=0)


def _sample(features: Tensor) -> Tensor:
    """At most 4,000 rows, evenly drawn, float64."""
    step = max(1, math.ceil(len(features) / _SAMPLE))
    return features[::step].double()
