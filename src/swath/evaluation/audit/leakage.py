"""Is a query in the train split already? Leaks are looked for, listed with partner and reason, and taken out.

A kNN score asks whether new imagery of a class is near known imagery of it. Where the train split holds the
query itself, a copy of it or a picture of the same ground, it asks for memory instead, and the better the
memory the higher the score. Five searches, from certain to cautious:

- ``same file``: equal bytes;
- ``near copy``: close perceptual hashes in any orientation, verified on the pixels;
- ``shared ground``: landmarks that agree on one shift, at one or at two scales, verified on the pixels;
- ``close features``: features closer than nearly all of the train split's own neighbors are, verified
  likewise (unverified ones are only counted: to be alike is what features are for);
- ``footprint``: georeferenced footprints that overlap.

Only what is verified is a leak, so that the search does not cry wolf. What it cannot see is said in
`docs/concepts/trust.md`: the same scene at another date without georeference, and neighbors that touch but
do not overlap. Against those only a split by groups or blocks helps (`split_making`).

Legend: N train images, Q queries, S side of a thumbnail.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import ImageryError
from swath.evaluation.audit import keypoint_overlap as shared_ground
from swath.evaluation.audit.footprint_overlap import footprint_overlaps, read_footprints
from swath.evaluation.audit.near_duplicates import (
    ORIENTATIONS,
    best_orientations,
    close_hashes,
    detail_correlations,
    same_files,
    standardized_gray,
    thumbnails,
)
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.protocol import Progress
from swath.evaluation.protocols.results import EvaluationResult
from swath.evaluation.protocols.scoring import restrict_evaluation

HASH_BITS = 20  # of 128 that may differ: suspicions, not verdicts
SAME_PICTURE = 0.8  # correlation of detail at 64 px from which two images are one
PAIRS = 40_000_000  # pairs of images up to which the search for shared ground is run
REASONS = ("same file", "near copy", "shared ground", "close features", "footprint")


@dataclass(frozen=True, slots=True)
class Leak:
    """A query that the train split knows.

    Attributes:
        query: Its file.
        partner: The train image that gives it away.
        reason: One of `REASONS`.
        strength: Correlation of the pixels, or share of the footprint; 1 for equal files.
        detail: What was seen, in words.
    """

    query: str
    partner: str
    reason: str
    strength: float
    detail: str


@dataclass(slots=True)
class LeakageReport:
    """What the search found.

    Attributes:
        leaks: Every pair, the surest first.
        test: How many queries were checked.
        train: How many train images.
        unverified: Pairs whose features are very close but whose pixels do not agree: no leaks.
        settings: Thresholds, and searches that were left out with the reason; JSON-safe.
    """

    leaks: list[Leak]
    test: int
    train: int
    unverified: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def leaked(self) -> set[str]:
        """Files of the queries that leak."""
        return {leak.query for leak in self.leaks}

    @property
    def sentence(self) -> str:
        """The finding in one sentence."""
        left_out = self.settings.get("skipped", {})
        summary = ", ".join(f"{name} ({why})" for name, why in left_out.items())
        limits = f" Not searched: {summary}." if summary else ""
        if not self.leaks:
            return (
                f"No leak was found between {self.test:,} queries and {self.train:,} bank images; "
                f"that is no proof of none.{limits}"
            )
        kinds: dict[str, set[str]] = defaultdict(set)
        for leak in self.leaks:
            kinds[leak.reason].add(leak.query)
        summary = ", ".join(f"{len(kinds[reason])} by {reason}" for reason in REASONS if reason in kinds)
        count = len(self.leaked)
        return (
            f"{count:,} of {self.test:,} queries ({100 * count / self.test:.1f}%) are known to the "
            f"bank ({summary}): scores with them are too high.{limits}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {
            "summary": self.sentence,
            "test": self.test,
            "train": self.train,
            "leaked": len(self.leaked),
            "unverified": self.unverified,
            "settings": self.settings,
            "leaks": [asdict(leak) for leak in self.leaks],
        }


def find_leaks(
    split: TrainTestSplit,
    *,
    features: tuple[Tensor, Tensor] | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> LeakageReport:
    """Search a split for queries that the train split knows.

    Args:
        split: Bank and queries; every image is read once, suspects again.
        features: Of bank [N, D] and queries [Q, D] in the order of the parts' indices, by any feature
            extractor: adds the search by close features.
        batch_size: Images read at a time.
        progress: Called with (images done, images in all).

    Raises:
        ImageryError: Features of another number of images than the parts have.
    """
    parts = {"train": split.train, "query": split.test}
    total = sum(len(part.indices) for part in parts.values())
    left_out: dict[str, str] = {}
    levels = _levels(split)
    ground = len(split.train.indices) * len(split.test.indices) <= PAIRS
    if not ground:
        left_out["shared ground"] = f"more than {PAIRS:,} pairs of images; look at a sample"
    looks, done = {}, 0
    for name, part in parts.items():
        looks[name] = _look(part, levels, batch_size, ground, progress, done, total)
        done += len(part.indices)
    train, test = looks["train"], looks["query"]
    found: dict[tuple[int, int], Leak] = {}

    def keep(pairs: Iterable[tuple[int, int, float, str]], reason: str) -> None:
        for q, b, strength, seen in pairs:
            if (q, b) not in found:  # the surest reason comes first
                paths = split.test.paths[q], split.train.paths[b]
                found[q, b] = Leak(*paths, reason, round(strength, 4), seen)

    keep(
        ((q, b, 1.0, "equal bytes") for q, b in same_files(split.test.paths, split.train.paths)),
        "same file",
    )
    keep(_copies(test, train), "near copy")
    if ground:
        keep(_shared(split, test, train, levels), "shared ground")
    unverified, threshold = 0, None
    if features is not None:
        if (len(features[0]), len(features[1])) != (len(split.train.indices), len(split.test.indices)):
            raise ImageryError("the features are not those of all images of bank and queries, in their order")
        pairs, threshold = _close(features[1], features[0])
        alike = _verified_alike(pairs, test, train)
        keep(alike, "close features")
        unverified = sum((q, b) not in found for q, b, _ in pairs)
    else:
        left_out["close features"] = "no features were given"
    rings = read_footprints(split.test.paths), read_footprints(split.train.paths)
    if any(rings[0]) and any(rings[1]):
        keep(
            (
                (q, b, fraction, f"{100 * fraction:.0f}% of the footprint")
                for q, b, fraction in footprint_overlaps(*rings)
            ),
            "footprint",
        )
    else:
        left_out["footprint"] = "no georeference"
    order = {reason: i for i, reason in enumerate(REASONS)}
    leaks = sorted(found.values(), key=lambda leak: (order[leak.reason], -leak.strength, leak.query))
    settings = {
        "hash_bits_of_128": HASH_BITS,
        "correlation": SAME_PICTURE,
        "cosine": threshold,
        "gsd_levels": [round(float(level), 4) for level in levels],
        "skipped": left_out,
    }
    return LeakageReport(leaks, len(split.test.indices), len(split.train.indices), unverified, settings)


def exclude_leaks(evaluation: EvaluationResult, leakage: LeakageReport) -> EvaluationResult | None:
    """The same evaluation over the queries that do not leak; None where none leaks or none is left."""
    keep = np.array([path not in leakage.leaked for path in evaluation.paths], dtype=bool)
    if keep.all() or not keep.any():
        return None
    count = int((~keep).sum())
    return restrict_evaluation(evaluation, keep, f"{count:,} queries that the bank knows are left out")


def add_leakage_note(evaluation: EvaluationResult, leakage: LeakageReport) -> None:
    """Put the finding among the evaluation's notes, where it leaks."""
    if leakage.leaks:
        evaluation.notes.append(f"leak: {leakage.sentence}")


