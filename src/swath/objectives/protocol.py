"""What every pretraining objective promises, and the registry that finds one by name.

An objective owns the encoder that it trains and whatever else it trains beside it (decoders, projectors,
a teacher). The engine drives it by these calls::

    objective.know_sensors(sensors)      # optional: once, when built: what batches will be from, in order
    objective.prepare(batch)             # optional: once before a run, a start that depends on the data
    views  = objective.views(batch)      # augmentation, on the batch's device, by batch["key"]
    losses = objective(views)            # named losses; losses["total"] is what is minimized
    ...optimizer step...
    objective.after_step(step, total_steps)   # momentum teachers and the like; most do nothing

An objective whose losses compare the samples of a batch with each other (contrast) says so by an attribute
``compares_samples = True``: the engine then refuses to work through a batch in parts.

All randomness comes from `swath.keyed_random` by the samples' keys, or is handed in by tests (parity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from swath.datasets.chip import Batch
from swath.registry import Registry

Losses = dict[str, Tensor]


class ObjectiveConfig(BaseModel):
    """Base of an objective's typed options; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@runtime_checkable
class Objective(Protocol):
    """The protocol; implementations are ``nn.Module`` and set these attributes."""

    encoder: nn.Module

    def views(self, batch: Batch) -> Mapping[str, Any]:
        """Normalized batch -> the views the objective trains on (crops, targets), each with its own GSD."""
        ...

    def __call__(self, views: Mapping[str, Any]) -> Losses:
        """Views -> scalar losses by name; `total` is minimized. A mean over samples, so ranks can average."""
        ...

    def after_step(self, step: int, total_steps: int) -> None:
        """Called once after each optimizer step."""
        ...

    def images(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        """Named [B, C, h, w] tensors worth looking at (input, masked, target, ...); may be empty."""
        ...


class ObjectiveEntry:
    """A registered objective: its typed options and how to build it around an encoder.

    Attributes:
        config: The pydantic class of its options.
        build: ``build(encoder, config) -> nn.Module`` fulfilling `Objective`.
    """

    def __init__(
        self, config: type[ObjectiveConfig], build: Callable[[nn.Module, Any], nn.Module], summary: str
    ) -> None:
        self.config = config
        self.build = build
        self.summary = summary


objectives: Registry[ObjectiveEntry] = Registry("objective", "swath.objectives")


def register_objective(
    name: str, config: type[ObjectiveConfig]
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator: register ``Class(encoder, config)`` as the objective `name`."""

    def decorate(cls: type[nn.Module]) -> type[nn.Module]:
        summary = (cls.__doc__ or "").strip().split("\n")[0]
        objectives.register(name)(ObjectiveEntry(config, cls, summary))
        return cls

    return decorate
