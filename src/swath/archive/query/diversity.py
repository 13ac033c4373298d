"""Answers that are not ten times the same: one a field, unlike each other, or one a place.

All take candidates best first and keep the best of what is alike, so the first answer is always the first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from swath.archive.index.columns import ChipColumns
from swath.archive.index.vectors import Floats
from swath.geo.areas import boxes_overlap, overlap_fractions

SAME_PLACE = 0.5  # shared by the footprints of one place, of the smaller
_BESIDE = 0.5  # of a chip's own width: nearer chips are of one field
_BALANCE = 0.7  # weight of the score against the likeness to answers chosen already
_POOL = 5  # candidates a wanted answer, among which the least alike are chosen

Alike = Callable[[int, NDArray[np.int64]], NDArray[np.bool_]]


def greedy_groups(count: int, alike: Alike, enough: int) -> tuple[list[int], list[NDArray[np.int64]]]:
    """Go through candidates 0..count-1 best first; each is alike to an earlier leader, or becomes one.

    Args:
        count: How many candidates there are.
        alike: Says of a leader which of some later candidates are alike.
        enough: Leaders wanted; later candidates still join those there are.

    Returns:
        The leaders, and for each the candidates that joined it.
    """
    open_ = np.ones(count, dtype=np.bool_)
    chosen: list[int] = []
    joined: list[NDArray[np.int64]] = []
    while len(chosen) < enough and open_.any():
        leader = int(np.argmax(open_))
        open_[leader] = False
        rest = np.flatnonzero(open_)
        followers = rest[alike(leader, rest)] if len(rest) else rest
        open_[followers] = False
        chosen.append(leader)
        joined.append(followers)
    return chosen, joined


def diversify(
    groups: LocationGroups,
    scores: Floats,
    vectors: Callable[[NDArray[np.int64]], Floats],
    k: int,
    *,
    diverse: bool,
    group_by_location: bool,
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """At most `k` of n candidates, best first, and for each the candidates of its place.

    Args:
        groups: Locations of the candidates.
        scores: [n] falling.
        vectors: Gives the vectors [m, D] of some candidates.
        k: How many.
        diverse: One a field, and those that are less like each other.
        group_by_location: One a place.
    """
    kept = np.arange(len(scores))
    joined = [kept[:0]] * len(kept)
    enough = _POOL * k if diverse else k
    if group_by_location:
        chosen, joined = greedy_groups(len(kept), groups.same_location, enough)
        kept = np.array(chosen)
    if diverse:

        def same_field(one: int, rest: NDArray[np.int64]) -> NDArray[np.bool_]:
            return groups.same_field(int(kept[one]), kept[rest])

        fields, _ = greedy_groups(len(kept), same_field, enough)
        best = maximal_marginal_relevance(scores[kept[fields]], vectors(kept[fields]), k)
        order = sorted(fields[place] for place in best)
        kept, joined = kept[order], [joined[place] for place in order]
    return kept[:k], joined[:k]


class LocationGroups:
    """Where candidates are, to tell which show the same place or the same field.

    Args:
        chips: Of the archive.
        rows: Numbers of the candidates, best first.
    """

    def __init__(self, chips: ChipColumns, rows: NDArray[np.int64]) -> None:
        table = chips.take(rows)
        assert table is not None
        self._geometry = table["geometry"].to_pylist()
        self._source = table["source"].to_numpy(zero_copy_only=False)
        self._boxes = chips.boxes[rows]
        self._windows = np.stack(
            [_numbers(table["window"], name) for name in ("column", "row", "width", "height")], axis=1
        ).astype(np.int64)

    def same_location(self, leader: int, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which candidates share half of the smaller footprint, at whatever date, scale and sensor.

        Without footprint: the same window of the same file.
        """
        footprint = self._geometry[leader]
        if footprint is None:
            same = (self._windows[others] == self._windows[leader]).all(1)
            return np.asarray(same & (self._source[others] == self._source[leader]), dtype=np.bool_)
        shares = overlap_fractions(
            [self._geometry[other] for other in others], self._boxes[others], footprint
        )
        return np.asarray(shares >= SAME_PLACE * (1 - 1e-6), dtype=np.bool_)

    def same_field(self, leader: int, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which candidates are nearer than half a chip's width, or overlap.

        Without footprint: windows so near in the same file.
        """
        west, south, east, north = self._boxes[leader]
        if np.isnan(west):
            return self._windows_near(leader, others)
        wide = (east - west) % 360 * _BESIDE
        high = (north - south) * _BESIDE
        around = (west - wide, max(-90.0, south - high), east + wide, min(90.0, north + high))
        return boxes_overlap(self._boxes[others], around)

    def _windows_near(self, leader: int, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        column, row, width, height = self._windows[leader]
        columns, rows, widths, heights = self._windows[others].T
        near = (columns < column + width * (1 + _BESIDE)) & (columns + widths > column - width * _BESIDE)
        near &= (rows < row + height * (1 + _BESIDE)) & (rows + heights > row - height * _BESIDE)
        return np.asarray(near & (self._source[others] == self._source[leader]), dtype=np.bool_)


def maximal_marginal_relevance(scores: Floats, vectors: Floats, k: int) -> list[int]:
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): k of n candidates, best first.

    Args:
        scores: [n] cosines with the query, falling.
        vectors: [n, D] at length 1.
        k: How many.
    """
    pool = min(len(scores), _POOL * k)
    if pool == 0:
        return []
    chosen = [0]
    nearest = vectors[:pool] @ vectors[0]
    while len(chosen) < min(k, pool):
        gain = _BALANCE * scores[:pool] - (1 - _BALANCE) * nearest
        gain[chosen] = -np.inf
        chosen.append(int(np.argmax(gain)))
        nearest = np.maximum(nearest, vectors[:pool] @ vectors[chosen[-1]])
    return chosen


def _numbers(column: pa.ChunkedArray, name: str) -> NDArray[np.int32]:
    return np.concatenate(
        [chunk.field(name).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    ).astype(np.int32)