# ------------------------------------------------------------------------------------------------ one look


@dataclass(slots=True)
class _ImageDescriptors:
    """What one pass over a part keeps of each image; position i is `part.indices[i]`."""

    thumbs: Tensor  # [N, S, S] float16; NaN where the image cannot be read
    level: NDArray[np.int64]  # [N] GSD level of the image itself
    landmarks: dict[int, shared_ground.Keypoints]  # by level


def _levels(split: TrainTestSplit) -> NDArray[np.float64]:
    """GSD levels of both parts; empty where scale is unknown, or as manifold as the images."""
    gsds = []
    for part in (split.train, split.test):
        known = getattr(part.dataset, "gsds", None)
        if known is None:
            return np.array([])
        gsds.append(np.asarray(known, dtype=np.float64)[part.indices])
    return shared_ground.gsd_levels(np.concatenate(gsds))


def _look(
    part: EvalSubset,
    levels: NDArray[np.float64],
    batch_size: int,
    ground: bool,
    progress: Progress | None,
    done: int,
    total: int,
) -> _ImageDescriptors:
    position = {int(index): i for i, index in enumerate(part.indices)}
    thumbs = torch.full((len(part.indices), 64, 64), float("nan"), dtype=torch.float16)
    own = np.zeros(len(part.indices), dtype=np.int64)
    marks: dict[int, list[shared_ground.Keypoints]] = defaultdict(list)
    for start in range(0, len(part.indices), batch_size):
        chunk = part.indices[start : start + batch_size]
        batch = part.dataset.get_batch(chunk)
        if len(batch["image"]):
            shades = standardized_gray(batch)
            where = [position[int(i)] for i in batch["index"]]
            thumbs[where] = thumbnails(shades).half()
            gsd = batch["gsd"].double().numpy()
            if len(levels):
                own[where] = np.abs(np.log(gsd[:, None] / levels[None])).argmin(axis=1)
            if ground and min(shades.shape[1:]) >= shared_ground.SMALLEST:
                for level, found in shared_ground.describe_keypoints(shades, gsd.tolist(), where, levels):
                    marks[level].append(found)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    return _ImageDescriptors(
        thumbs, own, {level: shared_ground.concat_keypoints(found) for level, found in marks.items()}
    )


