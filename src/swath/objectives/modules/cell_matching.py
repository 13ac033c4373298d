"""Which places of two crops show the same ground.

A grid of cells lies over each crop; a cell's location is its center in pixels of the image that both crops
were cut from, wherever the crop lies, however large it is, and whether or not it is flipped. Cells of two
crops match by distance between centers (CMID, section 1.4).

Legend: B samples, h x w cells, N = h w.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def cell_locations(
    boxes: Tensor, flipped: Tensor, grid: tuple[int, int], *, upside_down: Tensor | None = None
) -> Tensor:
    """Centers of the cells of crops, in pixels of the uncropped image.

    Args:
        boxes: [B, 4] top, left, height, width of each crop in pixels. (CMID's released code gives the first
            two as *fractions* of the room that the crop leaves; the grids that follow from those are what
            its weights were trained with.)
        flipped: [B] bool, the crop was flipped left to right.
        grid: Rows and columns of cells.
        upside_down: [B] bool, the crop was flipped up to down.

    Returns:
        [B, h, w, 2] float32: row and column.
    """
    rows, columns = grid
    top, left, height, width = boxes.to(torch.float32).unbind(1)
    down = top[:, None] + (torch.arange(rows, device=boxes.device) + 0.5) * (height / rows)[:, None]
    along = left[:, None] + (torch.arange(columns, device=boxes.device) + 0.5) * (width / columns)[:, None]
    along = torch.where(flipped[:, None], along.flip(1), along)
    if upside_down is not None:
        down = torch.where(upside_down[:, None], down.flip(1), down)
    return torch.stack(
        [down[:, :, None].expand(-1, -1, columns), along[:, None, :].expand(-1, rows, -1)], dim=3
    )


@dataclass(frozen=True, slots=True)
class CellMatches:
    """Cells of a first crop and their nearest cells of a second.

    Attributes:
        first: [B, M] flat cell indices, ascending.
        second: [B, M] the nearest cell of the second crop to each.
        distance: [B, M] between their centers, in pixels.
        nearest: [B, N] distance of every cell of the first crop to its nearest.
    """

    first: Tensor
    second: Tensor
    distance: Tensor
    nearest: Tensor


def match_cells(first: Tensor, second: Tensor, count: int) -> CellMatches:
    """The `count` cells of the first crop that lie nearest to a cell of the second.

    Args:
        first: [B, h, w, 2] from `cell_locations`.
        second: [B, h', w', 2].
        count: M, at most h w.
    """
    distances = torch.cdist(first.flatten(1, 2), second.flatten(1, 2))
    nearest, partner = distances.min(dim=2)
    chosen = nearest.topk(min(count, nearest.shape[1]), dim=1, largest=False).indices.sort(dim=1).values
    return CellMatches(chosen, partner.gather(1, chosen), nearest.gather(1, chosen), nearest)


def take_cells(features: Tensor, index: Tensor) -> Tensor:
    """Features [B, C, h, w] at flat cells [B, M] -> [B, C, M]."""
    return features.flatten(2).gather(2, index.unsqueeze(1).expand(-1, features.shape[1], -1))
