"""What detectors share: a batch of boxes, the neck on a feature pyramid, anchors, and pooling over levels.

Detectors work on normalized batches (`swath.models.contract.Contract.normalize`) and in pixels of their
images. Every module here knows its strides exactly, so images may have any size.

Legend: B images, C channels, H x W pixels, L levels, R regions, A anchors of a place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swath.encoders.pyramid import FeaturePyramid
from swath.keyed_random import uniform
from swath.tasks.detection.rotated_boxes import from_xyxy, rotated_iou


class Detections(TypedDict, total=False):
    """What a detector found in one image, by falling score."""

    boxes: Tensor  # [N, 4] left, top, right, bottom, of upright detectors
    obb: Tensor  # [N, 5] cx, cy, w, h, angle, le90, of oriented detectors
    scores: Tensor  # [N] between 0 and 1
    labels: Tensor  # [N] int64 class indices


class Detector(Protocol):
    """What training, evaluation and prediction need; both methods work in training and evaluation mode.

    A batch has `image` [B, C, H, W] normalized, `gsd` [B] relative, `sensor`, and optionally `size`, a list
    of (height, width) of what of each image is no padding; for losses also `label`, a list of [N], and
    `bbox_xyxy`, a list of [N, 4] (or `obb`, of [N, 5]), and optionally `difficult`, a list of [N]:
    difficult boxes (crowds among them) are regions from which nothing is learned, neither that there is an
    object nor that there is none.
    """

    def losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Named losses, to be added."""
        ...

    def predict(self, batch: Mapping[str, Any]) -> list[Detections]:
        """Detections of each image, in its pixels."""
        ...


