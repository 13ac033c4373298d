"""What an evaluation found: figures with their intervals, and every query's answer behind them.

A `Score` is one classifier on one feature extractor's features at one pair of image scales. It keeps what
was said of each query, so that scores can be compared in pairs, taken over a part of the queries, and drawn
later.

Legend: Q queries, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.errors import SwathError
from swath.evaluation.measures.intervals import (
    Estimate,
    bootstrap_interval,
    paired_permutation_p,
    percentile_interval,
    student_interval,
)
from swath.evaluation.protocols.config_hash import config_hash

Array = NDArray[Any]


@dataclass(slots=True)
class Score:
    """How well one classifier does on one feature extractor's features at one pair of scales.

    Attributes:
        features: Featurizer name.
        classifier: Such as "knn", "knn-standardized" (features standardized by the train split), "linear" or
            "linear@5".
        test_image_size: Side of the query images in pixels.
        train_image_size: Side of the train images in pixels.
        value: The headline, 0 to 1: top-1 accuracy, or micro mAP where images have several labels.
        low: Lower end of its 95% bootstrap interval over queries.
        high: Upper end.
        hits: [Q] which queries were right (of several labels: all of them); over several draws, how often.
        predictions: [Q] class indices, or [Q, K] bool; None where several draws said different things.
        confidence: [Q] probability given to the prediction, or [Q, K] to each label; None likewise.
        top5: [Q] bool, whether the class was among the five most probable; None where that says nothing.
        figures: Further ones by name: top5, balanced, ece, ece_mass; or map_macro, f1_micro, ...
        by_class: Recall, or average precision, of each class; NaN where there is no query of it.
        details: JSON-safe facts of this score alone, such as the regularization that was chosen.
        replicates: [R] the headline in each bootstrap sample where it is no mean of `hits`, else None.
    """

    features: str
    classifier: str
    test_image_size: int
    train_image_size: int
    value: float
    low: float
    high: float
    hits: Array = field(repr=False)
    predictions: Array | None = field(default=None, repr=False)
    confidence: Array | None = field(default=None, repr=False)
    top5: Array | None = field(default=None, repr=False)
    figures: dict[str, Estimate] = field(default_factory=dict)
    by_class: list[Estimate] = field(default_factory=list, repr=False)
    details: dict[str, Any] = field(default_factory=dict)
    replicates: Array | None = field(default=None, repr=False)

    @property
    def accuracy(self) -> float:
        """The headline, `value`, by the name that it has where every image is of one class."""
        return self.value

    @property
    def head(self) -> dict[str, Any]:
        """Whose score this is."""
        names = ("features", "classifier", "test_image_size", "train_image_size")
        return {name: getattr(self, name) for name in names}


@dataclass(slots=True)
class MeanScore:
    """Mean headline over the symmetric scales, with the 95% interval over queries drawn whole."""

    features: str
    classifier: str
    accuracy: float
    low: float
    high: float
    scales: int = 1


@dataclass(slots=True)
class PairedComparison:
    """How much better one is than another on the same queries: a difference of means over scales.

    Beyond doubt (at 95%) where the interval does not hold 0. `p` is that of a paired permutation test of the
    same difference (None for headlines that are no mean over queries).
    """

    features: str
    baseline: str
    classifier: str
    difference: float
    low: float
    high: float
    p: float | None = None


@dataclass(slots=True)
class SeedSummary:
    """One method trained with several seeds: mean of their scores and its 95% interval (Student's t)."""

    classifier: str
    test_image_size: int | None
    seeds: int
    mean: float
    deviation: float
    low: float
    high: float


@dataclass(slots=True)
class EvaluationResult:
    """All figures of one evaluation, with what they depend on.

    Attributes:
        protocol: JSON-safe; everything that the figures depend on, and its `id`.
        scores: One a feature extractor, classifier and pair of scales.
        native_image_size: Side of the images as they come, in pixels.
        native_gsd: Their median GSD in metres per pixel; None where unknown.
        notes: What a reader of the figures should know.
        seconds: How long it took.
        refused: Sides that were requested and could not be scored; means over scales are not whole then.
        labels: [Q] true class indices, or [Q, K] 0 and 1.
        paths: The queries' files.
        seed_group: Names of feature extractors that are one method trained with several seeds.
    """

    protocol: dict[str, Any]
    scores: list[Score]
    native_image_size: int
    native_gsd: float | None
    notes: list[str]
    seconds: float = 0.0
    refused: list[int] = field(default_factory=list)
    labels: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64), repr=False)
    paths: list[str] = field(default_factory=list, repr=False)
    seed_group: list[str] = field(default_factory=list)

    def select(
        self, classifier: str | None = None, features: str | None = None, symmetric: bool | None = None
    ) -> list[Score]:
        """Scores, by side, of one classifier, one feature extractor or one kind of pairing if requested."""
        return [
            s
            for s in self.scores
            if (classifier is None or s.classifier == classifier)
            and (features is None or s.features == features)
            and (symmetric is None or (s.test_image_size == s.train_image_size) == symmetric)
        ]

    @property
    def rows(self) -> list[tuple[str, str]]:
        """(feature extractor, classifier) in order."""
        return list(dict.fromkeys((s.features, s.classifier) for s in self.scores))

    @property
    def metric(self) -> str:
        """What the headline is."""
        return str(self.protocol.get("metric", "top-1 accuracy"))

    def mean(self, features: str, classifier: str) -> MeanScore:
        """Mean over the symmetric scales: the field's single number for a scale curve."""
        scores = self._symmetric((features, classifier))
        return MeanScore(features, classifier, *_mean(scores), scales=len(scores))

    def compare(self, features: str, against: str, classifier: str) -> PairedComparison:
        """Paired comparison of two feature extractors under one classifier over the symmetric scales."""
        return self.compare_rows((features, classifier), (against, classifier))

    def compare_rows(self, row: tuple[str, str], against: tuple[str, str]) -> PairedComparison:
        """Paired comparison of two (feature extractor, classifier) over their common symmetric scales."""
        first, second = self._symmetric(row), self._symmetric(against)
        kind = row[1] if row[1] == against[1] else f"{row[1]} / {against[1]}"
        return PairedComparison(row[0], against[0], kind, *_difference(first, second))

    def comparisons(self) -> list[PairedComparison]:
        """The first feature extractor against each other one, a classifier at a time."""
        first = self.scores[0].features
        return [self.compare(first, other, kind) for other, kind in self.rows if other != first]

    def seed_summary(self) -> list[SeedSummary]:
        """Of `seed_group`: each symmetric scale, then (query_side None) the mean over scales."""
        if len(self.seed_group) < 2:
            return []
        found = []
        kinds = dict.fromkeys(kind for features, kind in self.rows if features in self.seed_group)
        for kind in kinds:
            curves = [self._symmetric((features, kind)) for features in self.seed_group]
            table = np.array([[score.value for score in curve] for curve in curves])  # [seeds, scales]
            image_sizes: list[int | None] = [score.test_image_size for score in curves[0]]
            columns = [*table.T, table.mean(axis=1)] if len(image_sizes) > 1 else list(table.T)
            for image_size, values in zip([*image_sizes, None], columns, strict=False):
                spread = (float(values.mean()), float(values.std(ddof=1)), *student_interval(values))
                found.append(SeedSummary(kind, image_size, len(values), *spread))
        return found

    def _symmetric(self, row: tuple[str, str]) -> list[Score]:
        features, classifier = row
        scores = self.select(classifier, features, symmetric=True)
        if not scores:
            raise SwathError(f"there is no {classifier} score of {features!r}")
        return scores

    @property
    def config_hash(self) -> str:
        """12 hex digits over everything in the protocol."""
        return config_hash(self.protocol)


