"""Detectors of upright boxes on any encoder: Faster R-CNN (two stages) and FCOS (one), in torchvision parts.

Ren et al., "Faster R-CNN", arXiv 1506.01497, with the feature pyramid of Lin et al., arXiv 1612.03144; Tian
et al., "FCOS: Fully Convolutional One-Stage Object Detection", arXiv 1904.01355. Heads, assignment and losses
are torchvision's; what meets the encoder (neck, anchors, pooling) is ours, so that bands, GSD, sensor and
image sizes are free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from swath.encoders.pyramid import FeaturePyramid
from swath.tasks.detection.detectors.common import (
    FPN,
    Anchors,
    Detections,
    MultiLevelRoIAlign,
    detection_targets,
    exclude_ignored,
    ignored_regions,
    image_sizes,
    seeded_sampling,
)

_NO_LOSS = -100.0  # a logit whose focal loss as background, and its gradient, are 0


@contextmanager
def _computing(losses: bool, *modules: nn.Module) -> Iterator[None]:
    """torchvision's modules give losses or detections by `training`, which their children keep as it is."""
    before = [module.training for module in modules]
    for module in modules:
        module.training = losses
    try:
        yield
    finally:
        for module, flag in zip(modules, before, strict=True):
            module.training = flag


@cache
def _stages() -> tuple[Any, Any]:
    """torchvision's two stages, but that regions to be ignored are no background; loaded when used."""
    from torchvision.models.detection.roi_heads import RoIHeads
    from torchvision.models.detection.rpn import RegionProposalNetwork

    class Proposals(RegionProposalNetwork):  # type: ignore[misc]
        def assign_targets_to_anchors(self, anchors: Any, targets: Any) -> Any:
            labels, boxes = super().assign_targets_to_anchors(anchors, targets)
            freed = [
                exclude_ignored(label, own, target["ignored"], background=0, neither=-1)
                for label, own, target in zip(labels, anchors, targets, strict=True)
            ]
            return freed, boxes

    class Heads(RoIHeads):  # type: ignore[misc]
        def select_training_samples(self, proposals: Any, targets: Any) -> Any:
            self._ignored = [target["ignored"] for target in targets]
            return super().select_training_samples(proposals, targets)

        def assign_targets_to_proposals(self, proposals: Any, boxes: Any, labels: Any) -> Any:
            matched, labels = super().assign_targets_to_proposals(proposals, boxes, labels)
            freed = [
                exclude_ignored(label, own, regions, background=0, neither=-1)
                for label, own, regions in zip(labels, proposals, self._ignored, strict=True)
            ]
            return matched, freed

    return Proposals, Heads


