"""The task ``detect``: objects as boxes, upright or oriented, by one of three detectors on any encoder.

What a detector is stands in `swath.tasks.detection.detectors.torchvision_detectors` and `oriented_rcnn`;
here it becomes a task that the engine trains: augmentation, losses, and what it finds in images of any size.

Legend: B images, C bands, H x W pixels, N boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from swath.datasets.chip import Batch
from swath.encoders.pyramid import build_pyramid
from swath.models.card import TaskCard
from swath.models.contract import Contract
from swath.objectives.protocol import Losses
from swath.sensors.sensor import Sensor
from swath.tasks.augmentation import AugmentConfig, TaskAugmentation
from swath.tasks.detection.data.augmentation import random_flip_rotate_boxes
from swath.tasks.detection.data.dataset import BOXES, collate_detections
from swath.tasks.detection.data.splits import DetectionDataConfig, open_detection
from swath.tasks.detection.detectors.common import Detections, Detector, image_sizes
from swath.tasks.detection.detectors.oriented_rcnn import OrientedRCNN
from swath.tasks.detection.detectors.torchvision_detectors import FCOS, FasterRCNN
from swath.tasks.detection.drawing import outline_image
from swath.tasks.detection.report import detection_gallery, precision_curves
from swath.tasks.detection.scoring import score_boxes
from swath.tasks.detection.tiled_inference import chosen, on_cpu, outlines
from swath.tasks.protocol import Task, TaskConfig, register_task
from swath.tasks.scores import TaskScores
from swath.tasks.splits import DataSplits

DetectionHead = Literal["faster_rcnn", "fcos", "oriented_rcnn"]
_OVERLAP: dict[DetectionHead, float] = {"faster_rcnn": 0.5, "fcos": 0.6, "oriented_rcnn": 0.1}
_MOST: dict[DetectionHead, int] = {"faster_rcnn": 300, "fcos": 300, "oriented_rcnn": 2000}
# Options of two-stage detectors -> arguments of their classes.
_OF_STAGES = {
    "roi_hidden_dim": "hidden",
    "anchor_scale": "anchor_scale",
    "max_proposals": "proposals",
    "box_batch_size_per_image": "regions",
}
_PIXELS = 2**18  # of windows that are looked at together
_PICTURED = 0.5  # least score of what pictures of training show


class DetectionConfig(TaskConfig):
    """Options of the task ``detect``.

    Attributes:
        head: ``faster_rcnn`` (two stages) or ``fcos`` (one) for upright boxes, ``oriented_rcnn`` (two stages)
            for oriented ones.
        head_width: Channels of the feature pyramid that the head stands on.
        roi_hidden_dim: Width of the second stage's two layers; left out: 1024. FCOS has none.
        anchor_scale: Side of a square anchor over its stride; left out: 8, for objects from 32 pixels; take 4
            where they are 10 to 20 pixels long. FCOS has none.
        max_proposals: Of a window that the first stage hands on; left out: 2000. FCOS has none.
        box_batch_size_per_image: Of a crop that the second stage learns from; left out: 512. Small crops
            need fewer, and each costs time. FCOS has none.
        out_indices: Of a plain transformer, the four blocks that the pyramid takes; left out: spread evenly.
        score_threshold: Least score of a detection.
        nms_iou: IoU from which the lower of two detections of a class is dropped; left out: 0.5, of FCOS 0.6,
            of oriented boxes (rotated IoU) 0.1.
        max_detections: Detections of a window; left out: 300, of oriented boxes 2000.
        tile: Side in pixels of what is looked at in one piece, when it is no training.
        tile_overlap: Pixels that such windows share: objects up to that length are seen whole.
        ap_metric: By what AP models are chosen and scored: ``coco`` or ``dota``; left out: COCO's for upright
            boxes, DOTA's for oriented ones.
        augment: Orientation and color.
    """

    head: DetectionHead = "faster_rcnn"
    head_width: int = Field(default=256, gt=0)
    roi_hidden_dim: int | None = Field(default=None, gt=0)
    anchor_scale: float | None = Field(default=None, gt=0)
    max_proposals: int | None = Field(default=None, gt=0)
    box_batch_size_per_image: int | None = Field(default=None, gt=3)
    out_indices: tuple[int, int, int, int] | None = None
    score_threshold: float = Field(default=0.05, ge=0, lt=1)
    nms_iou: float | None = Field(default=None, gt=0, lt=1)
    max_detections: int | None = Field(default=None, gt=0)
    tile: int = Field(default=1024, gt=0)
    tile_overlap: int = Field(default=200, ge=0)
    ap_metric: Literal["coco", "dota"] | None = None
    augment: AugmentConfig = AugmentConfig()

    @model_validator(mode="after")
    def _meant(self) -> Self:
        if self.head == "fcos":
            for name in _OF_STAGES:
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} has no meaning for fcos, which has neither stages nor anchors")
            if self.head_width % 64:  # it normalizes in 32 groups, each of more than one channel
                raise ValueError(f"head_width of fcos is a multiple of 64, not {self.head_width}")
        if self.tile_overlap >= self.tile:
            raise ValueError(f"tile_overlap ({self.tile_overlap}) must be smaller than tile ({self.tile})")
        return self

    @property
    def oriented(self) -> bool:
        """Whether boxes have an angle."""
        return self.head == "oriented_rcnn"

    @property
    def by(self) -> Literal["coco", "dota"]:
        """The measure."""
        return self.ap_metric or ("dota" if self.oriented else "coco")


@register_task("detect", DetectionConfig)
class DetectionTask(Task):
    """Objects of an image as boxes, with their classes and scores.

    Attributes:
        detector: The network, encoder included; see `Detector`.
        oriented: Whether boxes have an angle.
        overlap: IoU from which the lower of two detections of a class is dropped.
    """

    data_config = DetectionDataConfig
    output = "boxes"
    tested_at_scales = True
    card: ClassVar[TaskCard | None] = TaskCard(
        "finds objects", "[N, bands, height, width]",
        "for each image {boxes}, scores [M] and labels [M], in pixels", "object-detection",
        "object-detection", ("object", "box"),
    )  # fmt: skip
    config: DetectionConfig

    def __init__(self, encoder: nn.Module, config: DetectionConfig, contract: Contract) -> None:
        super().__init__(config, contract)
        self.oriented = config.oriented
        self.nms_iou = config.nms_iou or _OVERLAP[config.head]
        self.augment = TaskAugmentation(
            config.augment.model_copy(update={"orientation": "none"}), contract.sensor()
        )
        maps = build_pyramid(encoder, self.sensor, layers=config.out_indices, transpose=self.transpose)
        levels = (1, 2, 3) if config.head == "fcos" else (0, 1, 2, 3)
        maps.train_what_shows(levels, len(contract.sensor().bands), self.sensor)
        options: dict[str, Any] = {
            "channels": config.head_width,
            "score": config.score_threshold,
            "overlap": self.nms_iou,
            "most": config.max_detections or _MOST[config.head],
        }
        if config.head != "fcos":
            stated = {argument: getattr(config, name) for name, argument in _OF_STAGES.items()}
            options |= {name: value for name, value in stated.items() if value is not None}
        build: Any = {"faster_rcnn": FasterRCNN, "fcos": FCOS, "oriented_rcnn": OrientedRCNN}[config.head]
        self.detector: Detector = build(maps, len(config.classes), **options)

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The encoder inside the detector."""
        return self.detector.neck.pyramid.encoder  # type: ignore[attr-defined, no-any-return]

    @classmethod
    def open_data(cls, data: Any, path: str | Path, sensor: Sensor, *, options: Any, seed: int) -> DataSplits:
        """See `Task`."""
        return open_detection(data, path, sensor, seed, options.classes)

    def score(
        self,
        dataset: Any,
        contract: Contract,
        device: torch.device,
        *,
        scale: float = 1.0,
        intervals: bool = True,
    ) -> TaskScores:
        """See `Task`; by average precision."""
        return score_boxes(self, contract, dataset, device, scale=scale, resamples=500 if intervals else 0)

    def report_sections(self, model: Any, dataset: Any, scores: TaskScores) -> list[str]:
        """Precision over recall, and images with their boxes."""
        return [precision_curves(scores), detection_gallery(model, dataset, scores)]

    def preferred_tiles(self, trained_size: int) -> tuple[int, float]:
        """The tiles that the task itself predicts large images in."""
        return self.config.tile, min(0.5, self.config.tile_overlap / self.config.tile)

    def empty_output(self, tile_shape: tuple[int, ...], device: torch.device) -> list[Detections]:
        """No detections."""
        return []

    def views(self, batch: Batch) -> Mapping[str, Any]:
        """The batch with every image and its boxes turned together, then its colors changed."""
        every: Any = batch
        mode = self.config.augment.orientation
        sizes, samples = image_sizes(every), []
        for i, (height, width) in enumerate(sizes[: len(every["image"])]):
            sample: Any = {key: every[key][i] for key in BOXES}
            sample |= {
                "image": every["image"][i, :, :height, :width],
                "valid": every["valid"][i, :height, :width],
                "gsd": float(every["gsd"][i]),
                "sensor": self.sensor,
                "index": i,
                "key": int(every["key"][i]),
            }
            samples.append(
                sample if mode == "none" else random_flip_rotate_boxes(sample, rotate=mode == "all")
            )
        views: Any = collate_detections(samples) | {"gsd": every["gsd"], "key": every["key"]}
        return self.augment(views)

    def forward(self, views: Mapping[str, Any]) -> Losses:
        """The detector's losses by name, and their sum as ``total``."""
        losses = self.detector.losses(views)
        named = {name.removeprefix("loss_"): value for name, value in losses.items()}
        return {"total": torch.stack(list(losses.values())).sum(), **named}

    def predict(self, batch: Batch) -> list[Detections]:
        """What is found in each image of a normalized batch, looked at in one piece, by falling score.

        The batch may have `size`, a list of (height, width) of what of each image is no padding. Boxes are in
        pixels of their images, on the batch's device: `boxes` [N, 4], or `obb` [N, 5] of oriented ones.
        """
        return self.detector.predict(batch)

    def images(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        """Images, true boxes, and what is found with a score of a half and more."""
        size = tuple(views["image"].shape[2:])
        key = "obb" if self.oriented else "bbox_xyxy"
        name = "obb" if self.oriented else "boxes"
        truth = [outline_image(outlines({name: boxes}), size) for boxes in views[key]]  # type: ignore[misc]
        found = [on_cpu(one) for one in self.predict(views)]  # type: ignore[arg-type]
        sure = [chosen(one, one["scores"] >= _PICTURED) for one in found]
        said = [outline_image(outlines(one), size) for one in sure]
        return {"image": views["image"], "truth": torch.stack(truth), "found": torch.stack(said)}
