"""Where the tiles of a scene lie, and how much each says of a pixel.

What a network says of a pixel depends on all that it sees around it: a transformer looks at its whole input.
So the *tile*, the piece that the network sees at once, decides the result, and is fixed: its side comes from
the model (the crops that it was trained on), and tiles lie on one grid that begins at the scene's upper left
corner. How many tiles are read or computed together decides nothing.

Neighboring tiles overlap. Of a pixel that several tiles show, the answers are averaged by weights that fall
off towards the tile's sides, where it has seen the least of a pixel's surroundings: sin^2 ramps, which add up
to 1 over the overlap. Weights are separable, so their sum at a pixel is a product of two numbers known in
advance, and nothing has to be counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

OVERLAP = 0.25  # of maps' tiles, where nothing else is asked for


@dataclass(frozen=True)
class TileAxis:
    """One side of a scene, cut into overlapping tiles.

    Attributes:
        length: Pixels of the scene.
        tile: Wanted side of a tile; of a smaller scene the tile is the scene.
        overlap: Share of a tile, 0 to 0.5, that it has in common with the next one, to whole pixels.
    """

    length: int
    tile: int
    overlap: float

    @cached_property
    def size(self) -> int:
        """Pixels of a tile."""
        return min(self.tile, self.length)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each tile: at even steps from 0, and the last tile ends where the scene does."""
        last = self.length - self.size
        step = max(1, self.tile - self._ramp)
        return (*range(0, last, step), last)

    @cached_property
    def finals(self) -> tuple[int, ...]:
        """For each tile the pixels from its start that no later tile will say anything of."""
        ends = (*self.starts[1:], self.length)
        return tuple(end - start for start, end in zip(self.starts, ends, strict=True))

    @cached_property
    def weight(self) -> NDArray[np.float32]:
        """[size] weight of each of a tile's pixels."""
        weight = np.ones(self.size)
        if self._ramp and len(self.starts) > 1:
            ramp = np.sin(np.pi / 2 * (np.arange(self._ramp) + 0.5) / self._ramp) ** 2
            weight[: self._ramp] *= ramp
            weight[-self._ramp :] *= ramp[::-1]
        return weight.astype(np.float32)

    @cached_property
    def total(self) -> NDArray[np.float32]:
        """[length] sum of the weights of all tiles at each pixel."""
        total = np.zeros(self.length)
        for start in self.starts:
            total[start : start + self.size] += self.weight
        return total.astype(np.float32)

    @cached_property
    def cores(self) -> tuple[tuple[float, float], ...]:
        """For each tile what is its own, [first, last): borders lie amid the overlaps, the ends are open."""
        middles = [(a + self.size + b) / 2 for a, b in pairwise(self.starts)]
        return tuple(pairwise([-math.inf, *middles, math.inf]))

    @property
    def _ramp(self) -> int:
        """Pixels that neighbors share; at most half a tile, or the ramps of its two sides would meet and the
        weights add up to less than 1 (half of an odd tile is rounded down)."""
        return min(round(self.tile * self.overlap), self.tile // 2)


@dataclass(frozen=True)
class TileRun:
    """Neighboring tiles of one row that are read and looked at together.

    Attributes:
        row: Index of the row of tiles.
        first: Index of the first tile in it.
        last: One after the last.
    """

    row: int
    first: int
    last: int


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a scene.

    Attributes:
        rows: Down.
        columns: Across.
    """

    rows: TileAxis
    columns: TileAxis

    @classmethod
    def of(cls, height: int, width: int, tile: int, overlap: float) -> TileGrid:
        """Tiles of side `tile` over a scene of height x width pixels."""
        return cls(TileAxis(height, tile, overlap), TileAxis(width, tile, overlap))

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def windows(self, maximum: int, first_row: int = 0) -> list[TileRun]:
        """All tiles from a row on, in groups of at most `maximum`, evenly sized, in reading order."""
        across = len(self.columns.starts)
        groups = -(-across // max(1, maximum))
        edges = [round(k * across / groups) for k in range(groups + 1)]
        return [
            TileRun(row, a, b) for row in range(first_row, len(self.rows.starts)) for a, b in pairwise(edges)
        ]
