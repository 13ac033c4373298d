"""Results of a suite: one row per set, protocol and feature extractor, with its lead on the best baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from swath.errors import SwathError
from swath.evaluation.protocols.results import EvaluationResult
from swath.evaluation.suites.config import Suite

Status = Literal["done", "absent", "failed"]


@dataclass(frozen=True, slots=True)
class SuiteScore:
    """One feature extractor's score on one set by one protocol: the mean over its scales, with its interval.

    Attributes:
        set: Title of the set.
        protocol: "knn" or "linear".
        features: Whose.
        role: "model", "untrained" (a model's own encoder, random) or "baseline".
        classifier: Such as "knn" or "knn-standardized".
        metric: What the number is.
        value, low, high: 0 to 1.
        scales: Side in pixels -> score.
        test: How many.
        chance: Of always saying the most frequent class.
        gap, gap_low, gap_high: Above the best baseline by the same classifier, paired over the queries; None
            for baselines.
        baseline: That baseline.
    """

    set: str
    protocol: str
    features: str
    role: str
    classifier: str
    metric: str
    value: float
    low: float
    high: float
    scales: dict[str, float]
    test: int
    chance: float
    difference: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    baseline: str | None = None


@dataclass(slots=True)
class DatasetResult:
    """What came of one set.

    Attributes:
        title: Of the set.
        status: done, absent, or failed (it is there, but cannot be scored).
        reason: Of the latter two.
        rows: Scores.
        not_applicable: Model -> why it cannot be evaluated on this set.
        notes: What a reader must know.
        partial: Whether only a part of the known set is here.
        reference: Figures of others in percent.
        again: Whether it was taken from an earlier run.
        seconds: How long it took.
        origins: Protocol -> its id, and the hashes of configuration and split.
    """

    title: str
    status: Status
    reason: str = ""
    rows: list[SuiteScore] = field(default_factory=list)
    not_applicable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    partial: bool = False
    reference: list[float] | None = None
    again: bool = False
    seconds: float = 0.0
    origins: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(slots=True)
class SuiteResult:
    """What came of a suite: see `swath.evaluation.suites.tables`."""

    suite: Suite
    models: list[str]
    datasets: list[DatasetResult] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether every set was looked at."""
        return len(self.datasets) == len(self.suite.datasets)

    def rows(self, protocol: str, classifier: str | None = None) -> list[SuiteScore]:
        """Scores by a protocol; by its own classifier unless another is named."""
        requested = classifier or protocol
        return [
            r for s in self.datasets for r in s.rows if r.protocol == protocol and r.classifier == requested
        ]


def merge_evaluations(evaluations: Sequence[EvaluationResult]) -> EvaluationResult:
    """Evaluations of the same queries as one, so that scores can be compared in pairs.

    Raises:
        SwathError: The queries differ: some images could be read for one and not for another.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        if other.paths != first.paths or not np.array_equal(other.labels, first.labels):
            raise SwathError(
                "models see different images of this set (some cannot be read in every way); look at the "
                "notes of `swath evaluate knn` with each model"
            )
    if len(evaluations) == 1:
        return first
    protocol = dict(first.protocol)
    protocol["image_sizes"] = sorted(
        {image_size for e in evaluations for image_size in e.protocol["image_sizes"]}
    )
    protocol["feature_extractors"] = {
        k: v for e in evaluations for k, v in e.protocol["feature_extractors"].items()
    }
    return replace(
        first,
        protocol=protocol,
        scores=[score for e in evaluations for score in e.scores],
        notes=list(dict.fromkeys(note for e in evaluations for note in e.notes)),
        refused=sorted({image_size for e in evaluations for image_size in e.refused}),
        seconds=round(sum(e.seconds for e in evaluations), 1),
    )


def rows_of(
    title: str, protocol: str, evaluation: EvaluationResult, roles: dict[str, str]
) -> list[SuiteScore]:
    """Means over scales of everybody, and of models how far above the best baseline they are."""
    means = {row: evaluation.mean(*row) for row in evaluation.rows}
    rows = []
    for (features, classifier), mean in means.items():
        best = max(
            (row for row in means if row[1] == classifier and roles.get(row[0]) == "baseline"),
            key=lambda row: means[row].accuracy,
            default=None,
        )
        gap: dict[str, Any] = {}
        if best is not None and roles.get(features) != "baseline":
            found = evaluation.compare(features, best[0], classifier)
            gap = {
                "difference": round(found.difference, 6),
                "gap_low": round(found.low, 6),
                "gap_high": round(found.high, 6),
                "baseline": best[0],
            }
        scores = evaluation.select(classifier, features, symmetric=True)
        rows.append(
            SuiteScore(
                set=title,
                protocol=protocol,
                features=features,
                role=roles.get(features, "model"),
                classifier=classifier,
                metric=evaluation.metric,
                value=round(mean.accuracy, 6),
                low=round(mean.low, 6),
                high=round(mean.high, 6),
                scales={str(s.test_image_size): round(s.value, 6) for s in scores},
                test=len(evaluation.paths),
                chance=evaluation.protocol["chance"],
                **gap,
            )
        )
    return rows
