"""The vote of the neighbors: against plain numpy, scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from swath.errors import SwathError
from swath.evaluation.protocols.knn_classifier import (
    Standardizer,
    knn_predict,
    knn_scores,
    standardize_features,
)


def clusters(count: int, dim: int = 16, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, dim, generator=torch.Generator().manual_seed(9))
    labels = torch.randint(classes, (count,), generator=generator)
    return centers[labels] + 1.5 * torch.randn(count, dim, generator=generator), labels


def plain(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int, k: int, t: float
) -> np.ndarray:
    """The protocol written down as the paper says it, a query at a time."""
    train = train.astype(np.float64) / np.linalg.norm(train.astype(np.float64), axis=1, keepdims=True)
    scores = np.zeros((len(test), classes))
    for i, query in enumerate(test.astype(np.float64)):
        similarity = train @ (query / np.linalg.norm(query))
        for j in np.argsort(-similarity)[:k]:
            scores[i, labels[j]] += math.exp(similarity[j] / t)
    return scores / scores.sum(1, keepdims=True)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 0.01), (300, 1.0)])
def test_agrees_with_plain_numpy(k: int, temperature: float) -> None:
    (train, labels), (test, _) = clusters(300), clusters(70, seed=1)
    found = knn_scores(train, labels, test, classes=5, k=k, temperature=temperature)
    expected = plain(train.numpy(), labels.numpy(), test.numpy(), 5, k, temperature)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


def test_agrees_with_scikit_learn() -> None:
    (train, labels), (test, truth) = clusters(400), clusters(100, seed=1)
    reference = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(train.double().numpy(), labels.numpy())
    found = knn_scores(train, labels, test, classes=5)
    np.testing.assert_allclose(found.numpy(), reference.predict_proba(test.double().numpy()), atol=1e-6)
    predicted = knn_predict(train, labels, test, classes=5).numpy()
    assert (predicted == reference.predict(test.double().numpy())).all()
    assert 0.5 < (predicted == truth.numpy()).mean() < 1.0, "neither trivial nor hopeless"


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_change_nothing(chunk: int) -> None:
    (train, labels), (test, _) = clusters(100), clusters(30, seed=1)
    whole = knn_scores(train, labels, test, classes=5)
    assert torch.allclose(knn_scores(train, labels, test, classes=5, chunk=chunk), whole, rtol=0, atol=1e-12)


def test_three_neighbors_by_hand() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.6, 0.8]])
    scores = knn_scores(
        train, torch.tensor([0, 1, 2, 1]), torch.tensor([[5.0, 0.0]]), classes=3, k=3, temperature=1.0
    )
    weight = [math.exp(1.0), math.exp(0.6) + math.exp(0.0), 0.0]  # the opposite one is the fourth
    assert scores[0].tolist() == pytest.approx([w / sum(weight) for w in weight])


def test_length_of_features_does_not_matter() -> None:
    (train, labels), (test, _) = clusters(100), clusters(30, seed=1)
    scaled = train * torch.linspace(0.1, 1e4, 100).unsqueeze(1)
    expected = knn_scores(train, labels, test, classes=5)
    assert torch.allclose(knn_scores(scaled, labels, test * 1e-3, classes=5), expected, rtol=0, atol=1e-6)


def test_image_without_features_does_not_break_the_others() -> None:
    (train, labels), (test, _) = clusters(100), clusters(3, seed=1)
    test[1] = 0
    assert torch.isfinite(knn_scores(train, labels, test, classes=5)).all()


def test_no_queries_give_no_scores() -> None:
    train, labels = clusters(30)
    assert knn_scores(train, labels, train[:0], classes=5).shape == (0, 5)


def test_misuse_is_refused() -> None:
    train, labels = clusters(10)
    with pytest.raises(SwathError, match="k = 20 neighbors cannot be had of a bank of 10"):
        knn_scores(train, labels, train, classes=5)
    with pytest.raises(SwathError, match="temperature"):
        knn_scores(train, labels, train, classes=5, k=1, temperature=0.0)
    train[3, 2] = float("nan")
    with pytest.raises(SwathError, match="NaN or infinity"):
        knn_scores(train, labels, train, classes=5, k=1)


def test_standardizing_uses_the_bank_alone() -> None:
    (train, _), (test, _) = clusters(200), clusters(50, seed=1)
    a, b = standardize_features(train * 7 + 3, test * 7 + 3)
    assert torch.allclose(a.mean(0), torch.zeros(16, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(a.std(0, correction=0), torch.ones(16, dtype=torch.float64))
    assert torch.allclose(Standardizer(train * 7 + 3)(test[:5] * 7 + 3), b[:5]), (
        "queries do not see each other"
    )


def test_constant_dimensions_become_zero() -> None:
    train = torch.tensor([[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]])
    (ready,) = standardize_features(train + torch.tensor([0.0, 1e-9]))
    assert ready[:, 1].tolist() == [0, 0, 0]
    assert torch.isfinite(ready).all()
