"""Everything that is worth knowing about some models on one data set, measured in one pass over its images.

Features of train and test split are made once and serve every look: kNN over scales, linear probe, leakage,
geometry, robustness, retrieved neighbors, the embedding map. `page` tells it as HTML; `write_dossier` keeps
the figures beside it as JSON and CSV.

Legend: N train images, Q queries, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.audit.geometry import EmbeddingStatsReport, evaluate_embedding_stats
from swath.evaluation.audit.leakage import LeakageReport, add_leakage_note, exclude_leaks, find_leaks
from swath.evaluation.audit.robustness import RobustnessReport, evaluate_robustness
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.features.extract import supported_image_sizes
from swath.evaluation.features.protocol import FeatureExtractor, Progress
from swath.evaluation.protocols.fewshot import evaluate_fewshot
from swath.evaluation.protocols.frozen import evaluate_knn, evaluate_linear
from swath.evaluation.protocols.results import EvaluationResult, Score
from swath.evaluation.protocols.setup import (
    SplitFeatures,
    default_image_sizes,
    extract_split_features,
    native_scale,
)
from swath.evaluation.report.tables import command_line, software_versions
from swath.evaluation.report.tsne import MAX_POINTS, tsne

NEIGHBORS = 5


@dataclass(slots=True)
class QueryNeighbors:
    """A query and the train images that a model finds most like it.

    Attributes:
        query: Position in the queries' data set.
        predictions: [5] positions in the train split's data set, the nearest first.
        cosines: [5] similarities.
        right: Whether the vote was.
        prediction: Class that the vote gave.
        truth: Class that it has.
    """

    query: int
    predictions: list[int]
    cosines: list[float]
    right: bool
    prediction: int
    truth: int


@dataclass(slots=True)
class EmbeddingProjection:
    """Two dimensions of a model's features of the queries: shadow and neighborhoods.

    Attributes:
        components: [n, 2] along the two largest principal components.
        fractions: Of the variance, that the two hold.
        neighbors: [n, 2] of a t-SNE.
        divergence: That it leaves.
        labels: [n] classes.
    """

    components: NDArray[np.float64]
    fractions: tuple[float, float]
    neighbors: NDArray[np.float64]
    divergence: float
    labels: NDArray[np.int64]


@dataclass(slots=True)
class ReportData:
    """What was found; the parts that do not apply are None or empty, with the reason in `notes`.

    `pictures` says whether the page may show images of the data.
    """

    title: str
    models: list[str]
    split: TrainTestSplit
    evaluations: list[EvaluationResult]
    clean: list[EvaluationResult | None]
    leakage: LeakageReport
    geometry: EmbeddingStatsReport
    robustness: RobustnessReport | None
    neighborhoods: dict[str, list[QueryNeighbors]]
    maps: dict[str, EmbeddingProjection]
    command: str
    notes: list[str] = field(default_factory=list)
    images: bool = True
    versions: dict[str, str] = field(default_factory=software_versions)

    @property
    def knn(self) -> EvaluationResult:
        """The evaluation by neighbors, which is always there."""
        return self.evaluations[0]

    def origin(self, protocol: dict[str, Any], config_hash: str) -> dict[str, str]:
        """What a figure carries: protocol, hashes, versions, command."""
        return {
            "protocol": str(protocol["id"]),
            "config_hash": config_hash,
            "split_hash": self.split.hash,
            "software": " ".join(f"{name}={version}" for name, version in self.versions.items()),
            "command": self.command,
        }


def collect_report_data(
    models: Sequence[FeatureExtractor],
    baselines: Sequence[FeatureExtractor],
    split: TrainTestSplit,
    *,
    title: str = "",
    image_sizes: Sequence[int] | None = None,
    k: int = 20,
    fewshot: bool = True,
    robustness: bool = True,
    corruptions: Sequence[str] | None = None,
    robust_limit: int | None = 400,
    images: bool = True,
    cache: FeatureCache | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    command: str | None = None,
) -> ReportData:
    """Measure everything.

    Args:
        models: In question; the first is the one that the page begins with.
        baselines: Beside them; they must not share a name with a model.
        split: Bank and queries.
        title: Of the page; default the data set's folder.
        image_sizes: Image sides in pixels; default 12.5 to 100% of the native side.
        k: Neighbors that vote.
        fewshot: Whether to draw curves over the number of labeled images.
        robustness: Whether to degrade the queries (many passes over them).
        corruptions: Which; default all that make sense for the sensor.
        robust_limit: Queries that robustness looks at, at most.
        images: Whether the page shows images of the data; without, it can be passed on where they cannot.
        cache: Where features are looked for, and kept.
        batch_size: Images at a time.
        progress: Called with (images done, images in all) while features are made.
        command: That makes it again; default this process's.
    """
    if not models:
        raise SwathError("a report is about one model at least")
    everything = [*models, *baselines]
    if image_sizes is None:
        image_sizes = default_image_sizes(
            native_scale(split.train)[0], max(f.min_image_size for f in everything)
        )
    used, refused = supported_image_sizes(sorted(set(image_sizes)), everything)
    if not used:
        raise SwathError("no image scale is left: " + "; ".join(refused))
    largest = used[-1]
    found = extract_split_features(
        everything, split, used, batch_size=batch_size, progress=progress, cache=cache
    )
    knn = evaluate_knn(everything, split, image_sizes=used, k=k, extracted=found)
    linear = evaluate_linear(everything, split, image_sizes=[largest], extracted=found)
    knn.refused += [image_size for image_size in sorted(set(image_sizes)) if image_size not in used]
    notes = [f"scale refused: {reason}" for reason in refused]
    leakage = _leaks(split, found, models[0].name, largest, batch_size, notes)
    several = knn.labels.ndim == 2
    evaluations = [knn, linear]
    if fewshot and several:
        notes.append("few-shot curves are drawn of images with one label each")
    elif fewshot:
        evaluations.append(evaluate_fewshot(everything, split, image_sizes=[largest], extracted=found))
    for evaluation in evaluations:
        add_leakage_note(evaluation, leakage)
    robust = None
    if robustness and several:
        notes.append("robustness is scored by top-1 accuracy and left out where images have several labels")
    elif robustness:
        robust = evaluate_robustness(
            everything, split, corruptions=corruptions, image_size=largest, k=k, max_images=robust_limit,
            batch_size=batch_size, train=found.train, cache=cache,
        )  # fmt: skip
    names = [model.name for model in models]
    return ReportData(
        title or _title(split),
        names,
        split,
        evaluations,
        [exclude_leaks(evaluation, leakage) for evaluation in evaluations],
        leakage,
        evaluate_embedding_stats(everything, split.train, image_sizes=used, extracted=found.train),
        robust,
        {} if several else {name: _neighborhoods(found, knn, name, largest) for name in names},
        {} if several else {name: _map(found, name, largest) for name in names},
        command or command_line(),
        notes,
        images,
    )


def best_classifier(evaluation: EvaluationResult, features: str) -> str:
    """The classifier that serves a feature extractor best."""
    kinds = [kind for name, kind in evaluation.rows if name == features]
    return max(kinds, key=lambda kind: evaluation.mean(features, kind).accuracy)


def largest_score(evaluation: EvaluationResult, features: str, classifier: str) -> Score:
    """The score at the largest symmetric side."""
    return max(
        evaluation.select(classifier, features, symmetric=True), key=lambda score: score.test_image_size
    )


def _title(split: TrainTestSplit) -> str:
    """Name of the folder that all images share; of the one above where that is called "images" or so."""
    import os

    paths = [*split.train.paths[:200], *split.test.paths[:200]]
    folder = Path(os.path.commonpath(paths)) if len(paths) > 1 else Path("images")
    generic = folder.name.casefold() in ("images", "image", "imgs", "chips", "tiles", "data")
    return (folder.parent.name or folder.name) if generic else folder.name


def _leaks(
    split: TrainTestSplit, found: SplitFeatures, name: str, image_size: int, batch_size: int, notes: list[str]
) -> LeakageReport:
    whole = len(found.train.indices) == len(split.train.indices)
    whole = whole and len(found.test.indices) == len(split.test.indices)
    features = (
        (found.train.features[name, image_size], found.test.features[name, image_size]) if whole else None
    )
    if not whole:
        notes.append("some images cannot be read, so leaks were not searched by features")
    return find_leaks(split, features=features, batch_size=batch_size)


def _neighborhoods(
    found: SplitFeatures, evaluation: EvaluationResult, name: str, image_size: int, each: int = 4
) -> list[QueryNeighbors]:
    """Some queries that the vote got right, drawn evenly, and the wrong ones that it was surest of."""
    kind = best_classifier(evaluation, name)
    score = largest_score(evaluation, name, kind)
    assert score.predictions is not None
    assert score.confidence is not None
    right, wrong = np.flatnonzero(score.hits), np.flatnonzero(~score.hits.astype(bool))
    good = right[np.linspace(0, len(right) - 1, min(each, len(right))).astype(int)] if len(right) else right
    bad = wrong[np.argsort(-score.confidence[wrong], kind="stable")][:each]
    train, test = found.train.features[name, image_size], found.test.features[name, image_size]
    if kind.endswith("-z"):
        from swath.evaluation.protocols.knn_classifier import standardize_features

        train, test = standardize_features(train, test)
    rows = []
    for row in [*good.tolist(), *bad.tolist()]:
        near = _nearest(test[row], train)
        rows.append(
            QueryNeighbors(
                int(found.test.indices[row]),
                [int(found.train.indices[i]) for i in near[1]],
                near[0],
                bool(score.hits[row]),
                int(score.predictions[row]),
                int(evaluation.labels[row]),
            )
        )
    return rows


def _nearest(query: Tensor, train: Tensor) -> tuple[list[float], list[int]]:
    cosine = F.normalize(train.double(), dim=1) @ F.normalize(query.double(), dim=0)
    top = cosine.topk(min(NEIGHBORS, len(cosine)))
    return top.values.tolist(), top.indices.tolist()


def _map(found: SplitFeatures, name: str, image_size: int) -> EmbeddingProjection:
    features, labels = found.test.features[name, image_size], found.test.labels
    step = max(1, -(-len(features) // min(MAX_POINTS, 1000)))
    features, labels = features[::step], labels[::step]
    unit = F.normalize(features.double(), dim=1)
    u, s, _ = torch.linalg.svd(unit - unit.mean(dim=0), full_matrices=False)
    fractions = (s.square() / s.square().sum().clamp_min(1e-30))[:2].tolist()
    if len(features) >= 5:
        points, divergence = tsne(features)
    else:
        points, divergence = u[:, :2] * s[:2], float("nan")
    return EmbeddingProjection(
        (u[:, :2] * s[:2]).numpy(), (fractions[0], fractions[-1]), points.numpy(), divergence, labels.numpy()
    )
