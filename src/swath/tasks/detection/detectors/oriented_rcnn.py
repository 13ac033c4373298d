"""Oriented R-CNN: two-stage detection of oriented boxes, on any encoder.

Xie, Cheng, Wang, Yao and Han, "Oriented R-CNN for Object Detection", ICCV 2021, arXiv 2108.05699; the
detector of CMID's DOTA protocol (le90). A light first stage slides over the pyramid and turns upright anchors
into oriented proposals by six numbers each. The second stage reads the features inside each proposal, along
its sides, names the class and corrects the box by five numbers. Written from the paper; the defaults are
those that the field uses for DOTA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swath.encoders.pyramid import FeaturePyramid
from swath.tasks.detection.detectors.box_coding import (
    delta_decode,
    delta_encode,
    midpoint_decode,
    midpoint_encode,
)
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
from swath.tasks.detection.rotated_boxes import rotated_iou, rotated_nms, to_xyxy


def match_anchors(iou: Tensor, high: float, low: float, *, best: bool) -> Tensor:
    """Which true box each candidate stands for.

    Args:
        iou: [N, G] overlap of candidates and true boxes.
        high: From this overlap on a candidate stands for its best true box.
        low: Below it, for the background.
        best: Whether the best candidates of a true box stand for it even below `high` (from `low` on).

    Returns:
        [N] int64: index of the true box, -1 for background, -2 for neither.
    """
    if not iou.shape[1]:
        return torch.full((len(iou),), -1, dtype=torch.int64, device=iou.device)
    value, index = iou.max(dim=1)
    result = torch.where(value >= high, index, torch.where(value < low, -1, -2))
    if best:
        top = iou.amax(dim=0)
        candidate, box = ((iou == top) & (top >= low)).nonzero(as_tuple=True)
        result[candidate] = box
    return result


def sample_balanced(assigned: Tensor, count: int, fraction: float) -> tuple[Tensor, Tensor]:
    """Indices of at most `count` candidates, drawn at random: foreground (at most that share), background."""
    foreground, background = ((assigned >= 0).nonzero().squeeze(1), (assigned == -1).nonzero().squeeze(1))

    def some(indices: Tensor, maximum: int) -> Tensor:
        return indices[torch.randperm(len(indices), device=indices.device)[:maximum]]

    foreground = some(foreground, int(count * fraction))
    return foreground, some(background, count - len(foreground))


class OrientedRPN(nn.Module):
    """The first stage: from the maps of a neck to oriented proposals."""

    def __init__(self, channels: int, anchors: Anchors, *, keep: int, overlap: float) -> None:
        super().__init__()
        self.anchors, self.keep, self.overlap = anchors, keep, overlap
        count = len(anchors.ratios)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.score = nn.Conv2d(channels, count, 1)
        self.numbers = nn.Conv2d(channels, 6 * count, 1)
        for layer in (self.conv, self.score, self.numbers):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """For each level the objectness [B, n] and the six numbers [B, n, 6] of its anchors."""
        scores, numbers = [], []
        for x in maps:
            x = F.relu(self.conv(x))
            scores.append(self.score(x).permute(0, 2, 3, 1).flatten(1))
            numbers.append(self.numbers(x).permute(0, 2, 3, 1).reshape(len(x), -1, 6))
        return scores, numbers

    @torch.no_grad()
    def proposals(self, maps: list[Tensor], scores: list[Tensor], numbers: list[Tensor]) -> list[Tensor]:
        """The best proposals [N, 5] of each image; overlapping ones (upright IoU) dropped level by level."""
        from torchvision.ops import batched_nms

        anchors = self.anchors.levels(maps)
        result = []
        for image in range(len(maps[0])):
            boxes, values, levels = [], [], []
            for level, (score, number, anchor) in enumerate(zip(scores, numbers, anchors, strict=True)):
                value, index = score[image].float().topk(min(self.keep, score.shape[1]))
                boxes.append(midpoint_decode(anchor[index], number[image, index].float()))
                values.append(value)
                levels.append(torch.full_like(index, level))
            box, value, level_of = torch.cat(boxes), torch.cat(values), torch.cat(levels)
            good = box.isfinite().all(1) & (box[:, 3] > 1)
            box, value, level_of = box[good], value[good], level_of[good]
            kept = batched_nms(to_xyxy(box), value, level_of, self.overlap)[: self.keep]
            result.append(box[kept])
        return result

    def losses(
        self,
        maps: list[Tensor],
        scores: list[Tensor],
        numbers: list[Tensor],
        targets: list[Tensor],
        ignored: list[Tensor],
    ) -> dict[str, Tensor]:
        """Objectness and box losses against true oriented boxes [G, 5] of each image; see `in_regions`."""
        from torchvision.ops import box_iou

        anchors = torch.cat(self.anchors.levels(maps))
        score, number = torch.cat(scores, 1).float(), torch.cat(numbers, 1).float()
        objectness, box, total = score.sum() * 0, number.sum() * 0, 0
        for image, (true, regions) in enumerate(zip(targets, ignored, strict=True)):
            assigned = match_anchors(box_iou(anchors, to_xyxy(true)), 0.7, 0.3, best=True)
            assigned = exclude_ignored(assigned, anchors, regions, background=-1, neither=-2)
            front, back = sample_balanced(assigned, 256, 0.5)
            wanted = torch.cat([score.new_ones(len(front)), score.new_zeros(len(back))])
            both = score[image, torch.cat([front, back])]
            objectness = objectness + F.binary_cross_entropy_with_logits(both, wanted, reduction="sum")
            target = midpoint_encode(anchors[front], true[assigned[front]])
            box = box + F.smooth_l1_loss(number[image, front], target, beta=1 / 9, reduction="sum")
            total += len(wanted)
        return {"loss_objectness": objectness / max(total, 1), "loss_proposal_box": box / max(total, 1)}


class OrientedRoIHead(nn.Module):
    """The second stage: class scores (background last) and five numbers of every proposal."""

    def __init__(
        self, channels: int, classes: int, strides: tuple[int, ...], hidden: int, regions: int
    ) -> None:
        super().__init__()
        self.classes, self.regions = classes, regions
        self.align = MultiLevelRoIAlign(strides)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * self.align.size**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.score = nn.Linear(hidden, classes + 1)
        self.numbers = nn.Linear(hidden, 5)
        for layer, std in ((self.score, 0.01), (self.numbers, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: list[Tensor], proposals: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [R, K + 1] and numbers [R, 5] of the proposals of all images."""
        x = self.layers(self.align(maps, proposals))
        return self.score(x).float(), self.numbers(x).float()

    def losses(
        self,
        maps: list[Tensor],
        proposals: list[Tensor],
        targets: list[tuple[Tensor, Tensor]],
        ignored: list[Tensor],
    ) -> dict[str, Tensor]:
        """Class and box losses of a sample of the proposals; the true boxes are among them."""
        regions, labels, numbers = [], [], []
        for own, (true, label), taboo in zip(proposals, targets, ignored, strict=True):
            own = torch.cat([own, true])
            assigned = match_anchors(rotated_iou(own, true), 0.5, 0.5, best=False)
            assigned = exclude_ignored(assigned, own, taboo, background=-1, neither=-2)
            front, back = sample_balanced(assigned, self.regions, 0.25)
            box = assigned[front]
            regions.append(torch.cat([own[front], own[back]]))
            labels.append(torch.cat([label[box], label.new_full((len(back),), self.classes)]))
            numbers.append(delta_encode(own[front], true[box]))
        logits, given = self(maps, regions)
        wanted, target = torch.cat(labels), torch.cat(numbers)
        box_loss = F.smooth_l1_loss(given[wanted < self.classes], target, reduction="sum")
        class_loss = F.cross_entropy(logits, wanted, reduction="sum")
        count = max(len(wanted), 1)
        return {"loss_classifier": class_loss / count, "loss_box": box_loss / count}


