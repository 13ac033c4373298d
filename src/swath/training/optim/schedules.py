"""Learning-rate schedules."""

from __future__ import annotations

import math

import torch


def cosine_schedule(progress: float, warmup: float, final: float = 0.0) -> float:
    """Share of the peak learning rate at `progress`: linear warm-up, then half a cosine.

    Args:
        progress: Share of the budget that is spent, 0 to 1. For a budget of T steps the engine takes the
            middle of the step, (step - 1/2) / T for step = 1 .. T: so no step has rate 0.
        warmup: Share of the budget at which the peak is reached.
        final: Value at the end.
    """
    if progress < warmup:
        return progress / warmup
    along = (progress - warmup) / (1.0 - warmup) if warmup < 1 else 1.0
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(along, 1.0)))


def bolts_cosine_schedule(step: int, steps: int, warmup: int, final: float = 0.0) -> float:
    """The same shape counted in whole steps, as lightning-bolts does (CSMAE's released runs).

    Args:
        step: Of the run, from 0; step 0 has rate 0.
        steps: T, in all.
        warmup: W; step i < W has i / (W - 1), step W the peak.
        final: Value that step T would have.
    """
    if step < warmup:
        return step / max(1, warmup - 1)
    along = (step - warmup) / max(1, steps - warmup)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * along))


def cosine_with_scaled_warmup(
    step: int, steps: int, warmup: int, factor: float = 0.01, final: float = 0.0
) -> float:
    """A cosine over the whole run, scaled down while it warms up (CMID's released runs).

    Args:
        step: Of the run, from 0.
        steps: T, in all.
        warmup: W; step t < W has the cosine's value times 1 - (1 - t / W) (1 - factor).
        factor: Of step 0.
        final: Value that step T would have.
    """
    value = final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * step / steps))
    if step < warmup:
        value *= 1 - (1 - step / warmup) * (1 - factor)
    return value


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every group this learning rate, times its own ``lr_scale`` where it has one (layer decay)."""
    for group in optimizer.param_groups:
        group["lr"] = value * group.get("lr_scale", 1.0)
