"""Retrieval inside and across sensors: who finds whom, how much of it is the sensor and how much the place.

Places that several sensors see are embedded once a sensor. Some ask, others answer (`split_pairs`; CSMAE
asks with the fold ``val`` and searches ``test``); every sensor asks the archive of every sensor, and the
archive of all sensors together. Exact search by cosine; scores of `swath.evaluation.measures.retrieval`.

Everything is scored twice: with embeddings as they are, and *centered*: less the mean over the **archive** of
the embedding's own sensor, which takes away what is constant in a sensor and ranks its own images first.

Legend: Q queries, N places of the archive, D feature dimensions, k answers.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import ImageryError, SwathError
from swath.evaluation.features.protocol import Progress
from swath.evaluation.measures.label_overlap import LabelOverlap, label_overlap
from swath.evaluation.measures.retrieval import (
    F1_LABEL,
    METRICS,
    Neighbors,
    RetrievalScores,
    chance_scores,
    exact_neighbors,
    per_class_retrieval,
    retrieval_scores,
)
from swath.evaluation.retrieval.features import RetrievalModel, extract_pair_features
from swath.evaluation.retrieval.results import MIXED, ModalityGap, RetrievalEvaluation, RetrievalScore
from swath.evaluation.retrieval.splits import RetrievalSplit
from swath.models.contract import GsdRangeWarning


def evaluate_retrieval(
    candidates: Sequence[RetrievalModel],
    split: RetrievalSplit,
    *,
    k: int = 10,
    batch_size: int = 64,
    resamples: int = 2000,
    progress: Progress | None = None,
) -> RetrievalEvaluation:
    """Score every candidate in every direction.

    Args:
        candidates: The one in question first.
        split: From `split_pairs`.
        k: Answers a query.
        batch_size: Images at a time.
        resamples: Of the bootstrap; drawn by group where groups are known.
        progress: Called with (images done, images in all), over all sensors.

    Raises:
        SwathError: k larger than the archive, names twice, a candidate that lacks a sensor.
        ContractError: Images that do not fit a model's contract.
        ImageryError: Nothing could be read.
    """
    began = time.monotonic()
    sensors = [sensor.name for sensor in split.dataset.sensors]
    _check(candidates, sensors, split, k)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        features, readable, notes = extract_pair_features(candidates, split, batch_size, progress)
    for warning in caught:
        if issubclass(warning.category, GsdRangeWarning):
            notes.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    queries, archive = (rows[np.isin(rows, readable)] for rows in (split.queries, split.archive))
    if not len(queries):
        raise ImageryError("none of the queries could be read in all sensors")
    _check_k(k, len(archive))
    at = {place: row for row, place in enumerate(readable.tolist())}
    asks, answers = ([at[place] for place in rows.tolist()] for rows in (queries, archive))
    search = _Search(split, queries, archive, k, resamples)
    scores = [
        RetrievalScore("chance", False, a, b, search.mixed_chance if b == MIXED else search.chance)
        for a in sensors
        for b in [*sensors, MIXED]
    ]
    gaps: list[ModalityGap] = []
    for candidate in candidates:
        asking = {sensor: features[candidate.name, sensor][asks] for sensor in sensors}
        answering = {sensor: features[candidate.name, sensor][answers] for sensor in sensors}
        for centered in (False, True):
            if centered:
                means = {sensor: values.double().mean(dim=0) for sensor, values in answering.items()}
                asking = {sensor: center_features(values, means[sensor]) for sensor, values in asking.items()}
                answering = {
                    sensor: center_features(values, means[sensor]) for sensor, values in answering.items()
                }
            for sensor in sensors:
                for other in [*sensors, MIXED]:
                    scores.append(search.score(candidate.name, centered, sensor, other, asking, answering))
            gaps += modality_gaps(candidate.name, centered, answering)
    first = candidates[0].name
    labels = np.asarray(split.dataset.labels)
    classes = {
        (s.asking, s.answering, s.centered): per_class_retrieval(
            s.neighbors, s.scores, labels[queries], labels[archive], split.dataset.classes
        )
        for s in scores
        if s.features == first and s.scores and s.neighbors is not None and s.answering != MIXED
    }  # fmt: skip
    hopeless = search.chance.hopeless
    if hopeless:
        notes.append(f"{hopeless} queries share no label with any place of the archive; they score 0")
    protocol = _protocol(candidates, split, k, resamples, len(queries), len(archive))
    kept = {sensor: features[first, sensor][answers] for sensor in sensors}
    return RetrievalEvaluation(
        protocol, scores, gaps, classes, [*split.notes, *notes], split, queries, archive, kept,
        round(time.monotonic() - began, 1),
    )  # fmt: skip


def center_features(features: Tensor, mean: Tensor) -> Tensor:
    """[N, D] float64 features less `mean` [D]; search normalizes them anew."""
    return features.double() - mean.double()


def modality_gaps(name: str, centered: bool, features: Mapping[str, Tensor]) -> list[ModalityGap]:
    """The gap of every two sensors whose features have one dimension; exact means over all pairs of places.

    Args:
        name: Of the candidate.
        centered: Whether the features are.
        features: Sensor -> [N, D], row i of the same place in every sensor; N at least 2.
    """
    found = []
    units = {sensor: F.normalize(values.double(), dim=1) for sensor, values in features.items()}
    sensors = list(units)
    for i, first in enumerate(sensors):
        for second in sensors[i + 1 :]:
            a, b = units[first], units[second]
            if a.shape[1] != b.shape[1] or len(a) < 2:
                continue
            n = len(a)
            others = n * (n - 1)
            true = float((a * b).sum())
            within = [float(u.sum(dim=0).square().sum() - u.square().sum()) / others for u in (a, b)]
            across = (float(a.sum(dim=0) @ b.sum(dim=0)) - true) / others
            distance = float((a.mean(dim=0) - b.mean(dim=0)).norm())
            found.append(
                ModalityGap(name, centered, first, second, true / n, within[0], within[1], across, distance)
            )
    return found


# --- one direction ----------------------------------------------------------------------------------------


class _Search:
    """Labels, exclusions and intervals that all directions share."""

    def __init__(
        self,
        split: RetrievalSplit,
        queries: NDArray[np.int64],
        archive: NDArray[np.int64],
        k: int,
        resamples: int,
    ) -> None:
        labels = np.asarray(split.dataset.labels)
        self.k, self.resamples = k, resamples
        self._found: dict[tuple[str, str], Neighbors] = {}  # of the candidate and centering at hand
        self.query_labels, self.archive_labels = labels[queries], labels[archive]
        self.hidden = split.hidden(queries, archive)
        self.units = split.groups(queries) if split.dataset.groups is not None else None
        self.overlap = label_overlap(self.query_labels, self.archive_labels, exclude=self.hidden)
        self.chance = self._chance(self.overlap)
        # Of the archive of all sensors, every place has as many items as there are sensors.
        count = len(split.dataset.sensors)
        everywhere = np.concatenate([self.archive_labels] * count)
        hidden = self.hidden
        if hidden is not None:
            turns = [torch.where(hidden >= 0, hidden + turn * len(archive), -1) for turn in range(count)]
            hidden = torch.cat(turns, dim=1)
        self.mixed = label_overlap(self.query_labels, everywhere, exclude=hidden)
        self.mixed_chance = self._chance(self.mixed)

    def _chance(self, overlap: LabelOverlap) -> RetrievalScores:
        return chance_scores(self.query_labels, overlap.archive, self.k, overlap=overlap)

    def score(
        self,
        name: str,
        centered: bool,
        asking: str,
        answering: str,
        queries: Mapping[str, Tensor],
        archive: Mapping[str, Tensor],
    ) -> RetrievalScore:
        """One candidate in one direction; the mixed archive after each sensor's own."""
        result = RetrievalScore(name, centered, asking, answering)
        sensors = list(archive)
        sought = sensors if answering == MIXED else [answering]
        sizes = {sensor: archive[sensor].shape[1] for sensor in {asking, *sought}}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{sensor} {size}" for sensor, size in sorted(sizes.items()))
            result.reason = f"not comparable: features of different dimensions ({told})"
            return result
        n = len(self.archive_labels)
        overlap = self.overlap
        if answering == MIXED:
            # The best of all are among the best of each.
            each = [self._found[asking, sensor] for sensor in sensors]
            order = torch.cat([found.cosines for found in each], dim=1).argsort(
                dim=1, descending=True, stable=True
            )[:, : self.k]
            ids = torch.cat([found.ids + turn * n for turn, found in enumerate(each)], dim=1).gather(1, order)
            result.same_sensor = float((ids // n == sensors.index(asking)).double().mean())
            overlap = self.mixed
        else:
            found = exact_neighbors(queries[asking], archive[answering], self.k, exclude=self.hidden)
            self._found[asking, answering] = found
            ids = found.ids
        result.neighbors = ids
        result.scores = retrieval_scores(ids, self.query_labels, overlap.archive, overlap=overlap)
        result.intervals = result.scores.intervals(self.units, resamples=self.resamples)
        return result


def _check(
    candidates: Sequence[RetrievalModel], sensors: Sequence[str], split: RetrievalSplit, k: int
) -> None:
    names = [candidate.name for candidate in candidates]
    if not names or len(set(names)) != len(names) or "chance" in names:
        raise SwathError(f"candidates need names that differ (and none called chance), but these are {names}")
    for candidate in candidates:
        lacking = [sensor for sensor in sensors if sensor not in candidate.by_sensor]
        if lacking:
            known = ", ".join(candidate.by_sensor)
            raise SwathError(
                f"{candidate.name} has no features of sensor {', '.join(lacking)}; it knows {known}. Give it "
                "one, or open the pairs without that sensor."
            )
    _check_k(k, len(split.archive))


def _check_k(k: int, archive: int) -> None:
    if not 0 < k <= archive:
        raise SwathError(
            f"k = {k} answers cannot be had of an archive of {archive:,} places; choose a k from 1 to "
            f"{archive}"
        )


def _protocol(
    candidates: Sequence[RetrievalModel],
    split: RetrievalSplit,
    k: int,
    resamples: int,
    queries: int,
    archive: int,
) -> dict[str, Any]:
    drawn = "groups (scenes) drawn whole" if split.dataset.groups is not None else "queries"
    return {
        "id": "swath.retrieval/1",
        "name": "retrieval",
        "k": k,
        "similarity": "cosine, exact; equal ones in the order of the archive",
        "centering": "less the archive's mean of the embedding's own sensor, then normalized again",
        "f1": F1_LABEL,
        "relevant": "at least one label shared (precision@k, mAP@k)",
        "gain": "number of labels shared, linear, discount log2(rank + 1) (NDCG@k)",
        "metrics": list(METRICS),
        "sensors": [sensor.name for sensor in split.dataset.sensors],
        "candidates": {candidate.name: candidate.settings for candidate in candidates},
        "split": split.origin,
        "split_hash": split.hash,
        "queries": {"name": split.names[0], "places": queries},
        "archive": {"name": split.names[1], "places": archive},
        "own_group_hidden": split.own_group_hidden,
        "classes": split.dataset.classes or [],
        "interval": f"95%, percentile bootstrap over {drawn}, {resamples:,} resamples",
    }
