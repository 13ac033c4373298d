"""The linear probe against scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from swath.errors import SwathError
from swath.evaluation.linear import fit_linear_probe


def task(count: int, dim: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % classes
    scale = 10 ** torch.linspace(-3, 3, dim)  # features of very different size, as real ones are
    return (centres[labels] + 2 * torch.randn(count, dim, generator=generator)) * scale + 5, labels


@pytest.mark.parametrize("c", [0.001, 0.1, 10.0])
@pytest.mark.parametrize(("count", "dim", "classes"), [(200, 10, 3), (60, 120, 4), (90, 5, 2)])
def test_agrees_with_scikit_learn(c: float, count: int, dim: int, classes: int) -> None:
    (train, labels), (test, _) = task(count, dim, classes), task(50, dim, classes, seed=1)
    probe = fit_linear_probe(train, labels, classes=classes, c=c)
    scaler = StandardScaler().fit(train.double().numpy())
    # Of two classes they keep one weight vector, the difference of our two, whose penalty is then half.
    reference = LogisticRegression(C=2 * c if classes == 2 else c, tol=1e-10, max_iter=10_000).fit(
        scaler.transform(train.double().numpy()), labels.numpy()
    )
    expected = reference.predict_proba(scaler.transform(test.double().numpy()))
    np.testing.assert_allclose(probe.probabilities(test).numpy(), expected, rtol=0, atol=1e-4)
    assert (probe.predict(test).numpy() == expected.argmax(1)).all()


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
