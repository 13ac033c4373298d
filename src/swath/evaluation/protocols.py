"""The scoring protocols: kNN over scales, and the linear probe; each says all that a number depends on.

kNN over scales (Scale-MAE, section 4, and its released evaluation): images are area-resized to each side,
features are L2-normalised, the k = 20 most similar bank images vote with weight exp(cosine / 0.07).

- *symmetric*: bank and queries at the same side (what the released code does);
- *asymmetric*: the bank at its largest side, only the queries reduced (what the paper's text describes).

A protocol's `id` changes whenever the same settings would give other figures.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.features import Extracted, Featurizer, Part, Progress, extract, usable_sides
from swath.evaluation.intervals import bootstrap_interval, paired_difference
from swath.evaluation.knn import knn_predict, standardise
from swath.evaluation.linear import fit_linear_probe
from swath.evaluation.splits import Split
from swath.models.contract import ScaleWarning

Hits = NDArray[np.bool_]


@dataclass(slots=True)
class Score:
    """One figure: accuracy of one featurizer under one classifier at one pair of scales.

    Attributes:
        features: Featurizer name.
        classifier: "knn", "knn-z" (features standardised by the bank) or "linear".
        query_side: Side of the query images in pixels.
        bank_side: Side of the bank images in pixels.
        accuracy: Top-1, 0 to 1.
        low: Lower end of the 95% bootstrap interval over queries.
        high: Upper end.
        hits: [Q] bool, which queries were right, for paired comparisons; not written to the report.
    """

    features: str
    classifier: str
    query_side: int
    bank_side: int
    accuracy: float
    low: float
    high: float
    hits: Hits = field(repr=False)


@dataclass(slots=True)
class Summary:
    """Mean accuracy over the symmetric scales, with the 95% interval over queries drawn whole."""

    features: str
    classifier: str
    accuracy: float
    low: float
    high: float


@dataclass(slots=True)
class Comparison:
    """How much better one is than another on the same queries: a difference of means over scales.

    Beyond doubt (at 95%) where the interval does not hold 0.
    """

    features: str
    against: str
    classifier: str
    difference: float
    low: float
    high: float


@dataclass(slots=True)
class Evaluation:
    """All figures of one evaluation, with what they depend on.

    Attributes:
        protocol: JSON-safe; everything that the figures depend on, and its `id`.
        scores: One a featurizer, classifier and pair of scales.
        native_side: Side of the images as they come, in pixels.
        native_gsd: Their median GSD in metres per pixel; None where unknown.
        notes: What a reader of the figures should know.
        seconds: How long it took.
    """

    protocol: dict[str, Any]
    scores: list[Score]
    native_side: int
    native_gsd: float | None
    notes: list[str]
    seconds: float = 0.0

    def select(
        self, classifier: str | None = None, features: str | None = None, symmetric: bool | None = None
    ) -> list[Score]:
        """Scores, by side, of one classifier, one featurizer or one kind of pairing if asked."""
        return [
            s
            for s in self.scores
            if (classifier is None or s.classifier == classifier)
            and (features is None or s.features == features)
            and (symmetric is None or (s.query_side == s.bank_side) == symmetric)
        ]

    @property
    def rows(self) -> list[tuple[str, str]]:
        """(featurizer, classifier) in order."""
        return list(dict.fromkeys((s.features, s.classifier) for s in self.scores))

    def mean(self, features: str, classifier: str) -> Summary:
        """Mean over the symmetric scales: the field's single number for a scale curve."""
        hits = self._hits(features, classifier)
        return Summary(features, classifier, float(hits.mean()), *bootstrap_interval(hits))

    def compare(self, features: str, against: str, classifier: str) -> Comparison:
        """Paired comparison of two featurizers under one classifier over the symmetric scales."""
        return self.compare_rows((features, classifier), (against, classifier))

    def compare_rows(self, row: tuple[str, str], against: tuple[str, str]) -> Comparison:
        """Paired comparison of two (featurizer, classifier) over the symmetric scales."""
        gap = paired_difference(self._hits(*row), self._hits(*against))
        kind = row[1] if row[1] == against[1] else f"{row[1]} / {against[1]}"
        return Comparison(row[0], against[0], kind, *gap)

    def comparisons(self) -> list[Comparison]:
        """The first featurizer against each other one, a classifier at a time."""
        first = self.scores[0].features
        return [self.compare(first, other, kind) for other, kind in self.rows if other != first]

    def _hits(self, features: str, classifier: str) -> NDArray[np.float64]:
        """[Q, scales] of the symmetric scales."""
        scores = self.select(classifier, features, symmetric=True)
        if not scores:
            raise SwathError(f"there is no {classifier} score of {features!r}")
        return np.stack([s.hits for s in scores], axis=1).astype(np.float64)

    @property
    def config_hash(self) -> str:
        """12 hex digits over everything in the protocol."""
        return hashlib.sha256(json.dumps(self.protocol, sort_keys=True).encode()).hexdigest()[:12]


