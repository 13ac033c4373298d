"""What all protocols share: settle the sides, check the input, extract features, keep scores and notes.

Legend: N bank images, Q queries, D feature dimensions, K classes or labels.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.data.checks import check_split, count_classes
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.features.extract import extract_features, supported_image_sizes
from swath.evaluation.features.protocol import FeatureExtractor, FeatureSet, Progress
from swath.evaluation.protocols.results import EvaluationResult
from swath.evaluation.protocols.scoring import score_multilabel, score_single_label
from swath.models.contract import GsdRangeWarning


def default_image_sizes(native: int, step: int) -> list[int]:
    """12.5, 25, 50 and 100% of the native side (the paper's), each rounded to a multiple of the patch."""
    return sorted({max(step, round(native * share / step) * step) for share in (0.125, 0.25, 0.5, 1.0)})


def native_image_size(featurizers: Sequence[FeatureExtractor], split: TrainTestSplit) -> list[int]:
    """The one side that is nearest to the images as they come and fits all featurizers."""
    return [default_image_sizes(native_scale(split.bank)[0], max(f.min_side for f in featurizers))[-1]]


def image_sizes_for_gsds(
    split: TrainTestSplit, gsds: Sequence[float], featurizers: Sequence[FeatureExtractor]
) -> list[int]:
    """Sides at which the images have these ground sample distances, to the nearest multiple of a patch.

    Args:
        split: Of images that all have one GSD, within 5%.
        gsds: Metres per pixel; none finer than the images.
        featurizers: Whose patches sides have to fit.

    Raises:
        SwathError: The images' GSD is not known, or differs; or a GSD is finer than theirs.
    """
    side, _ = native_scale(split.bank)
    found = np.concatenate([_gsds(part) for part in (split.bank, split.queries)])
    low, high = float(found.min()), float(found.max())
    if bool((found == 1.0).all()):
        raise SwathError(
            "a sweep over GSD needs images whose GSD is known: state it with --gsd, and tell models metres "
            "(--gsd-mode metres); or sweep over sides with --scales"
        )
    if high > 1.05 * low:
        raise SwathError(
            f"these images have GSDs from {low:g} to {high:g} m, so one side is not one GSD: sweep over "
            "sides with --scales"
        )
    finer = [gsd for gsd in gsds if gsd < 0.99 * low]
    if finer:
        raise SwathError(f"a GSD of {finer[0]:g} m is finer than the images, which have {low:g} m")
    step = max(f.min_side for f in featurizers)
    return sorted({max(step, round(side * low / gsd / step) * step) for gsd in gsds})


def _gsds(part: EvalSubset) -> NDArray[Any]:
    """GSD of images of a part; of those that are not files, of the first ones."""
    known = getattr(part.dataset, "gsds", None)
    if known is not None:
        return np.asarray(known)[part.indices]
    return np.asarray(part.dataset.get_batch(part.indices[:256])["gsd"])


@dataclass(frozen=True, slots=True)
class SplitFeatures:
    """Features of bank and queries: what several protocols may share, since extraction is what takes time."""

    bank: FeatureSet
    queries: FeatureSet

    def has(self, featurizer: str, side: int) -> bool:
        """Whether there are features of that name at that side."""
        return (featurizer, side) in self.bank.features and (featurizer, side) in self.queries.features


def extract_split_features(
    featurizers: Sequence[FeatureExtractor],
    split: TrainTestSplit,
    sides: Sequence[int],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    cache: FeatureCache | None = None,
) -> SplitFeatures:
    """Fit the featurizers to the bank at its largest side, and extract both parts at all sides.

    Args:
        featurizers: What describes the images.
        split: Bank and queries.
        sides: That images are resized to.
        batch_size: Images at a time.
        progress: Called with (images done, images in all), over both parts.
        cache: Where features are looked for, and kept; None computes all of them.

    Raises:
        ContractError: A side that does not fit a featurizer (`usable_sides` tells beforehand).
        ImageryError: Not one image of a part could be read.
    """
    fitted: set[str] = set()

    def fit(featurizer: FeatureExtractor) -> None:
        if featurizer.name not in fitted:
            fitted.add(featurizer.name)
            featurizer.fit(split.bank, max(sides))

    first, total = len(split.bank.indices), len(split.bank.indices) + len(split.queries.indices)
    bank, queries = (
        extract_features(
            featurizers,
            part,
            sides,
            batch_size=batch_size,
            progress=_shifted(progress, offset, total),
            cache=cache,
            bank=(split.bank, max(sides)),
            fit=fit,
        )
        for part, offset in ((split.bank, 0), (split.queries, first))
    )
    return SplitFeatures(bank, queries)


def _shifted(progress: Progress | None, offset: int, total: int) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, _: progress(offset + done, total)


class ProtocolContext:
    """What goes before and around every protocol.

    A context: warnings about scale that come up inside become notes, and the clock stops at its end.

    Attributes:
        sides: Image sides in pixels that all featurizers can take.
        bank: Features and labels of the bank.
        queries: Features and labels of the queries.
        classes: Number K of classes or labels.
        several: Whether images have several labels each.
        evaluation: What is found; complete when the context ends.
    """

    def __init__(
        self,
        featurizers: Sequence[FeatureExtractor],
        split: TrainTestSplit,
        sides: Sequence[int] | None,
        batch_size: int,
        progress: Progress | None,
        settings: dict[str, Any],
        extracted: SplitFeatures | None,
        cache: FeatureCache | None = None,
    ) -> None:
        names = [f.name for f in featurizers]
        if not names or len(set(names)) != len(names):
            raise SwathError(f"featurizers need names that differ, but these are {names}")
        self._began = time.monotonic()
        self._featurizers, self._split, self._settings = featurizers, split, settings
        self._batch_size, self._progress, self._wanted = batch_size, progress, sides
        self._extracted, self._cache = extracted, cache

    def __enter__(self) -> ProtocolContext:
        self._warnings = warnings.catch_warnings(record=True)
        self._caught = self._warnings.__enter__()
        warnings.simplefilter("always")
        try:
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._warnings.__exit__(None, None, None)
        for caught in self._caught or []:
            if issubclass(caught.category, GsdRangeWarning):
                if hasattr(self, "evaluation"):
                    self.evaluation.notes.append(str(caught.message))
            else:
                warnings.warn_explicit(caught.message, caught.category, caught.filename, caught.lineno)
        if hasattr(self, "evaluation"):
            self.evaluation.seconds = round(time.monotonic() - self._began, 1)

    def _prepare(self) -> None:
        split, featurizers = self._split, self._featurizers
        found_out = check_split(split)
        native_side, native_gsd = native_scale(split.bank)
        wanted = sorted(
            set(self._wanted or default_image_sizes(native_side, max(f.min_side for f in featurizers)))
        )
        self.sides, refused = supported_image_sizes(wanted, featurizers)
        if not self.sides:
            raise SwathError("no image scale is left: " + "; ".join(refused))
        found = self._extracted
        if found is None:
            found = extract_split_features(
                featurizers,
                split,
                self.sides,
                batch_size=self._batch_size,
                progress=self._progress,
                cache=self._cache,
            )
        missing = [(f.name, side) for f in featurizers for side in self.sides if not found.has(f.name, side)]
        if missing:
            raise SwathError(
                f"features that were extracted before lack {missing[0][0]} at {missing[0][1]} px"
            )
        self.bank, self.queries = found.bank, found.queries
        notes = [*split.notes, *found_out, *(f"scale refused: {reason}" for reason in refused)]
        notes += self._notes(native_side)
        labels = self.queries.labels.numpy()
        self.several = labels.ndim == 2
        self.classes = count_classes(split)
        self.evaluation = EvaluationResult(
            self._protocol(labels),
            [],
            native_side,
            split.native_metres or native_gsd,
            notes,
            refused=[side for side in wanted if side not in self.sides],
            labels=labels,
            paths=[split.queries.dataset.paths[i] for i in self.queries.indices],
        )

    def _notes(self, native_side: int) -> list[str]:
        notes = []
        problems = self.bank.problems + self.queries.problems
        if problems:
            notes.append(
                f"{len(problems)} images could not be read and are left out, the first: {problems[0][0]}: "
                f"{problems[0][1]}"
            )
        larger = [side for side in self.sides if side > native_side]
        if larger:
            notes.append(f"images of {native_side} px were enlarged (pixels repeated) to {larger} px")
        return notes

    def _protocol(self, labels: Any) -> dict[str, Any]:
        split = self._split
        if self.several:
            metric, chance = "mAP micro", float(labels.mean())
            interval = "95%, percentile bootstrap over queries, 300 resamples"
        else:
            metric, chance = "top-1 accuracy", float(np.bincount(labels).max() / len(labels))
            interval = "95%, percentile bootstrap over queries, 2,000 resamples"
        return {
            **self._settings,
            "metric": metric,
            "resize": "area, whole image to side x side",
            "sides": self.sides,
            "featurizers": {f.name: f.settings for f in self._featurizers},
            "sensor": split.bank.dataset.sensor.name,
            "split": split.origin,
            "split_hash": split.hash,
            "bank": {"name": split.bank.name, "images": len(self.bank.labels)},
            "queries": {"name": split.queries.name, "images": len(self.queries.labels)},
            "classes": split.bank.dataset.classes or [],
            "chance": round(chance, 6),
            "interval": interval,
        }

    def features(
        self, featurizer: FeatureExtractor, bank_side: int, query_side: int
    ) -> tuple[Tensor, Tensor]:
        """Features of bank and queries at their sides."""
        name = featurizer.name
        return self.bank.features[name, bank_side], self.queries.features[name, query_side]

    @property
    def bank_groups(self) -> NDArray[Any] | None:
        """[N] names of the ground that images of the bank share, of those that could be read."""
        part = self._split.bank
        if part.groups is None:
            return None
        found: NDArray[Any] = part.groups[np.isin(part.indices, self.bank.indices)]
        return found

    def add(
        self,
        featurizer: FeatureExtractor,
        classifier: str,
        query_side: int,
        bank_side: int,
        probabilities: Tensor,
        **details: Any,
    ) -> None:
        """Keep the score of class (or label) probabilities [Q, K] of all queries."""
        head = {
            "features": featurizer.name,
            "classifier": classifier,
            "query_side": query_side,
            "bank_side": bank_side,
        }
        make = score_multilabel if self.several else score_single_label
        labels, said = self.queries.labels.numpy(), probabilities.numpy()
        self.evaluation.scores.append(make(head, labels, said, details=details))

    bank: FeatureSet
    queries: FeatureSet
    sides: list[int]
    classes: int
    several: bool
    evaluation: EvaluationResult


def native_scale(part: EvalSubset) -> tuple[int, float | None]:
    """Side (geometric mean of height and width) and median GSD in metres of the images as they come."""
    batch = part.dataset.get_batch(part.indices[: min(32, len(part.indices))])
    height, width = batch["image"].shape[2:]
    relative = bool((batch["gsd"] == 1.0).all())  # relative mode, or metres of which nothing is lost
    return round((height * width) ** 0.5), None if relative else float(batch["gsd"].median())