def _copies(test: _ImageDescriptors, train: _ImageDescriptors) -> list[tuple[int, int, float, str]]:
    suspects = close_hashes(test.thumbs.float(), train.thumbs.float(), bits=HASH_BITS)
    values = detail_correlations(test.thumbs, train.thumbs, suspects)
    return [
        (q, b, value, f"{ORIENTATIONS[turn]}, pixels correlate {value:.2f}")
        for (q, b, turn), value in zip(suspects, values, strict=True)
        if value >= SAME_PICTURE
    ]


def _shared(
    split: TrainTestSplit, test: _ImageDescriptors, train: _ImageDescriptors, levels: NDArray[np.float64]
) -> list[tuple[int, int, float, str]]:
    known: dict[tuple[str, int], Tensor] = {}

    def shade_of(image_size: str, i: int) -> Tensor:
        if (image_size, i) not in known:
            if len(known) >= 512:
                known.clear()
            part = split.test if image_size == "query" else split.train
            known[image_size, i] = standardized_gray(part.dataset.get_batch(part.indices[i : i + 1]))[0]
        return known[image_size, i]

    best: dict[tuple[int, int], shared_ground.ImageOverlap] = {}
    for level in sorted(test.landmarks.keys() & train.landmarks.keys()):

        def factors(q: int, b: int, level: int = level) -> tuple[float, float]:
            if not len(levels):
                return 1.0, 1.0
            return levels[level] / levels[test.level[q]], levels[level] / levels[train.level[b]]

        suspects = shared_ground.match_keypoints(test.landmarks[level], train.landmarks[level])
        for overlap in shared_ground.verify_overlaps(sorted(suspects), shade_of, factors):
            pair = overlap.query, overlap.train
            if pair not in best or overlap.correlation > best[pair].correlation:
                best[pair] = overlap
    return [
        (
            q, b, overlap.correlation,
            f"{100 * overlap.fraction:.0f}% of the ground"
            + (f" at {overlap.scale:.3g} times the GSD" if overlap.scale > 1.03 else "")
            + f", pixels correlate {overlap.correlation:.2f}",
        )
        for (q, b), overlap in sorted(best.items())
    ]  # fmt: skip


def _close(test: Tensor, train: Tensor, *, sample: int = 2000) -> tuple[list[tuple[int, int, float]], float]:
    """Pairs closer than 99% of the train split's images are to their nearest other one, and that cosine.

    At most three a query. The train split's own distribution is the measure, because what counts as close
    differs from model to model.
    """
    unit, asked = F.normalize(train.float(), dim=1), F.normalize(test.float(), dim=1)
    chosen = torch.from_numpy(np.random.default_rng(0).permutation(len(unit))[:sample])
    within = unit[chosen] @ unit.T
    within[torch.arange(len(chosen)), chosen] = -2.0
    threshold = float(torch.quantile(within.max(dim=1).values.double(), 0.99))
    pairs = []
    for start in range(0, len(asked), 1024):
        near = (asked[start : start + 1024] @ unit.T).topk(min(3, len(unit)), dim=1)
        for row, column in (near.values > threshold).nonzero().tolist():
            pairs.append((start + row, int(near.indices[row, column]), float(near.values[row, column])))
    return pairs, round(threshold, 6)


def _verified_alike(
    pairs: list[tuple[int, int, float]], test: _ImageDescriptors, train: _ImageDescriptors
) -> list[tuple[int, int, float, str]]:
    found = []
    for start in range(0, len(pairs), 256):
        part = pairs[start : start + 256]
        first = test.thumbs[[q for q, _, _ in part]].float()
        values, turns = best_orientations(first, train.thumbs[[b for _, b, _ in part]].float())
        for (q, b, cosine), value, turn in zip(part, values.tolist(), turns.tolist(), strict=True):
            if value >= SAME_PICTURE:
                seen = f"cosine {cosine:.3f}, {ORIENTATIONS[turn]}, pixels correlate {value:.2f}"
                found.append((q, b, value, seen))
    return found
