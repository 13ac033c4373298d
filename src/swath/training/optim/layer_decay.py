"""Layer-wise decay of the learning rate: what is near the pixels changes least.

Clark et al. 2020 (ELECTRA), as BEiT and MAE fine-tune: with decay d, the head has the full rate, the last
layer of the encoder d times it, the one before d^2, and what stands before the first layer the least.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from swath.training.config.sections import OptimizerConfig
from swath.training.optim.param_groups import parameter_groups


def layer_ids(encoder: nn.Module) -> dict[str, int]:
    """The layer of each of an encoder's parameters, by name: 0 before the first layer, then 1, 2, ...

    A layer is the innermost numbered module that has parts: ``blocks.3`` of a ViT, ``layers.2.blocks.5`` of a
    Swin, ``layer3.1`` of a ResNet. Parameters between layers (merging, norms) belong to the layer before.
    """
    numbers: dict[str, int] = {}
    seen: dict[str, int] = {}
    current = 0
    composite = {name for name, module in encoder.named_modules() if any(True for _ in module.children())}
    for name, _ in encoder.named_parameters():
        parts = name.split(".")
        prefixes = [".".join(parts[: i + 1]) for i, part in enumerate(parts) if part[-1:].isdigit()]
        numbered = [p for p in prefixes if p in composite and p.rsplit(".", 1)[-1].isdigit()]
        if numbered:
            current = seen.setdefault(numbered[-1], len(seen) + 1)
        numbers[name] = current
    return numbers


def layer_decay_groups(
    module: nn.Module, encoder: nn.Module, config: OptimizerConfig, decay: float
) -> list[dict[str, Any]]:
    """Parameter groups as of `parameter_groups`, split by layer, each with its ``lr_scale``.

    Args:
        module: What is trained, the encoder in it.
        encoder: A part of `module`.
        config: Weight decay and its exceptions.
        decay: d, in (0, 1]; 1 leaves all rates alike.
    """
    groups = parameter_groups(
        module,
        config.weight_decay,
        decay_tokens=config.decay_tokens,
        decay_norm_and_bias=config.decay_norm_and_bias,
    )
    if decay == 1:
        return groups
    numbers = layer_ids(encoder)
    layer_of = {id(parameter): numbers[name] for name, parameter in encoder.named_parameters()}
    top = max(numbers.values()) + 1
    split: dict[tuple[int, float], dict[str, Any]] = {}
    for group in groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            layer = layer_of.get(id(parameter), top)
            place = split.setdefault(
                (layer, group["weight_decay"]),
                {
                    "params": [],
                    "names": [],
                    "weight_decay": group["weight_decay"],
                    "lr_scale": decay ** (top - layer),
                },
            )
            place["params"].append(parameter)
            place["names"].append(name)
    return list(split.values())
