"""Adan: adaptive Nesterov momentum (Xie et al., arXiv 2208.06677, algorithm 1), CMID's optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Adan(torch.optim.Optimizer):
    """Adan with decoupled, proximal weight decay: p <- p / (1 + lr * weight_decay) after each step.

    With gradient g and its change d = g - g_before (0 at the first step)::

        m <- b1 m + (1 - b1) g          momentum
        v <- b2 v + (1 - b2) d          momentum of the change
        n <- b3 n + (1 - b3) (g + b2 d)^2
        p <- p - lr (m / (1 - b1^t) + b2 v / (1 - b2^t)) / (sqrt(n) / sqrt(1 - b3^t) + eps)

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: b1, b2, b3 as above (the paper's are one less each).
        eps: Added to the denominator.
        weight_decay: See above.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas lie in [0, 1), not {betas}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step over all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            mine = [p for p in group["params"] if p.grad is not None]
            if mine:
                self._step(group, mine)
        return loss

    def _step(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        grads: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        for p, g in zip(parameters, grads, strict=True):
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                for name in ("momentum", "change", "square"):
                    state[name] = torch.zeros_like(p)
                state["before"] = g.clone()
            state["step"] += 1
        states = [self.state[p] for p in parameters]
        m, v, n, before = ([s[k] for s in states] for k in ("momentum", "change", "square", "before"))
        b1, b2, b3 = group["betas"]
        change = torch._foreach_sub(grads, before)
        torch._foreach_lerp_(m, grads, 1 - b1)
        torch._foreach_lerp_(v, change, 1 - b2)
        ahead = torch._foreach_add(grads, change, alpha=b2)
        torch._foreach_mul_(n, b3)
        torch._foreach_addcmul_(n, ahead, ahead, 1 - b3)
        torch._foreach_copy_(before, grads)
        for p, s, mp, vp, root in zip(parameters, states, m, v, torch._foreach_sqrt(n), strict=True):
            t = float(s["step"])
            root.div_((1 - b3**t) ** 0.5).add_(group["eps"])
            p.addcdiv_(mp, root, value=-group["lr"] / (1 - b1**t))
            p.addcdiv_(vp, root, value=-group["lr"] * b2 / (1 - b2**t))
            p.div_(1 + group["lr"] * group["weight_decay"])