def default_sides(native: int, step: int) -> list[int]:
    """12.5, 25, 50 and 100% of the native side (the paper's), each rounded to a multiple of the patch."""
    return sorted({max(step, round(native * share / step) * step) for share in (0.125, 0.25, 0.5, 1.0)})


@dataclass(frozen=True, slots=True)
class ExtractedSplit:
    """Features of bank and queries: what several protocols may share, since extraction is what takes time."""

    bank: Extracted
    queries: Extracted

    def has(self, featurizer: str, side: int) -> bool:
        """Whether there are features of that name at that side."""
        return (featurizer, side) in self.bank.features and (featurizer, side) in self.queries.features


def extract_split(
    featurizers: Sequence[Featurizer],
    split: Split,
    sides: Sequence[int],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> ExtractedSplit:
    """Fit the featurizers to the bank at its largest side, and extract both parts at all sides.

    Raises:
        ContractError: A side that does not fit a featurizer (`usable_sides` tells beforehand).
        ImageryError: Not one image of a part could be read.
    """
    for featurizer in featurizers:
        featurizer.fit(split.bank, max(sides))
    first, total = len(split.bank.indices), len(split.bank.indices) + len(split.queries.indices)
    return ExtractedSplit(
        extract(featurizers, split.bank, sides, batch_size=batch_size, progress=_shifted(progress, 0, total)),
        extract(
            featurizers,
            split.queries,
            sides,
            batch_size=batch_size,
            progress=_shifted(progress, first, total),
        ),
    )


def _shifted(progress: Progress | None, offset: int, total: int) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, _: progress(offset + done, total)


def evaluate_knn(
    featurizers: Sequence[Featurizer],
    split: Split,
    *,
    sides: Sequence[int] | None = None,
    asymmetric: bool = True,
    standardised: bool = True,
    k: int = 20,
    temperature: float = 0.07,
    batch_size: int = 64,
    progress: Progress | None = None,
    extracted: ExtractedSplit | None = None,
) -> Evaluation:
    """kNN accuracy of featurizers at several image scales.

    Args:
        featurizers: What to score, the one in question first; they see the same images.
        split: Bank and queries.
        sides: Image sides in pixels; default 12.5 to 100% of the native side. Sides that do not fit a
            featurizer's patch are refused, with the reason in the notes.
        asymmetric: Also score reduced queries against the bank at its largest side.
        standardised: Also score features standardised by the bank ("knn-z").
        k: Neighbours.
        temperature: Of the vote.
        batch_size: Images at a time.
        progress: Called with (images done, images in all), over both parts.
        extracted: Features of `extract_split` with the same featurizers, instead of extracting them here.
    """
    settings = {
        "id": "swath.knn/1",
        "name": "knn",
        "similarity": "cosine",
        "k": k,
        "temperature": temperature,
    }
    with _Preparation(featurizers, split, sides, batch_size, progress, settings, extracted) as ready:
        used, classes = ready.sides, ready.classes
        pairs = [(s, s) for s in used] + ([(s, used[-1]) for s in used[:-1]] if asymmetric else [])
        for featurizer in featurizers:
            for z in (False, True) if standardised else (False,):
                for query_side, bank_side in pairs:
                    bank, queries = ready.features(featurizer, bank_side, query_side)
                    if z:
                        bank, queries = standardise(bank, queries)
                    predicted = knn_predict(
                        bank, ready.bank.labels, queries, classes=classes, k=k, temperature=temperature
                    )
                    ready.add(featurizer, "knn-z" if z else "knn", query_side, bank_side, predicted)
    return ready.evaluation


def evaluate_linear(
    featurizers: Sequence[Featurizer],
    split: Split,
    *,
    sides: Sequence[int] | None = None,
    c: float = 0.1,
    batch_size: int = 64,
    progress: Progress | None = None,
    extracted: ExtractedSplit | None = None,
) -> Evaluation:
    """Linear-probe accuracy: logistic regression on features standardised by the bank, at the same side.

    Args:
        featurizers: What to score, the one in question first.
        split: The probe is fitted on the bank.
        sides: Image sides in pixels; default the native side.
        c: Inverse strength of the penalty; fixed in advance, never chosen on the queries.
        batch_size: Images at a time.
        progress: Called with (images done, images in all).
        extracted: Features of `extract_split` with the same featurizers, instead of extracting them here.
    """
    if sides is None:
        step = max(f.min_side for f in featurizers)
        sides = [default_sides(_native(split.bank)[0], step)[-1]]
    settings = {
        "id": "swath.linear/1",
        "name": "linear",
        "features": "standardised by the bank",
        "C": c,
        "solver": "L-BFGS to convergence",
    }
    with _Preparation(featurizers, split, sides, batch_size, progress, settings, extracted) as ready:
        for featurizer in featurizers:
            for side in ready.sides:
                bank, queries = ready.features(featurizer, side, side)
                probe = fit_linear_probe(bank, ready.bank.labels, classes=ready.classes, c=c)
                ready.add(featurizer, "linear", side, side, probe.predict(queries))
    return ready.evaluation


class _Preparation:
    """What all protocols share: settle the sides, fit the baselines, extract both parts, keep scores.

    A context: warnings about scale that come up inside become notes, and the clock stops at its end.
    """

    def __init__(
        self,
        featurizers: Sequence[Featurizer],
        split: Split,
        sides: Sequence[int] | None,
        batch_size: int,
        progress: Progress | None,
        settings: dict[str, Any],
        extracted: ExtractedSplit | None,
    ) -> None:
        names = [f.name for f in featurizers]
        if not names or len(set(names)) != len(names):
            raise SwathError(f"featurizers need names that differ, but these are {names}")
        self._began = time.monotonic()
        self._featurizers, self._split, self._settings = featurizers, split, settings
        self._batch_size, self._progress, self._wanted = batch_size, progress, sides
        self._extracted = extracted

    def __enter__(self) -> _Preparation:
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
            if issubclass(caught.category, ScaleWarning):
                if hasattr(self, "evaluation"):
                    self.evaluation.notes.append(str(caught.message))
            else:
                warnings.warn_explicit(caught.message, caught.category, caught.filename, caught.lineno)
        if hasattr(self, "evaluation"):
            self.evaluation.seconds = round(time.monotonic() - self._began, 1)

    def _prepare(self) -> None:
        split, featurizers = self._split, self._featurizers
        native_side, native_gsd = _native(split.bank)
        wanted = sorted(set(self._wanted or default_sides(native_side, max(f.min_side for f in featurizers))))
        self.sides, refused = usable_sides(wanted, featurizers)
        if not self.sides:
            raise SwathError("no image scale is left: " + "; ".join(refused))
        found = self._extracted
        if found is None:
            found = extract_split(
                featurizers, split, self.sides, batch_size=self._batch_size, progress=self._progress
            )
        missing = [(f.name, side) for f in featurizers for side in self.sides if not found.has(f.name, side)]
        if missing:
            raise SwathError(
                f"features that were extracted before lack {missing[0][0]} at {missing[0][1]} px"
            )
        self.bank, self.queries = found.bank, found.queries
        problems = self.bank.problems + self.queries.problems
        notes = [*split.notes, *(f"scale refused: {reason}" for reason in refused)]
        if problems:
            notes.append(
                f"{len(problems)} images could not be read and are left out, the first: {problems[0][0]}: "
                f"{problems[0][1]}"
            )
        larger = [side for side in self.sides if side > native_side]
        if larger:
            notes.append(f"images of {native_side} px were enlarged (pixels repeated) to {larger} px")
        names = split.bank.dataset.classes or []
        self.classes = len(names) or int(max(self.bank.labels.max(), self.queries.labels.max())) + 1
        share = np.bincount(self.queries.labels.numpy()).max() / len(self.queries.labels)
        protocol = {
            **self._settings,
            "resize": "area, whole image to side x side",
            "sides": self.sides,
            "featurizers": {f.name: f.settings for f in featurizers},
            "sensor": split.bank.dataset.sensor.name,
            "split": split.origin,
            "split_hash": split.hash,
            "bank": {"name": split.bank.name, "images": len(self.bank.labels)},
            "queries": {"name": split.queries.name, "images": len(self.queries.labels)},
            "classes": names,
            "chance": round(float(share), 6),
            "interval": "95%, percentile bootstrap over queries, 2,000 resamples",
        }
        gsd = split.native_metres or native_gsd
        self.evaluation = Evaluation(protocol, [], native_side, gsd, notes)

    def features(self, featurizer: Featurizer, bank_side: int, query_side: int) -> tuple[Tensor, Tensor]:
        """Features of bank and queries at their sides."""
        name = featurizer.name
        return self.bank.features[name, bank_side], self.queries.features[name, query_side]

    def add(
        self, featurizer: Featurizer, classifier: str, query_side: int, bank_side: int, predicted: Tensor
    ) -> None:
        """Keep the score of predictions for all queries."""
        hits: Hits = (predicted == self.queries.labels).numpy()
        low, high = bootstrap_interval(hits)
        self.evaluation.scores.append(
            Score(featurizer.name, classifier, query_side, bank_side, float(hits.mean()), low, high, hits)
        )

    bank: Extracted
    queries: Extracted
    sides: list[int]
    classes: int
    evaluation: Evaluation


def _native(part: Part) -> tuple[int, float | None]:
    """Side (geometric mean of height and width) and median GSD in metres of the images as they come."""
    batch = part.dataset.get_batch(part.indices[: min(32, len(part.indices))])
    height, width = batch["image"].shape[2:]
    relative = bool((batch["gsd"] == 1.0).all())  # relative mode, or metres of which nothing is lost
    return round((height * width) ** 0.5), None if relative else float(batch["gsd"].median())
