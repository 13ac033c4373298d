"""Tasks whose answer is a map: semantic segmentation of an image, change between two.

Both are an encoder's feature pyramid, a head, and losses of pixels. Change passes both dates through the same
encoder (siamese) and looks at how their features differ.

Legend: B images, C bands, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from swath.datasets.chip import Batch
from swath.encoders.pyramid import FeaturePyramid, build_pyramid
from swath.models.card import TaskCard
from swath.models.contract import Contract
from swath.objectives.protocol import Losses
from swath.sensors.sensor import Sensor
from swath.tasks.augmentation import AugmentConfig, TaskAugmentation
from swath.tasks.dense.colors import colorize_mask
from swath.tasks.dense.config import SegmentationDataConfig
from swath.tasks.dense.data import open_segmentation
from swath.tasks.dense.heads import FCNHead, Head, Norm, build_head, upsample
from swath.tasks.dense.losses import IGNORE, DenseLoss, dense_losses
from swath.tasks.dense.report import map_examples
from swath.tasks.dense.scoring import score_maps
from swath.tasks.protocol import Task, TaskConfig, register_task
from swath.tasks.scores import TaskScores
from swath.tasks.splits import DataSplits
from swath.tiling.grid import OVERLAP


class DenseConfig(TaskConfig):
    """Options that maps of classes have in common.

    Attributes:
        head_width: Channels inside the head.
        norm: Of the head: ``batch``, or ``group`` for batches too small for statistics.
        out_indices: Of a plain transformer, the four blocks that the pyramid takes; left out: spread evenly.
        aux_weight: Weight of the loss of an FCN head on the map of stride 16; 0: none.
        losses: Weight of each: ce, focal, dice.
        class_weights: ``balanced`` counts rare classes more (see `swath.tasks.dense.losses.class_weights`),
            or a number a class.
        augment: Orientation and color.
    """

    head_width: int = Field(default=128, gt=0)
    norm: Norm = "batch"
    out_indices: tuple[int, int, int, int] | None = None
    aux_weight: float = Field(default=0.4, ge=0)
    losses: dict[DenseLoss, float] = Field(default={"ce": 1.0})
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    augment: AugmentConfig = AugmentConfig()

    @field_validator("losses")
    @classmethod
    def _some(cls, losses: dict[DenseLoss, float]) -> dict[DenseLoss, float]:
        if not any(weight > 0 for weight in losses.values()) or min(losses.values()) < 0:
            raise ValueError("losses need weights that are not negative, and one that is positive")
        return losses


class DensePredictionTask(Task):
    """What segmentation and change share: pyramid, losses, pictures."""

    data_config = SegmentationDataConfig
    output = "map"
    tested_at_scales = True
    config: DenseConfig
    weights: Tensor | None

    def __init__(
        self,
        encoder: nn.Module,
        config: DenseConfig,
        contract: Contract,
        *,
        layers: Sequence[int] | None = None,
        levels: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        """Arguments as of every task, and:

        Args:
            encoder: As there.
            config: As there.
            contract: As there.
            layers: Of a plain transformer, where the recipe states none.
            levels: Of the pyramid's maps those that the head looks at.
        """
        super().__init__(config, contract)
        chosen = layers if config.out_indices is None else config.out_indices
        self.pyramid: FeaturePyramid = build_pyramid(
            encoder, self.sensor, layers=chosen, transpose=self.transpose
        )
        self.pyramid.train_what_shows(levels, len(contract.sensor().bands), self.sensor)
        self.augment = TaskAugmentation(config.augment, contract.sensor())
        weights = config.class_weights if isinstance(config.class_weights, tuple) else None
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)
        self.auxiliary = None
        if config.aux_weight:
            self.auxiliary = FCNHead(
                self.pyramid.channels[2], len(config.classes), config.head_width, config.norm
            )

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The encoder inside the pyramid."""
        return self.pyramid.encoder

    def logits(self, image: Tensor, gsd: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [B, K, H, W] of normalized images, and those of the auxiliary head (in training)."""
        raise NotImplementedError

    @classmethod
    def open_data(cls, data: Any, path: str | Path, sensor: Sensor, *, options: Any, seed: int) -> DataSplits:
        """See `Task`."""
        return open_segmentation(data, path, sensor, seed, cls.dates, options.classes)

    def main_figure(self) -> str:
        """The score that chooses the best weights."""
        return "miou"

    def score(
        self,
        dataset: Any,
        contract: Contract,
        device: torch.device,
        *,
        scale: float = 1.0,
        intervals: bool = True,
    ) -> TaskScores:
        """See `Task`; by the confusion matrix over all labeled pixels."""
        return score_maps(self, contract, dataset, device, scale, main=self.main_figure())

    def score_settings(self, dataset: Any) -> dict[str, Any]:
        """Tile size and zoom of the images that were scored."""
        return {
            "pixels": "global confusion over all images; intervals draw whole images",
            "tile": dataset.tile,
            "zoom": dataset.zoom,
        }

    def report_sections(self, model: Any, dataset: Any, scores: TaskScores) -> list[str]:
        """The images with the worst and the best scores, with their maps."""
        return [map_examples(model, dataset, scores)]

    def preferred_tiles(self, trained_size: int) -> tuple[int, float]:
        """See `Task`; tiles overlap, because their maps are blended."""
        return trained_size, OVERLAP

    def empty_output(self, tile_shape: tuple[int, ...], device: torch.device) -> Tensor:
        """No map: [0, K, H, W]."""
        return torch.zeros(0, len(self.config.classes), *tile_shape, device=device)

    def views(self, batch: Batch) -> Mapping[str, Any]:
        """`image`, `gsd` and `mask` [B, H, W]; pixels without data do not count."""
        batch = self.augment(batch)
        mask = batch["mask"].masked_fill(~batch["valid"], IGNORE)
        return {"image": batch["image"], "gsd": batch["gsd"], "mask": mask}

    def forward(self, views: Mapping[str, Any]) -> Losses:
        """The losses of the recipe, ``auxiliary``, their sum ``total``, and the pixels' ``accuracy``."""
        logits, auxiliary = self.logits(views["image"], views["gsd"])
        mask = views["mask"]
        losses = dense_losses(logits, mask, self.config.losses, self.weights)
        if auxiliary is not None:
            losses["auxiliary"] = dense_losses(auxiliary, mask, {"ce": 1.0}, self.weights)["total"]
            losses["total"] = losses["total"] + self.config.aux_weight * losses["auxiliary"]
        counts = mask != IGNORE
        right = (logits.argmax(1) == mask) & counts
        losses["accuracy"] = right.sum() / counts.sum().clamp_min(1)
        return losses

    def predict(self, batch: Batch) -> Tensor:
        """Probabilities [B, K, H, W]."""
        return self.logits(batch["image"], batch["gsd"])[0].float().softmax(dim=1)

    def images(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        """Images, masks and predictions."""
        image = views["image"]
        dates = image.unbind(1) if image.ndim == 5 else [image]
        said = self.logits(image, views["gsd"])[0].argmax(1)
        shown = {f"image {i + 1}" if len(dates) > 1 else "image": x for i, x in enumerate(dates)}
        return {**shown, "mask": colorize_mask(views["mask"]), "prediction": colorize_mask(said)}


class SegmentationConfig(DenseConfig):
    """Options of the task ``segment``.

    Attributes:
        head: ``upernet`` (the paper's), ``fpn``, or ``linear``.
    """

    head: Head = "upernet"


@register_task("segment", SegmentationConfig)
class SegmentationTask(DensePredictionTask):
    """A class for every pixel of an image."""

    card: ClassVar[TaskCard | None] = TaskCard(
        "names the class of every pixel", "[N, bands, height, width]",
        "probabilities [N, {classes}, height, width] of the classes", "image-segmentation",
        "semantic-segmentation", ("batch", "class", "height", "width"),
    )  # fmt: skip
    config: SegmentationConfig

    def __init__(self, encoder: nn.Module, config: SegmentationConfig, contract: Contract) -> None:
        super().__init__(encoder, config, contract)
        classes = len(config.classes)
        self.head = build_head(config.head, self.pyramid.channels, classes, config.head_width, config.norm)

    def logits(self, image: Tensor, gsd: Tensor) -> tuple[Tensor, Tensor | None]:  # noqa: D102
        maps = self.pyramid(image, gsd, self.sensor)
        auxiliary = None
        if self.auxiliary is not None and self.training:
            auxiliary = upsample(self.auxiliary(maps[2]), image.shape[2:])
        return upsample(self.head(maps), image.shape[2:]), auxiliary
