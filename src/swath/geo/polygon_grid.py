"""An area as a grid of tiles, inside, outside or on its border: most boxes are judged by a look-up.

A polygon that a user draws may touch hundreds of thousands of footprints. Decoding and intersecting each
would take a second; nearly all of them are far from the border, and for those the tiles under their box say
enough. Only boxes that share a tile with the border are left to be compared exactly.

Tiles are refined like a quadtree, from coarse to fine and only along the border, so that a fine grid costs in
proportion to the border's length and not to the area.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

OUTSIDE, INSIDE, BORDER = 0, 1, 2

_COARSEST, _FINEST = 8, 256  # tiles a side
_MOST_ON_BORDER = 2_048  # tiles on the border from which a grid is not refined further
_MOST_PARTS = 16  # polygons of an area that get a grid each; more share one
_HAIR = 1e-9  # of a tile: an edge that lies on a tile's border touches both tiles


class PolygonTileIndex:
    """The tiles of one polygon, or of several together.

    Args:
        area: shapely geometry of an area above 0, prepared.
    """

    def __init__(self, area: Any) -> None:
        self.bounds = area.bounds
        self._tiles = _refined(area)
        # Counts of all tiles below and left of each corner: any rectangle is counted by four look-ups.
        self._not_inside = _sums(self._tiles != INSIDE)
        self._not_outside = _sums(self._tiles != OUTSIDE)

    def lookup(self, boxes: NDArray[np.float64]) -> NDArray[np.int8]:
        """[N] what boxes [N, 4] (west, south, east, north; west <= east) are: all `INSIDE`, all `OUTSIDE`, or
        `BORDER` where the tiles do not say."""
        west, south, east, north = self.bounds
        side = len(self._tiles)
        left, right = _span(boxes[:, 0], boxes[:, 2], west, east, side)
        bottom, top = _span(boxes[:, 1], boxes[:, 3], south, north, side)
        found: NDArray[np.int8] = self._tiles[bottom.clip(0, side - 1), left.clip(0, side - 1)]
        # What reaches beyond the bounds is nowhere inside; what begins or ends there is judged by the rest.
        beyond = (left < 0) | (right >= side) | (bottom < 0) | (top >= side)
        several = np.flatnonzero((left != right) | (bottom != top) | beyond)
        if len(several):
            reach = [ends[several].clip(0, side - 1) for ends in (bottom, top, left, right)]
            found[several] = BORDER
            inside = (_counted(self._not_inside, *reach) == 0) & ~beyond[several]
            found[several[inside]] = INSIDE
            found[several[_counted(self._not_outside, *reach) == 0]] = OUTSIDE
            away = (boxes[several, 0] > east) | (boxes[several, 2] < west)
            away |= (boxes[several, 1] > north) | (boxes[several, 3] < south)
            found[several[away]] = OUTSIDE
        return found


def classify_boxes(area: Any, boxes: NDArray[np.float64]) -> NDArray[np.int8]:
    """[N] what boxes [N, 4] are to an area: `INSIDE`, `OUTSIDE`, or `BORDER` where only a closer look tells.

    Args:
        area: shapely Polygon or MultiPolygon, prepared.
        boxes: West, south, east, north; those with west > east are left to the closer look.
    """
    import shapely

    parts = list(getattr(area, "geoms", [area]))
    if len(parts) > _MOST_PARTS:
        parts = [area]
    found = np.zeros(len(boxes), dtype=np.int8)
    for part in parts:
        if part is not area:
            shapely.prepare(part)
        own = PolygonTileIndex(part).lookup(boxes)
        found[own == INSIDE] = INSIDE
        found[(own == BORDER) & (found != INSIDE)] = BORDER
    found[boxes[:, 0] > boxes[:, 2]] = BORDER
    return found


def _refined(area: Any) -> NDArray[np.int8]:
    """[S, S] tiles of the area's bounds, rows from south to north."""
    import shapely

    line = area.boundary
    shapely.prepare(line)
    side = _COARSEST
    tiles = np.full((side, side), BORDER, dtype=np.int8)
    while True:
        rows, columns = np.nonzero(tiles == BORDER)
        tiles[rows, columns] = _kinds(area, line, rows, columns, side)
        if side >= _FINEST or np.count_nonzero(tiles == BORDER) > _MOST_ON_BORDER:
            return tiles
        side *= 2
        tiles = tiles.repeat(2, axis=0).repeat(2, axis=1)


def _kinds(
    area: Any, line: Any, rows: NDArray[np.int64], columns: NDArray[np.int64], side: int
) -> NDArray[np.int8]:
    """What some tiles of a grid of `side` x `side` are, from an area and its border, both prepared."""
    import shapely

    west, south, east, north = area.bounds
    wide, high = (east - west) / side, (north - south) / side
    left, bottom = west + (columns - _HAIR) * wide, south + (rows - _HAIR) * high
    boxes = shapely.box(left, bottom, left + (1 + 2 * _HAIR) * wide, bottom + (1 + 2 * _HAIR) * high)
    kinds = np.full(len(boxes), BORDER, dtype=np.int8)
    plain = np.flatnonzero(~shapely.intersects(line, boxes))
    # What the border does not meet is inside or outside as a whole, as its middle is.
    middle = west + (columns[plain] + 0.5) * wide, south + (rows[plain] + 0.5) * high
    kinds[plain] = np.where(shapely.contains_xy(area, *middle), INSIDE, OUTSIDE)
    return kinds


def _span(
    first: NDArray[np.float64], last: NDArray[np.float64], low: float, high: float, side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last tile along one axis."""
    scale = side / (high - low)
    return (
        np.floor((first - low) * scale - _HAIR / 2).astype(np.int64),
        np.floor((last - low) * scale + _HAIR / 2).astype(np.int64),
    )


def _sums(marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[S + 1, S + 1] how many tiles are marked before each row and column."""
    return np.pad(marked.cumsum(0).cumsum(1), ((1, 0), (1, 0)))


def _counted(
    sums: NDArray[np.int64],
    bottom: NDArray[np.int64],
    top: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Marked tiles in rectangles, ends included."""
    found: NDArray[np.int64] = (
        sums[top + 1, right + 1] - sums[bottom, right + 1] - sums[top + 1, left] + sums[bottom, left]
    )
    return found
