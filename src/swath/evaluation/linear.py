"""Linear probe: multinomial logistic regression on frozen, standardised features.

A convex problem with one solution, so the score has no learning rate, no epochs and no luck in it. The
objective is scikit-learn's multinomial one (``C * sum of losses + |W|^2 / 2``, intercepts free), minimised by
L-BFGS. (For two classes scikit-learn keeps one weight vector instead of two, which halves the penalty.)

Legend: N images to fit, Q to predict, D feature dimensions, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.knn import Standardiser


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A fitted probe: `weight` [K, D] and `bias` [K] on features standardised by those it was fitted on."""

    weight: Tensor
    bias: Tensor
    standardise: Standardiser

    def probabilities(self, features: Tensor) -> Tensor:
        """[Q, K] float64 class probabilities of features [Q, D]."""
        return (self.standardise(features) @ self.weight.T + self.bias).softmax(dim=1)

    def predict(self, features: Tensor) -> Tensor:
        """[Q] class indices."""
        return self.probabilities(features).argmax(dim=1)


def fit_linear_probe(
    features: Tensor, labels: Tensor, *, classes: int, c: float = 0.1, max_iterations: int = 1000
) -> LinearProbe:
    """Fit the probe.

    Args:
        features: [N, D], standardised inside by their own statistics.
        labels: [N] class indices below `classes`; at least two classes must occur.
        classes: Number of classes K.
        c: Inverse strength of the L2 penalty (scikit-learn's C).
        max_iterations: Upper bound of L-BFGS iterations; it stops earlier when converged.

    Raises:
        SwathError: A single class, features that are not finite, or L-BFGS did not converge.
    """
    if not c > 0:
        raise SwathError(f"C, the inverse strength of the penalty, is a positive number, not {c:g}")
    if len(torch.unique(labels)) < 2:
        raise SwathError("a linear probe needs at least two classes with images in the bank")
    if not bool(torch.isfinite(features).all()):
        raise SwathError("features hold NaN or infinity: no probe can be fitted to them")
    standardise = Standardiser(features)
    x, y = standardise(features), labels.to(torch.int64)
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        history_size=20,
        tolerance_grad=1e-8,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        # Divided by C and N, so that the tolerances mean the same for any of either.
        loss = F.cross_entropy(x @ weight.T + bias, y) + weight.square().sum() / (2 * c * len(x))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    closure()
    assert weight.grad is not None
    assert bias.grad is not None
    steepest = max(float(weight.grad.abs().max()), float(bias.grad.abs().max()))
    if not steepest < 1e-5:
        raise SwathError(
            f"the linear probe did not converge in {max_iterations} iterations (gradient {steepest:.2g}); a "
            "smaller C (a stronger penalty) converges sooner"
        )
    return LinearProbe(weight.detach(), bias.detach(), standardise)
