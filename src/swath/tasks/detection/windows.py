"""Detection in one image of any size: in windows where it is large, each object reported once."""

from __future__ import annotations

from typing import Any

import torch

from swath.datasets.chip import Batch
from swath.tasks.detection.detectors.common import Detections
from swath.tasks.detection.tiled_inference import keep_core_objects, merge_tiles, tile_plan

_PIXELS = 2**18  # of windows per forward pass


def detect_image(task: Any, batch: Batch) -> Detections:
    """What is found in one image of any size, in windows where it is large (``config.tile``), on the CPU.

    Args:
        task: A `DetectionTask` in evaluation mode.
        batch: Of one image, normalized.
    """
    config, image = task.config, batch["image"]
    if len(image) != 1:
        raise ValueError(f"one image at a time is looked at in windows, not {len(image)}")
    plan = tile_plan(image.shape[3], image.shape[2], config.tile, config.tile_overlap)
    parts = []
    together = max(1, _PIXELS // (plan[0].window.width * plan[0].window.height))  # tiles are of one size
    for first in range(0, len(plan), together):
        some = plan[first : first + together]
        pieces = [
            image[0, :, w.row : w.row + w.height, w.column : w.column + w.width]
            for w in (tile.window for tile in some)
        ]
        batch_of: Any = {
            "image": torch.stack(pieces),
            "gsd": batch["gsd"].expand(len(some)),
            "sensor": batch["sensor"],
        }
        parts += [keep_core_objects(*pair) for pair in zip(task.predict(batch_of), some, strict=True)]
    return parts[0] if len(parts) == 1 else merge_tiles(parts, task.nms_iou)
