"""Linear probe: logistic regression on frozen, standardized features.

A convex problem with one solution, so the score has no learning rate, no epochs and no luck in it. The
objective is scikit-learn's (``C * sum of losses + |W|^2 / 2``, intercepts free):

- two classes: binary logistic regression, one weight vector;
- more classes: multinomial (softmax);
- several labels an image: one binary regression a label (one against the rest).

Solved by Newton's method; each step by conjugate gradients, preconditioned by the features' covariance, in
which images weigh as much as they still are in doubt: few iterations are needed however correlated features
are and however well classes are told apart. Gradients are in double precision, which decides what the
solution is; the products with the Hessian, in which the time goes, in single precision, which decides only
how directly it is approached.

Legend: N images to fit, Q to predict, D feature dimensions, K classes or labels, J of them fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.protocols.knn_classifier import Standardizer

EXACT = 1e-7  # by how much a probability of an image of the bank may be off, in a fit that is fine
ROUGH = 1e-3  # Newton decrement of one that is not
SINGLE = 1e-3  # relative residual to which single precision can solve for a step, and be sure of it


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A fitted probe on features that are standardized by those it was fitted on.

    Attributes:
        weight: [J, D] of the classes in `fitted`.
        bias: [J]
        fitted: [J] indices of the classes that the bank has; of labels, those that some images have and
            others have not.
        constant: [K] probability of the other ones: 0, or 1 for a label that every image of the bank has.
        several: Whether images have several labels each.
        standardize: By the statistics of the bank.
    """

    weight: Tensor
    bias: Tensor
    fitted: Tensor
    constant: Tensor
    several: bool
    standardize: Standardizer

    def probabilities(self, features: Tensor) -> Tensor:
        """[Q, K] float64 probabilities of each class, or of each label, of features [Q, D]."""
        logits = self.standardize(features) @ self.weight.T + self.bias
        found = self.constant.expand(len(features), -1).clone()
        found[:, self.fitted] = logits.sigmoid() if self.several else logits.softmax(dim=1)
        return found

    def predict(self, features: Tensor) -> Tensor:
        """[Q] class indices; or [Q, K] bool, the labels from a probability of 0.5."""
        prediction = self.probabilities(features)
        return prediction >= 0.5 if self.several else prediction.argmax(dim=1)


def fit_linear_probe(
    features: Tensor, labels: Tensor, *, classes: int, c: float = 0.1, max_iterations: int = 100
) -> LinearProbe:
    """Fit the probe.

    Args:
        features: [N, D], standardized inside by their own statistics.
        labels: [N] class indices below `classes`, at least two of which occur; or [N, K] 0 and 1.
        classes: Number of classes or labels K.
        c: Inverse strength of the L2 penalty (scikit-learn's C).
        max_iterations: Upper bound of Newton steps; a handful is usual.

    Raises:
        SwathError: A single class, features that are not finite, or no convergence.
    """
    return ProbeFitter(features, labels, classes=classes).fit(c, max_iterations=max_iterations)


class _Curvature:
    """The Hessian as far as it is easily inverted: images weigh the sum over classes of p (1 - p), and
    classes bend alike but for their mean p (1 - p).

    Args:
        features: [N, D] float32, centered.
        chance: [N, J] float32 probabilities where the curvature is taken.

    Attributes:
        cost: Of making one, in multiplications, beside
        product_cost: that of one product with the Hessian itself.
    """

    def __init__(self, features: Tensor, chance: Tensor) -> None:
        (count, dim), classes = features.shape, chance.shape[1]
        spread = chance * (1 - chance)
        self._spread = spread.mean(dim=0).double().clamp_min(torch.finfo(torch.float32).tiny)
        weight = spread.sum(dim=1)
        weight /= weight.mean().clamp_min(torch.finfo(torch.float32).tiny)
        covariance = ((features * weight[:, None]).T @ features).double() / count
        self._spectrum, self._axes = torch.linalg.eigh(covariance)
        self.cost, self.product_cost = count * dim**2 + 10 * dim**3, 2 * count * dim * classes

    def solve(self, gradient: Tensor, penalty: float) -> Tensor:
        """The step [J, D + 1] that undoes `gradient` [J, D + 1] under this curvature and `penalty`."""
        bend = self._spread[:, None] * self._spectrum.clamp_min(0) + penalty
        weight = (gradient[:, :-1] @ self._axes / bend) @ self._axes.T
        return torch.cat([weight, gradient[:, -1:] / self._spread[:, None]], dim=1)


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
            fraction = labels.double().mean(dim=0)
            self._fitted = torch.nonzero((fraction > 0) & (fraction < 1)).flatten()
            self._constant[fraction == 1] = 1.0
            if not len(self._fitted):
                raise SwathError("a linear probe needs a label that some images of the bank have, others not")
            self._target = labels[:, self._fitted].double()
        else:
            self._fitted, target = torch.unique(labels.to(torch.int64), return_inverse=True)
            if len(self._fitted) < 2:
                raise SwathError("a linear probe needs at least two classes with images in the bank")
            self._target = target.double().unsqueeze(1) if len(self._fitted) == 2 else target
        self._standardize = Standardizer(features)
        self._x = self._standardize(features)
        self._x32 = self._x.float()
        rows = self._target.shape[1] if self._target.ndim == 2 else len(self._fitted)
        start = torch.full((len(self._x), rows), 0.5 if self._target.ndim == 2 else 1 / rows)
        self._curvature = _Curvature(self._x32, start)
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
        # The decrement is the parameters' error measured by the Hessian, a mean over images; all of it in one
        # image's logits, it is sqrt(N) times as much, and moves that image's probabilities by less than that.
        tolerance = EXACT / len(self._x) ** 0.5 if fine else ROUGH
        decrement, spent = float("inf"), 0
        for _ in range(max_iterations):
            value, gradient, chance = self._gradient(penalty)
            if spent * self._curvature.product_cost > self._curvature.cost:
                self._curvature = _Curvature(self._x32, chance.float())
            decrement = float((gradient * self._curvature.solve(gradient, penalty)).sum().clamp_min(0).sqrt())
            if decrement < tolerance:
                break
            inexact = max(SINGLE, min(0.1, decrement))
            step, spent = self._newton_step(gradient, chance.float(), penalty, inexact)
            self._descend(step, value, gradient, penalty)
        else:
            raise SwathError(
                f"the linear probe did not converge in {max_iterations} steps (gradient {decrement:.2g}); "
                "a smaller C (a stronger penalty) converges sooner"
            )
        weight, bias = self._last[:, :-1], self._last[:, -1]
        if not self._several and len(weight) == 1:  # as two classes, of which the first has no say
            weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
        return LinearProbe(weight, bias, self._fitted, self._constant, self._several, self._standardize)

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
        self, gradient: Tensor, chance: Tensor, penalty: float, tolerance: float
    ) -> tuple[Tensor, int]:
        """The direction [J, D + 1] that solves Hessian @ direction = -gradient, to a relative residual; and
        how many products with the Hessian it took."""

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
        ready = self._curvature.solve(residual, penalty)
        direction, size = ready, (residual * ready).sum()
        enough = float(size) * tolerance**2
        products = 0
        while products < 200:
            products += 1
            bent = curved(direction)
            along = (direction * bent).sum()
            if not along > 0:
                break
            step = step + size / along * direction
            residual = residual - size / along * bent
            ready = self._curvature.solve(residual, penalty)
            new = (residual * ready).sum()
            if float(new) <= enough:
                break
            direction, size = ready + new / size * direction, new
        return step, products

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