def _mean(scores: Sequence[Score]) -> tuple[float, float, float]:
    """Mean of scores of the same queries, with its interval."""
    value = float(np.mean([score.value for score in scores]))
    replicates = [score.replicates for score in scores if score.replicates is not None]
    if replicates:
        return value, *percentile_interval(np.mean(replicates, axis=0))
    return value, *bootstrap_interval(_hits(scores))


def _difference(first: Sequence[Score], second: Sequence[Score]) -> tuple[float, float, float, float | None]:
    """Difference of the means of two lists of scores of the same queries, its interval, and p."""
    value = float(np.mean([s.value for s in first]) - np.mean([s.value for s in second]))
    ours = [score.replicates for score in first if score.replicates is not None]
    theirs = [score.replicates for score in second if score.replicates is not None]
    if ours and theirs:  # drawn from the same resamples
        return value, *percentile_interval(np.mean(ours, axis=0) - np.mean(theirs, axis=0)), None
    here, there = _hits(first).mean(axis=1), _hits(second).mean(axis=1)
    return value, *bootstrap_interval(here - there), paired_permutation_p(here, there)


def _hits(scores: Sequence[Score]) -> NDArray[np.float64]:
    """[Q, scores]"""
    return np.stack([score.hits for score in scores], axis=1).astype(np.float64)
