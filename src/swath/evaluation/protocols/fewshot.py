"""Few-shot curves: how good a classifier is that has seen n labeled images of each class, for rising n.

For every n, several draws of n images per class are taken from the train split; the classifier learns from
these alone and is scored on all queries. All feature extractors see the same draws, so differences between
them pair.

Legend: N train images, Q queries, D feature dimensions, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.features.protocol import FeatureExtractor, Progress
from swath.evaluation.protocols.logistic_regression import fit_linear_probe
from swath.evaluation.protocols.results import EvaluationResult
from swath.evaluation.protocols.scoring import score_repeats
from swath.evaluation.protocols.setup import ProtocolContext, SplitFeatures, native_image_size

Classifier = Literal["linear", "centroid"]
SHOTS = (1, 2, 5, 10, 20, 50, 100)


def evaluate_fewshot(
    extractors: Sequence[FeatureExtractor],
    split: TrainTestSplit,
    *,
    image_sizes: Sequence[int] | None = None,
    shots: Sequence[int] | None = None,
    repeats: int = 10,
    classifiers: Sequence[Classifier] = ("centroid", "linear"),
    c: float = 0.1,
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress | None = None,
    extracted: SplitFeatures | None = None,
    cache: FeatureCache | None = None,
) -> EvaluationResult:
    """Accuracy with n labeled images per class; the classifier of a score is called "linear@5" for n = 5.

    Args:
        extractors: What to score, the one in question first.
        split: Draws are taken from the train split.
        image_sizes: Image sides in pixels; default the native side.
        shots: Numbers n of images per class; default 1, 2, 5, 10, 20, 50, 100 as far as every class has as
            many. One that is requested and not to be had is refused, with the reason in the notes.
        repeats: Draws for each n.
        classifiers: ``centroid``: the nearest class mean by cosine, features centered by the mean of the
            draw. ``linear``: logistic regression on features standardized by the draw.
        c: Inverse strength of the linear classifier's penalty; fixed, as few images leave none to validate.
        seed: Of the draws.
        batch_size: Images at a time.
        progress: Called with (images done, images in all).
        extracted: Features of `extract_split` with the same feature extractors, instead of extracting them
            here.
        cache: Where features are looked for, and kept.

    Raises:
        SwathError: Images of several labels, or no n that all classes have images for.
    """
    unknown = [name for name in classifiers if name not in ("linear", "centroid")]
    if unknown or not classifiers:
        raise SwathError(f"few-shot classifiers are linear and centroid, not {unknown or 'none'}")
    if repeats < 1 or any(n < 1 for n in shots or ()):
        raise SwathError("draws, and images a class (shots), are positive numbers")
    settings = {
        "id": "swath.fewshot/1",
        "name": "fewshot",
        "draws": repeats,
        "seed": seed,
        "C": c,
        "centroid": "cosine to class means, centered by the mean of the draw",
        "linear": "logistic regression on features standardized by the draw",
    }
    image_sizes = native_image_size(extractors, split) if image_sizes is None else image_sizes
    with ProtocolContext(
        extractors, split, image_sizes, batch_size, progress, settings, extracted, cache
    ) as ready:
        if ready.several:
            raise SwathError("few-shot curves need one class an image; these images have several labels each")
        labels = ready.train.labels
        possible = _possible(ready, shots)
        evaluation = ready.evaluation
        evaluation.protocol |= {
            "shots": possible,
            "interval": "95%, percentile bootstrap over draws and queries, 1,000 resamples",
        }
        chosen = {n: [draw_shots(labels.numpy(), n, seed, turn) for turn in range(repeats)] for n in possible}
        truth = ready.test.labels
        for extractor in extractors:
            for image_size in ready.image_sizes:
                train, test = ready.features(extractor, image_size, image_size)
                for kind in classifiers:
                    for n in possible:
                        hits = [
                            _predict(kind, train[drawn], labels[drawn], test, ready.classes, c) == truth
                            for drawn in chosen[n]
                        ]
                        head = {
                            "features": extractor.name,
                            "classifier": f"{kind}@{n}",
                            "test_image_size": image_size,
                            "train_image_size": image_size,
                        }
                        details = {"shots": n, "by_draw": [round(float(h.double().mean()), 6) for h in hits]}
                        found = score_repeats(head, torch.stack(hits).numpy(), details=details)
                        evaluation.scores.append(found)
    return ready.evaluation


def draw_shots(labels: NDArray[np.int64], n: int, seed: int, turn: int) -> NDArray[np.int64]:
    """[K n] positions of n images of each class that occurs; draws of more images hold those of fewer."""
    generator = np.random.default_rng([seed, turn])
    order = generator.permutation(len(labels))
    return np.concatenate([order[labels[order] == label][:n] for label in np.unique(labels)])


def _possible(ready: ProtocolContext, requested: Sequence[int] | None) -> list[int]:
    """Numbers of shots that every class of the train split has images for."""
    counts = np.bincount(ready.train.labels.numpy(), minlength=ready.classes)
    counts = np.where(counts == 0, counts.max() + 1, counts)  # classes without train images have a note
    minimum = int(counts.argmin())
    names = ready.evaluation.protocol["classes"] or [str(i) for i in range(ready.classes)]
    asked = sorted(set(requested or SHOTS))
    possible = [n for n in asked if n <= counts[minimum]]
    refused = [n for n in asked if n > counts[minimum]]
    reason = f"class {names[minimum]} has {counts[minimum]} images in the bank"
    if not possible:
        raise SwathError(f"no few-shot score can be had: {reason}")
    if refused and requested is not None:
        ready.evaluation.notes.append(f"shots refused: {', '.join(map(str, refused))}, because {reason}")
    return possible


def _predict(kind: Classifier, train: Tensor, labels: Tensor, test: Tensor, classes: int, c: float) -> Tensor:
    """[Q] class indices."""
    if kind == "linear":
        return fit_linear_probe(train, labels, classes=classes, c=c).predict(test)
    mean = train.double().mean(dim=0)
    known = torch.unique(labels)
    centers = torch.stack([(train[labels == label].double() - mean).mean(dim=0) for label in known])
    similar = F.normalize(test.double() - mean, dim=1) @ F.normalize(centers, dim=1).T
    nearest: Tensor = known[similar.argmax(dim=1)]
    return nearest
