"""Linear probe: logistic regression on frozen, standardised features.

A convex problem with one solution, so the score has no learning rate, no epochs and no luck in it. The
objective is scikit-learn's (``C * sum of losses + |W|^2 / 2``, intercepts free):

- two classes: binary logistic regression, one weight vector;
- more classes: multinomial (softmax);
- several labels an image: one binary regression a label (one against the rest).

Solved by Newton's method; each step by conjugate gradients, preconditioned by the features' covariance, a
multiple of which bounds the Hessian (Boehning 1992): few iterations are needed however correlated features
are. Gradients are in double precision, which decides what the solution is; the products with the Hessian, in
which the time goes, in single precision, which decides only how directly it is approached.

Legend: N images to fit, Q to predict, D feature dimensions, K classes or labels, J of them fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.knn import Standardiser


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A fitted probe on features that are standardised by those it was fitted on.

    Attributes:
        weight: [J, D] of the classes in `fitted`.
        bias: [J]
        fitted: [J] indices of the classes that the bank has; of labels, those that some images have and
            others have not.
        constant: [K] probability of the other ones: 0, or 1 for a label that every image of the bank has.
        several: Whether images have several labels each.
        standardise: By the statistics of the bank.
    """

    weight: Tensor
    bias: Tensor
    fitted: Tensor
    constant: Tensor
    several: bool
    standardise: Standardiser

    def probabilities(self, features: Tensor) -> Tensor:
        """[Q, K] float64 probabilities of each class, or of each label, of features [Q, D]."""
        logits = self.standardise(features) @ self.weight.T + self.bias
        found = self.constant.expand(len(features), -1).clone()
        found[:, self.fitted] = logits.sigmoid() if self.several else logits.softmax(dim=1)
        return found

    def predict(self, features: Tensor) -> Tensor:
        """[Q] class indices; or [Q, K] bool, the labels from a probability of 0.5."""
        said = self.probabilities(features)
        return said >= 0.5 if self.several else said.argmax(dim=1)


def fit_linear_probe(
    features: Tensor, labels: Tensor, *, classes: int, c: float = 0.1, max_iterations: int = 100
) -> LinearProbe:
    """Fit the probe.

    Args:
        features: [N, D], standardised inside by their own statistics.
        labels: [N] class indices below `classes`, at least two of which occur; or [N, K] 0 and 1.
        classes: Number of classes or labels K.
        c: Inverse strength of the L2 penalty (scikit-learn's C).
        max_iterations: Upper bound of Newton steps; a handful is usual.

    Raises:
        SwathError: A single class, features that are not finite, or no convergence.
    """
    return ProbeFitter(features, labels, classes=classes).fit(c, max_iterations=max_iterations)


