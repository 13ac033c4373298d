"""The scoring protocols: kNN over scales, and the linear probe; each says all that a number depends on.

kNN over scales (Scale-MAE, section 4, and its released evaluation): images are area-resized to each side,
features are L2-normalized, the k = 20 most similar train images vote with weight exp(cosine / 0.07).

- *symmetric*: train and test split at the same side (what the released code does);
- *asymmetric*: the train split at its largest side, only the queries reduced (what the paper's text
describes).

A protocol's `id` changes whenever the same settings would give other figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.features.extract import supported_image_sizes
from swath.evaluation.features.protocol import FeatureExtractor, Progress
from swath.evaluation.protocols.knn_classifier import check_k, knn_scores, standardize_features
from swath.evaluation.protocols.logistic_regression import fit_linear_probe
from swath.evaluation.protocols.penalty_search import FRACTION, GRID, fit_with_selected_c
from swath.evaluation.protocols.results import EvaluationResult, MeanScore, PairedComparison, Score
from swath.evaluation.protocols.setup import (
    ProtocolContext,
    SplitFeatures,
    default_image_sizes,
    extract_split_features,
    native_image_size,
)

__all__ = [
    "EvaluationResult",
    "MeanScore",
    "PairedComparison",
    "Score",
    "SplitFeatures",
    "default_image_sizes",
    "evaluate_knn",
    "evaluate_linear",
    "extract_split_features",
    "supported_image_sizes",
]


def evaluate_knn(
    extractors: Sequence[FeatureExtractor],
    split: TrainTestSplit,
    *,
    image_sizes: Sequence[int] | None = None,
    asymmetric: bool = True,
    standardize: bool = True,
    k: int = 20,
    temperature: float = 0.07,
    protocol: str = "swath.knn/1",
    batch_size: int = 64,
    progress: Progress | None = None,
    extracted: SplitFeatures | None = None,
    cache: FeatureCache | None = None,
) -> EvaluationResult:
    """kNN accuracy of feature extractors at several image scales.

    Args:
        extractors: What to score, the one in question first; they see the same images.
        split: Bank and queries.
        image_sizes: Image sides in pixels; default 12.5 to 100% of the native side. Sides that do not fit a
            feature extractor's patch are refused, with the reason in the notes.
        asymmetric: Also score reduced queries against the train split at its largest side.
        standardize: Also score features standardized by the train split ("knn-standardized").
        k: Neighbors.
        temperature: Of the vote.
        protocol: Its id in reports; "scale_mae" for what `ModelFeatureExtractor.scale_mae` describes.
        batch_size: Images at a time.
        progress: Called with (images done, images in all), over both parts.
        extracted: Features of `extract_split` with the same feature extractors, instead of extracting them
            here.
        cache: Where features are looked for, and kept.
    """
    check_k(k, len(split.train.indices))  # before features are made, which may take hours
    settings = {
        "id": protocol,
        "name": "knn",
        "similarity": "cosine",
        "k": k,
        "temperature": temperature,
    }
    with ProtocolContext(
        extractors, split, image_sizes, batch_size, progress, settings, extracted, cache
    ) as ready:
        used, classes = ready.image_sizes, ready.classes
        pairs = [(s, s) for s in used] + ([(s, used[-1]) for s in used[:-1]] if asymmetric else [])
        for extractor in extractors:
            for z in (False, True) if standardize else (False,):
                for test_image_size, train_image_size in pairs:
                    train, test = ready.features(extractor, train_image_size, test_image_size)
                    if z:
                        train, test = standardize_features(train, test)
                    votes = knn_scores(
                        train, ready.train.labels, test, classes=classes, k=k, temperature=temperature
                    )
                    ready.add(
                        extractor,
                        "knn-standardized" if z else "knn",
                        test_image_size,
                        train_image_size,
                        votes,
                    )
    return ready.evaluation


def evaluate_linear(
    extractors: Sequence[FeatureExtractor],
    split: TrainTestSplit,
    *,
    image_sizes: Sequence[int] | None = None,
    c: float | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    extracted: SplitFeatures | None = None,
    cache: FeatureCache | None = None,
) -> EvaluationResult:
    """Linear-probe accuracy: logistic regression on features standardized by the train split, at the same
    side.

    Args:
        extractors: What to score, the one in question first.
        split: The probe is fitted on the train split.
        image_sizes: Image sides in pixels; default the native side.
        c: Inverse strength of the penalty, fixed in advance; None chooses it for each feature extractor and
            side on images held out of the train split (`swath.evaluation.protocols.penalty_search`), never
            on the queries.
        batch_size: Images at a time.
        progress: Called with (images done, images in all).
        extracted: Features of `extract_split` with the same feature extractors, instead of extracting them
            here.
        cache: Where features are looked for, and kept.
    """
    image_sizes = native_image_size(extractors, split) if image_sizes is None else image_sizes
    settings = {
        "id": "swath.linear/2",
        "name": "linear",
        "features": "standardized by the bank",
        "C": c if c is not None else f"of {', '.join(f'{c:g}' for c in GRID)}, on {FRACTION:.0%} of the bank",
        "solver": "L-BFGS to convergence (scikit-learn)",
    }
    with ProtocolContext(
        extractors, split, image_sizes, batch_size, progress, settings, extracted, cache
    ) as ready:
        for extractor in extractors:
            for image_size in ready.image_sizes:
                train, test = ready.features(extractor, image_size, image_size)
                labels, classes = ready.train.labels, ready.classes
                details: dict[str, Any] = {"C": c}
                if c is None:
                    probe, details = fit_with_selected_c(
                        train, labels, classes=classes, groups=ready.train_groups
                    )
                else:
                    probe = fit_linear_probe(train, labels, classes=classes, c=c)
                ready.add(extractor, "linear", image_size, image_size, probe.probabilities(test), **details)
    return ready.evaluation
