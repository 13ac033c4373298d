"""How strong the penalty of a linear probe should be: chosen on images held out of the bank, not on queries.

Legend: N bank images, D feature dimensions, K classes or labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.protocols.logistic_regression import LinearProbe, ProbeFitter

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
SHARE = 0.2
# Held-out likelihood rises with C, then falls; the weakest penalties take most of the time. After so many
# strengths in a row below the best, weaker ones are not tried.
PATIENCE = 2


def stratified_group_holdout(
    labels: NDArray[Any], groups: NDArray[Any] | None = None, *, fraction: float = SHARE, seed: int = 0
) -> NDArray[np.bool_]:
    """[N] bool, True for images that validate: `share` of each class, groups of the same ground whole.

    A class of which there is a single image (or group) is not held out. Of images with several labels,
    `share` of all groups is.

    Args:
        labels: [N] class indices, or [N, K].
        groups: [N] names; "" for an image that is a group of its own.
        share: Of each class.
        seed: Of the drawing.
    """
    named = np.full(len(labels), "") if groups is None else np.asarray(groups)
    unit = np.array([name or f"\0{i}" for i, name in enumerate(named.tolist())])
    generator = np.random.default_rng(seed)
    kinds = [np.full(len(labels), True)] if labels.ndim == 2 else [labels == k for k in np.unique(labels)]
    chosen: set[str] = set()
    for members in kinds:
        units = np.unique(unit[members])
        if len(units) > 1:
            count = min(len(units) - 1, max(1, round(fraction * len(units))))
            chosen.update(generator.permutation(units)[:count].tolist())
    return np.isin(unit, sorted(chosen))


def fit_with_selected_c(
    features: Tensor,
    labels: Tensor,
    *,
    classes: int,
    groups: NDArray[Any] | None = None,
    grid: tuple[float, ...] = GRID,
    seed: int = 0,
) -> tuple[LinearProbe, dict[str, Any]]:
    """Choose the penalty on held-out images of the bank, then fit to the whole bank with it.

    The strength under which held-out images are most likely is taken (log-likelihood). Features are
    standardized by the images that a probe is fitted to, so neither validation nor queries are looked at.

    Args:
        features: [N, D] of the bank.
        labels: [N] class indices, or [N, K] 0 and 1.
        classes: Number of classes or labels.
        groups: [N] names of the ground that images share, see `hold_out`.
        grid: Strengths C, rising; each fit starts from the one before. Those beyond `PATIENCE` worse ones in
            a row are left out.
        seed: Of the held-out images.

    Returns:
        The probe, and JSON-safe facts: ``C``, and ``validation``, the mean log-likelihood under each tried.

    Raises:
        SwathError: Too few images to hold any out, or as `fit_linear_probe`.
    """
    held = stratified_group_holdout(labels.numpy(), groups, seed=seed)
    kept = torch.from_numpy(~held)
    several = labels.ndim == 2
    if not held.any() or (not several and len(torch.unique(labels[kept])) < 2):
        raise SwathError(
            "the penalty of the probe cannot be chosen: no class of the bank has two images (or groups "
            "of the same ground), one to learn from and one to validate on. Fix it beforehand with --c"
        )
    fitter = ProbeFitter(features[kept], labels[kept], classes=classes)
    shown, truth = features[~kept], labels[~kept]
    likelihood: dict[float, float] = {}
    for c in grid:
        likelihood[c] = _likelihood(fitter.fit(c, fine=False).probabilities(shown), truth)
        best = max(likelihood, key=lambda c: (likelihood[c], -c))
        if len(likelihood) - list(likelihood).index(best) > PATIENCE:
            break
    probe = ProbeFitter(features, labels, classes=classes).fit(best)
    scores = {f"{c:g}": round(value, 6) for c, value in likelihood.items()}
    return probe, {"C": best, "validation": scores, "validation_images": int(held.sum())}


def _likelihood(probabilities: Tensor, truth: Tensor) -> float:
    """Mean log-likelihood an image; finer than accuracy, of which a few images give a few values only."""
    if truth.ndim == 2:
        chance = torch.where(truth > 0.5, probabilities, 1 - probabilities)
        return float(chance.clamp_min(1e-9).log().sum(dim=1).mean())
    chance = probabilities.gather(1, truth[:, None])
    return float(chance.clamp_min(1e-9).log().mean())