class ProbeFitter:
    """Fits probes with several strengths of the penalty to the same features, each from the one before.

    Arguments and errors as for `fit_linear_probe`.
    """

    def __init__(self, features: Tensor, labels: Tensor, *, classes: int) -> None:
        if not bool(torch.isfinite(features).all()):
            raise SwathError("features hold NaN or infinity: no probe can be fitted to them")
        self._several = labels.ndim == 2
        self._constant = torch.zeros(classes, dtype=torch.float64)
        if self._several:
            share = labels.double().mean(dim=0)
            self._fitted = torch.nonzero((share > 0) & (share < 1)).flatten()
            self._constant[share == 1] = 1.0
            if not len(self._fitted):
                raise SwathError("a linear probe needs a label that some images of the bank have, others not")
            self._target = labels[:, self._fitted].double()
        else:
            self._fitted, target = torch.unique(labels.to(torch.int64), return_inverse=True)
            if len(self._fitted) < 2:
                raise SwathError("a linear probe needs at least two classes with images in the bank")
            self._target = target.double().unsqueeze(1) if len(self._fitted) == 2 else target
        self._standardise = Standardiser(features)
        self._x = self._standardise(features)
        self._x32 = self._x.float()
        covariance = (self._x32.T @ self._x32).double() / len(self._x)
        self._spectrum, self._axes = torch.linalg.eigh(covariance)
        rows = self._target.shape[1] if self._target.ndim == 2 else len(self._fitted)
        self._last = torch.zeros(rows, self._x.shape[1] + 1, dtype=torch.float64)
        # Logits [N, J] at the last parameters. They are linear in those, so that a step along which several
        # lengths are tried costs one product with the features, and the gradient at its end needs no other.
        self._logits = torch.zeros(len(self._x), rows, dtype=torch.float64)

    def fit(self, c: float, *, max_iterations: int = 100, fine: bool = True) -> LinearProbe:
        """The probe at strength `c`; not `fine`: to three digits or so, which is enough to choose a strength.

        Starts from the last one that was fitted.
        """
        if not c > 0:
            raise SwathError(f"C, the inverse strength of the penalty, is a positive number, not {c:g}")
        penalty = 1 / (c * len(self._x))  # the objective is divided by N and C
        # Typical curvature in each direction of the features: a quarter of their variance, and the penalty.
        curvature = self._spectrum.clamp_min(0) / 4 + penalty

        def precondition(gradient: Tensor) -> Tensor:
            weight = (gradient[:, :-1] @ self._axes / curvature) @ self._axes.T
            return torch.cat([weight, 4 * gradient[:, -1:]], dim=1)

        tolerance, decrement = 1e-10 if fine else 1e-4, float("inf")
        for _ in range(max_iterations):
            value, gradient, chance = self._gradient(penalty)
            decrement = float((gradient * precondition(gradient)).sum().clamp_min(0).sqrt())
            if decrement < tolerance:
                break
            step = self._newton_step(gradient, chance.float(), penalty, precondition, min(0.1, decrement))
            self._descend(step, value, gradient, penalty)
        else:
            raise SwathError(
                f"the linear probe did not converge in {max_iterations} steps (gradient {decrement:.2g}); "
                "a smaller C (a stronger penalty) converges sooner"
            )
        weight, bias = self._last[:, :-1], self._last[:, -1]
        if not self._several and len(weight) == 1:  # as two classes, of which the first has no say
            weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
        return LinearProbe(weight, bias, self._fitted, self._constant, self._several, self._standardise)

    def _gradient(self, penalty: float) -> tuple[float, Tensor, Tensor]:
        """Objective, gradient [J, D + 1], and probabilities [N, J] at the last parameters."""
        at, logits = self._last, self._logits
        if self._target.ndim == 2:
            chance, wrong = logits.sigmoid(), logits.sigmoid() - self._target
        else:
            chance = logits.softmax(dim=1)
            wrong = chance.clone()
            wrong[torch.arange(len(wrong)), self._target] -= 1
        wrong /= len(logits)
        gradient = torch.cat([wrong.T @ self._x + penalty * at[:, :-1], wrong.sum(dim=0)[:, None]], dim=1)
        return self._objective(logits, at, penalty), gradient, chance

    def _objective(self, logits: Tensor, at: Tensor, penalty: float) -> float:
        """Mean over images of the negative log-likelihood (summed over labels), and the penalty."""
        if self._target.ndim == 2:
            loss = F.binary_cross_entropy_with_logits(logits, self._target, reduction="sum") / len(logits)
        else:
            loss = F.cross_entropy(logits, self._target)
        return float(loss + penalty / 2 * at[:, :-1].square().sum())

    def _newton_step(
        self,
        gradient: Tensor,
        chance: Tensor,
        penalty: float,
        precondition: Callable[[Tensor], Tensor],
        tolerance: float,
    ) -> Tensor:
        """The direction [J, D + 1] that solves Hessian @ direction = -gradient, to a relative residual."""

        def curved(direction: Tensor) -> Tensor:
            moved = self._x32 @ direction[:, :-1].float().T + direction[:, -1].float()
            if self._target.ndim == 2:
                change = chance * (1 - chance) * moved
            else:
                change = chance * (moved - (chance * moved).sum(dim=1, keepdim=True))
            change /= len(change)
            weight = (change.T @ self._x32).double() + penalty * direction[:, :-1]
            return torch.cat([weight, change.sum(dim=0).double()[:, None]], dim=1)

        step, residual = torch.zeros_like(gradient), -gradient
        ready = precondition(residual)
        direction, size = ready, (residual * ready).sum()
        enough = float(size) * tolerance**2
        for _ in range(200):
            bent = curved(direction)
            along = (direction * bent).sum()
            if not along > 0:
                break
            step = step + size / along * direction
            residual = residual - size / along * bent
            ready = precondition(residual)
            new = (residual * ready).sum()
            if float(new) <= enough:
                break
            direction, size = ready + new / size * direction, new
        return step

    def _descend(self, step: Tensor, value: float, gradient: Tensor, penalty: float) -> None:
        """Go as far along the step as the objective sinks (Armijo); all of it, near the solution."""
        slope = float((gradient * step).sum())
        moved = self._x @ step[:, :-1].T + step[:, -1]
        length = 1.0
        for _ in range(30):
            new = self._objective(self._logits + length * moved, self._last + length * step, penalty)
            # Near the solution differences drown in rounding: then the step is taken as it is.
            if new <= value + 1e-4 * length * slope + 1e-13 * max(1.0, abs(value)):
                break
            length /= 2
        self._last = self._last + length * step
        self._logits += length * moved
