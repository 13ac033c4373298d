"""AdamW's parameter groups and the learning-rate schedule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from swath.training.config.sections import OptimizerConfig
from swath.training.optim.adan import Adan
from swath.training.parallel import is_sharded


def parameter_groups(
    module: nn.Module, weight_decay: float, *, decay_tokens: bool = True, decay_norm_and_bias: bool = False
) -> list[dict[str, Any]]:
    """Two groups, with and without weight decay.

    Not decayed: parameters of one dimension (biases, norms, scales), which are no maps. Learned tokens
    ([1, 1, D] by convention, with "token" in the name) decay as in MAE, unless told not to.

    Args:
        module: What is trained; frozen parameters are left out, a shared one is taken once.
        weight_decay: Of the first group.
        decay_tokens: Whether learned tokens belong to the first group.
        decay_norm_and_bias: Everything belongs to the first group (CSMAE's released runs).

    Returns:
        Groups for a torch optimizer, each with the names of its parameters under ``names``.
    """
    decayed: dict[str, nn.Parameter] = {}
    plain: dict[str, nn.Parameter] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        token = is_token(name)
        keep = not decay_norm_and_bias and (parameter.ndim <= 1 or (token and not decay_tokens))
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
    """The recipe's optimizer over `module`; AdamW in its fused form: one pass over the weights."""
    groups = parameter_groups(
        module,
        config.weight_decay,
        decay_tokens=config.decay_tokens,
        decay_norm_and_bias=config.decay_norm_and_bias,
    )
    return optimizer_for_groups(groups, config, learning_rate)


def optimizer_for_groups(
    groups: list[dict[str, Any]], config: OptimizerConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """The recipe's optimizer over groups as of `parameter_groups`."""
    betas: Any = config.betas
    if config.name == "adan":
        return Adan(groups, lr=learning_rate, betas=betas, eps=config.eps)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=config.eps, fused=True)


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
