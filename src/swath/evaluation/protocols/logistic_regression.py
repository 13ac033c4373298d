"""Linear probe: logistic regression on frozen, standardized features.

The problem is convex and has one solution, so a score depends on no learning rate and no number of epochs.
The objective is scikit-learn's (``C * sum of losses + |W|^2 / 2``, free intercepts):

- two classes: binary logistic regression, one weight vector;
- more classes: multinomial (softmax);
- several labels per image: one binary regression per label (one against the rest).

scikit-learn solves the first two. It would solve the third one label at a time, which takes 15 times as long
as all labels at once (`_MultiLabelSolver`; 10,000 images, 384 features, 19 labels).

Legend: N images to fit, Q to predict, D feature dimensions, K classes or labels, J of them fitted.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.protocols.knn_classifier import Standardizer

TOLERANCE = 1e-10  # largest entry of the mean gradient at the solution: probabilities are good to about 1e-6
MAX_ITERATIONS = 10_000


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A fitted probe. Features are standardized by those that it was fitted to.

    Attributes:
        weight: [J, D] of the classes in `fitted`.
        bias: [J]
        fitted: [J] indices of the classes in the train split; of labels, those that some of its images have
            and others do not.
        constant: [K] probability of the other ones: 0, or 1 for a label that every train image has.
        several: Whether images have several labels each.
        standardize: By the statistics of the train split.
    """

    weight: Tensor
    bias: Tensor
    fitted: Tensor
    constant: Tensor
    several: bool
    standardize: Standardizer

    def probabilities(self, features: Tensor) -> Tensor:
        """[Q, K] float64 probabilities of each class, or of each label, for features [Q, D]."""
        logits = self.standardize(features) @ self.weight.T + self.bias
        probabilities = self.constant.expand(len(features), -1).clone()
        probabilities[:, self.fitted] = logits.sigmoid() if self.several else logits.softmax(dim=1)
        return probabilities

    def predict(self, features: Tensor) -> Tensor:
        """[Q] class indices; or [Q, K] bool, the labels with a probability of at least 0.5."""
        probabilities = self.probabilities(features)
        return probabilities >= 0.5 if self.several else probabilities.argmax(dim=1)


def fit_linear_probe(
    features: Tensor, labels: Tensor, *, classes: int, c: float = 0.1, max_iterations: int = MAX_ITERATIONS
) -> LinearProbe:
    """Fit a probe.

    Args:
        features: [N, D]; standardized by their own statistics.
        labels: [N] class indices below `classes`, of which at least two occur; or [N, K] 0 and 1.
        classes: Number of classes or labels K.
        c: Inverse strength of the L2 penalty (scikit-learn's C).
        max_iterations: Limit of L-BFGS iterations; some tens to a few hundred are usual.

    Raises:
        SwathError: A single class, features that are not finite, or no convergence.
    """
    return next(
        fit_linear_probes(features, labels, classes=classes, grid=(c,), max_iterations=max_iterations)
    )


