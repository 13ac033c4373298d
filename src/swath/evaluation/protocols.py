"""The scoring protocols: kNN over scales, and the linear probe; each says all that a number depends on.

kNN over scales (Scale-MAE, section 4, its released evaluation): images are area-resized to each side,
features are L2-normalised, the k = 20 most similar bank images vote with weight exp(cosine / 0.07).

- *symmetric*: bank and queries at the same side (what the released code does);
- *asymmetric*: the bank at its full side, only the queries reduced (what the paper's text describes).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.features import Extracted, Featurizer, Part, Progress, extract, usable_sides
from swath.evaluation.intervals import bootstrap_interval
from swath.evaluation.knn import knn_predict, standardise
from swath.evaluation.linear import fit_linear_probe
from swath.evaluation.splits import split_hash


@dataclass(slots=True)
class Score:
    """One figure: accuracy of one featurizer under one protocol at one scale.

    Attributes:
        features: Featurizer name.
        protocol: "knn", "knn-z" (features standardised by the bank) or "linear".
        query_side: Side of the query images in pixels.
        bank_side: Side of the bank images in pixels.
        accuracy: Top-1, 0 to 1.
        low: Lower end of the 95% bootstrap interval over queries.
        high: Upper end.
        hits: [Q] bool, for paired comparisons; not written to the report.
    """

    features: str
    protocol: str
    query_side: int
    bank_side: int
    accuracy: float
    low: float
    high: float
    hits: NDArray[np.bool_] = field(repr=False, default_factory=lambda: np.zeros(0, dtype=bool))


@dataclass(slots=True)
class Evaluation:
    """All figures of one evaluation, with what they depend on."""

    protocol: dict[str, Any]
    scores: list[Score]
    native_side: int
    native_gsd: float | None  # median, metres per pixel at the native side; None in relative mode
    notes: list[str]

    def select(
        self, protocol: str, features: str | None = None, symmetric: bool | None = None
    ) -> list[Score]:
        """Scores of a protocol by side; of one featurizer or one kind of pairing if asked."""
        return [
            s
            for s in self.scores
            if s.protocol == protocol
            and (features is None or s.features == features)
            and (symmetric is None or (s.query_side == s.bank_side) == symmetric)
        ]

    def mean(self, protocol: str, features: str) -> float:
        """Mean accuracy over the symmetric scales (the field's single number for a scale curve)."""
        return float(np.mean([s.accuracy for s in self.select(protocol, features, symmetric=True)]))

    @property
    def featurizers(self) -> list[str]:
        """Names of what was scored, in order."""
        return list(dict.fromkeys(s.features for s in self.scores))


def default_sides(native: int, step: int) -> list[int]:
    """12.5, 25, 50 and 100% of the native side (the paper's), each rounded to a multiple of the patch."""
    return sorted({max(step, round(native * share / step) * step) for share in (0.125, 0.25, 0.5, 1.0)})


def evaluate_knn(
    featurizers: Sequence[Featurizer],
    bank: Part,
    queries: Part,
    *,
    sides: Sequence[int] | None = None,
    asymmetric: bool = True,
    standardised: bool = True,
    k: int = 20,
    temperature: float = 0.07,
    batch_size: int = 64,
    progress: Progress | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """kNN accuracy of featurizers at several image scales.

    Args:
        featurizers: What to score; they see the same images.
        bank: Labelled images that vote.
        queries: Images to classify.
        sides: Image sides in pixels; default 12.5 to 100% of the native side. Sides that do not fit a
            featurizer's patch are refused, with the reason in `notes`.
        asymmetric: Also score reduced queries against the bank at its largest side.
        standardised: Also score features standardised by the bank ("knn-z").
        k: Neighbours.
        temperature: Of the vote.
        batch_size: Images at a time.
        progress: Called with (images done, images in all), over both parts.
        notes: Passed on into the report.
    """
    evaluation, stored = _prepare(
        featurizers, bank, queries, sides, batch_size, progress, notes,
        {"name": "knn", "k": k, "temperature": temperature, "similarity": "cosine"},
    )  # fmt: skip
    bank_rows, query_rows, used = stored
    classes = int(max(bank_rows.labels.max(), query_rows.labels.max())) + 1
    largest = used[-1]
    pairs = [(s, s) for s in used] + ([(s, largest) for s in used[:-1]] if asymmetric else [])
    for featurizer in featurizers:
        for query_side, bank_side in pairs:
            first = bank_rows.features[featurizer.name, bank_side]
            second = query_rows.features[featurizer.name, query_side]
            for protocol in ("knn", "knn-z") if standardised else ("knn",):
                a, b = standardise(first, second) if protocol == "knn-z" else (first, second)
                predicted = knn_predict(a, bank_rows.labels, b, classes=classes, k=k, temperature=temperature)
                evaluation.scores.append(
                    _score(featurizer.name, protocol, query_side, bank_side, predicted, query_rows.labels)
                )
    return evaluation


def evaluate_linear(
    featurizers: Sequence[Featurizer],
    bank: Part,
    queries: Part,
    *,
    sides: Sequence[int] | None = None,
    c: float = 0.1,
    batch_size: int = 64,
    progress: Progress | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Linear-probe accuracy (logistic regression on standardised features); arguments as for `evaluate_knn`.

    Args:
        featurizers: What to score.
        bank: Images that the probe is fitted on.
        queries: Images to classify.
        sides: Image sides in pixels; default the native side.
        c: Inverse strength of the penalty; fixed in advance, never chosen on the queries.
        batch_size: Images at a time.
        progress: Called with (images done, images in all).
        notes: Passed on into the report.
    """
    if sides is None:
        step = max(f.min_side for f in featurizers)
        sides = [default_sides(_native(bank)[0], step)[-1]]
    evaluation, stored = _prepare(
        featurizers, bank, queries, sides, batch_size, progress, notes,
        {"name": "linear", "c": c, "features": "standardised by the bank", "solver": "L-BFGS"},
    )  # fmt: skip
    bank_rows, query_rows, used = stored
    classes = int(max(bank_rows.labels.max(), query_rows.labels.max())) + 1
    for featurizer in featurizers:
        for side in used:
            probe = fit_linear_probe(
                bank_rows.features[featurizer.name, side], bank_rows.labels, classes=classes, c=c
            )
            predicted = probe.predict(query_rows.features[featurizer.name, side])
            evaluation.scores.append(
                _score(featurizer.name, "linear", side, side, predicted, query_rows.labels)
            )
    return evaluation


def _prepare(
    featurizers: Sequence[Featurizer],
    bank: Part,
    queries: Part,
    sides: Sequence[int] | None,
    batch_size: int,
    progress: Progress | None,
    notes: Sequence[str],
    protocol: dict[str, Any],
) -> tuple[Evaluation, tuple[Extracted, Extracted, list[int]]]:
    """What both protocols begin with: settle the sides, fit the baselines, extract both parts."""
    names = [f.name for f in featurizers]
    if len(set(names)) != len(names):
        raise SwathError(f"two of the featurizers have the same name: {names}")
    started = time.monotonic()
    native_side, native_gsd = _native(bank)
    wanted = sorted(set(sides or default_sides(native_side, max(f.min_side for f in featurizers))))
    used, refused = usable_sides(wanted, featurizers)
    if not used:
        raise SwathError("no image scale is left: " + "; ".join(refused))
    for featurizer in featurizers:
        featurizer.fit(bank, used[-1])
    total = len(bank.indices) + len(queries.indices)

    def report(offset: int) -> Progress | None:
        if progress is None:
            return None
        return lambda done, _: progress(offset + done, total)

    bank_rows = extract(featurizers, bank, used, batch_size=batch_size, progress=report(0))
    query_rows = extract(
        featurizers, queries, used, batch_size=batch_size, progress=report(len(bank.indices))
    )
    problems = bank_rows.problems + query_rows.problems
    all_notes = [*notes, *(f"scale refused: {reason}" for reason in refused)]
    all_notes += [f"image left out: {path}: {reason}" for path, reason in problems]
    settings = {
        **protocol,
        "resize": "area, to side x side",
        "sides": used,
        "bank": f"{bank.name}: {len(bank_rows.labels)} images",
        "queries": f"{queries.name}: {len(query_rows.labels)} images",
        "classes": bank.dataset.classes,
        "split_hash": split_hash(bank, queries),
        "chance": float(np.bincount(query_rows.labels.numpy()).max() / len(query_rows.labels)),
        "seconds": round(time.monotonic() - started, 1),
    }
    return Evaluation(settings, [], native_side, native_gsd, all_notes), (bank_rows, query_rows, used)


def _native(part: Part) -> tuple[int, float | None]:
    """Side (geometric mean of height and width) and median GSD of the images as they come."""
    batch = part.dataset.get_batch(part.indices[: min(32, len(part.indices))])
    height, width = batch["image"].shape[2:]
    gsd = float(batch["gsd"].median())
    relative = bool((batch["gsd"] == 1.0).all())
    return round((height * width) ** 0.5), None if relative else gsd


def _score(
    name: str, protocol: str, query_side: int, bank_side: int, predicted: Tensor, labels: Tensor
) -> Score:
    hits = (predicted == labels).numpy()
    low, high = bootstrap_interval(hits)
    return Score(name, protocol, query_side, bank_side, float(hits.mean()), low, high, hits)