def image_sizes(batch: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(height, width) of each image without padding."""
    whole = (int(batch["image"].shape[2]), int(batch["image"].shape[3]))
    return [(int(h), int(w)) for h, w in batch.get("size", [whole] * len(batch["image"]))]


def detection_targets(batch: Mapping[str, Any], key: str) -> list[tuple[Tensor, Tensor]]:
    """(boxes, labels) to learn from of each image, on its device: those that are not difficult."""
    device = batch["image"].device
    result = []
    for i, (boxes, labels) in enumerate(zip(batch[key], batch["label"], strict=True)):
        if "difficult" in batch:
            easy = ~batch["difficult"][i]
            boxes, labels = boxes[easy], labels[easy]
        result.append((boxes.to(device, torch.float32), labels.to(device)))
    return result


def ignored_regions(batch: Mapping[str, Any], key: str) -> list[Tensor]:
    """The boxes of each image, on its device, from which nothing is learned."""
    device = batch["image"].device
    none = [torch.zeros(len(labels), dtype=torch.bool) for labels in batch["label"]]
    both = zip(batch[key], batch.get("difficult", none), strict=True)
    return [boxes[difficult].to(device, torch.float32) for boxes, difficult in both]


def overlap_with_regions(boxes: Tensor, regions: Tensor) -> Tensor:
    """[N] share of each box that lies in one of the regions; both upright [N, 4] or oriented [N, 5]."""
    if not len(regions):
        return boxes.new_zeros(len(boxes))
    pair = [x if x.shape[1] == 5 else from_xyxy(x) for x in (boxes.detach(), regions)]
    return rotated_iou(*pair, of="first").amax(1).to(boxes.dtype)


def exclude_ignored(
    assigned: Tensor, boxes: Tensor, regions: Tensor, *, background: int, neither: int
) -> Tensor:
    """What candidates stand for, where those in regions of which nothing is learned are no background.

    Args:
        assigned: [N] what each candidate stands for.
        boxes: Of the candidates.
        regions: Candidates that lie in one with more than half of their area are taken out.
        background: Mark of those that stand for the background.
        neither: Mark of those that stand for nothing.

    Where nothing at all would be left to learn from, the candidate that is least in a region stays: a mean
    over nothing is not defined.
    """
    if not len(regions):
        return assigned
    share = overlap_with_regions(boxes, regions)
    freed = torch.where((assigned == background) & (share > 0.5), neither, assigned)
    if bool((freed == neither).all()):
        freed[share.argmin()] = background
    return freed


@contextmanager
def seeded_sampling(batch: Mapping[str, Any]) -> Iterator[None]:
    """Random draws inside (which anchors and regions are learned from) follow from the samples' keys alone.

    So a resumed run repeats them; torch's own generators are left as they were. A batch without `key` draws
    from torch's generators as they stand.
    """
    if "key" not in batch:
        yield
        return
    device = batch["image"].device
    seed = int(uniform(batch["key"].cpu(), "detector").double().mul(1 << 24).sum())
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class FPN(nn.Module):
    """A feature pyramid network (Lin et al., arXiv 1612.03144) on a `Pyramid`.

    Args:
        pyramid: From `swath.encoders.pyramid.build_pyramid`.
        channels: Of every level.
        finest: Index of the pyramid's finest map in use: 0 for stride 4, 1 for stride 8.
        extra: Levels beyond stride 32, each half as fine: the pooled last one ("pool", one level, as Faster
            R-CNN) or two learned ones ("learned", as FCOS and RetinaNet).
    """

    def __init__(
        self, pyramid: FeaturePyramid, channels: int = 256, *, finest: int = 0, extra: str = "pool"
    ) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

        self.pyramid = pyramid
        self.finest = finest
        own = list(pyramid.channels[finest:])
        last = LastLevelMaxPool() if extra == "pool" else LastLevelP6P7(channels, channels)
        self.fpn = FeaturePyramidNetwork(own, channels, last)
        beyond = 1 if extra == "pool" else 2
        coarsest = pyramid.strides[-1]
        self.strides = (*pyramid.strides[finest:], *(coarsest * 2 ** (i + 1) for i in range(beyond)))
        self.channels = channels

    def forward(self, batch: Mapping[str, Any]) -> list[Tensor]:
        """Maps [B, channels, ceil(H / stride), ceil(W / stride)], finest first."""
        maps = self.pyramid(batch["image"], batch["gsd"], batch.get("sensor"))[self.finest :]
        return list(self.fpn({str(i): x for i, x in enumerate(maps)}).values())


class Anchors(nn.Module):
    """Upright boxes of one size a level and some ratios, around the center of every cell.

    In the place of torchvision's `AnchorGenerator`, which guesses strides from sizes that do not divide.

    Args:
        strides: Of the levels.
        scale: Side of a square anchor over the stride.
        ratios: Height over width.
    """

    def __init__(
        self, strides: Sequence[int], scale: float, ratios: Sequence[float] = (0.5, 1.0, 2.0)
    ) -> None:
        super().__init__()
        self.strides, self.scale, self.ratios = tuple(strides), scale, tuple(ratios)

    def num_anchors_per_location(self) -> list[int]:
        """A, for each level."""
        return [len(self.ratios)] * len(self.strides)

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """For each level its anchors [h * w * A, 4], row by row, those of a place together."""
        result = []
        for x, stride in zip(maps, self.strides, strict=True):
            root = torch.tensor(self.ratios, device=x.device).sqrt()
            half = stride * self.scale / 2 * torch.stack([1 / root, root], 1)  # [A, 2], x and y
            row, column = ((torch.arange(side, device=x.device) + 0.5) * stride for side in x.shape[2:])
            center = torch.stack(torch.meshgrid(column, row, indexing="xy"), -1).view(-1, 1, 2)
            result.append(torch.cat([center - half, center + half], -1).view(-1, 4))
        return result

    def forward(self, images: Any, maps: Sequence[Tensor]) -> list[Tensor]:
        """As torchvision calls it: all levels' anchors together, once for each image."""
        return [torch.cat(self.levels(maps))] * len(images.image_sizes)


class MultiLevelRoIAlign(nn.Module):
    """RoIAlign (He et al., arXiv 1703.06870) of every region from the level that suits its size.

    In float32 whatever the maps are: half precision cannot say where in an image of 1,000 pixels a box ends.
    A region of 224 x 224 pixels is read at stride 16, one of half that side at stride 8, and so on.

    Args:
        strides: Of the levels, finest first; only as many maps are looked at.
        size: Cells of the result along each side.
        samples: Points along each side of a cell, whose mean it is.
    """

    def __init__(self, strides: Sequence[int], size: int = 7, samples: int = 2) -> None:
        super().__init__()
        self.strides, self.size, self.samples = tuple(strides), size, samples

    def forward(
        self, maps: Mapping[str, Tensor] | Sequence[Tensor], regions: list[Tensor], sizes: Any = None
    ) -> Tensor:
        """Features [R, C, size, size] of the regions of all images.

        Args:
            maps: Of the levels (as torchvision calls it, by name).
            regions: For each image boxes [N, 4], or oriented ones [N, 5]: those are read along their sides.
            sizes: Not looked at.
        """
        from torchvision.ops import roi_align

        levels = [x.float() for x in (maps.values() if isinstance(maps, Mapping) else maps)]
        image = torch.cat([boxes.new_full((len(boxes),), i) for i, boxes in enumerate(regions)])
        boxes = torch.cat(list(regions))
        sides = boxes[:, 2:4] if boxes.shape[1] == 5 else boxes[:, 2:] - boxes[:, :2]
        side = sides.clamp_min(1e-3).prod(1).sqrt()
        finest = int(math.log2(self.strides[0]))
        level = (torch.log2(side / 224 + 1e-6).floor() + 4 - finest).clamp(0, len(self.strides) - 1)
        result = levels[0].new_zeros(len(boxes), levels[0].shape[1], self.size, self.size)
        for i, (x, stride) in enumerate(zip(levels, self.strides, strict=False)):
            own = (level == i).nonzero().squeeze(1)
            if not len(own):
                continue
            if boxes.shape[1] == 4:
                rois = torch.cat([image[own, None], boxes[own]], 1)
                result[own] = roi_align(x, rois, self.size, 1 / stride, self.samples, aligned=True)
            else:
                result[own] = rotated_align(x, boxes[own], image[own].long(), stride, self.size, self.samples)
        return result


def rotated_align(
    x: Tensor, boxes: Tensor, image: Tensor, stride: int, size: int = 7, samples: int = 2
) -> Tensor:
    """What a map shows inside oriented boxes, read along their sides.

    Args:
        x: Map [B, C, h, w].
        boxes: [R, 5] in pixels of the image; the first side becomes the rows' direction.
        image: [R] which image of the batch each box is in.
        stride: Pixels a cell of the map.
        size: Cells of the result along each side.
        samples: Points along each side of a cell, whose mean it is.

    Returns:
        [R, C, size, size]; beyond the map's edge is 0.
    """
    points = size * samples
    at = (torch.arange(points, device=x.device, dtype=boxes.dtype) + 0.5) / points - 0.5
    cx, cy, w, h, angle = (value.view(-1, 1, 1) for value in boxes.unbind(1))
    along, across = at.view(1, 1, -1) * w, at.view(1, -1, 1) * h
    cos, sin = torch.cos(angle), torch.sin(angle)
    px, py = cx + along * cos - across * sin, cy + along * sin + across * cos  # [R, points, points]
    extent = torch.tensor([x.shape[3], x.shape[2]], device=x.device, dtype=boxes.dtype) * stride
    grid = torch.stack([px, py], -1) / extent * 2 - 1
    result = x.new_zeros(len(boxes), x.shape[1], size, size)
    for i in range(len(x)):
        own = (image == i).nonzero().squeeze(1)
        if len(own):
            read = F.grid_sample(x[i : i + 1], grid[own].view(1, -1, points, 2), align_corners=False)
            read = read.view(x.shape[1], len(own), points, points).transpose(0, 1)
            result[own] = F.avg_pool2d(read, samples)
    return result
