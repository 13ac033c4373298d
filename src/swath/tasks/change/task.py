"""The task ``change``: what differs between two dates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from swath.encoders.protocol import IntermediateFeatures
from swath.models.card import TaskCard
from swath.models.contract import Contract
from swath.sensors.sensor import Sensor
from swath.tasks.dense.bit import BIT, LEVEL
from swath.tasks.dense.data import open_segmentation
from swath.tasks.dense.heads import build_head, upsample
from swath.tasks.dense.task import DenseConfig, DensePredictionTask
from swath.tasks.protocol import register_task
from swath.tasks.splits import DataSplits


class ChangeDetectionConfig(DenseConfig):
    """Options of the task ``change``.

    Attributes:
        head: ``upernet``, ``fpn`` or ``linear`` on the absolute difference of each level; or ``bit``, whose
            inner sizes are the paper's, whatever `head_width`. It looks at a single map, at stride 16: of a
            CNN its third stage (the fourth is then not trained), of a plain transformer its last block.
        radiometric_match: ``mean_std`` brings each band of the later date to the mean and spread that the
            earlier one has over the whole scene, in training and in prediction (see
            `swath.tasks.change.radiometric_match`).
    """

    head: Literal["upernet", "fpn", "linear", "bit"] = "upernet"
    radiometric_match: Literal["none", "mean_std"] = "none"


@register_task("change", ChangeDetectionConfig)
class ChangeDetectionTask(DensePredictionTask):
    """A class for every pixel of a pair: what has changed between two dates, or how."""

    dates = 2
    card: ClassVar[TaskCard | None] = TaskCard(
        "names what has changed between two dates, pixel by pixel", "[N, 2, bands, height, width]",
        "probabilities [N, {classes}, height, width] of the classes", "image-segmentation",
        "semantic-segmentation", ("batch", "class", "height", "width"),
    )  # fmt: skip
    config: ChangeDetectionConfig

    def __init__(self, encoder: nn.Module, config: ChangeDetectionConfig, contract: Contract) -> None:
        layers, levels = None, (0, 1, 2, 3)
        if config.head == "bit":
            # It looks at a single map: of a plain transformer the last one, so that every block is used.
            layers = (encoder.depth,) * 4 if isinstance(encoder, IntermediateFeatures) else None
            levels = (LEVEL,)  # type: ignore[assignment]
        super().__init__(encoder, config, contract, layers=layers, levels=levels)
        channels, classes = self.pyramid.channels, len(config.classes)
        self.head: nn.Module
        if config.head == "bit":
            self.head = BIT(channels, classes, norm=config.norm)
        else:
            self.head = build_head(config.head, channels, classes, config.head_width, config.norm)

    @classmethod
    def open_data(cls, data: Any, path: str | Path, sensor: Sensor, *, options: Any, seed: int) -> DataSplits:
        """See `Task`."""
        match = options.radiometric_match == "mean_std"
        return open_segmentation(data, path, sensor, seed, cls.dates, options.classes, match=match)

    @property
    def matches_dates(self) -> bool:
        """See `Task`."""
        return self.config.radiometric_match == "mean_std"

    def main_figure(self) -> str:
        """F1 of change where it is changed or not; else as for segmentation."""
        return "f1" if len(self.config.classes) == 2 else super().main_figure()

    def logits(self, image: Tensor, gsd: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of images [B, 2, C, H, W], before and after."""
        size = image.shape[-2:]
        maps = self.pyramid(image.flatten(0, 1), gsd.repeat_interleave(2), self.sensor)
        before, after = [m[0::2] for m in maps], [m[1::2] for m in maps]
        difference = [(a - b).abs() for a, b in zip(after, before, strict=True)]
        auxiliary = None
        if self.auxiliary is not None and self.training:
            auxiliary = upsample(self.auxiliary(difference[2]), size)
        if self.config.head == "bit":
            return self.head(before, after, size), auxiliary
        return upsample(self.head(difference), size), auxiliary
