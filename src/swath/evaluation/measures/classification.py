"""Figures of classification: average precision, F1, recall by class, and expected calibration error.

Pure functions of what a classifier said and what is true. Each also takes `counts`, how often every image is
drawn in each of R bootstrap samples (`swath.evaluation.measures.intervals.bootstrap_counts`), and then
returns R figures instead of one.

Legend: N images, K classes or labels, R resamples.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swath.evaluation.measures.intervals import nan_mean

Array = NDArray[Any]
Counts = NDArray[np.float32] | None
Bins = Literal["width", "mass"]
_AT_A_TIME = 8_000_000  # numbers of a table that resampling makes at a time


def average_precision(scores: Array, truth: Array, counts: Counts = None) -> Array:
    """Area under the steps of the precision-recall curve: sum of (R_n - R_{n-1}) P_n, equal scores one step.

    Args:
        scores: [N], higher for what is rather thought to be true.
        truth: [N] bool.
        counts: [R, N], or None for each once.

    Returns:
        [R], or [1] without counts; NaN where nothing is true.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run of equal scores
    weights = np.ones((1, len(order))) if counts is None else counts[:, order]
    true = np.cumsum(weights * truth[order], axis=1, dtype=np.float64)[:, last]
    seen = np.cumsum(weights, axis=1, dtype=np.float64)[:, last]
    gained = np.diff(true, axis=1, prepend=0.0)
    total = true[:, -1]
    area = (gained * true / np.maximum(seen, 1e-300)).sum(axis=1)
    return np.where(total > 0, area / np.maximum(total, 1e-300), np.nan)


def per_label_average_precision(probabilities: Array, truth: Array) -> Array:
    """[K] average precision of each label over images [N, K]; NaN for a label that no image has."""
    return np.array([average_precision(p, t)[0] for p, t in zip(probabilities.T, truth.T, strict=True)])


def macro_average_precision(probabilities: Array, truth: Array, counts: Counts = None) -> Array:
    """[R] or [1] mean over labels of the average precision; labels that no image has stay out."""
    columns = [average_precision(p, t, counts) for p, t in zip(probabilities.T, truth.T, strict=True)]
    return nan_mean(np.stack(columns, axis=1))


def micro_average_precision(probabilities: Array, truth: Array, counts: Counts = None) -> Array:
    """[R] or [1] average precision over all (image, label) together; images are drawn whole."""
    scores, flat, labels = probabilities.ravel(), truth.ravel(), truth.shape[1]
    if counts is None:
        return average_precision(scores, flat)
    step = max(1, _AT_A_TIME // scores.size)
    parts = [
        average_precision(scores, flat, np.repeat(counts[start : start + step], labels, axis=1))
        for start in range(0, len(counts), step)
    ]
    return np.concatenate(parts)


def f1_scores(predictions: Array, truth: Array, counts: Counts = None) -> tuple[Array, Array]:
    """F1 of predicted against true labels [N, K], micro and macro: [R] or [1] each.

    F1 = 2 TP / (2 TP + FP + FN). Micro adds up over labels first; macro is the mean over labels, of which
    those stay out that are neither true nor predicted anywhere.
    """
    weights = np.ones((1, len(truth)), dtype=np.float32) if counts is None else counts
    right = weights @ (predictions & truth).astype(np.float32)  # [R, K]
    either = weights @ (predictions.astype(np.float32) + truth.astype(np.float32))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * right.sum(axis=1) / either.sum(axis=1), nan_mean(2 * right / either)


def per_class_recall(hits: Array, labels: Array, classes: int, counts: Counts = None) -> Array:
    """Share of each class's images that were right: [R, K] or [1, K]; NaN for a class without images."""
    member = np.eye(classes, dtype=np.float32)[labels]
    weights = np.ones((1, len(labels)), dtype=np.float32) if counts is None else counts
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = (weights @ (member * hits[:, None].astype(np.float32))) / (weights @ member)
    return found


def balanced_accuracy(hits: Array, labels: Array, classes: int, counts: Counts = None) -> Array:
    """[R] or [1] mean over classes of the recall: every class counts the same, however many images it has."""
    return nan_mean(per_class_recall(hits, labels, classes, counts))


def reliability_curve(
    confidence: Array, hits: Array, bins: int = 15, kind: Bins = "width"
) -> list[dict[str, Any]]:
    """What a reliability plot shows: of each bin of confidence that is not empty, the figures of its images.

    Args:
        confidence: [N] probability that the classifier gave to what it said.
        hits: [N], 1 where it was right.
        bins: Number of bins.
        kind: ``width``: bins of equal width over 0 to 1. ``mass``: bins of equally many images.

    Returns:
        One mapping a bin: `low` and `high` end, `images`, mean `confidence`, `accuracy`.
    """
    place = _bins(confidence, bins, kind)
    found = []
    for number in np.unique(place):
        inside = place == number
        ends = (number / bins, (number + 1) / bins)
        if kind == "mass":
            ends = (float(confidence[inside].min()), float(confidence[inside].max()))
        found.append(
            {
                "low": ends[0],
                "high": ends[1],
                "images": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(hits[inside].mean()),
            }
        )
    return found


def calibration_error(
    confidence: Array, hits: Array, bins: int = 15, kind: Bins = "width", counts: Counts = None
) -> Array:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017): [R] or [1].

    The mean over bins of confidence, weighted by their images, of |accuracy - mean confidence|. Of few images
    it is biased upwards: not even a perfectly calibrated classifier scores 0.
    Arguments as for `reliability`.
    """
    place = _bins(confidence, bins, kind)
    gaps = np.zeros((len(confidence), place.max(initial=0) + 1), dtype=np.float32)
    gaps[np.arange(len(confidence)), place] = hits - confidence
    weights = np.ones((1, len(confidence)), dtype=np.float32) if counts is None else counts
    found: Array = np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)
    return found


def _bins(confidence: Array, bins: int, kind: Bins) -> Array:
    """[N] number of each image's bin."""
    if kind == "width":
        return np.clip((np.asarray(confidence, dtype=np.float64) * bins).astype(np.int64), 0, bins - 1)
    # Images of equal confidence stand together, in the bin of the first of them.
    order = np.sort(confidence)
    return np.searchsorted(order, confidence, side="left") * bins // len(order)
