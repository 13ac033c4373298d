"""A landscape: a plan rasterized at one ground sample distance, with labels, mask and boxes.

Cells are finer than pixels: each pixel is a square of `oversampling` x `oversampling` cells, so that sensors
see mixtures at borders and thin things stay thin. Bands and blocks are splatted (points denser than cells),
which keeps their area right at any size of cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from swath.errors import ImageryError
from swath.simulated.landscape.plan import draw_plan, world_size
from swath.simulated.landscape.primitives import (
    LandscapePlan,
    LineFeature,
    PolygonFeature,
    RectangleFeatures,
    Stroke,
)
from swath.simulated.landscape.surfaces import CLASSES, LABEL_SHARE, PATCH_CLASS, PATCHES, SURFACES

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

BOX_KINDS = ("settlement", "building", "ship")
_GOLDEN = 0.6180339887
_MAX_CELLS = 16384  # a side; a map is a byte a cell


@dataclass(frozen=True, slots=True, repr=False)
class Landscape:
    """Ground seen from straight above.

    Attributes:
        seed: Series.
        index: Place in the series.
        gsd: Metres per pixel.
        size: Side in pixels.
        date: 0, or 1 for the later date of a change pair; sensors draw other weather for another date.
        cells: [size * o, size * o] uint8, the patch (see `surfaces`) of each cell.
        mask: [size, size] uint8, the class (index into `classes`) that covers most of each pixel.
        shares: [K] float64, area share of each class.
        labels: [K] float32, 1 where a class covers enough of the scene (`surfaces.LABEL_SHARE`).
        boxes: [n, 4] float32, x0, y0, x1, y1 in pixels (right and lower edges exclusive).
        box_kinds: Name of each box, one of `BOX_KINDS`.
        plan: Where all this comes from.
        slopes: [2, size, size] float32, rise over run of the ground towards east and towards south.
    """

    seed: int
    index: int
    gsd: float
    size: int
    date: int
    cells: U8
    mask: U8
    fractions: NDArray[np.float64]
    labels: F32
    boxes: F32
    box_kinds: tuple[str, ...]
    plan: LandscapePlan
    slopes: F32
    _pure: U8  # [N] patch of each pixel, where all its cells agree
    _mixed: NDArray[np.int64]  # [M] the pixels where they do not
    _cells_of_mixed: U8  # [o * o, M]

    def __repr__(self) -> str:
        place = f"seed={self.seed}, index={self.index}, date={self.date}"
        return f"Landscape({place}, size={self.size}, gsd={self.gsd:g})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return CLASSES

    @property
    def surface(self) -> U8:
        """[size * o, size * o] uint8, index into `surfaces.SURFACES` of each cell."""
        return PATCHES.astype(np.uint8)[self.cells]

    @property
    def surface_names(self) -> tuple[str, ...]:
        """Names that `surface` counts through."""
        return tuple(surface.name for surface in SURFACES)

    def mix(self, table: F32) -> F32:
        """[N, C] mean over the cells of each pixel (row by row) of a property [P, C] of patches."""
        seen: F32 = table.take(self._pure, axis=0)
        if len(self._mixed):
            total = table.take(self._cells_of_mixed[0], axis=0)
            for cells in self._cells_of_mixed[1:]:
                total += table.take(cells, axis=0)
            seen[self._mixed] = total * np.float32(1 / len(self._cells_of_mixed))
        return seen

    def field(self, random: np.random.Generator, spacing: float) -> F32:
        """[size, size] smooth noise, standard deviation 1 where pixels are small, fixed to the ground.

        Values stand on a lattice of `spacing` metres over the whole world; whoever looks closer sees the same
        hills and spots. Pixels larger than the spacing average, and see less of it.
        """
        return _field(random, spacing, self.plan.size, self.size, self.gsd)


def _field(random: np.random.Generator, spacing: float, world: float, size: int, gsd: float) -> F32:
    count = int(np.ceil(world / spacing)) + 6
    lattice = Image.fromarray(random.standard_normal((count, count), dtype=np.float32))
    half, middle = size * gsd / 2 / spacing, count / 2
    box = (middle - half, middle - half, middle + half, middle + half)
    return np.asarray(lattice.resize((size, size), Image.Resampling.BICUBIC, box=box)) * np.float32(1.25)


def _slopes(plan: LandscapePlan, size: int, gsd: float) -> F32:
    random = np.random.default_rng(plan.relief_seed)
    waves = [[_field(random, spacing, plan.size, size, gsd) for spacing in (330.0, 120.0)] for _ in range(2)]
    return np.stack([np.float32(plan.relief) * (long + np.float32(0.5) * short) for long, short in waves])


def simulate_landscape(
    seed: int, index: int, *, size: int = 120, gsd: float = 10.0, oversampling: int | None = None
) -> Landscape:
    """Country number `index` of the endless series `seed`, seen at one ground sample distance.

    The ground is fixed in metres: another GSD of the same footprint (``size * gsd``) sees the same parcels,
    rivers and houses; so does any footprint up to 1,280 m round the same middle (larger ones lie in larger
    worlds, of other content).

    Args:
        seed: Names the series; 0 or more.
        index: Place in it; 0 or more. The ground depends on nothing else.
        size: Side in pixels.
        gsd: Metres per pixel.
        oversampling: Cells along a pixel's side; default 4 from 6 m up, 2 below.

    Raises:
        ImageryError: A number out of range.
    """
    check_request(seed, index, size, gsd)
    plan = draw_plan(seed, index, world_size(size * gsd))
    return rasterize(plan, seed, index, size=size, gsd=gsd, oversampling=oversampling)


def check_request(seed: int, index: int, size: int, gsd: float) -> None:
    """Refuse what cannot be simulated.

    Raises:
        ImageryError: A number out of range; the message says which range.
    """
    if seed < 0 or index < 0:
        raise ImageryError(f"simulated series and places are counted from 0, not seed={seed}, index={index}")
    if size < 1 or size * 2 > _MAX_CELLS:
        raise ImageryError(f"size={size}: simulate 1 to {_MAX_CELLS // 2} pixels a side")
    if not 0.1 <= gsd <= 1000:
        raise ImageryError(f"gsd={gsd:g}: simulate 0.1 to 1000 metres per pixel")


def rasterize(
    plan: LandscapePlan,
    seed: int,
    index: int,
    *,
    size: int,
    gsd: float,
    oversampling: int | None = None,
    date: int = 0,
) -> Landscape:
    """Look at a plan.

    Args:
        plan: What lies where.
        seed: Kept in the landscape.
        index: Kept in the landscape.
        size: Pixels a side.
        gsd: Metres per pixel.
        oversampling: As in `simulate_landscape`.
        date: Kept in the landscape.
    """
    cells_per_pixel = oversampling or (4 if gsd >= 6 and size * 4 <= _MAX_CELLS else 2)
    side, scale, half = size * cells_per_pixel, cells_per_pixel / gsd, size * gsd / 2
    cells = _paint(plan.polygons, side, scale, half)
    for stroke in plan.strokes:
        _stroke(cells, stroke, scale, half)

    o = cells_per_pixel
    split = np.ascontiguousarray(cells.reshape(size, o, size, o).transpose(1, 3, 0, 2)).reshape(o * o, -1)
    pure = split.min(axis=0)
    mixed = np.flatnonzero(pure != split.max(axis=0))
    of_mixed = split[:, mixed]
    mask, fractions = _classes(pure, mixed, of_mixed)
    boxes, kinds = _boxes(plan, cells, scale, half, o)
    return Landscape(seed, index, float(gsd), size, date, cells, mask.reshape(size, size), fractions,
                     (fractions >= LABEL_SHARE).astype(np.float32), boxes, kinds, plan,
                     _slopes(plan, size, float(gsd)), pure, mixed,
                     of_mixed)  # fmt: skip


def _paint(polygons: Sequence[tuple[int, Any]], side: int, scale: float, half: float) -> U8:
    """Filled polygons [side, side]; metres to cells is (metres + half) * scale."""
    picture = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(picture)
    corners = (np.concatenate([outline for _, outline in polygons]) + half) * scale
    # Pillow rounds corners to cells and draws outlines too; half a cell less puts edges right on average.
    flat = (corners - 0.5).ravel().tolist()
    start = 0
    for patch, outline in polygons:
        end = start + 2 * len(outline)
        pen.polygon(flat[start:end], fill=patch)
        start = end
    return np.array(picture)


def _stroke(cells: U8, stroke: Stroke, scale: float, half: float) -> None:
    """Splat a band or blocks onto the cells, or fill an area."""
    if isinstance(stroke, PolygonFeature):
        stencil = _paint([(1, stroke.outline)], len(cells), scale, half).astype(bool)
        cells[stencil & stroke.over[cells]] = stroke.patch
        return
    patch: np.uint8 | U8
    if isinstance(stroke, LineFeature):
        points, patch = _band_points(stroke, scale, half), np.uint8(stroke.patch)
    else:
        points, patch = _block_points(stroke, scale)
    at = np.floor((points + half) * scale).astype(np.int32)
    side = cells.shape[0]
    x, y = at[..., 0], at[..., 1]
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    place = y[inside] * side + x[inside]
    paint = np.broadcast_to(patch, x.shape)[inside]
    flat = cells.reshape(-1)
    if stroke.over is not None:
        allowed = stroke.over[flat[place]]
        place, paint = place[allowed], paint[allowed]
    flat[place] = paint


def _band_points(band: LineFeature, scale: float, half: float) -> NDArray[np.float64]:
    """[n, m, 2] points that fill a band, closer than cells are."""
    step = 0.7 / scale
    line, spread = band.line, 1.0
    widths = np.broadcast_to(np.asarray(band.width, dtype=np.float64), len(line))
    near = np.abs(line).max(axis=1) < half + 60 + widths.max()
    if not near.any() and len(line) > 2:
        return np.zeros((0, 1, 2))
    if len(line) > 2:  # only the part in sight, with its neighbors
        first, last = np.flatnonzero(near)[[0, -1]]
        keep = slice(max(0, first - 1), last + 2)
        line, widths = line[keep], widths[keep]
    steps = np.diff(line, axis=0)
    lengths = np.hypot(*steps.T)
    if len(line) > 2:  # in a bend the outer edge is longer than the middle
        turn = np.abs(np.diff(np.unwrap(np.arctan2(steps[:, 1], steps[:, 0])))) / lengths[1:]
        spread = min(4.0, max(1.0, 0.74 * (1 + float((turn * widths[1:-1]).max()) / 2)))
    way = np.concatenate([[0.0], np.cumsum(lengths)])
    along = np.arange(0, way[-1] + step / spread, step / spread)
    x, y = np.interp(along, way, line[:, 0]), np.interp(along, way, line[:, 1])
    width = np.interp(along, way, widths)
    dx, dy = np.gradient(x) if len(x) > 1 else np.ones(1), np.gradient(y) if len(y) > 1 else np.zeros(1)
    norm = np.hypot(dx, dy) + 1e-9
    # A line of points touches cells on both sides of it: without that much less, bands come out too wide.
    cell = 1 / scale
    count = max(1, int(np.ceil((widths.max() - cell) / step))) + 1
    offset = np.linspace(-0.5, 0.5, count) * np.maximum(width - cell, 0)[:, None]
    if widths.min() < cell:  # thinner than a cell: dashes, so that there is as much of it in all
        thin = (np.floor(along / cell) * _GOLDEN) % 1 < width / cell
        x, y, dx, dy, norm, offset = (values[thin] for values in (x, y, dx, dy, norm, offset))
    return np.stack(
        [x[:, None] - offset * (dy / norm)[:, None], y[:, None] + offset * (dx / norm)[:, None]], 2
    )


def _block_points(blocks: RectangleFeatures, scale: float) -> tuple[NDArray[np.float64], U8]:
    """[n, m, 2] points that fill the blocks, closer than cells are, and the patch of each [n, 1]."""
    cell = 1 / scale
    fraction = np.minimum(blocks.size / cell, 1).prod(axis=1)
    if fraction.min() < 1:  # smaller than a cell: fewer of them
        keep = (np.arange(len(fraction)) * _GOLDEN) % 1 < fraction
        blocks = RectangleFeatures(
            blocks.patch[keep], blocks.center[keep], blocks.size[keep], blocks.angle[keep]
        )
    if not len(blocks.patch):
        return np.zeros((0, 1, 2)), blocks.patch[:, None]
    span = np.maximum(blocks.size - cell, 0)  # see _band_points
    nu, nv = (np.ceil(span.max(axis=0) * scale / 0.7) + 1).astype(int)
    u = np.linspace(-0.5, 0.5, nu)[None, :, None] * span[:, 0, None, None]
    v = np.linspace(-0.5, 0.5, nv)[None, None, :] * span[:, 1, None, None]
    c, s = np.cos(blocks.angle)[:, None, None], np.sin(blocks.angle)[:, None, None]
    x = blocks.center[:, 0, None, None] + c * u - s * v
    y = blocks.center[:, 1, None, None] + s * u + c * v
    points = np.stack([x, y], axis=-1).reshape(len(blocks.patch), -1, 2)
    return points, blocks.patch[:, None]


def _classes(pure: U8, mixed: NDArray[np.int64], of_mixed: U8) -> tuple[U8, NDArray[np.float64]]:
    """[N] class with the largest share of each pixel, and [K] share of each class in all."""
    known = len(CLASSES)
    mask = PATCH_CLASS[pure]
    uniform = np.ones(len(pure), dtype=bool)
    uniform[mixed] = False
    total = np.bincount(mask[uniform], minlength=known) * float(len(of_mixed))
    if len(mixed):
        found = PATCH_CLASS[of_mixed].astype(np.int64) + known * np.arange(len(mixed))
        count = np.bincount(found.ravel(), minlength=known * len(mixed)).reshape(-1, known)
        mask[mixed] = count.argmax(axis=1)
        total += count.sum(axis=0)
    return mask, total / total.sum()


def _boxes(plan: LandscapePlan, cells: U8, scale: float, half: float, o: int) -> tuple[F32, tuple[str, ...]]:
    """Boxes in pixels of what is in sight: settlements from the cells, buildings and ships from the plan."""
    side = cells.shape[0]
    boxes: list[NDArray[np.float64]] = []
    kinds: list[str] = []
    for patch in sorted(plan.towns):
        seen = cells == patch
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        if len(rows) and len(columns):
            boxes.append(np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]) / o)
            kinds.append("settlement")
    for stroke in plan.strokes:
        if isinstance(stroke, RectangleFeatures) and stroke.kind is not None:
            corners = (stroke.corners() + half) * scale
            at = np.floor((stroke.center + half) * scale).astype(int)
            inside = ((at >= 0) & (at < side)).all(axis=1)
            # In sight: its middle is in the picture, and nothing else lies on top of it.
            inside[inside] = cells[at[inside, 1], at[inside, 0]] == stroke.patch[inside]
            box = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)[inside] / o
            boxes.append(np.clip(box, 0, side / o))
            kinds.extend([stroke.kind] * len(box))
    found = np.concatenate(boxes) if boxes else np.zeros((0, 4))
    large: NDArray[np.bool_] = np.all(found[:, 2:] - found[:, :2] >= 0.5, axis=1)
    return found[large].astype(np.float32), tuple(k for k, keep in zip(kinds, large, strict=True) if keep)
