"""What every task promises, and the registry that finds one by name.

A task is a network (an encoder and a head on it) that knows how it is trained. To the training engine it is
an objective like any other: ``views(batch)``, ``task(views) -> losses``, ``after_step``, ``pictures`` (see
`swath.objectives.protocol`); batches hold labels besides. And it answers::

    probabilities = task.predict(batch)     # [B, K] of images, [B, K, H, W] of pixels

Batches are normalized, and images stand upright: where a contract says that its encoder sees them transposed,
the task turns them for the encoder and turns its maps back. A batch of images of two dates has `image`
[B, 2, C, H, W] and a `valid` [B, H, W] of what is valid at both.

Legend: B images, T dates, C bands, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from swath.datasets.chip import Batch
from swath.models.contract import Contract
from swath.objectives.protocol import Losses, ObjectiveConfig
from swath.registry import Registry


class TaskConfig(ObjectiveConfig):
    """Base of a task's typed options; unknown keys are refused.

    Attributes:
        classes: Names, in the order of the probabilities. A recipe leaves them out: the data tell.
    """

    classes: tuple[str, ...] = ()


class Task(nn.Module):
    """Base of all tasks: what they share, and what each has to say for itself.

    Args:
        config: Its options, classes included.
        contract: Of the images; names one sensor.

    Attributes:
        dates: Images of one place that are looked at together: 1, or 2 to find changes.
        dense: Whether it speaks of pixels rather than of images.
        boxes: Whether it speaks of objects: `predict` gives a list of `Detections`.
        compares_samples: Whether its losses mix the samples of a batch (mixup).
        frozen: Whether the encoder stays as it is: then it also stays in evaluation mode.
    """

    dates: ClassVar[int] = 1
    dense: ClassVar[bool] = False
    boxes: ClassVar[bool] = False
    encoder: nn.Module
    compares_samples = False
    frozen = False

    def __init__(self, config: TaskConfig, contract: Contract) -> None:
        super().__init__()
        self.config = config
        self.sensor = contract.sensor().name
        self.transpose = contract.transpose

    def views(self, batch: Batch) -> Mapping[str, Any]:
        """Normalized batch -> what is trained on: images and labels, augmented by the samples' keys."""
        raise NotImplementedError

    def forward(self, views: Mapping[str, Any]) -> Losses:
        """Views -> scalar losses by name; `total` is minimized."""
        raise NotImplementedError

    def predict(self, batch: Batch) -> Any:
        """Normalized batch -> probabilities [B, K], or [B, K, H, W]; detectors: a list of `Detections`."""
        raise NotImplementedError

    def after_step(self, step: int, total_steps: int) -> None:
        """Nothing, for most."""

    def pictures(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        """Named pictures: [B, C, h, w] normalized, or [B, 3, h, w] uint8 as it is; may be empty."""
        return {}

    def train(self, mode: bool = True) -> Task:
        """As of any module; but a frozen encoder keeps its statistics and drops nothing."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    # ---- what is saved

    def encoder_prefix(self) -> str:
        """How the names of the encoder's parameters begin in the task's state."""
        return next(f"{name}." for name, module in self.named_modules() if module is self.encoder)

    def own_state(self) -> dict[str, Tensor]:
        """The state of everything but the encoder."""
        prefix = self.encoder_prefix()
        return {name: value for name, value in self.state_dict().items() if not name.startswith(prefix)}


@dataclass(frozen=True)
class TaskEntry:
    """A registered task.

    Attributes:
        config: The pydantic class of its options.
        build: ``build(encoder, config, contract) -> Task``.
        summary: A line for people.
    """

    config: type[TaskConfig]
    build: Callable[[nn.Module, Any, Contract], Task]
    summary: str


tasks: Registry[TaskEntry] = Registry("task", "swath.tasks")


def register_task(name: str, config: type[TaskConfig]) -> Callable[[type[Task]], type[Task]]:
    """Class decorator: register ``Class(encoder, config, contract)`` as the task `name`."""

    def decorate(cls: type[Task]) -> type[Task]:
        summary = (cls.__doc__ or "").strip().split("\n")[0]
        tasks.register(name)(TaskEntry(config, cast(Any, cls), summary))
        return cls

    return decorate


def normalize_task_batch(contract: Contract, batch: Batch) -> Batch:
    """`Contract.normalize` for tasks: images stand upright, and may be of several dates.

    Args:
        contract: Of the model.
        batch: `image` [B, C, H, W] or [B, T, C, H, W] in the sensor's unit, and the rest of a batch.

    Returns:
        The batch with `image` normalized and `valid` [B, H, W]; a pixel is valid if it is so at all dates.
    """
    upright = contract.model_copy(update={"transpose": False})
    image = batch["image"]
    if image.ndim == 4:
        return upright.normalize(batch)
    dates = image.shape[1]
    flat: Batch = {"image": image.flatten(0, 1), "gsd": batch["gsd"], "sensor": batch["sensor"]}
    if "valid" in batch:
        flat["valid"] = batch["valid"].repeat_interleave(dates, dim=0)
    flat = upright.normalize(flat)
    valid = flat["valid"].reshape(-1, dates, *image.shape[3:]).all(dim=1)
    image = flat["image"].reshape(image.shape)
    if not bool(valid.all()):
        image = image.masked_fill(~valid[:, None, None], 0.0)  # also what only one date lacks
    ready = {"image": image, "valid": valid, "gsd": flat["gsd"], "sensor": flat["sensor"]}
    return cast(Batch, {**batch, **ready})


def load_own_state(task: Task, state: Mapping[str, Tensor]) -> None:
    """Fill all of a task but its encoder.

    Raises:
        RuntimeError: Names or shapes differ.
    """
    wanted = task.own_state()
    odd = sorted(wanted.keys() ^ state.keys())
    if odd:
        raise RuntimeError(f"{len(odd)} tensors are on one side only, such as {odd[0]}")
    with torch.no_grad():
        for name, target in wanted.items():
            if target.shape != state[name].shape:
                raise RuntimeError(f"{name} is {list(state[name].shape)}, not {list(target.shape)}")
            target.copy_(state[name])
