"""Augmentation of one image with boxes: turns and flips, changes of scale, crops. Boxes and GSD stay true.

Each function takes a sample of `swath.tasks.detection.data.dataset` and returns a new one. Random numbers
come from the sample's key and the name of the decision alone. Pixels are edges, not points: a box keeps its
pixels exactly under turns and crops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from swath.geo.grid import PixelWindow
from swath.keyed_random import uniform
from swath.tasks.detection.data.dataset import Boxes, DetectionSample, clip_boxes_to_window
from swath.tasks.detection.rotated_boxes import corners, min_area_rect


def _draw(sample: DetectionSample, stream: str, count: int) -> list[float]:
    return cast(list[float], uniform(torch.tensor([sample["key"]]), stream, count)[0].tolist())


def _moved(sample: DetectionSample, move: Callable[[Tensor], Tensor]) -> DetectionSample:
    """The sample with its boxes' corners [..., 2] (x, y) moved; upright boxes stay upright."""
    upright = move(sample["bbox_xyxy"].double().view(-1, 2, 2))
    changed = sample.copy()
    changed["bbox_xyxy"] = torch.cat([upright.amin(1), upright.amax(1)], 1).float()
    changed["obb"] = min_area_rect(move(corners(sample["obb"].double()))).float()
    return changed


def random_flip_rotate_boxes(
    sample: DetectionSample, *, rotate: bool = True, stream: str = "orientation"
) -> DetectionSample:
    """One of the eight orientations, equally likely: right-angle turns and their mirror images.

    Without `rotate` the image as it is, or flipped left to right.
    """
    across, down, over = (u < 0.5 for u in _draw(sample, stream, 3))
    return flip_rotate_boxes(sample, across, down and rotate, over and rotate)


def flip_rotate_boxes(sample: DetectionSample, across: bool, down: bool, over: bool) -> DetectionSample:
    """Flip left to right, then up to down, then over the diagonal (height and width change places)."""
    height, width = sample["valid"].shape

    def pixels(x: Tensor) -> Tensor:
        x = x.flip(-1) if across else x
        x = x.flip(-2) if down else x
        return (x.transpose(-1, -2) if over else x).contiguous()

    def move(points: Tensor) -> Tensor:
        x, y = points.unbind(-1)
        x = width - x if across else x
        y = height - y if down else y
        return torch.stack([y, x] if over else [x, y], -1)

    changed = _moved(sample, move)
    changed["image"], changed["valid"] = pixels(sample["image"]), pixels(sample["valid"])
    return changed


def random_scale(
    sample: DetectionSample, factors: tuple[float, float] = (0.5, 2.0), *, stream: str = "scale"
) -> DetectionSample:
    """Resize by a factor whose logarithm is uniform in the range; above 1 enlarges, and the GSD shrinks."""
    low, high = (math.log(factor) for factor in factors)
    return rescale(sample, math.exp(low + (high - low) * _draw(sample, stream, 1)[0]))


def rescale(sample: DetectionSample, factor: float) -> DetectionSample:
    """Resize to `factor` times the size, rounded to whole pixels: by area down, bilinearly up; float32.

    A pixel is valid where all that it is made of is; others are 0.
    """
    height, width = sample["valid"].shape
    tall, wide = (max(1, round(side * factor)) for side in (height, width))
    mode = "area" if factor < 1 else "bilinear"
    image = F.interpolate(sample["image"].float()[None], size=(tall, wide), mode=mode)[0]
    share = F.interpolate(sample["valid"].float()[None, None], size=(tall, wide), mode=mode)[0, 0]
    stretch = torch.tensor([wide / width, tall / height], dtype=torch.float64)
    changed = _moved(sample, lambda points: points * stretch)
    changed["valid"] = share > 1 - 1e-4
    changed["image"] = image * changed["valid"]
    changed["gsd"] = sample["gsd"] * math.sqrt(height * width / (tall * wide))
    return changed


def random_crop(
    sample: DetectionSample, size: int, *, min_visible: float = 0.5, stream: str = "crop"
) -> DetectionSample:
    """A window of `size` x `size` pixels at random (shorter where the image is); GSD unchanged.

    Boxes of which less than `min_visible` of the area is left become difficult ones.
    """
    height, width = sample["valid"].shape
    u, v = _draw(sample, stream, 2)
    left, top = int(u * (max(0, width - size) + 1)), int(v * (max(0, height - size) + 1))
    window = PixelWindow(left, top, min(size, width), min(size, height))
    part = (slice(top, top + window.height), slice(left, left + window.width))
    boxes: Boxes = {
        "bbox_xyxy": sample["bbox_xyxy"].double(),
        "obb": sample["obb"].double(),
        "label": sample["label"],
        "difficult": sample["difficult"],
        "crowd": sample["crowd"],
    }
    changed = sample | clip_boxes_to_window(boxes, window, min_visible)
    changed["image"], changed["valid"] = sample["image"][:, *part], sample["valid"][part]
    return changed