class FasterRCNN(nn.Module):
    """Faster R-CNN with FPN; a `Detector`.

    Args:
        pyramid: The encoder's feature pyramid.
        classes: Number of classes.
        channels: Of the neck.
        anchor_scale: Side of a square anchor over its stride; the finest stride is 4.
        hidden: Width of the box head's two layers.
        proposals: Of an image that reach the second stage in training; half as many otherwise.
        regions: Of an image that the second stage learns from.
        score: Least score of a detection.
        overlap: IoU at which the lower of two detections of a class is dropped.
        most: Detections an image.
    """

    def __init__(
        self,
        pyramid: FeaturePyramid,
        classes: int,
        *,
        channels: int = 256,
        anchor_scale: float = 8.0,
        hidden: int = 1024,
        proposals: int = 2000,
        regions: int = 512,
        score: float = 0.05,
        overlap: float = 0.5,
        most: int = 300,
    ) -> None:
        super().__init__()
        from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
        from torchvision.models.detection.rpn import RPNHead

        first, second = _stages()
        self.neck = FPN(pyramid, channels)
        anchors = Anchors(self.neck.strides, anchor_scale)
        self.rpn = first(
            anchors,
            RPNHead(channels, len(anchors.ratios)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": proposals, "testing": max(1, proposals // 2)},
            post_nms_top_n={"training": proposals, "testing": max(1, proposals // 2)},
            nms_thresh=0.7,
        )
        align = MultiLevelRoIAlign(pyramid.strides)
        self.heads = second(
            align,
            TwoMLPHead(channels * align.size**2, hidden),
            FastRCNNPredictor(hidden, classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=regions,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=score,
            nms_thresh=overlap,
            detections_per_img=most,
        )

    def losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses of both stages; see `Detector`."""
        # torchvision counts the background as class 0.
        easy, ignored = detection_targets(batch, "bbox_xyxy"), ignored_regions(batch, "bbox_xyxy")
        targets = [
            {"boxes": boxes.view(-1, 4), "labels": labels + 1, "ignored": regions.view(-1, 4)}
            for (boxes, labels), regions in zip(easy, ignored, strict=True)
        ]
        with seeded_sampling(batch):
            _, losses = self._run(batch, targets)
        return losses

    @torch.no_grad()
    def predict(self, batch: Mapping[str, Any]) -> list[Detections]:
        """Upright boxes; see `Detector`."""
        found, _ = self._run(batch, None)
        return [
            {"boxes": one["boxes"], "scores": one["scores"], "labels": one["labels"] - 1} for one in found
        ]

    def _run(
        self, batch: Mapping[str, Any], targets: list[dict[str, Tensor]] | None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        from torchvision.models.detection.image_list import ImageList

        sizes = image_sizes(batch)
        maps = {str(i): x for i, x in enumerate(self.neck(batch))}
        with _computing(targets is not None, self.rpn, self.heads):
            regions, first = self.rpn(ImageList(batch["image"], sizes), maps, targets)
            found, second = self.heads(maps, regions, sizes, targets)
        return found, first | second


class FCOS(nn.Module):
    """FCOS, a detector of one stage without anchors, at strides 8 to 128; a `Detector`.

    Arguments as for `FasterRCNN`; `score` is compared with the root of class score times centeredness.
    """

    def __init__(
        self,
        pyramid: FeaturePyramid,
        classes: int,
        *,
        channels: int = 256,
        score: float = 0.05,
        overlap: float = 0.6,
        most: int = 300,
    ) -> None:
        super().__init__()
        from torchvision.models.detection import fcos

        self.neck = FPN(pyramid, channels, finest=1, extra="learned")
        stand_in = nn.Module()  # torchvision asks its backbone for nothing but this number
        stand_in.out_channels = channels  # type: ignore[assignment]
        self.fcos = fcos.FCOS(
            stand_in, classes, score_thresh=score, nms_thresh=overlap, detections_per_img=most
        )
        # Where an anchor is stands for the place; its side, the stride, is the unit of distances.
        self.fcos.anchor_generator = Anchors(self.neck.strides, 1.0, (1.0,))

    def losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses of classes, boxes and centeredness; see `Detector`."""
        targets = [
            {"boxes": boxes.view(-1, 4), "labels": labels}
            for boxes, labels in detection_targets(batch, "bbox_xyxy")
        ]
        _, anchors, outputs, cells = self._run(batch)
        # A place in a region to be ignored, and in no object, is sure already: there is nothing to learn.
        logits = outputs["cls_logits"].clone()
        for i, (regions, target) in enumerate(zip(ignored_regions(batch, "bbox_xyxy"), targets, strict=True)):
            place = (anchors[i][:, :2] + anchors[i][:, 2:]) / 2
            free = _within(place, regions.view(-1, 4)) & ~_within(place, target["boxes"])
            logits[i, free] = _NO_LOSS
        outputs = {**outputs, "cls_logits": logits}
        losses: dict[str, Tensor] = self.fcos.compute_loss(targets, outputs, anchors, cells)
        return losses

    @torch.no_grad()
    def predict(self, batch: Mapping[str, Any]) -> list[Detections]:
        """Upright boxes; see `Detector`."""
        sizes, anchors, outputs, cells = self._run(batch)
        by_level = {name: list(torch.split(values, cells, dim=1)) for name, values in outputs.items()}
        found = self.fcos.postprocess_detections(
            by_level, [list(torch.split(one, cells)) for one in anchors], sizes
        )
        return [{"boxes": one["boxes"], "scores": one["scores"], "labels": one["labels"]} for one in found]

    def _run(
        self, batch: Mapping[str, Any]
    ) -> tuple[list[tuple[int, int]], list[Tensor], dict[str, Tensor], list[int]]:
        """Sizes, anchors of each image, what the head says, and cells of each level."""
        maps = self.neck(batch)
        every = torch.cat(self.fcos.anchor_generator.levels(maps))
        return (
            image_sizes(batch),
            [every] * len(batch["image"]),
            {name: values.float() for name, values in self.fcos.head(maps).items()},
            [x.shape[2] * x.shape[3] for x in maps],
        )


def _within(places: Tensor, boxes: Tensor) -> Tensor:
    """[N] whether each place (x, y) lies in one of the boxes."""
    x, y = places[:, None].unbind(2)
    return ((x >= boxes[:, 0]) & (y >= boxes[:, 1]) & (x <= boxes[:, 2]) & (y <= boxes[:, 3])).any(1)
