"""AdamW's parameter groups and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from swath.training.config.recipe import OptimizerConfig
from swath.training.optim.adan import Adan
from swath.training.parallel import is_sharded


def parameter_groups(
    module: nn.Module, weight_decay: float, *, decay_tokens: bool = True, decay_all: bool = False
) -> list[dict[str, Any]]:
    """Two groups, with and without weight decay.

    Not decayed: parameters of one dimension (biases, norms, scales), which are no maps. Learned tokens
    ([1, 1, D] by convention, with "token" in the name) decay as in MAE, unless told not to.

    Args:
        module: What is trained; frozen parameters are left out, a shared one is taken once.
        weight_decay: Of the first group.
        decay_tokens: Whether learned tokens belong to the first group.
        decay_all: Everything belongs to the first group (CSMAE's released runs).

    Returns:
        Groups for a torch optimiser, each with the names of its parameters under ``names``.
    """
    decayed: dict[str, nn.Parameter] = {}
    plain: dict[str, nn.Parameter] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        token = is_token(name)
        keep = not decay_all and (parameter.ndim <= 1 or (token and not decay_tokens))
        (plain if keep else decayed)[name] = parameter
    groups = [(decayed, weight_decay), (plain, 0.0)]
    return [
        {"params": list(members.values()), "names": list(members), "weight_decay": decay}
        for members, decay in groups
        if members
    ]


def is_token(name: str) -> bool:
    """Whether a parameter is a learned token, by its name; tokens of several sensors are in one mapping."""
    return any("token" in part for part in name.split(".")[-2:])


def build_optimizer(
    module: nn.Module, config: OptimizerConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """The recipe's optimiser over `module`; AdamW in its fused form: one pass over the weights."""
    groups = parameter_groups(
        module, config.weight_decay, decay_tokens=config.decay_tokens, decay_all=config.decay_all
    )
    return optimizer_for_groups(groups, config, learning_rate)


def optimizer_for_groups(
    groups: list[dict[str, Any]], config: OptimizerConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """The recipe's optimiser over groups as of `parameter_groups`."""
    betas: Any = config.betas
    if config.name == "adan":
        return Adan(groups, lr=learning_rate, betas=betas, eps=config.eps)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=config.eps, fused=True)


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


def set_learning_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """Give every group this learning rate, times its own ``lr_scale`` where it has one (layer decay)."""
    for group in optimiser.param_groups:
        group["lr"] = value * group.get("lr_scale", 1.0)


def gradient_norm(parameters: Iterable[nn.Parameter], clip: float | None) -> torch.Tensor:
    """Global L2 norm of the gradients (before clipping), which are scaled down to `clip` where it is larger.

    Gradients that are not finite are left as they are: the caller looks at the norm.
    """
    parameters = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if is_sharded(norm):  # each rank has the norm of its shards: combine
        norm = norm.full_tensor()  # type: ignore[attr-defined]
    if clip is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    return norm
