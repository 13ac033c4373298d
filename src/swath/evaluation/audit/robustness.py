"""How a score falls when the queries get worse: haze, noise, stripes, lost bands, blur, holes, turns.

Only the queries suffer; the train split stays clean, as an archive does when one asks it with a bad picture.
A model that scores higher on clean images may fall faster, so every strength is compared with the clean
score on the same queries, and with the baselines.

Legend: Q queries, N train images, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.audit.corruptions import DEGRADATIONS, FORMAT, corruptions_for
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.buffer import FeatureBuffer
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.features.extract import (
    concat_chunks,
    extract_features,
    resize_batch,
    supported_image_sizes,
)
from swath.evaluation.features.protocol import FeatureExtractor, FeatureSet, Progress
from swath.evaluation.measures.intervals import bootstrap_interval, paired_difference
from swath.evaluation.protocols.config_hash import config_hash
from swath.evaluation.protocols.knn_classifier import Standardizer, knn_predict
from swath.evaluation.protocols.setup import default_image_sizes, native_scale
from swath.files import atomic_path, write_json

CLEAN = "clean"


@dataclass(slots=True)
class RobustnessScore:
    """One score on queries that were made worse.

    Attributes:
        features: Featurizer name.
        corruption: Its name; "clean" for the queries as they are.
        strength: Its strength; 0 for clean.
        accuracy: kNN top-1, 0 to 1.
        low: Lower end of its 95% bootstrap interval over queries.
        high: Upper end.
        loss: Clean accuracy less this one, on the same queries.
        loss_low: Lower end of the paired 95% interval of that.
        loss_high: Upper end.
        hits: [Q] bool.
    """

    features: str
    corruption: str
    strength: float
    accuracy: float
    low: float
    high: float
    loss: float
    loss_low: float
    loss_high: float
    hits: NDArray[np.bool_] = field(repr=False)


@dataclass(slots=True)
class RobustnessReport:
    """Scores against strength.

    Attributes:
        protocol: JSON-safe: everything that the figures depend on.
        scores: Clean ones first.
        notes: What a reader should know, degradations that were refused among it.
    """

    protocol: dict[str, Any]
    scores: list[RobustnessScore]
    notes: list[str]

    @property
    def names(self) -> list[str]:
        """Feature extractors in order."""
        return list(dict.fromkeys(score.features for score in self.scores))

    @property
    def corruptions(self) -> list[str]:
        """Degradations in order, without "clean"."""
        return [d for d in dict.fromkeys(s.corruption for s in self.scores) if d != CLEAN]

    @property
    def config_hash(self) -> str:
        """12 hex digits over everything in the protocol."""
        return config_hash(self.protocol)

    def curve(self, features: str, corruption: str) -> list[RobustnessScore]:
        """Clean and then every strength, ascending."""
        requested = (CLEAN, corruption)
        found = [s for s in self.scores if s.features == features and s.corruption in requested]
        return sorted(found, key=lambda score: score.strength)

    def mean_loss(self, features: str, corruption: str) -> float:
        """Loss of accuracy, averaged over the strengths."""
        return float(np.mean([s.loss for s in self.curve(features, corruption) if s.strength > 0]))

    def sentence(self) -> str:
        """What hurts the first feature extractor most, and what least."""
        first = self.names[0]
        losses = sorted((self.mean_loss(first, d), d) for d in self.corruptions)
        (minimum, kind), (max_count, other) = losses[0], losses[-1]
        if len(losses) == 1:
            return f"{first} loses {100 * max_count:.1f} points by {other}, mean over its strengths."
        return (
            f"{first} loses most by {other} ({100 * max_count:.1f} points, mean over its strengths) and "
            "least by "
            f"{kind} ({100 * minimum:.1f})."
        )

    def write(self, folder: str | Path, **about: Any) -> list[Path]:
        """``robustness.json`` and ``robustness.png`` in `folder`; `about` is added to the first."""
        folder = Path(folder)
        rows = []
        for score in self.scores:
            row = asdict(score)
            row.pop("hits")
            rows.append({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
        write_json(
            folder / "robustness.json",
            {
                **about,
                "config_hash": self.config_hash,
                "settings": self.protocol,
                "scores": rows,
                "notes": self.notes,
            },
        )
        return [folder / "robustness.json", plot_robustness(self, folder / "robustness.png")]


def evaluate_robustness(
    extractors: Sequence[FeatureExtractor],
    split: TrainTestSplit,
    *,
    corruptions: Sequence[str] | None = None,
    image_size: int | None = None,
    k: int = 20,
    temperature: float = 0.07,
    standardize: bool = False,
    max_images: int | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    train: FeatureSet | None = None,
    cache: FeatureCache | None = None,
) -> RobustnessReport:
    """kNN accuracy against the strength of each degradation of the queries.

    Args:
        extractors: What to score, the one in question first.
        split: Bank and queries, of one label an image.
        corruptions: Names; default all that make sense for the sensor.
        image_size: Of the images in pixels, after the degradation; default the native side.
        k: Neighbors that vote.
        temperature: Of the vote.
        standardize: Standardize features by the train split ("knn-standardized").
        max_images: Look at this many queries, drawn evenly; default all. Every strength is a pass over them.
        batch_size: Images at a time.
        progress: Called with (images done, images in all).
        train: Features of the train split by these feature extractors at `side`, if there are any; without a
            cache the feature extractors have been fitted to them already.
        cache: Where features are looked for, and kept; a killed run goes on from there.

    Raises:
        SwathError: A degradation makes no sense for the sensor; several labels an image; a side that no
            feature extractor takes.
    """
    sensor = split.train.dataset.sensor
    if np.asarray(split.train.labels).ndim != 1:
        raise SwathError("robustness is scored by top-1 accuracy, which needs one label an image")
    chosen, refused = corruptions_for(sensor, corruptions)
    if not chosen:
        raise SwathError("no degradation is left: " + "; ".join(refused))
    if image_size is None:
        image_size = default_image_sizes(
            native_scale(split.train)[0], max(f.min_image_size for f in extractors)
        )[-1]
    _, wrong = supported_image_sizes([image_size], extractors)
    if wrong:
        raise SwathError("; ".join(wrong))
    plan = [(CLEAN, 0.0)] + [(d.name, level) for d in chosen for level in d.levels(sensor)]
    test = split.test
    if max_images is not None and max_images < len(test.indices):
        # One in so many, in an order that no class or file name rules.
        order = np.random.default_rng(0).permutation(len(test.indices))[:max_images]
        test = EvalSubset(test.dataset, test.indices[np.sort(order)], test.name)
    fresh = 0 if train is not None else len(split.train.indices)
    total = fresh + len(test.indices)
    fitted = set() if train is None or cache is not None else {f.name for f in extractors}

    def fit(extractor: FeatureExtractor) -> None:
        if extractor.name not in fitted:
            fitted.add(extractor.name)
            extractor.fit(split.train, image_size)

    if train is None:
        advance = None if progress is None else (lambda done, _: progress(done, total))
        train = extract_features(
            extractors, split.train, [image_size], batch_size=batch_size, progress=advance, cache=cache,
            train=(split.train, image_size), fit=fit,
        )  # fmt: skip
    shelves = _shelves(extractors, test, plan, image_size, batch_size, cache, (split.train, image_size))
    advance = None if progress is None else (lambda done, _: progress(fresh + done, total))
    features, labels = _worse(extractors, test, plan, image_size, batch_size, shelves, fit, advance)
    classes = int(max(train.labels.max(), labels.max())) + 1
    scores: list[RobustnessScore] = []
    for extractor in extractors:
        known: Tensor = train.features[extractor.name, image_size]
        by_bank = Standardizer(known) if standardize else None
        stored = known if by_bank is None else by_bank(known)
        clean: NDArray[np.bool_] | None = None
        for name, level in plan:
            asked = features[extractor.name, name, level]
            asked = asked if by_bank is None else by_bank(asked)
            prediction = knn_predict(
                stored, train.labels, asked, classes=classes, k=k, temperature=temperature
            )
            hits: NDArray[np.bool_] = (prediction == labels).numpy()
            clean = hits if clean is None else clean
            loss = paired_difference(clean, hits) if name != CLEAN else (0.0, 0.0, 0.0)
            spread = bootstrap_interval(hits)
            scores.append(
                RobustnessScore(extractor.name, name, level, float(hits.mean()), *spread, *loss, hits)
            )
    protocol = {
        "id": "swath.robustness/1",
        "name": "robustness",
        "classifier": "knn-standardized" if standardize else "knn",
        "k": k,
        "temperature": temperature,
        "image_size": image_size,
        "corruptions": {d.name: {"measure": d.measure, "severities": d.levels(sensor)} for d in chosen},
        "of": "the queries, before resizing, in the sensor's unit; the bank is clean",
        "feature_extractors": {f.name: f.settings for f in extractors},
        "sensor": sensor.name,
        "split": split.origin,
        "split_hash": split.hash,
        "train": {"name": split.train.name, "images": len(train.labels)},
        "test": {"name": test.name, "images": len(labels)},
    }
    notes = [*split.notes, *(f"refused: {reason}" for reason in refused)]
    if test is not split.test:
        notes.append(f"{len(test.indices):,} of {len(split.test.indices):,} queries were looked at")
    return RobustnessReport(protocol, scores, notes)


State = tuple[str, str, float]  # feature extractor, degradation, strength


def _shelves(
    extractors: Sequence[FeatureExtractor],
    test: EvalSubset,
    plan: Sequence[tuple[str, float]],
    image_size: int,
    batch_size: int,
    cache: FeatureCache | None,
    train: tuple[EvalSubset, int],
) -> dict[State, FeatureBuffer]:
    """Where the features of every state are kept: a batch a file while a run is under way."""
    if cache is None:
        return {(f.name, *state): FeatureBuffer() for f in extractors for state in plan}
    by_batch = FeatureCache(cache.folder, chunk=batch_size)
    how = f"noise of seed {getattr(test.dataset, 'seed', 0)}, format {FORMAT}"
    return {
        (f.name, name, level): by_batch.entry(
            f, test, image_size, train, None if name == CLEAN else f"{name} {level!r}, {how}"
        )
        for f in extractors
        for name, level in plan
    }


def _worse(
    extractors: Sequence[FeatureExtractor],
    test: EvalSubset,
    plan: Sequence[tuple[str, float]],
    image_size: int,
    batch_size: int,
    shelves: dict[State, FeatureBuffer],
    fit: Callable[[FeatureExtractor], None],
    progress: Progress | None,
) -> tuple[dict[State, Tensor], Tensor]:
    """Features of the queries in every state; each file is read once, and not at all if all is known."""
    sensor, total = test.dataset.sensor, len(test.indices)
    chunks = [range(start, min(start + batch_size, total)) for start in range(0, total, batch_size)]
    kept: list[NDArray[np.int64]] = []
    for number, chunk in enumerate(chunks):
        positions = np.arange(chunk.start, chunk.stop)
        missing = {key for key, entry in shelves.items() if not entry.has(number)}
        if missing:
            batch = test.dataset.get_batch(test.indices[positions])
            whole = not batch.get("problems")
            positions = positions[np.isin(test.indices[positions], batch["index"].numpy())]
            for name, level in plan if len(positions) else []:
                requested = [f for f in extractors if (f.name, name, level) in missing]
                if not requested:
                    continue
                state = batch if name == CLEAN else DEGRADATIONS[name](batch, sensor, level)
                scaled = resize_batch(state, image_size)
                for extractor in requested:
                    fit(extractor)
                    rows = extractor(scaled).float().cpu()
                    shelves[extractor.name, name, level].put(number, rows, whole=whole)
        kept.append(positions)
        if progress is not None:
            progress(chunk.stop, total)
    read = test.indices[np.concatenate(kept)]
    if not len(read):
        raise SwathError(f"none of the {total} {test.name} images could be read")
    labels = torch.as_tensor(np.asarray(test.dataset.labels)[read], dtype=torch.int64)
    return {key: concat_chunks(entry, chunks, kept) for key, entry in shelves.items()}, labels


def plot_robustness(
    report: RobustnessReport, path: str | Path, *, metadata: Mapping[str, str] | None = None
) -> Path:
    """Accuracy against strength, a panel a degradation, a line a feature extractor; PNG at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from swath.evaluation.report.plots import MARKS
    from swath.reporting.charts import COLORS

    kinds = report.corruptions
    columns = min(4, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = Figure(figsize=(2.7 * columns + 1.8, 2.5 * rows + 0.5), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, kind in zip(panels, kinds, strict=False):
        for i, name in reversed(list(enumerate(report.names))):
            curve = report.curve(name, kind)
            x = range(len(curve))
            color = COLORS[i % len(COLORS)]
            if i == 0:
                low, high = [100 * s.low for s in curve], [100 * s.high for s in curve]
                panel.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)
            panel.plot(
                x, [100 * s.accuracy for s in curve], label=name, color=color, marker=MARKS[i % len(MARKS)],
                markersize=5, linewidth=2.2 if i == 0 else 1.2, markeredgecolor="white", markeredgewidth=0.5,
            )  # fmt: skip
        curve = report.curve(report.names[0], kind)
        panel.set_xticks(range(len(curve)), ["clean", *(f"{s.strength:.3g}" for s in curve[1:])], fontsize=7)
        panel.set_title(f"{kind}: {report.protocol['corruptions'][kind]['measure']}", fontsize=8)
        panel.grid(color="#E5E5E5", linewidth=0.8)
        panel.tick_params(labelsize=7, length=2)
        panel.spines[["right", "top"]].set_visible(False)
    for panel in panels[len(kinds) :]:
        panel.set_visible(False)
    panels[0].set_ylabel("top-1 accuracy, %", fontsize=8)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=140, format="png", metadata=dict(metadata or {}))
    return Path(path)
