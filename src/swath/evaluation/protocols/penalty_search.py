"""Which penalty a linear probe gets: selected on images held out of the train split, never on test images.

Legend: N train images, D feature dimensions, K classes or labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.protocols.logistic_regression import LinearProbe, fit_linear_probe, fit_linear_probes

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
FRACTION = 0.2
# The held-out likelihood rises with C, then falls, and the largest values of C take most of the time. After
# so many values in a row below the best one, larger ones are not tried.
PATIENCE = 2
ROUGH_TOLERANCE = 1e-6  # enough to compare values of C


def stratified_group_holdout(
    labels: NDArray[Any], groups: NDArray[Any] | None = None, *, fraction: float = FRACTION, seed: int = 0
) -> NDArray[np.bool_]:
    """[N] bool, True for images held out: `fraction` of each class, groups of the same ground kept together.

    A class with a single image (or group) is not held out. If images have several labels, `fraction` of all
    groups is held out.

    Args:
        labels: [N] class indices, or [N, K].
        groups: [N] names; "" for an image that is a group of its own.
        fraction: Of each class.
        seed: Of the random draw.
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
    """Select C on held-out train images, then fit to the whole train split with it.

    The value of C with the highest held-out log-likelihood wins. Features are standardized by the images that
    a probe is fitted to, so validation and test images have no influence on them.

    Args:
        features: [N, D] of the train split.
        labels: [N] class indices, or [N, K] 0 and 1.
        classes: Number of classes or labels.
        groups: [N] names of the ground that images share, see `stratified_group_holdout`.
        grid: Ascending values of C; each fit starts from the one before. The search stops after `PATIENCE`
            worse values in a row.
        seed: Of the held-out images.

    Returns:
        The probe, and JSON-safe details: ``C``, ``validation`` (mean log-likelihood of each value tried) and
        ``validation_images``.

    Raises:
        SwathError: Too few images to hold any out, or as `fit_linear_probe`.
    """
    held_out = stratified_group_holdout(labels.numpy(), groups, seed=seed)
    fitting = torch.from_numpy(~held_out)
    if not held_out.any() or (labels.ndim == 1 and len(torch.unique(labels[fitting])) < 2):
        raise SwathError(
            "C cannot be selected: no class of the train split has two images (or groups of the same "
            "ground), one to fit to and one to validate on. Set C with --c."
        )
    likelihood: dict[float, float] = {}
    probes = fit_linear_probes(
        features[fitting], labels[fitting], classes=classes, grid=grid, tolerance=ROUGH_TOLERANCE
    )
    for c, probe in zip(grid, probes, strict=True):
        likelihood[c] = _log_likelihood(probe.probabilities(features[~fitting]), labels[~fitting])
        best = max(likelihood, key=lambda c: (likelihood[c], -c))
        if len(likelihood) - list(likelihood).index(best) > PATIENCE:
            break
    scores = {f"{c:g}": round(value, 6) for c, value in likelihood.items()}
    details = {"C": best, "validation": scores, "validation_images": int(held_out.sum())}
    return fit_linear_probe(features, labels, classes=classes, c=best), details


def _log_likelihood(probabilities: Tensor, labels: Tensor) -> float:
    """Mean log-likelihood per image. It is finer than accuracy, which takes few values on few images."""
    if labels.ndim == 2:
        likelihood = torch.where(labels > 0.5, probabilities, 1 - probabilities)
        return float(likelihood.clamp_min(1e-9).log().sum(dim=1).mean())
    return float(probabilities.gather(1, labels[:, None]).clamp_min(1e-9).log().mean())
