"""A teacher that follows its student: exponential moving averages of weights (He et al. 2020; BYOL; DINO)."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn


def cosine_momentum(step: int, total_steps: int, base: float) -> float:
    """Cosine from `base` at step 0 to 1 at the end (BYOL, and CMID's section 1.5).

    Args:
        step: From 0.
        total_steps: T.
        base: Momentum at the start.
    """
    return 1.0 - (1.0 - base) * (math.cos(math.pi * min(1.0, step / total_steps)) + 1.0) / 2.0


def ema_copy(student: nn.Module) -> nn.Module:
    """A copy with the same weights that no gradient reaches."""
    teacher = copy.deepcopy(student)
    teacher.requires_grad_(False)
    return teacher


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float, *, buffers: bool = False) -> None:
    """Move the teacher's parameters: t <- momentum t + (1 - momentum) s, all in one go.

    Args:
        teacher: Changed in place.
        student: With the same parameters.
        momentum: 0 copies, 1 leaves everything.
        buffers: Floating-point buffers (batch statistics) too; others are never touched.
    """
    mine: list[torch.Tensor] = list(teacher.parameters())
    theirs: list[torch.Tensor] = list(student.parameters())
    if buffers:
        mine += [b for b in teacher.buffers() if b.is_floating_point()]
        theirs += [b for b in student.buffers() if b.is_floating_point()]
    torch._foreach_lerp_(mine, theirs, 1.0 - momentum)
