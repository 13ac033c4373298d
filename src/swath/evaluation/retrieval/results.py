"""Scores of a retrieval evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.measures.retrieval import (
    ClassScore,
    RetrievalScores,
)
from swath.evaluation.protocols.config_hash import config_hash
from swath.evaluation.retrieval.splits import RetrievalSplit

MIXED = "all sensors"  # what the archive of all sensors together is called


@dataclass(slots=True)
class RetrievalScore:
    """One candidate in one direction.

    Attributes:
        features: Name of the candidate; "chance" for a ranking in random order.
        centered: Whether each sensor's mean over the archive was taken out.
        query_sensor: Sensor of the queries.
        gallery_sensor: Sensor of the archive, or `MIXED`.
        scores: Query by query; None where the features of the two sensors cannot be compared.
        intervals: Metric -> 95% bootstrap interval of its mean.
        neighbors: [Q, k] positions in the archive (in the mixed one: sensor times N plus position).
        same_sensor: Mixed archive: share of the answers that are of the query's own sensor.
        reason: Why there are no scores.
    """

    features: str
    centered: bool
    query_sensor: str
    gallery_sensor: str
    scores: RetrievalScores | None = field(repr=False, default=None)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    neighbors: Tensor | None = field(repr=False, default=None)
    same_sensor: float | None = None
    reason: str | None = None

    @property
    def values(self) -> dict[str, float]:
        """Metric -> mean over the queries; empty where nothing could be compared."""
        return self.scores.means() if self.scores is not None else {}


@dataclass(frozen=True, slots=True)
class ModalityGap:
    """How far two sensors lie apart in one feature space, over the archive.

    Attributes:
        features, centered: As in `RetrievalScore`.
        first, second: The two sensors.
        pairs: Mean cosine of true pairs: one place, two sensors.
        within_first: Mean cosine of two different places in the first sensor.
        within_second: The same in the second sensor.
        across: Mean cosine of two different places, one in each sensor.
        distance: Between the sensors' mean unit vectors (Liang et al. 2022, "Mind the gap").
    """

    features: str
    centered: bool
    first: str
    second: str
    pairs: float
    within_first: float
    within_second: float
    across: float
    distance: float

    @property
    def closed(self) -> bool:
        """Whether a place is nearer to itself in the other sensor than to a random one of its own sensor."""
        return self.pairs > max(self.within_first, self.within_second)


@dataclass(slots=True)
class RetrievalEvaluation:
    """Scores and all that they depend on.

    Attributes:
        protocol: Every setting that could change a figure (JSON-safe).
        scores: Chance first, then every candidate, raw and centered, in every direction.
        gaps: Of every candidate and pair of sensors.
        classes: (asking, answering, centered) -> rows a class, of the first candidate.
        notes: What a reader of the figures should know.
        split: Who asked whom.
        queries: [Q] positions of the queries in the data set (those that could be read).
        gallery: [N] positions of the archive.
        features: Sensor -> [N, D] raw features of the archive by the first candidate.
        seconds: How long it took.
    """

    protocol: dict[str, Any]
    scores: list[RetrievalScore]
    gaps: list[ModalityGap]
    classes: dict[tuple[str, str, bool], list[ClassScore]]
    notes: list[str]
    split: RetrievalSplit
    queries: NDArray[np.int64]
    gallery: NDArray[np.int64]
    features: dict[str, Tensor]
    seconds: float = 0.0

    @property
    def sensors(self) -> list[str]:
        """Names of the sensors."""
        return [sensor.name for sensor in self.split.dataset.sensors]

    @property
    def candidates(self) -> list[str]:
        """Names of what was scored, the one in question first."""
        return list(dict.fromkeys(s.features for s in self.scores if s.features != "chance"))

    def get(self, features: str, query_sensor: str, gallery_sensor: str, centered: bool) -> RetrievalScore:
        """One score."""
        for score in self.scores:
            if (score.features, score.query_sensor, score.gallery_sensor) == (
                features,
                query_sensor,
                gallery_sensor,
            ) and (score.centered == centered or features == "chance"):
                return score
        raise SwathError(f"there is no score of {features!r} from {query_sensor} to {gallery_sensor}")

    def compare(
        self, features: str, against: str, query_sensor: str, gallery_sensor: str
    ) -> dict[str, Any] | None:
        """Paired difference of F1, each with the centering that serves it best; None where not comparable."""
        image_sizes = []
        for name in (features, against):
            both = [self.get(name, query_sensor, gallery_sensor, centered) for centered in (False, True)]
            scored = [score for score in both if score.scores is not None]
            if not scored:
                return None
            image_sizes.append(max(scored, key=lambda score: score.values["f1"]))
        one, other = image_sizes
        assert one.scores is not None
        assert other.scores is not None
        gap, low, high = one.scores.difference(other.scores, self.units)["f1"]
        return {
            "features": features,
            "centered": one.centered,
            "baseline": against,
            "baseline_centered": other.centered,
            "query_sensor": query_sensor,
            "gallery_sensor": gallery_sensor,
            "f1_difference": gap,
            "ci95_low": low,
            "ci95_high": high,
        }

    @property
    def units(self) -> list[str] | None:
        """[Q] groups that the bootstrap draws whole, or None."""
        return self.split.groups(self.queries) if self.split.dataset.groups is not None else None

    @property
    def config_hash(self) -> str:
        """12 hex digits over everything in the protocol."""
        return config_hash(self.protocol)
