"""Retrieval inside and across sensors: who finds whom, how much of it is the sensor and how much the place.

Places that several sensors see are embedded once a sensor. Some ask, others answer (`split_pairs`; CSMAE
asks with the split ``val`` and searches ``test``); every sensor asks the archive of every sensor, and the
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
    queries, gallery = (rows[np.isin(rows, readable)] for rows in (split.queries, split.gallery))
    if not len(queries):
        raise ImageryError("none of the queries could be read in all sensors")
    _check_k(k, len(gallery))
    at = {place: row for row, place in enumerate(readable.tolist())}
    asks, predictions = ([at[place] for place in rows.tolist()] for rows in (queries, gallery))
    search = _Search(split, queries, gallery, k, resamples)
    scores = [
        RetrievalScore("chance", False, a, b, search.mixed_chance if b == MIXED else search.chance)
        for a in sensors
        for b in [*sensors, MIXED]
    ]
    gaps: list[ModalityGap] = []
    for candidate in candidates:
        query_sensor = {sensor: features[candidate.name, sensor][asks] for sensor in sensors}
        gallery_sensor = {sensor: features[candidate.name, sensor][predictions] for sensor in sensors}
        for centered in (False, True):
            if centered:
                means = {sensor: values.double().mean(dim=0) for sensor, values in gallery_sensor.items()}
                query_sensor = {
                    sensor: center_features(values, means[sensor]) for sensor, values in query_sensor.items()
                }
                gallery_sensor = {
                    sensor: center_features(values, means[sensor])
                    for sensor, values in gallery_sensor.items()
                }
            for sensor in sensors:
                for other in [*sensors, MIXED]:
                    scores.append(
                        search.score(candidate.name, centered, sensor, other, query_sensor, gallery_sensor)
                    )
            gaps += modality_gaps(candidate.name, centered, gallery_sensor)
    first = candidates[0].name
    labels = np.asarray(split.dataset.labels)
    classes = {
        (s.query_sensor, s.gallery_sensor, s.centered): per_class_retrieval(
            s.neighbors, s.scores, labels[queries], labels[gallery], split.dataset.classes
        )
        for s in scores
        if s.features == first and s.scores and s.neighbors is not None and s.gallery_sensor != MIXED
    }  # fmt: skip
    without_relevant = search.chance.without_relevant
    if without_relevant:
        notes.append(f"{without_relevant} queries share no label with any place of the archive; they score 0")
    protocol = _protocol(candidates, split, k, resamples, len(queries), len(gallery))
    kept = {sensor: features[first, sensor][predictions] for sensor in sensors}
    return RetrievalEvaluation(
        protocol, scores, gaps, classes, [*split.notes, *notes], split, queries, gallery, kept,
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
        gallery: NDArray[np.int64],
        k: int,
        resamples: int,
    ) -> None:
        labels = np.asarray(split.dataset.labels)
        self.k, self.resamples = k, resamples
        self._found: dict[tuple[str, str], Neighbors] = {}  # of the candidate and centering at hand
        self.query_labels, self.archive_labels = labels[queries], labels[gallery]
        self.hidden = split.hidden(queries, gallery)
        self.units = split.groups(queries) if split.dataset.groups is not None else None
        self.overlap = label_overlap(self.query_labels, self.archive_labels, exclude=self.hidden)
        self.chance = self._chance(self.overlap)
        # Of the archive of all sensors, every place has as many items as there are sensors.
        count = len(split.dataset.sensors)
        everywhere = np.concatenate([self.archive_labels] * count)
        hidden = self.hidden
        if hidden is not None:
            turns = [torch.where(hidden >= 0, hidden + turn * len(gallery), -1) for turn in range(count)]
            hidden = torch.cat(turns, dim=1)
        self.mixed = label_overlap(self.query_labels, everywhere, exclude=hidden)
        self.mixed_chance = self._chance(self.mixed)

    def _chance(self, overlap: LabelOverlap) -> RetrievalScores:
        return chance_scores(self.query_labels, overlap.gallery, self.k, overlap=overlap)

    def score(
        self,
        name: str,
        centered: bool,
        query_sensor: str,
        gallery_sensor: str,
        queries: Mapping[str, Tensor],
        gallery: Mapping[str, Tensor],
    ) -> RetrievalScore:
        """One candidate in one direction; the mixed archive after each sensor's own."""
        result = RetrievalScore(name, centered, query_sensor, gallery_sensor)
        sensors = list(gallery)
        sought = sensors if gallery_sensor == MIXED else [gallery_sensor]
        sizes = {sensor: gallery[sensor].shape[1] for sensor in {query_sensor, *sought}}
        if len(set(sizes.values())) > 1:
            summary = ", ".join(f"{sensor} {size}" for sensor, size in sorted(sizes.items()))
            result.reason = f"not comparable: features of different dimensions ({summary})"
            return result
        n = len(self.archive_labels)
        overlap = self.overlap
        if gallery_sensor == MIXED:
            # The best of all are among the best of each.
            each = [self._found[query_sensor, sensor] for sensor in sensors]
            order = torch.cat([found.cosines for found in each], dim=1).argsort(
                dim=1, descending=True, stable=True
            )[:, : self.k]
            ids = torch.cat([found.ids + turn * n for turn, found in enumerate(each)], dim=1).gather(1, order)
            result.same_sensor = float((ids // n == sensors.index(query_sensor)).double().mean())
            overlap = self.mixed
        else:
            found = exact_neighbors(
                queries[query_sensor], gallery[gallery_sensor], self.k, exclude=self.hidden
            )
            self._found[query_sensor, gallery_sensor] = found
            ids = found.ids
        result.neighbors = ids
        result.scores = retrieval_scores(ids, self.query_labels, overlap.gallery, overlap=overlap)
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
    _check_k(k, len(split.gallery))


def _check_k(k: int, gallery: int) -> None:
    if not 0 < k <= gallery:
        raise SwathError(
            f"k = {k} answers cannot be had of an archive of {gallery:,} places; choose a k from 1 to "
            f"{gallery}"
        )


def _protocol(
    candidates: Sequence[RetrievalModel],
    split: RetrievalSplit,
    k: int,
    resamples: int,
    queries: int,
    gallery: int,
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
        "gallery": {"name": split.names[1], "places": gallery},
        "exclude_same_group": split.exclude_same_group,
        "classes": split.dataset.classes or [],
        "interval": f"95%, percentile bootstrap over {drawn}, {resamples:,} resamples",
    }
