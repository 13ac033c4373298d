"""Reading windows of a scene's pixels, with their validity.

`read_window` gives *stored* values; turning them into the sensor's unit is `swath.sensors.units.to_unit`.
Bands of different resolution are read onto the scene's grid. Which pixels are valid:

- not where the file's own mask or alpha band is 0, nor where any value is NaN or infinite;
- not where *any* band read has the nodata value. In 8-bit images of several bands only where *all* bands of
  the file have it: there, the value (0 or 255) is also an ordinary dark or saturated one;
- after resampling, where valid input covers at least half of the pixel (see `swath.rasters.resampling`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.errors import ImageryError
from swath.geo.grid import PixelWindow
from swath.geo.gsd import effective_gsd
from swath.geo.transform import resampled_transform, window_transform
from swath.rasters.header import Box, SceneHeader, read_header, window_bounds_on
from swath.rasters.open_files import close_all, open_cached
from swath.rasters.resampling import Kernel, check_kernel, kernel_support, resample
from swath.rasters.safe_open import (
    DEFAULT_LIMITS,
    REAL_TYPES,
    OpenRaster,
    ReadLimits,
    sniff_driver,
    translate_gdal_errors,
)

__all__ = [
    "DEFAULT_LIMITS",
    "PixelWindow",
    "ReadLimits",
    "SceneHeader",
    "close_all",
    "read_header",
    "read_window",
    "sniff_driver",
    "window_gsd",
]

Array = NDArray[Any]
Span = tuple[tuple[int, int], tuple[int, int]]  # (first row, last), (first column, last)
_ITEM_SIZE = {name: np.dtype(name).itemsize for name in REAL_TYPES}
_STRIP_PIXELS = 2**24  # decoded at once when much is reduced


def window_gsd(
    header: SceneHeader, window: PixelWindow | None = None, out_shape: tuple[int, int] | None = None
) -> float | None:
    """Effective GSD of a window after resampling to `out_shape` (h, w), measured at the window's own center.

    None where the scene has no georeference to measure by.
    """
    window = window or PixelWindow(0, 0, header.width, header.height)
    if header.transform is None or header.crs is None or header.gsd is None:
        return None
    height, width = out_shape or (window.height, window.width)
    transform = resampled_transform(
        window_transform(header.transform, window.column, window.row),
        window.width / width,
        window.height / height,
    )
    return effective_gsd(transform, header.crs, width, height)


def read_window(
    header: SceneHeader,
    window: PixelWindow | None = None,
    *,
    bands: Sequence[int] | None = None,
    out_shape: tuple[int, int] | None = None,
    resampling: Kernel = "area",
    limits: ReadLimits = DEFAULT_LIMITS,
) -> tuple[Array, Array]:
    """Read one window of a scene.

    Reads from the coarsest overview that is still at least as fine as `out_shape`. The files stay open
    for the next window (for each process and thread).

    Args:
        header: Of the scene.
        window: On the scene's grid; None reads all of it.
        bands: 0-based band indexes in the wanted order; None for all.
        out_shape: (h, w) to resample to; None keeps the native grid.
        resampling: "area", "nearest", "bilinear" or "cubic", see `swath.rasters.resampling`. Also takes
            coarser band files to the finest grid, where "area" replicates.
        limits: What one read may cost.

    Returns:
        (stored [C, h, w] in the header's dtype; valid [h, w] bool, by the rules at the head of the module).
        Where not valid, stored values mean nothing.

    Raises:
        ImageryError: The window is not in the scene, the read would exceed the limits, or a file is damaged.
    """
    if resampling != "area":
        check_kernel(resampling)
    window = window or PixelWindow(0, 0, header.width, header.height)
    if not (
        0 <= window.column < window.column + window.width <= header.width
        and 0 <= window.row < window.row + window.height <= header.height
    ):
        raise ImageryError(
            f"{header.path}: {window} is not within the scene of {header.width} x {header.height} pixels"
        )
    picked = range(header.bands) if bands is None else bands
    if not picked or not all(0 <= band < header.bands for band in picked):
        raise ImageryError(f"{header.path}: bands {list(picked)} asked for, it has 0 to {header.bands - 1}")
    shape = out_shape or (window.height, window.width)
    size = len(picked) * shape[0] * shape[1] * _ITEM_SIZE[header.dtype]
    if min(shape) < 1 or size > limits.read_bytes:
        raise ImageryError(
            f"{header.path}: {len(picked)} x {shape[0]} x {shape[1]} values of type {header.dtype} are "
            f"{size:,} bytes, the limit for one read is {limits.read_bytes:,}. Read windows, or a smaller "
            "`out_shape`"
        )
    if len(header.files) == 1:
        source = open_cached(header.files[0], limits)
        if (source.width, source.height, len(source.bands)) != (header.width, header.height, header.bands):
            raise ImageryError(f"{header.path}: has changed since its header was read. Read the header again")
        left, top = window.column, window.row
        box = (left, top, left + window.width, top + window.height)
        if shape == (window.height, window.width):  # the common case, worth its own line: no resampling
            return _pixels(header, source, picked, box)
        return _read_file(header, source, picked, box, shape, resampling)
    stored = np.empty((len(picked), *shape), header.dtype)
    valid = np.ones(shape, bool)
    for i, band in enumerate(picked):
        source = open_cached(header.files[band], limits)
        affine = source.dataset.transform
        transform = None if affine.is_identity else affine
        placed = window_bounds_on(header, window, source.width, source.height, transform)
        one = replace(header, files=(source.path,), nodata=_nodata(header, band), band_nodata=None)
        part, ok = _read_file(one, source, (0,), placed, shape, resampling)
        stored[i] = part[0]
        valid &= ok
    return stored, valid


def _nodata(header: SceneHeader, band: int) -> float | None:
    return header.nodata if header.band_nodata is None else header.band_nodata[band]


def _read_file(
    header: SceneHeader,
    source: OpenRaster,
    picked: Sequence[int],
    box: Box,
    shape: tuple[int, int],
    kernel: Kernel,
) -> tuple[Array, Array]:
    """Read `box` of one file, given in its own pixels (possibly fractional), resampled to `shape`."""
    x0, y0, x1, y1 = (round(edge) if abs(edge - round(edge)) < 1e-6 else edge for edge in box)
    step = ((y1 - y0) / shape[0], (x1 - x0) / shape[1])
    whole = isinstance(x0, int) and isinstance(y0, int) and step == (1, 1)
    if whole and x0 >= 0 and y0 >= 0 and x1 <= source.width and y1 <= source.height:
        return _pixels(header, source, picked, (int(x0), int(y0), int(x1), int(y1)))

    # An overview, where one is fine enough. Its pixels are taken as they are.
    fine_enough = [(factor, i) for i, factor in enumerate(source.overviews) if factor <= min(step)]
    if fine_enough:
        full, source = source, open_cached(source.path, source.limits, max(fine_enough)[1])
        x, y = source.width / full.width, source.height / full.height
        x0, x1, y0, y1 = x0 * x, x1 * x, y0 * y, y1 * y
        step = (step[0] * y, step[1] * x)
    decoded = (x1 - x0) * (y1 - y0) * len(picked)
    if decoded > source.limits.read_pixels:
        raise ImageryError(
            f"{header.path}: {decoded:,.0f} pixels would be decoded for one read, the limit is "
            f"{source.limits.read_pixels:,}. Make overviews (gdaladdo), or read smaller windows"
        )
    # In strips of output rows, so that memory stays small however much is reduced.
    rows_at_once = max(1, int(_STRIP_PIXELS / max(1.0, step[0] * (x1 - x0) * len(picked))))
    stored, valid = np.empty((len(picked), *shape), header.dtype), np.empty(shape, bool)
    beyond_rows, beyond_columns = kernel_support(kernel, step[0]), kernel_support(kernel, step[1])
    left, right = _clip(x0 - beyond_columns, x1 + beyond_columns, source.width)
    for first in range(0, shape[0], rows_at_once):
        last = min(first + rows_at_once, shape[0])
        y_first, y_last = y0 + first * step[0], y0 + last * step[0]
        top, bottom = _clip(y_first - beyond_rows, y_last + beyond_rows, source.height)
        part, ok = _pixels(header, source, picked, (left, top, right, bottom))
        rows, columns = (y_first - top, y_last - top), (x0 - left, x1 - left)
        out = resample(part, ok, rows, columns, (last - first, shape[1]), kernel)
        stored[:, first:last], valid[first:last] = out
    return stored, valid


def _clip(low: float, high: float, size: int) -> tuple[int, int]:
    """The whole pixels of [low, high) that exist; at least one."""
    first = min(max(0, math.floor(low + 1e-6)), size - 1)
    return first, max(min(size, math.ceil(high - 1e-6)), first + 1)


def _pixels(
    header: SceneHeader, source: OpenRaster, picked: Sequence[int], box: tuple[int, int, int, int]
) -> tuple[Array, Array]:
    """Native pixels of a file as they are stored, and which of them are valid."""
    dataset = source.dataset
    wanted = [source.bands[band] for band in picked]
    # See the head of the module: in 8-bit color, all bands decide together whether a pixel is no data.
    by_all = source.eight_bit and len(source.bands) > 1 and header.nodata is not None
    read = list(source.bands) if by_all else wanted
    span = ((box[1], box[3]), (box[0], box[2]))
    mask = None
    with translate_gdal_errors(source.path, "read"):
        values = dataset.read(read if source.alpha is None else [*read, source.alpha], window=span)
        if source.masked:
            mask = dataset.read_masks(wanted[0], window=span)
    valid = np.ones(values.shape[1:], bool)
    if source.alpha is not None:
        valid &= values[-1] > 0
        values = values[:-1]
    if mask is not None:
        valid &= mask > 0
    if source.mask_beside is not None:
        valid &= read_mask_beside(source.mask_beside, (source.height, source.width), span, source.limits)
    # Each look at every pixel costs; first whether there is anything to find (a sum of finite values may
    # overflow, but never does a sum hide what is not finite).
    if values.dtype.kind == "f" and not math.isfinite(_total(values)):
        valid &= np.isfinite(values).all(axis=0)
    if by_all:
        assert header.nodata is not None
        none = _as_stored(header.nodata, values.dtype)
        if _may_hold(values, none):
            valid &= (values != none).any(axis=0)
        if read != wanted:
            values = values[[read.index(band) for band in wanted]]
    elif header.band_nodata is not None:
        for value, band in zip(values, picked, strict=True):
            own = header.band_nodata[band]
            if own is not None:
                valid &= value != _as_stored(own, values.dtype)
    elif header.nodata is not None:
        none = _as_stored(header.nodata, values.dtype)
        if _may_hold(values, none):
            valid &= (values != none).all(axis=0)
    return values, valid


def read_mask_beside(
    path: str, size: tuple[int, int], span: Span | None = None, limits: ReadLimits = DEFAULT_LIMITS
) -> Array:
    """What a mask beside an image says is valid, [h, w] bool.

    Args:
        path: The mask (see `swath.rasters.sidecars.mask_beside`).
        size: (height, width) of the image, or of its overview.
        span: Rows and columns of a window of it; None for all.
        limits: What the mask may claim.

    Raises:
        ImageryError: It is of another shape, or damaged.
    """
    mask = open_cached(path, limits)
    down, across = mask.height / size[0], mask.width / size[1]
    if down < 1 or across < 1 or abs(down / across - 1) > 0.05:
        raise ImageryError(
            f"{path}: has {mask.width} x {mask.height} pixels, its image {size[1]} x {size[0]}. "
            "Make the mask anew, or take it away"
        )
    (top, bottom), (left, right) = span or ((0, size[0]), (0, size[1]))
    window = ((top * down, bottom * down), (left * across, right * across))
    with translate_gdal_errors(path, "read"):
        values: Array = mask.dataset.read(1, window=window, out_shape=(bottom - top, right - left))
    valid: Array = values > 0
    return valid


def _total(values: Array) -> float:
    """A number that is not finite if any value is not: their sum of squares, the fastest of its kind."""
    flat = values.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.dot(flat, flat))


def _may_hold(values: Array, nodata: Any) -> bool:
    """Whether the value can be among these, judged by their range (NaN among them: yes)."""
    least = values.min()
    return not bool(least > nodata or (least < nodata and values.max() < nodata))


def _as_stored(nodata: float, dtype: np.dtype[Any]) -> Any:
    """The nodata value as the file's type holds it (float32 rounds -3.4e38 and 0.1)."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(nodata)
    return int(nodata) if float(nodata).is_integer() else nodata
