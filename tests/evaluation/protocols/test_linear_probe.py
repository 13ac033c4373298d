"""The linear probe against scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from swath.errors import SwathError
from swath.evaluation.protocols.logistic_regression import fit_linear_probe, fit_linear_probes


def task(count: int, dim: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, dim, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % classes
    scale = 10 ** torch.linspace(-3, 3, dim)  # features of very different size, as real ones are
    return (centers[labels] + 2 * torch.randn(count, dim, generator=generator)) * scale + 5, labels


@pytest.mark.parametrize("c", [0.001, 0.1, 10.0])
@pytest.mark.parametrize(("count", "dim", "classes"), [(200, 10, 3), (60, 120, 4), (90, 5, 2), (90, 120, 2)])
def test_agrees_with_scikit_learn(c: float, count: int, dim: int, classes: int) -> None:
    (train, labels), (test, _) = task(count, dim, classes), task(50, dim, classes, seed=1)
    probe = fit_linear_probe(train, labels, classes=classes, c=c)
    scaler = StandardScaler().fit(train.double().numpy())
    reference = LogisticRegression(C=c, tol=1e-12, solver="newton-cholesky", max_iter=1000).fit(
        scaler.transform(train.double().numpy()), labels.numpy()
    )
    expected = reference.predict_proba(scaler.transform(test.double().numpy()))
    np.testing.assert_allclose(probe.probabilities(test).numpy(), expected, rtol=0, atol=1e-6)
    assert (probe.predict(test).numpy() == expected.argmax(1)).all()


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_several_labels_agree_with_scikit_learn(c: float) -> None:
    train, _ = task(150, 20, 3)
    test, _ = task(40, 20, 3, seed=1)
    generator = torch.Generator().manual_seed(3)
    logits = (train / train.std(0)) @ torch.randn(20, 4, generator=generator)
    labels = (logits > logits.quantile(0.6, dim=0)).float()
    labels = torch.cat([labels, torch.zeros(150, 1), torch.ones(150, 1)], dim=1)
    probe = fit_linear_probe(train, labels, classes=6, c=c)
    scaler = StandardScaler().fit(train.double().numpy())
    one = LogisticRegression(C=c, tol=1e-12, solver="newton-cholesky", max_iter=1000)
    reference = OneVsRestClassifier(one).fit(scaler.transform(train.double().numpy()), labels[:, :4].numpy())
    expected = reference.predict_proba(scaler.transform(test.double().numpy()))
    found = probe.probabilities(test).numpy()
    np.testing.assert_allclose(found[:, :4], expected, rtol=0, atol=1e-6)
    assert (found[:, 4] == 0).all(), "a label that no image of the bank has"
    assert (found[:, 5] == 1).all(), "a label that every image of the bank has"
    assert (probe.predict(test).numpy() == (found >= 0.5)).all()


def test_classes_of_the_bank_alone_count() -> None:
    """As scikit-learn: a class that the bank lacks has no part in the fit, even if two are left."""
    train, labels = task(90, 5, 2)
    two = fit_linear_probe(train, labels, classes=2).probabilities(train)
    four = fit_linear_probe(train, labels * 2 + 1, classes=4).probabilities(train)
    assert torch.equal(four[:, [1, 3]], two)
    assert (four[:, [0, 2]] == 0).all()


def test_well_separated_classes_take_few_iterations() -> None:
    """Hardly any image is in doubt there, which makes the problem ill-conditioned."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(6000) % 10
    mix = torch.randn(96, 96, generator=generator) * torch.logspace(0, -2, 96)
    centers = 0.5 * torch.randn(10, 96, generator=generator)
    train = (centers[labels] + torch.randn(6000, 96, generator=generator)) @ mix
    probe = fit_linear_probe(train, labels, classes=10, c=1.0, max_iterations=250)
    scaler = StandardScaler().fit(train.double().numpy())
    reference = LogisticRegression(C=1.0, tol=1e-10, solver="newton-cholesky", max_iter=1000)
    reference.fit(scaler.transform(train.double().numpy()), labels.numpy())
    expected = reference.predict_proba(scaler.transform(train.double().numpy()))
    assert np.median(expected.max(axis=1)) > 0.999
    np.testing.assert_allclose(probe.probabilities(train).numpy(), expected, rtol=0, atol=1e-6)


def test_warm_start_ends_at_the_same_solution() -> None:
    train, labels = task(200, 30, 4)
    grid = (100.0, 1e-4, 1.0)
    for c, probe in zip(grid, fit_linear_probes(train, labels, classes=4, grid=grid), strict=True):
        warm = probe.probabilities(train)
        cold = fit_linear_probe(train, labels, classes=4, c=c).probabilities(train)
        assert torch.allclose(warm, cold, rtol=0, atol=1e-6)


def test_constant_feature_gets_no_weight() -> None:
    train, labels = task(60, 4, 3)
    train = torch.cat([train, torch.full((60, 1), 0.1)], dim=1)
    probe = fit_linear_probe(train, labels, classes=3)
    assert probe.weight[:, 4].abs().max() < 1e-12


def test_class_without_images_is_never_predicted_before_others() -> None:
    train, labels = task(60, 4, 3)
    probe = fit_linear_probe(train, labels, classes=5)
    assert probe.predict(train).max() < 3


def test_misuse_is_refused() -> None:
    train, labels = task(60, 4, 3)
    with pytest.raises(SwathError, match="at least two classes"):
        fit_linear_probe(train, torch.zeros_like(labels), classes=3)
    with pytest.raises(SwathError, match="did not converge in 3 iterations"):
        fit_linear_probe(train, labels, classes=3, c=1e6, max_iterations=3)
    with pytest.raises(SwathError, match="positive number"):
        fit_linear_probe(train, labels, classes=3, c=0)
    train[0, 0] = float("inf")
    with pytest.raises(SwathError, match="NaN or infinity"):
        fit_linear_probe(train, labels, classes=3)
