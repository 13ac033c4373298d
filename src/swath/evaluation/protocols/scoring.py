"""From what a classifier said of each query to a `Score`: headline, further figures, intervals.

Legend: Q queries, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from swath.evaluation.measures import classification as metrics
from swath.evaluation.measures.intervals import (
    Estimate,
    bootstrap_counts,
    bootstrap_interval,
    nan_mean,
    percentile_interval,
)
from swath.evaluation.protocols.results import Array, EvaluationResult, Score

_FEW = 300  # resamples of figures that have to sort every time


def score_single_label(
    head: dict[str, Any],
    labels: Array,
    probabilities: Array,
    *,
    details: dict[str, Any] | None = None,
) -> Score:
    """The score of class probabilities, for images of one class each.

    Args:
        head: Whose score it is: `features`, `classifier`, `query_side`, `bank_side`.
        labels: [Q] true class indices.
        probabilities: [Q, K]; of equal ones the first class is predicted.
        details: See `Score`.
    """
    predictions = probabilities.argmax(axis=1)
    confidence = np.take_along_axis(probabilities, predictions[:, None], axis=1)[:, 0].astype(np.float32)
    classes, top5 = probabilities.shape[1], None
    if classes > 5:
        # Equal probabilities: the first classes win, as in the prediction.
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        top5 = (best == labels[:, None]).any(axis=1)
    return _of_classes(head, labels, predictions, confidence, top5, classes, details or {})


def score_multilabel(
    head: dict[str, Any],
    truth: Array,
    probabilities: Array,
    *,
    details: dict[str, Any] | None = None,
) -> Score:
    """The score of label probabilities, for images of several labels each; the headline is micro mAP.

    Args:
        head: As for `score_classes`.
        truth: [Q, K], 0 and 1.
        probabilities: [Q, K]; a label is predicted from 0.5.
        details: See `Score`.
    """
    truth, confidence = truth > 0.5, probabilities.astype(np.float32)
    predictions = confidence >= 0.5
    exact = (predictions == truth).all(axis=1)
    counts = bootstrap_counts(len(truth))[:_FEW]
    replicates = metrics.micro_average_precision(confidence, truth, counts)
    sure = np.where(predictions, confidence, 1 - confidence).ravel()
    right = (predictions == truth).ravel()
    by_label = metrics.per_label_average_precision(confidence, truth)
    again = [metrics.average_precision(p, t, counts) for p, t in zip(confidence.T, truth.T, strict=True)]
    micro, macro = metrics.f1_scores(predictions, truth)
    micro_again, macro_again = metrics.f1_scores(predictions, truth, counts)
    spread = np.stack(again, axis=1)
    figures = {
        "map_macro": Estimate.from_replicates(
            metrics.macro_average_precision(confidence, truth)[0], nan_mean(spread)
        ),
        "f1_micro": Estimate.from_replicates(micro[0], micro_again),
        "f1_macro": Estimate.from_replicates(macro[0], macro_again),
        "exact": Estimate(float(exact.mean()), *bootstrap_interval(exact)),
        "ece": Estimate(float(metrics.calibration_error(sure, right)[0])),
    }
    value = float(metrics.micro_average_precision(confidence, truth)[0])
    return Score(
        **head,
        value=value,
        low=percentile_interval(replicates)[0],
        high=percentile_interval(replicates)[1],
        hits=exact,
        predictions=predictions,
        confidence=confidence,
        figures=figures,
        by_class=[Estimate.from_replicates(v, s) for v, s in zip(by_label, spread.T, strict=True)],
        details=details or {},
        replicates=replicates,
    )


def score_repeats(head: dict[str, Any], hits: Array, *, details: dict[str, Any] | None = None) -> Score:
    """The score of a classifier that was fitted several times, each to images drawn anew.

    The interval covers both: which images were drawn, and which queries there happen to be (draws and
    queries are resampled together).

    Args:
        head: As for `score_classes`.
        hits: [draws, Q] bool.
        details: See `Score`.
    """
    draws, test = hits.shape
    counts = bootstrap_counts(test)
    generator = np.random.default_rng(1)
    turns = generator.multinomial(draws, np.full(draws, 1 / draws), size=len(counts)).astype(np.float32)
    means = (turns * (counts @ hits.T.astype(np.float32))).sum(axis=1) / (draws * test)
    low, high = percentile_interval(means)
    fraction = hits.mean(axis=0)
    return Score(
        **head,
        value=float(fraction.mean()),
        low=low,
        high=high,
        hits=fraction,
        details=details or {},
        replicates=means,
    )


def restrict_evaluation(evaluation: EvaluationResult, keep: Array, note: str) -> EvaluationResult:
    """The same evaluation over some of its queries, such as those that no near-duplicate is learned from.

    Args:
        evaluation: As found.
        keep: [Q] bool; at least one query.
        note: Why, for the reader.
    """
    labels = evaluation.labels[keep]
    scores = []
    for old in evaluation.scores:
        head, details = old.head, old.details
        if old.predictions is None or old.confidence is None:
            fraction = old.hits[keep]
            spread = bootstrap_interval(fraction)
            new = Score(**head, value=float(fraction.mean()), low=spread[0], high=spread[1], hits=fraction)
            new.details = details
        elif labels.ndim == 2:
            new = score_multilabel(head, labels, old.confidence[keep], details=details)
        else:
            top5 = None if old.top5 is None else old.top5[keep]
            prediction, sure = old.predictions[keep], old.confidence[keep]
            new = _of_classes(head, labels, prediction, sure, top5, len(old.by_class), details)
        scores.append(new)
    protocol = {**evaluation.protocol, "queries_kept": {"images": len(labels), "why": note}}
    return EvaluationResult(
        protocol,
        scores,
        evaluation.native_image_size,
        evaluation.native_gsd,
        [*evaluation.notes, note],
        evaluation.seconds,
        evaluation.refused,
        labels,
        [path for path, kept in zip(evaluation.paths, keep, strict=True) if kept],
        evaluation.seed_group,
    )


def _of_classes(
    head: dict[str, Any],
    labels: Array,
    predictions: Array,
    confidence: Array,
    top5: Array | None,
    classes: int,
    details: dict[str, Any],
) -> Score:
    hits = predictions == labels
    counts = bootstrap_counts(len(labels))
    figures = {} if top5 is None else {"top5": Estimate(float(top5.mean()), *bootstrap_interval(top5))}
    recall = metrics.per_class_recall(hits, labels, classes)[0]
    recalls = metrics.per_class_recall(hits, labels, classes, counts)
    figures["balanced"] = Estimate.from_replicates(
        np.nanmean(recall), nan_mean(recalls[:, np.isfinite(recall)])
    )
    for name, kind in (("ece", "width"), ("ece_mass", "mass")):
        error: Callable[..., Array] = metrics.calibration_error
        figures[name] = Estimate.from_replicates(
            error(confidence, hits, kind=kind)[0], error(confidence, hits, kind=kind, counts=counts)
        )
    low, high = bootstrap_interval(hits)
    return Score(
        **head,
        value=float(hits.mean()),
        low=low,
        high=high,
        hits=hits,
        predictions=predictions,
        confidence=confidence,
        top5=top5,
        figures=figures,
        by_class=[Estimate.from_replicates(r, s) for r, s in zip(recall, recalls.T, strict=True)],
        details=details,
    )
