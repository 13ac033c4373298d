"""LoRA: a low-rank change beside frozen weights (Hu et al. 2021, arXiv 2106.09685).

A weight W [out, in] becomes W + (alpha / r) B A with A [r, in], B [out, r]; only A and B are trained, and B
begins as 0, so that nothing changes at first. Here that is a *parametrization* of the weight: whatever reads
``layer.weight`` sees the sum, be it a linear layer, a convolution or a fused function; and merging is no more
than keeping the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatch

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from swath.errors import RecipeError
from swath.objectives.protocol import ObjectiveConfig


class LoRAConfig(ObjectiveConfig):
    """Options of LoRA.

    Attributes:
        rank: r.
        alpha: Strength of the change; it is divided by the rank.
        layers: Patterns of the names, in the encoder, of the linear layers and convolutions that get one.
    """

    rank: int = Field(default=8, gt=0)
    alpha: float = Field(default=16.0, gt=0)
    layers: tuple[str, ...] = ("*attn.qkv", "*attn.proj", "*mlp.fc1", "*mlp.fc2", "*.conv?", "*.conv?.*")


class LoRALayer(nn.Module):
    """W -> W + (alpha / r) B A, for weights of any shape [out, ...]."""

    def __init__(self, weight: Tensor, config: LoRAConfig) -> None:
        super().__init__()
        inside = weight[0].numel()
        rank = min(config.rank, inside, len(weight))
        self.scale = config.alpha / config.rank
        self.a = nn.Parameter(torch.empty(rank, inside))
        self.b = nn.Parameter(torch.zeros(len(weight), rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:  # noqa: D102
        return weight + self.scale * (self.b @ self.a).view_as(weight)


def add_lora(encoder: nn.Module, config: LoRAConfig) -> list[str]:
    """Freeze an encoder and put low-rank changes beside its weights, in place.

    What is frozen already, because the task does not look at it, gets none.

    Returns:
        Names of the layers that got one.

    Raises:
        RecipeError: No layer matches the patterns.
    """
    chosen = [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and _matches(name, config.layers)
        and module.weight.requires_grad
    ]
    encoder.requires_grad_(False)
    if not chosen:
        known = [n for n, m in encoder.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        raise RecipeError(
            f"lora.layers: no layer of the encoder matches {', '.join(config.layers)}; there are, for "
            f"example, {', '.join(known[:6])}"
        )
    for name in chosen:
        layer = encoder.get_submodule(name)
        weight = layer.get_parameter("weight")
        # Unsafe skips a trial call; the shape is right by construction.
        parametrize.register_parametrization(layer, "weight", LoRALayer(weight, config), unsafe=True)
    return chosen


def merge_lora(module: nn.Module) -> None:
    """Make the changes part of the weights, in place: the same function, and no trace of LoRA."""
    for layer in list(module.modules()):
        found = getattr(layer, "parametrizations", None)
        if found is not None and "weight" in found and isinstance(found["weight"][0], LoRALayer):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
