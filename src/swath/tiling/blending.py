"""Probabilities of overlapping tiles, blended to rows that are final, in constant memory.

Tiles come in reading order. Once a tile is there, the pixels from its upper left corner to the next tile's
are final: no later tile shows them. So between two windows only the columns that they share are kept, and
between two rows of tiles the rows that they share (the *carry*): memory grows with the width of a scene
times the overlap, never with its height.

Every pixel adds up its tiles in one order, row by row, whatever was computed together, in float32.

Legend: K classes, n tiles, h x w pixels of a tile.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from swath.tiling.grid import TileGrid, TileRun


class TileBlender:
    """Blends the tiles of one scene.

    Args:
        grid: Where they lie.
        classes: K.
        device: Where probabilities are.

    Attributes:
        carry: [K, rows, width] what the rows of tiles so far say of pixels that the next one shows too.
    """

    def __init__(self, grid: TileGrid, classes: int, device: torch.device) -> None:
        self.grid, self.classes, self.device = grid, classes, device
        rows, columns = grid.rows, grid.columns
        self.carry = torch.zeros(classes, 0, columns.length, device=device)
        self._next = self.carry
        self._tail = torch.zeros(classes, rows.size, 0, device=device)
        self._weight = self._on(np.outer(rows.weight, columns.weight))
        self._totals = (self._on(rows.total), self._on(columns.total))

    def begin(self, row: int) -> None:
        """Start a row of tiles."""
        size, final = self.grid.rows.size, self.grid.rows.finals[row]
        shape = (self.classes, max(0, size - final), self.grid.columns.length)
        self._next = torch.empty(shape, device=self.device)
        self._tail = torch.zeros(self.classes, size, 0, device=self.device)

    def add(self, window: TileRun, predictions: Tensor, which: Tensor) -> Tensor:
        """Tiles of a window -> probabilities [K, rows, columns] of the pixels that are final now.

        Args:
            window: Which tiles; those of a row come one window after the other.
            predictions: [m, K, h, w] float32 of some of them; the others have no valid pixel.
            which: [m] their positions in the window, ascending.

        Returns:
            Of rows `starts[row]` and columns `starts[first]` on.
        """
        rows, columns = self.grid.rows, self.grid.columns
        left, right = columns.starts[window.first], columns.starts[window.last - 1] + columns.size
        until = left + self._columns(window)
        down = rows.finals[window.row]
        # What is known of these pixels: from the window before (which has taken its carry in), from above.
        known = self._tail.shape[2]
        local = torch.zeros(self.classes, rows.size, right - left, device=self.device)
        local[:, :, :known] = self._tail
        local[:, : self.carry.shape[1], known:] = self.carry[:, :, left + known : right]
        for position, piece in zip(which.tolist(), predictions, strict=True):
            start = columns.starts[window.first + position] - left
            local[:, :, start : start + columns.size].addcmul_(piece, self._weight)
        self._next[:, :, left:until] = local[:, down:, : until - left]
        self._tail = local[:, :, until - left :].clone()
        above, across = self._totals
        top = rows.starts[window.row]
        final = local[:, :down, : until - left]
        return final / (above[top : top + down, None] * across[None, left:until])

    def end(self) -> None:
        """A row of tiles is complete."""
        self.carry = self._next

    def _columns(self, window: TileRun) -> int:
        return sum(self.grid.columns.finals[window.first : window.last])

    def _on(self, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
