"""Reading a scene on a grid that is not its own: co-registration of one sensor with another.

Where the target pixels are larger than the scene's, the scene is first averaged by area to about their size;
then it is interpolated bilinearly at the centers of the target pixels. Invalid pixels never count; a target
pixel is valid where valid ones have at least half of the weight. Decibels are averaged and interpolated as
power, because the mean of logarithms is not the backscatter of the area. Where the grids are aligned pixel by
pixel, stored values are copied as they are.

Pixels are only read through `swath.rasters.read`, so all its rules for files hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swath.errors import ImageryError
from swath.geo.grid import PixelGrid, PixelWindow, crs_transformer
from swath.rasters.header import SceneHeader
from swath.rasters.read import read_window
from swath.rasters.resampling import resample
from swath.rasters.sensor_scene import SensorScene
from swath.sensors.units import Array, Array64, Valid, to_unit

_STEP = 8  # target pixels between the points that are projected exactly; linear in between


def to_pixels(header: SceneHeader, crs: str, x: Array64, y: Array64) -> tuple[Array64, Array64]:
    """Columns and rows of a scene (continuous, 0.5 is the first pixel's center) at points of another CRS.

    Raises:
        ImageryError: The scene has no georeference, or a point cannot be projected.
    """
    if header.crs is None or header.transform is None:
        raise ImageryError(f"{header.path}: has no georeference, so it cannot be put on another grid")
    if crs != header.crs:
        x, y = crs_transformer(crs, header.crs).transform(x, y)
    a, b, c, d, e, f = header.transform
    area = a * e - b * d
    column = (e * (x - c) - b * (y - f)) / area
    row = (a * (y - f) - d * (x - c)) / area
    if not (np.isfinite(column).all() and np.isfinite(row).all()):
        raise ImageryError(
            f"{header.path}: the grid reaches to where its CRS {header.crs:.40} is not defined"
        )
    return column, row


def _sources(header: SceneHeader, grid: PixelGrid) -> tuple[Array64, Array64, float]:
    """The scene's column and row [h, w] at each target pixel's center, and its pixels a target pixel."""
    columns = np.linspace(0, grid.width, -(-grid.width // _STEP) + 1)
    rows = np.linspace(0, grid.height, -(-grid.height // _STEP) + 1)
    a, b, c, d, e, f = grid.transform
    x = a * columns[None, :] + b * rows[:, None] + c
    y = d * columns[None, :] + e * rows[:, None] + f
    column, row = to_pixels(header, grid.crs, x, y)

    def between(values: Array64) -> Array64:
        along = np.stack([np.interp(np.arange(grid.width) + 0.5, columns, line) for line in values])
        return np.stack([np.interp(np.arange(grid.height) + 0.5, rows, line) for line in along.T], axis=1)

    right = (column[:, 1:] - column[:, :-1], row[:, 1:] - row[:, :-1])
    down = (column[1:] - column[:-1], row[1:] - row[:-1])
    cross = np.abs(right[0][:-1] * down[1][:, :-1] - right[1][:-1] * down[0][:, :-1])
    cell = (columns[1] - columns[0]) * (rows[1] - rows[0])
    return between(column), between(row), math.sqrt(float(np.median(cross)) / cell)


def read_on_grid(scene: SensorScene, grid: PixelGrid) -> tuple[Array, Valid]:
    """A scene's bands on a grid.

    Args:
        scene: What to read.
        grid: Where.

    Returns:
        ([C, h, w] stored values in the file's type, or float32 decibels in the unit for sensors in dB;
        [h, w] valid). Invalid values are 0.

    Raises:
        ImageryError: No georeference, the grid lies outside of the scene, or the file cannot be read.
    """
    header = scene.header
    column, row, coarser = _sources(header, grid)
    factor = max(1, int(coarser + 1e-6))
    first_column, columns = _span(column, factor, header.width)
    first_row, rows = _span(row, factor, header.height)
    if columns <= 0 or rows <= 0:
        raise ImageryError(f"{header.path}: does not reach the place where its pair is")
    width = min(columns * factor, header.width - first_column)
    height = min(rows * factor, header.height - first_row)
    stored, valid = read_window(
        header, PixelWindow(first_column, first_row, width, height), bands=scene.bands
    )
    decibels = scene.sensor.unit == "dB"
    if decibels:
        stored = to_unit(stored, scene.sensor, scene.offset_dn)
    x, y = (column - first_column) / factor - 0.5, (row - first_row) / factor - 0.5
    aligned = factor == 1 and max(np.abs(x - np.rint(x)).max(), np.abs(y - np.rint(y)).max()) < 1e-4
    if aligned:
        return _nearest(stored, valid, np.rint(x).astype(np.int64), np.rint(y).astype(np.int64))
    kind = stored.dtype
    values: Array = stored.astype(np.float64 if kind.itemsize > 4 else np.float32, copy=False)
    if decibels:
        with np.errstate(over="ignore"):
            values = np.where(valid, np.power(10, values / 10), 0)
    if factor > 1:
        values, valid = resample(
            values, valid, (0, rows * factor), (0, columns * factor), (rows, columns), "area"
        )
    out, ok = _bilinear(values, valid, x, y)
    if decibels:
        ok &= (out > 0).all(axis=0)
        out = np.where(ok, 10 * np.log10(np.where(ok, out, 1)), 0)
    if np.issubdtype(kind, np.integer):
        limits = np.iinfo(kind)
        out = np.clip(np.rint(out), limits.min, limits.max)
    return out.astype(kind, copy=False), ok


def read_preview(
    header: SceneHeader, grid: PixelGrid, bands: Sequence[int]
) -> tuple[NDArray[np.float32], Valid]:
    """A scene on a grid as it is drawn on a map: quick, from overviews, and as far as the scene reaches.

    Reduced by the power of two that leaves at least the grid's resolution, in blocks that are counted from
    the scene's corner, so that neighboring grids meet without a seam; then bilinear. Enlarged more than
    twice, pixels stay pixels. Numbers are stored ones and are not averaged as power: not for measuring.

    Args:
        header: What to read.
        grid: Where.
        bands: 0-based bands of the file.

    Returns:
        ([C, h, w] stored values, [h, w] valid); outside of the scene nothing is valid.

    Raises:
        ImageryError: No georeference, or a file is damaged.
    """
    column, row, coarser = _sources(header, grid)
    if (
        header.crs is not None
        and header.transform is not None
        and crs_transformer(header.crs, "OGC:CRS84").source_crs.is_geographic
    ):
        turn = 360 / abs(header.transform[0]) if header.transform[0] else math.inf
        column = column + turn * np.rint((header.width / 2 - column) / turn)  # longitude counts on beyond 180
    block = 2 ** max(0, math.floor(math.log2(max(coarser, 1.0)) + 1e-6))
    x0, x1 = _blocks(column, block, header.width)
    y0, y1 = _blocks(row, block, header.height)
    if x0 >= x1 or y0 >= y1:
        return np.zeros((len(bands), grid.height, grid.width), np.float32), np.zeros(column.shape, np.bool_)
    shape = (-(-(y1 - y0) // block), -(-(x1 - x0) // block))
    stored, valid = read_window(header, PixelWindow(x0, y0, x1 - x0, y1 - y0), bands=bands, out_shape=shape)
    x, y = (column - x0) * shape[1] / (x1 - x0) - 0.5, (row - y0) * shape[0] / (y1 - y0) - 0.5
    values = stored.astype(np.float32)
    if coarser < 0.5:
        return _nearest(values, valid, np.rint(x).astype(np.int64), np.rint(y).astype(np.int64))
    return _bilinear(values, valid, x, y)


def _blocks(at: Array64, block: int, size: int) -> tuple[int, int]:
    """First and last source pixel of the whole blocks that `at` touches, one to spare, within the scene."""
    first = (math.floor(float(at.min())) // block - 1) * block
    last = (math.floor(float(at.max())) // block + 2) * block
    return max(0, first), min(size, last)


def _span(at: Array64, factor: int, size: int) -> tuple[int, int]:
    """First source pixel and number of blocks of `factor` that cover `at` with a block to spare."""
    # In phase with the target: the edge of its first pixel, half a step before its first center.
    low = math.floor(float(at.min()) - factor / 2 + 1e-3)
    first = low - factor
    if first < 0:
        first += factor * -(first // factor)
    last = min(math.ceil(float(at.max()) + factor / 2 - 1e-3) + factor, size)
    return first, -(-(last - first) // factor)


def _nearest(stored: Array, valid: Valid, x: NDArray[np.int64], y: NDArray[np.int64]) -> tuple[Array, Valid]:
    height, width = valid.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    ok = valid[y, x] & inside
    return np.where(ok, stored[:, y, x], np.zeros((), stored.dtype)), ok


def _bilinear(values: Array, valid: Valid, x: Array64, y: Array64) -> tuple[Array, Valid]:
    """Values [C, H, W] at continuous pixel coordinates [h, w] (0 is the center of the first pixel)."""
    height, width = valid.shape
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    dx, dy = (x - left).astype(values.dtype), (y - top).astype(values.dtype)
    values = values if bool(valid.all()) else np.where(valid, values, np.zeros((), values.dtype))
    total = np.zeros(x.shape, values.dtype)
    out = np.zeros((len(values), *x.shape), values.dtype)
    for column, row, weight in (
        (left, top, (1 - dx) * (1 - dy)),
        (left + 1, top, dx * (1 - dy)),
        (left, top + 1, (1 - dx) * dy),
        (left + 1, top + 1, dx * dy),
    ):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        column, row = np.clip(column, 0, width - 1), np.clip(row, 0, height - 1)
        weight = weight * (inside & valid[row, column])
        total += weight
        out += values[:, row, column] * weight
    ok = total > 0.4999
    out /= np.where(ok, total, 1)
    return out * ok, ok
