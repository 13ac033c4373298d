"""Weighted k-nearest-neighbor classification on frozen features (Wu et al. 2018; Scale-MAE, section 4).

The label of a query is voted by its k most similar train images, each with weight exp(cosine / temperature).
No parameter is fitted, so the score speaks of the features alone.

Legend: N train images, Q queries, D feature dimensions, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from swath.errors import SwathError


def check_k(k: int, images: int) -> None:
    """Raise SwathError unless a train split of so many images has k neighbors."""
    if not 0 < k <= images:
        raise SwathError(f"k = {k} neighbors cannot be had of a bank of {images} images; choose another k")


def knn_scores(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Class scores: the sum of exp(cosine / temperature) over the neighbors of each class.

    Computed in double precision: at a temperature of .07 an error in the similarity grows fourteenfold.

    Args:
        train: [N, D] features.
        train_labels: [N] class indices below `classes`, or [N, K] 0 and 1 for images of several labels.
        test: [Q, D] features.
        classes: Number of classes or labels K.
        k: Neighbors that vote.
        temperature: Of the vote; small values listen to the nearest.
        chunk: Queries at a time (memory: chunk x N numbers); the result does not depend on it.

    Returns:
        [Q, K] float64, each weighed by the sum of all weights (which changes no ranking and cannot
        overflow): a probability of each class, or of each label.

    Raises:
        SwathError: Fewer train images than k, or features that are not finite.
    """
    check_k(k, len(train))
    if not temperature > 0:
        raise SwathError(f"the temperature of the vote is a positive number, not {temperature:g}")
    for features in (train, test):
        if not bool(torch.isfinite(features).all()):
            raise SwathError("features hold NaN or infinity: nothing can be said about their neighbors")
    train = F.normalize(train.double(), dim=1)
    several = train_labels.ndim == 2
    votes = (train_labels if several else F.one_hot(train_labels.to(torch.int64), classes)).double()
    scores = []
    for part in torch.split(test, chunk):
        similarity, neighbor = (F.normalize(part.double(), dim=1) @ train.T).topk(k, dim=1)
        weight = (similarity / temperature).softmax(dim=1)
        scores.append(torch.einsum("qk,qkc->qc", weight, votes[neighbor]))
    return torch.cat(scores) if scores else torch.empty(0, classes, dtype=torch.float64)


def knn_predict(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Tensor:
    """[Q] predicted class indices; arguments as for `knn_scores`."""
    scores = knn_scores(train, train_labels, test, classes=classes, k=k, temperature=temperature)
    return scores.argmax(dim=1)


class Standardizer:
    """Zero mean and unit variance a dimension, by the statistics of the train split and of nothing else.

    Dimensions that are constant over the train split become 0.

    Args:
        train: [N, D] features.
    """

    def __init__(self, train: Tensor) -> None:
        values = train.double()
        self.mean, std = values.mean(dim=0), values.std(dim=0, correction=0)
        # Relative to the mean: a constant computed in float32 has a spread of rounding errors.
        varies = std > 1e-6 * (self.mean.abs() + 1e-12)
        self.scale = torch.where(varies, 1 / std.clamp_min(1e-30), torch.zeros_like(std))

    def __call__(self, features: Tensor) -> Tensor:
        """[Q, D] float64."""
        return (features.double() - self.mean) * self.scale


def standardize_features(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Standardize both by the statistics of the train split; see `Standardizer`."""
    by_bank = Standardizer(train)
    return tuple(by_bank(features) for features in (train, *others))
