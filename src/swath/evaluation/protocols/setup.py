"""What all protocols share: settle the sides, check the input, extract features, keep scores and notes.

Legend: N train images, Q queries, D feature dimensions, K classes or labels.
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
    return sorted({max(step, round(native * fraction / step) * step) for fraction in (0.125, 0.25, 0.5, 1.0)})


def native_image_size(extractors: Sequence[FeatureExtractor], split: TrainTestSplit) -> list[int]:
    """The one side that is nearest to the images as they come and fits all feature extractors."""
    return [default_image_sizes(native_scale(split.train)[0], max(f.min_image_size for f in extractors))[-1]]


def image_sizes_for_gsds(
    split: TrainTestSplit, gsds: Sequence[float], extractors: Sequence[FeatureExtractor]
) -> list[int]:
    """Sides at which the images have these ground sample distances, to the nearest multiple of a patch.

    Args:
        split: Of images that all have one GSD, within 5%.
        gsds: Metres per pixel; none finer than the images.
        extractors: Whose patches sides have to fit.

    Raises:
        SwathError: The images' GSD is not known, or differs; or a GSD is finer than theirs.
    """
    image_size, _ = native_scale(split.train)
    found = np.concatenate([_gsds(part) for part in (split.train, split.test)])
    low, high = float(found.min()), float(found.max())
    if bool((found == 1.0).all()):
        raise SwathError(
            "a sweep over GSD needs images whose GSD is known: state it with --gsd, and tell models metres "
            "(--gsd-mode metres); or sweep over sides with --image-sizes"
        )
    if high > 1.05 * low:
        raise SwathError(
            f"these images have GSDs from {low:g} to {high:g} m, so one side is not one GSD: sweep over "
            "sides with --image-sizes"
        )
    finer = [gsd for gsd in gsds if gsd < 0.99 * low]
    if finer:
        raise SwathError(f"a GSD of {finer[0]:g} m is finer than the images, which have {low:g} m")
    step = max(f.min_image_size for f in extractors)
    return sorted({max(step, round(image_size * low / gsd / step) * step) for gsd in gsds})


def _gsds(part: EvalSubset) -> NDArray[Any]:
    """GSD of images of a part; of those that are not files, of the first ones."""
    known = getattr(part.dataset, "gsds", None)
    if known is not None:
        return np.asarray(known)[part.indices]
    return np.asarray(part.dataset.get_batch(part.indices[:256])["gsd"])


@dataclass(frozen=True, slots=True)
class SplitFeatures:
    """Features of train and test split. Protocols share them, because extraction takes most of the time."""

    train: FeatureSet
    test: FeatureSet

    def has(self, extractor: str, image_size: int) -> bool:
        """Whether there are features of that name at that side."""
        return (extractor, image_size) in self.train.features and (
            extractor,
            image_size,
        ) in self.test.features


def extract_split_features(
    extractors: Sequence[FeatureExtractor],
    split: TrainTestSplit,
    image_sizes: Sequence[int],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    cache: FeatureCache | None = None,
) -> SplitFeatures:
    """Fit the feature extractors to the train split at its largest side, and extract both parts at all sides.

    Args:
        extractors: What describes the images.
        split: Bank and queries.
        image_sizes: That images are resized to.
        batch_size: Images at a time.
        progress: Called with (images done, images in all), over both parts.
        cache: Where features are looked for, and kept; None computes all of them.

    Raises:
        ContractError: A side that does not fit a feature extractor (`usable_sides` tells beforehand).
        ImageryError: Not one image of a part could be read.
    """
    fitted: set[str] = set()

    def fit(extractor: FeatureExtractor) -> None:
        if extractor.name not in fitted:
            fitted.add(extractor.name)
            extractor.fit(split.train, max(image_sizes))

    first, total = len(split.train.indices), len(split.train.indices) + len(split.test.indices)
    train, test = (
        extract_features(
            extractors,
            part,
            image_sizes,
            batch_size=batch_size,
            progress=_shifted(progress, offset, total),
            cache=cache,
            train=(split.train, max(image_sizes)),
            fit=fit,
        )
        for part, offset in ((split.train, 0), (split.test, first))
    )
    return SplitFeatures(train, test)


def _shifted(progress: Progress | None, offset: int, total: int) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, _: progress(offset + done, total)


class ProtocolContext:
    """What goes before and around every protocol.

    A context: warnings about scale that come up inside become notes, and the clock stops at its end.

    Attributes:
        image_sizes: Image sides in pixels that all feature extractors can take.
        train: Features and labels of the train split.
        test: Features and labels of the queries.
        classes: Number K of classes or labels.
        several: Whether images have several labels each.
        evaluation: What is found; complete when the context ends.
    """

    def __init__(
        self,
        extractors: Sequence[FeatureExtractor],
        split: TrainTestSplit,
        image_sizes: Sequence[int] | None,
        batch_size: int,
        progress: Progress | None,
        settings: dict[str, Any],
        extracted: SplitFeatures | None,
        cache: FeatureCache | None = None,
    ) -> None:
        names = [f.name for f in extractors]
        if not names or len(set(names)) != len(names):
            raise SwathError(f"featurizers need names that differ, but these are {names}")
        self._began = time.monotonic()
        self._extractors, self._split, self._settings = extractors, split, settings
        self._batch_size, self._progress, self._wanted = batch_size, progress, image_sizes
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
        split, extractors = self._split, self._extractors
        found_out = check_split(split)
        native_image_size, native_gsd = native_scale(split.train)
        requested = sorted(
            set(
                self._wanted
                or default_image_sizes(native_image_size, max(f.min_image_size for f in extractors))
            )
        )
        self.image_sizes, refused = supported_image_sizes(requested, extractors)
        if not self.image_sizes:
            raise SwathError("no image scale is left: " + "; ".join(refused))
        found = self._extracted
        if found is None:
            found = extract_split_features(
                extractors,
                split,
                self.image_sizes,
                batch_size=self._batch_size,
                progress=self._progress,
                cache=self._cache,
            )
        missing = [
            (f.name, image_size)
            for f in extractors
            for image_size in self.image_sizes
            if not found.has(f.name, image_size)
        ]
        if missing:
            raise SwathError(
                f"features that were extracted before lack {missing[0][0]} at {missing[0][1]} px"
            )
        self.train, self.test = found.train, found.test
        notes = [*split.notes, *found_out, *(f"scale refused: {reason}" for reason in refused)]
        notes += self._notes(native_image_size)
        labels = self.test.labels.numpy()
        self.several = labels.ndim == 2
        self.classes = count_classes(split)
        self.evaluation = EvaluationResult(
            self._protocol(labels),
            [],
            native_image_size,
            split.native_gsd or native_gsd,
            notes,
            refused=[image_size for image_size in requested if image_size not in self.image_sizes],
            labels=labels,
            paths=[split.test.dataset.paths[i] for i in self.test.indices],
        )

    def _notes(self, native_image_size: int) -> list[str]:
        notes = []
        problems = self.train.problems + self.test.problems
        if problems:
            notes.append(
                f"{len(problems)} images could not be read and are left out, the first: {problems[0][0]}: "
                f"{problems[0][1]}"
            )
        larger = [image_size for image_size in self.image_sizes if image_size > native_image_size]
        if larger:
            notes.append(f"images of {native_image_size} px were enlarged (pixels repeated) to {larger} px")
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
            "image_sizes": self.image_sizes,
            "feature_extractors": {f.name: f.settings for f in self._extractors},
            "sensor": split.train.dataset.sensor.name,
            "split": split.origin,
            "split_hash": split.hash,
            "train": {"name": split.train.name, "images": len(self.train.labels)},
            "test": {"name": split.test.name, "images": len(self.test.labels)},
            "classes": split.train.dataset.classes or [],
            "chance": round(chance, 6),
            "interval": interval,
        }

    def features(
        self, extractor: FeatureExtractor, train_image_size: int, test_image_size: int
    ) -> tuple[Tensor, Tensor]:
        """Features of train and test split at their sides."""
        name = extractor.name
        return self.train.features[name, train_image_size], self.test.features[name, test_image_size]

    @property
    def train_groups(self) -> NDArray[Any] | None:
        """[N] names of the ground that images of the train split share, of those that could be read."""
        part = self._split.train
        if part.groups is None:
            return None
        found: NDArray[Any] = part.groups[np.isin(part.indices, self.train.indices)]
        return found

    def add(
        self,
        extractor: FeatureExtractor,
        classifier: str,
        test_image_size: int,
        train_image_size: int,
        probabilities: Tensor,
        **details: Any,
    ) -> None:
        """Keep the score of class (or label) probabilities [Q, K] of all queries."""
        head = {
            "features": extractor.name,
            "classifier": classifier,
            "test_image_size": test_image_size,
            "train_image_size": train_image_size,
        }
        make = score_multilabel if self.several else score_single_label
        labels, prediction = self.test.labels.numpy(), probabilities.numpy()
        self.evaluation.scores.append(make(head, labels, prediction, details=details))

    train: FeatureSet
    test: FeatureSet
    image_sizes: list[int]
    classes: int
    several: bool
    evaluation: EvaluationResult


def native_scale(part: EvalSubset) -> tuple[int, float | None]:
    """Side (geometric mean of height and width) and median GSD in metres of the images as they come."""
    batch = part.dataset.get_batch(part.indices[: min(32, len(part.indices))])
    height, width = batch["image"].shape[2:]
    relative = bool((batch["gsd"] == 1.0).all())  # relative mode, or metres of which nothing is lost
    return round((height * width) ** 0.5), None if relative else float(batch["gsd"].median())
