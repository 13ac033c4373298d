"""Objects in images that are larger than what a detector looks at: in overlapping tiles, without seams.

The tiles of an image overlap; the middle lines of their overlaps cut the image into *cores*, one a tile. An
object belongs to the tile in whose core its center lies: that tile sees it whole, if it is no longer than the
overlap, whereas its neighbors may see half of it. What two tiles both claim, because they disagree a little
about where its center is, is then dropped by non-maximum suppression over the seams::

    plan = tile_plan(width, height, 1024, 200)                # tiles with their windows and cores
    parts = []
    for some in batches_of(plan):
        batch = ...                                           # their pixels, as `TaskModel.batch` makes it
        parts += find_in_tiles(model, batch, some)            # in pixels of the whole image
    found = merge_tiles(parts, model.task.nms_iou)

Only objects that reach over the border of a core can be claimed twice, so a program that writes objects as it
goes may merge row by row: what lies more than `overlap` pixels above the current row of tiles is final.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from swath.datasets.chip import Batch
from swath.geo.grid import PixelWindow
from swath.tasks.detection.data.dataset import tile_windows
from swath.tasks.detection.detectors.common import Detections
from swath.tasks.detection.rotated_boxes import corners, from_xyxy, rotated_nms

if TYPE_CHECKING:
    from swath.tasks.model import TaskModel


@dataclass(frozen=True, slots=True)
class DetectionTile:
    """A part of an image that is looked at in one piece.

    Attributes:
        window: What is read, in pixels of the image.
        core: (left, top, right, bottom) within which centers of objects belong to this tile, in pixels of
            the image; infinite at its edges. The cores of an image's tiles leave no gap and do not overlap.
    """

    window: PixelWindow
    core: tuple[float, float, float, float]


def tile_plan(width: int, height: int, tile: int, overlap: int) -> list[DetectionTile]:
    """The tiles of an image, row by row.

    Args:
        width: Of the image, in pixels.
        height: Of the image.
        tile: Side of a tile; an image that is smaller is one smaller tile.
        overlap: Pixels that neighbors share at least; objects up to that length are seen whole by somebody.
    """
    windows = tile_windows(width, height, tile, overlap)
    across = _cores(sorted({w.column for w in windows}), min(tile, width))
    down = _cores(sorted({w.row for w in windows}), min(tile, height))
    plan = []
    for window in windows:
        (left, right), (top, bottom) = across[window.column], down[window.row]
        plan.append(DetectionTile(window, (left, top, right, bottom)))
    return plan


def _cores(starts: Sequence[int], length: int) -> dict[int, tuple[float, float]]:
    """Where the core of the tile that begins at each of `starts` begins and ends."""
    middles = [(b + a + length) / 2 for a, b in pairwise(starts)]
    edges = [-math.inf, *middles, math.inf]
    return {start: (edges[i], edges[i + 1]) for i, start in enumerate(starts)}


def detect_in_tiles(model: TaskModel, batch: Batch, batch_tiles: Sequence[DetectionTile]) -> list[Detections]:
    """What a detector finds in a batch of tiles of one image: for each what belongs to it, on the CPU.

    Args:
        model: Of the task ``detect``.
        batch: The tiles' pixels in the sensor's unit, `image` [B, C, h, w], `gsd` [B], `valid` [B, h, w], as
            data sets collate it or `TaskModel.batch` makes it. Tiles that are smaller than the batch stand at
            its upper left; `size`, a list of their (height, width), says so.
        batch_tiles: The B tiles.

    Returns:
        Detections in pixels of the whole image, for `merge_tiles`.
    """
    return [
        keep_core_objects(found, tile)
        for found, tile in zip(model.predict_batch(batch), batch_tiles, strict=True)
    ]


def keep_core_objects(detections: Detections, tile: DetectionTile) -> Detections:
    """Of what was found in a tile, in its pixels, what belongs to it, in pixels of the image, on the CPU."""
    moved = translate(on_cpu(detections), tile.window.column, tile.window.row)
    x, y = box_centers(moved).unbind(1)
    left, top, right, bottom = tile.core
    return chosen(moved, (x >= left) & (x < right) & (y >= top) & (y < bottom))


def merge_tiles(parts: Sequence[Detections], overlap: float, *, maximum: int | None = None) -> Detections:
    """What the tiles of an image found, together, by falling score.

    Args:
        parts: Of the tiles, in pixels of the image.
        overlap: IoU (of oriented boxes: rotated) from which the lower of two detections of a class goes; the
            detector's own is ``task.nms_iou``.
        maximum: Detections to keep; None: all.

    Raises:
        ValueError: There is not one part: it would not be known whether boxes are upright.
    """
    if not parts:
        raise ValueError("there are no tiles to merge")
    every: Any = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}  # type: ignore[literal-required]
    oriented = every["obb"] if "obb" in every else from_xyxy(every["boxes"])
    kept = rotated_nms(oriented, every["scores"], overlap, labels=every["labels"])[:maximum]
    return chosen(every, kept)


# ------------------------------------------------------------------------------------ detections as such


def on_cpu(detections: Detections) -> Detections:
    """The same on the CPU; numbers as float32."""
    moved: Any = {k: v.float().cpu() if v.is_floating_point() else v.cpu() for k, v in detections.items()}  # type: ignore[attr-defined]
    return moved  # type: ignore[no-any-return]


def chosen(detections: Detections, which: Tensor) -> Detections:
    """Some of them, by indices or a mask."""
    some: Any = {key: value[which] for key, value in detections.items()}  # type: ignore[index]
    return some  # type: ignore[no-any-return]


def translate(detections: Detections, right: float, down: float) -> Detections:
    """The same, so many pixels to the right and down."""
    moved = detections.copy()
    if "boxes" in moved:
        moved["boxes"] = moved["boxes"] + moved["boxes"].new_tensor([right, down, right, down])
    if "obb" in moved:
        moved["obb"] = moved["obb"] + moved["obb"].new_tensor([right, down, 0, 0, 0])
    return moved


def scale_boxes(detections: Detections, x: float, y: float) -> Detections:
    """The same in an image `x` times as wide and `y` times as high (of oriented boxes: about alike)."""
    changed = detections.copy()
    if "boxes" in changed:
        changed["boxes"] = changed["boxes"] * changed["boxes"].new_tensor([x, y, x, y])
    if "obb" in changed:
        side = math.sqrt(x * y)
        changed["obb"] = changed["obb"] * changed["obb"].new_tensor([x, y, side, side, 1])
    return changed


def box_centers(detections: Detections) -> Tensor:
    """Centers [N, 2] (x, y)."""
    if "obb" in detections:
        return detections["obb"][:, :2]
    return (detections["boxes"][:, :2] + detections["boxes"][:, 2:]) / 2


def outlines(detections: Detections) -> Tensor:
    """Corners [N, 4, 2] (x, y), clockwise on the screen, of upright and of oriented boxes: for polygons."""
    return corners(detections["obb"] if "obb" in detections else _upright(detections["boxes"]))


def _upright(boxes: Tensor) -> Tensor:
    """Upright boxes as oriented ones whose angle is 0, so that corners begin at the upper left."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low, torch.zeros_like(low[:, :1])], 1)