class OrientedRCNN(nn.Module):
    """Oriented R-CNN; a `Detector`.

    Args:
        pyramid: The encoder's feature pyramid.
        classes: Number of classes.
        channels: Of the neck.
        anchor_scale: Side of a square anchor over its stride; the finest stride is 4.
        hidden: Width of the head's two layers.
        proposals: Of an image that reach the second stage, and that each level may send.
        regions: Of an image that the second stage learns from.
        score: Least score of a detection.
        overlap: Rotated IoU at which the lower of two detections of a class is dropped.
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
        overlap: float = 0.1,
        most: int = 2000,
    ) -> None:
        super().__init__()
        self.score, self.overlap, self.most = score, overlap, most
        self.neck = FPN(pyramid, channels)
        anchors = Anchors(self.neck.strides, anchor_scale)
        self.first = OrientedRPN(channels, anchors, keep=proposals, overlap=0.8)
        self.second = OrientedRoIHead(channels, classes, pyramid.strides, hidden, regions)

    def losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses of both stages; see `Detector`. Needs `obb`."""
        targets = [(boxes.view(-1, 5), labels) for boxes, labels in detection_targets(batch, "obb")]
        ignored = [boxes.view(-1, 5) for boxes in ignored_regions(batch, "obb")]
        maps = self.neck(batch)
        scores, numbers = self.first(maps)
        proposals = self.first.proposals(maps, scores, numbers)
        with seeded_sampling(batch):
            return self.first.losses(maps, scores, numbers, [boxes for boxes, _ in targets], ignored) | (
                self.second.losses(maps, proposals, targets, ignored)
            )

    @torch.no_grad()
    def predict(self, batch: Mapping[str, Any]) -> list[Detections]:
        """Oriented boxes, le90, whose center is in the image; see `Detector`."""
        maps = self.neck(batch)
        proposals = self.first.proposals(maps, *self.first(maps))
        logits, numbers = self.second(maps, proposals)
        counts = [len(one) for one in proposals]
        shares = logits.softmax(1)[:, :-1]
        result: list[Detections] = []
        parts = zip(
            torch.split(shares, counts),
            torch.split(numbers, counts),
            proposals,
            image_sizes(batch),
            strict=True,
        )
        for share, number, own, (height, width) in parts:
            boxes = delta_decode(own, number)
            inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 0] <= width) & (boxes[:, 1] <= height)
            row, label = ((share > self.score) & (inside & boxes.isfinite().all(1))[:, None]).nonzero().T
            value = share[row, label]
            kept = rotated_nms(boxes[row], value, self.overlap, labels=label)[: self.most]
            result.append({"obb": boxes[row][kept], "scores": value[kept], "labels": label[kept]})
        return result