def fit_linear_probes(
    features: Tensor,
    labels: Tensor,
    *,
    classes: int,
    grid: Iterable[float],
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Iterator[LinearProbe]:
    """Fit one probe per value of C in `grid`, each starting from the one before.

    A probe is fitted when it is requested. Other arguments and errors as for `fit_linear_probe`.

    Args:
        grid: Values of C.
        tolerance: scikit-learn's `tol`.
    """
    if not bool(torch.isfinite(features).all()):
        raise SwathError("The features hold NaN or infinity, so no linear probe can be fitted.")
    several = labels.ndim == 2
    constant = torch.zeros(classes, dtype=torch.float64)
    if several:
        frequency = labels.double().mean(dim=0)
        constant[frequency == 1] = 1.0
        fitted = torch.nonzero((frequency > 0) & (frequency < 1)).flatten()
    else:
        fitted = torch.unique(labels.to(torch.int64))
    if len(fitted) < (1 if several else 2):
        needed = "a label that only some of the train images have" if several else "at least two classes"
        raise SwathError(f"A linear probe needs {needed} in the train split.")
    standardize = Standardizer(features)
    x = standardize(features).numpy()
    solver = (
        _MultiLabelSolver(x, labels[:, fitted].double().numpy(), tolerance, max_iterations)
        if several
        else _ClassSolver(x, labels.numpy(), tolerance, max_iterations)
    )
    for c in grid:
        if not c > 0:
            raise SwathError(f"C must be a positive number, not {c:g}. It is the inverse penalty strength.")
        weight, bias, iterations = solver.fit(c)
        if iterations >= max_iterations:
            raise SwathError(
                f"The linear probe did not converge in {max_iterations} iterations at C = {c:g}. "
                "A smaller C (a stronger penalty) converges sooner."
            )
        if not several and len(fitted) == 2:  # one weight vector; the logit of the first class is 0
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        yield LinearProbe(
            torch.from_numpy(weight), torch.from_numpy(bias), fitted, constant, several, standardize
        )


class _ClassSolver:
    """scikit-learn's solver for exclusive classes, warm-started from the previous C."""

    def __init__(self, x: NDArray[Any], labels: NDArray[Any], tolerance: float, max_iterations: int) -> None:
        self._x, self._labels = x, labels
        self._model = LogisticRegression(tol=tolerance, max_iter=max_iterations, warm_start=True)

    def fit(self, c: float) -> tuple[NDArray[Any], NDArray[Any], int]:
        """Weights [J, D], biases [J] and the number of iterations."""
        with warnings.catch_warnings():  # a line search that ends in rounding errors is no failure
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.set_params(C=c).fit(self._x, self._labels)
        return self._model.coef_.copy(), self._model.intercept_.copy(), int(self._model.n_iter_.max())


class _MultiLabelSolver:
    """L-BFGS over all labels at once, in coordinates where the Hessian is near the identity.

    The principal axes of the features, scaled by the curvature of each label, make tens of iterations of
    hundreds. Each fit starts from the one before.
    """

    def __init__(self, x: NDArray[Any], labels: NDArray[Any], tolerance: float, max_iterations: int) -> None:
        self._labels, self._max_iterations = labels, max_iterations
        self._tolerance = max(tolerance, 1e-8)  # below that, the objective changes by rounding errors only
        spectrum, self._axes = np.linalg.eigh(x.T @ x / len(x))
        self._spectrum = spectrum.clip(min=0)
        self._x = x @ self._axes
        frequency = labels.mean(axis=0)
        self._weight = np.zeros((labels.shape[1], x.shape[1]))
        self._bias = np.log(frequency / (1 - frequency))

    def fit(self, c: float) -> tuple[NDArray[Any], NDArray[Any], int]:
        """Weights [J, D], biases [J] and the number of iterations."""
        count = len(self._x)
        penalty = 1 / (c * count)  # the objective is divided by C and the number of images
        chance = expit(self._x @ self._weight.T + self._bias)
        spread = (chance * (1 - chance)).mean(axis=0).clip(min=1e-6)[:, None]
        scale = 1 / np.sqrt(np.hstack([spread * self._spectrum + penalty, spread]))

        def objective(point: NDArray[Any]) -> tuple[float, NDArray[Any]]:
            at = point.reshape(scale.shape) * scale
            weight = at[:, :-1]
            logits = self._x @ weight.T + at[:, -1]
            loss = (np.logaddexp(0, logits) - self._labels * logits).sum() / count
            error = (expit(logits) - self._labels) / count
            gradient = np.hstack([error.T @ self._x + penalty * weight, error.sum(axis=0)[:, None]])
            return float(loss + penalty / 2 * (weight**2).sum()), (gradient * scale).ravel()

        start = np.hstack([self._weight, self._bias[:, None]]) / scale
        options = {"maxiter": self._max_iterations, "maxfun": np.inf, "ftol": 0, "gtol": self._tolerance}
        result = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
        at = result.x.reshape(scale.shape) * scale
        self._weight, self._bias = at[:, :-1], at[:, -1].copy()
        return self._weight @ self._axes.T, self._bias, int(result.nit)
