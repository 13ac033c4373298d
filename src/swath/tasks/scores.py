"""How good a task model is: one confusion over all test images, what follows from it, and intervals.

Figures of pixels are taken from the *global* confusion (all pixels of all images together), never as a mean
over images or batches: a mean over batches depends on how the batches were cut. Intervals draw whole images.

Legend: N images, K classes, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.evaluation.measures.classification import macro_average_precision, per_label_average_precision
from swath.evaluation.measures.intervals import Estimate, bootstrap_counts, nan_mean
from swath.tasks.dense.losses import IGNORE

Array = NDArray[Any]


@dataclass
class TaskScores:
    """What was measured.

    Attributes:
        main: Name of the figure that models are chosen by.
        figures: By name.
        per_class: A row a class: name, places (images or pixels) that are truly so, and figures.
        confusion: [K, K] counts, a row a true class; None of several labels.
        images: [N] score of each image, for galleries: higher is better.
        protocol: How it was measured.
        curves: Detectors: by class the precision at recalls of 0, 0.01, ..., 1, at IoU 0.5.
        found: Detectors: what was found in each image; stays in memory.
    """

    main: str
    figures: dict[str, Estimate]
    per_class: list[dict[str, Any]]
    confusion: Array | None
    images: Array
    protocol: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    detections: list[Any] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "main": self.main,
            "figures": {name: figure._asdict() for name, figure in self.figures.items()},
            "per_class": [
                {k: v._asdict() if isinstance(v, Estimate) else v for k, v in row.items()}
                for row in self.per_class
            ],
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            **({"curves": self.curves} if self.curves else {}),
            "protocol": self.protocol,
        }


def confusion_matrix(truth: Array, predicted: Array, classes: int) -> Array:
    """[K, K] counts of places, a row a true class; `IGNORE`d places stay out."""
    counts = truth != IGNORE
    flat = truth[counts].astype(np.int64) * classes + predicted[counts].astype(np.int64)
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def score_segmentation(confusions: Array, classes: Sequence[str], *, main: str = "miou") -> TaskScores:
    """Scores of pixels from the confusion of every image.

    Args:
        confusions: [N, K, K].
        classes: Names.
        main: ``miou``, the mean over classes; or ``f1`` of the last class, for changes.

    Returns:
        ``miou``, ``mf1``, ``accuracy``; of two classes also ``iou`` and ``f1`` of the second one. Classes
        that occur in neither truth nor prediction stay out of means.
    """
    counts = bootstrap_counts(len(confusions))
    drawn = np.tensordot(counts, confusions.astype(np.float64), axes=(1, 0))  # [R, K, K]
    whole = confusions.sum(axis=0)[None]
    exact, replicates = _from_confusion(whole), _from_confusion(drawn)
    figures = {
        name: Estimate.from_replicates(exact[name][0], replicates[name])
        for name in ("miou", "mf1", "accuracy")
    }
    if len(classes) == 2:
        figures |= {
            "iou": Estimate.from_replicates(exact["class_iou"][0, 1], replicates["class_iou"][:, 1]),
            "f1": Estimate.from_replicates(exact["class_f1"][0, 1], replicates["class_f1"][:, 1]),
        }
    keys = ("iou", "f1", "precision", "recall")
    rows = [
        {
            "class": name,
            "places": int(whole[0, k].sum()),
            **{
                key: Estimate.from_replicates(exact[f"class_{key}"][0, k], replicates[f"class_{key}"][:, k])
                for key in keys
            },
        }
        for k, name in enumerate(classes)
    ]
    per_image = _from_confusion(confusions.astype(np.float64))["miou"]
    return TaskScores(main, figures, rows, whole[0], per_image)


def score_classification(probabilities: Array, labels: Array, classes: Sequence[str]) -> TaskScores:
    """Scores of images with one class each: accuracy, balanced accuracy, mean F1.

    Args:
        probabilities: [N, K].
        labels: [N].
        classes: Names.
    """
    number = len(classes)
    said = probabilities.argmax(axis=1)
    confusions = np.zeros((len(labels), number, number))
    confusions[np.arange(len(labels)), labels, said] = 1
    scores = score_segmentation(confusions, classes, main="accuracy")
    recall = _from_confusion(scores.confusion[None])["recall_mean"] if scores.confusion is not None else [0]
    counts = bootstrap_counts(len(labels))
    drawn = np.tensordot(counts, confusions, axes=(1, 0))
    figures = {
        "accuracy": scores.figures["accuracy"],
        "balanced_accuracy": Estimate.from_replicates(recall[0], _from_confusion(drawn)["recall_mean"]),
        "mf1": scores.figures["mf1"],
    }
    rows = [
        {key: row[key] for key in ("class", "places", "recall", "precision", "f1")}
        for row in scores.per_class
    ]
    of_truth = probabilities[np.arange(len(labels)), labels]
    return TaskScores("accuracy", figures, rows, scores.confusion, of_truth)


def score_multilabel_classification(
    probabilities: Array, labels: Array, classes: Sequence[str]
) -> TaskScores:
    """Scores of images with any number of labels: mean average precision and F1 at 0.5.

    Args:
        probabilities: [N, K].
        labels: [N, K] of 0 and 1.
        classes: Names.
    """
    truth = labels > 0.5
    counts = bootstrap_counts(len(labels))
    said = probabilities > 0.5
    right = (said & truth).astype(np.float32)
    either = said.astype(np.float32) + truth
    with np.errstate(invalid="ignore", divide="ignore"):
        micro = 2 * (counts @ right.sum(1)) / (counts @ either.sum(1))
        each = 2 * (counts @ right) / (counts @ either)
        f1, f1_each = 2 * right.sum() / either.sum(), 2 * right.sum(0) / either.sum(0)
    precision = macro_average_precision(probabilities, truth)[0]
    figures = {
        "map": Estimate.from_replicates(precision, macro_average_precision(probabilities, truth, counts)),
        "f1_micro": Estimate.from_replicates(f1, micro),
    }
    rows = [
        {
            "class": name,
            "places": int(truth[:, k].sum()),
            "average precision": float(ap),
            "f1": Estimate.from_replicates(f1_each[k], each[:, k]),
        }
        for k, (name, ap) in enumerate(
            zip(classes, per_label_average_precision(probabilities, truth), strict=True)
        )
    ]
    return TaskScores("map", figures, rows, None, 1 - np.abs(probabilities - labels).mean(axis=1))


def _from_confusion(tables: Array) -> dict[str, Array]:
    """Figures of confusions [R, K, K]: [R], and ``class_...`` [R, K]; NaN where there is nothing to count."""
    right = np.einsum("rkk->rk", tables)
    true, said = tables.sum(axis=2), tables.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "class_iou": right / (true + said - right),
            "class_f1": 2 * right / (true + said),
            "class_precision": right / said,
            "class_recall": right / true,
            "accuracy": right.sum(axis=1) / tables.sum(axis=(1, 2)),
        }
    for name, source in (("miou", "class_iou"), ("mf1", "class_f1"), ("recall_mean", "class_recall")):
        found[name] = nan_mean(found[source])
    return found
