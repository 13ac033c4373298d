"""Probabilities of whole images of any size, as `swath predict` gives them: tile by tile, blended.

For scoring and reports, where images fit in memory. Tiles have the side of the crops that a task was trained
on, and lie and weigh as those of a prediction (`swath.tiling.grid`): what a report says of a model
is what the model does on scenes.
"""

from __future__ import annotations

from itertools import product
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from swath.augmentations.geometric import resize_images
from swath.datasets.chip import Batch
from swath.tasks.protocol import Task
from swath.tiling.grid import OVERLAP, TileGrid

_PIXELS = 2**18  # of tiles that are looked at together


def predict_tiled(task: Task, batch: Batch, tile: int) -> Tensor:
    """Probabilities [1, K, H, W] of a normalized batch of one image (or pair).

    Args:
        task: In evaluation mode; its answers are maps.
        batch: `image` [1, C, H, W] or [1, 2, C, H, W], `gsd` [1].
        tile: Side in pixels of what the network sees at once.
    """
    image = batch["image"]
    height, width = image.shape[-2:]
    grid = TileGrid.of(height, width, tile, OVERLAP)
    high, wide = grid.rows.size, grid.columns.size
    places = list(product(grid.rows.starts, grid.columns.starts))
    weight = _on(np.outer(grid.rows.weight, grid.columns.weight), image)
    total: Any = None
    together = max(1, _PIXELS // (high * wide))
    for first in range(0, len(places), together):
        some = places[first : first + together]
        pieces = torch.cat([image[..., y : y + high, x : x + wide] for y, x in some])
        said = task.predict(cast(Batch, {**batch, "image": pieces, "gsd": batch["gsd"].expand(len(some))}))
        if total is None:
            total = said.new_zeros(said.shape[1], height, width, dtype=torch.float32)
        for (y, x), piece in zip(some, said.float(), strict=True):
            total[:, y : y + high, x : x + wide] += piece * weight
    result: Tensor = (total / _on(np.outer(grid.rows.total, grid.columns.total), image))[None]
    return result


def rescale_batch(batch: Batch, factor: float) -> Batch:
    """A normalized batch with sides `factor` of what they were (area averages where that is less); its GSD
    follows."""
    if factor == 1:
        return batch
    image = batch["image"]
    size = tuple(max(1, round(side * factor)) for side in image.shape[-2:])
    flat = cast(Batch, {**batch, "image": image.flatten(1, -3)})
    changed = resize_images(flat, cast(tuple[int, int], size), filter="area" if factor < 1 else "bilinear")
    changed["image"] = changed["image"].reshape(*image.shape[:-2], *size)
    return changed


def _on(values: np.ndarray[Any, Any], image: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(image.device)
