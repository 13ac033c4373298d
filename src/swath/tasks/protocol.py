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
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from swath.datasets.chip import Batch
from swath.models.card import TaskCard, task_cards
from swath.models.contract import Contract
from swath.objectives.protocol import Losses, ObjectiveConfig
from swath.registry import Registry
from swath.sensors.sensor import Sensor
from swath.tasks.scores import TaskScores
from swath.tasks.splits import DataSplits, TaskDataConfig


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
        data_config: The pydantic class of the recipe's section ``data``.
        output: What `predict` returns: ``labels`` of images, a ``map`` of classes, or ``boxes``. `swath
            predict` finds its writer by this name, so other tasks may use other names.
        card: What the model card prints; None: only the classes.
        dates: Images of one location per sample: 1, or 2 for change.
        tested_at_scales: Whether the test split is also scored on images of reduced size.
        gsd_option: The data options that change the GSD of training images, for messages.
        compares_samples: Whether its losses mix the samples of a batch (mixup).
        frozen: Whether the encoder stays as it is: then it also stays in evaluation mode.
    """

    data_config: ClassVar[type[TaskDataConfig]] = TaskDataConfig
    output: ClassVar[str] = "labels"
    card: ClassVar[TaskCard | None] = None
    dates: ClassVar[int] = 1
    tested_at_scales: ClassVar[bool] = False
    gsd_option: ClassVar[str] = "data.scale_range"
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

    def images(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        """Named pictures: [B, C, h, w] normalized, or [B, 3, h, w] uint8 as it is; may be empty."""
        return {}

    def train(self, mode: bool = True) -> Task:
        """As of any module; but a frozen encoder keeps its statistics and drops nothing."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    # ---- data

    @classmethod
    def open_data(cls, data: Any, path: str | Path, sensor: Sensor, *, options: Any, seed: int) -> DataSplits:
        """The train, validation and test splits of labeled data.

        Args:
            data: Options of the data, a `data_config`.
            path: Folder or table.
            sensor: What the images were taken with.
            options: Options of the task.
            seed: Of random decisions.
        """
        raise NotImplementedError

    @classmethod
    def options_from_data(cls, splits: DataSplits) -> dict[str, Any]:
        """Options of the task that follow from the data, beside `classes`."""
        return {}

    # ---- scores and report

    def score(
        self,
        dataset: Any,
        contract: Contract,
        device: torch.device,
        *,
        scale: float = 1.0,
        intervals: bool = True,
    ) -> TaskScores:
        """Scores on all images of a split.

        Args:
            dataset: The split.
            contract: Of its images.
            device: Where the task is.
            scale: Images are reduced to this fraction of their size first; the labels are not.
            intervals: Whether confidence intervals are computed where they cost time.

        Raises:
            ImageryError: No image can be read. Single unreadable images are listed in the scores' protocol.
        """
        raise NotImplementedError

    def score_settings(self, dataset: Any) -> dict[str, Any]:
        """How the split was scored, for ``protocol`` in ``scores.json``."""
        return {}

    def report_sections(self, model: Any, dataset: Any, scores: TaskScores) -> list[str]:
        """The task's own sections of the report, as HTML: examples, curves.

        Args:
            model: The `TaskModel` that holds this task.
            dataset: The split that was scored.
            scores: Its scores.
        """
        return []

    # ---- prediction

    @property
    def matches_dates(self) -> bool:
        """Whether `swath predict` matches the radiometry of the second date to the first."""
        return False

    def preferred_tiles(self, trained_size: int) -> tuple[int, float]:
        """Tile size in pixels and overlap as a fraction of it, for a model trained on `trained_size`."""
        return trained_size, 0.0

    def empty_output(self, tile_shape: tuple[int, ...], device: torch.device) -> Any:
        """What `predict` returns for no image; `tile_shape` is (height, width)."""
        return torch.zeros(0, len(self.config.classes), device=device)

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
        task: The class: its data, its outputs.
    """

    config: type[TaskConfig]
    build: Callable[[nn.Module, Any, Contract], Task]
    summary: str
    task: type[Task]


tasks: Registry[TaskEntry] = Registry("task", "swath.tasks")


def register_task(name: str, config: type[TaskConfig]) -> Callable[[type[Task]], type[Task]]:
    """Class decorator: register ``Class(encoder, config, contract)`` as the task `name`."""

    def decorate(cls: type[Task]) -> type[Task]:
        summary = (cls.__doc__ or "").strip().split("\n")[0]
        tasks.register(name)(TaskEntry(config, cast(Any, cls), summary, cls))
        if cls.card is not None:
            task_cards.register(name)(cls.card)
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
