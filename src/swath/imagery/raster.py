"""Reading georeferenced rasters: a header of a scene, and windows of its pixels with their validity.

A scene is one file with many bands, or one file a band (Sentinel-2 and Landsat products, BigEarthNet). Bands
of different resolution are read onto the grid of the finest one. `read_window` gives *stored* values; turning
them into the sensor's unit is `swath.imagery.sensors.to_unit`.

Which pixels are valid:

- not where the file's own mask or alpha band is 0, nor where any value is NaN or infinite;
- not where *any* band read has the nodata value. In 8-bit images of several bands only where *all* bands of
  the file have it: there, the value (0 or 255) is also an ordinary dark or saturated one;
- after resampling, where valid input covers at least half of the pixel (see `swath.imagery.resample`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swath.errors import ImageryError
from swath.imagery.chip import Window
from swath.imagery.gsd import effective_gsd, footprint, moved, scaled
from swath.imagery.resample import Kernel, check_kernel, reach, resize
from swath.imagery.safe_open import (
    DEFAULT_LIMITS,
    SIDECARS,
    Opened,
    ReadLimits,
    damaged,
    gdal_options,
    open_checked,
    opened,
    sniff_driver,
)

__all__ = [
    "DEFAULT_LIMITS",
    "ReadLimits",
    "SceneHeader",
    "Window",
    "read_header",
    "read_window",
    "sniff_driver",
    "window_gsd",
]

Array = NDArray[Any]
Six = tuple[float, float, float, float, float, float]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of one file
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class SceneHeader:
    """What a scene's files say about themselves. Plain data: picklable, comparable, cheap to keep.

    Attributes:
        path: The file, or the folder that the band files share.
        files: One file, or one for each band.
        driver: GDAL driver of the (finest) file.
        width: Columns of the scene's grid, which is the finest file's.
        height: Rows.
        bands: Number of image bands; an alpha band is not one.
        dtype: Type of the stored values (of all bands together).
        descriptions: One a band; the file's stem where a band file has none; "" where unknown.
        crs: "EPSG:32633" or WKT; None without georeference.
        transform: (a, b, c, d, e, f) of ``x = a column + b row + c``, ``y = d column + e row + f``; or None.
        gsd: Effective ground sample distance at the centre, metres per pixel; None where unknown.
        nodata: Stored value that means no data in every band; None if there is none. To overrule a wrong tag,
            use ``dataclasses.replace(header, nodata=None)`` or ``read_header(..., nodata=...)``.
        has_alpha: Whether transparency is stored beside the bands.
        has_mask: Whether the file holds a mask of its own.
        block: (rows, columns) of a block; windows along blocks are read fastest.
        overviews: Factors of the internal overviews, ascending.
        footprint: Closed ring of (longitude, latitude) corners in OGC:CRS84.
        time: Acquisition time (timezone-aware; times without zone are taken for UTC), from tags.
        tags: The file's own metadata.
        scales: Scale of each band where the file states one other than 1, else empty. Nothing here applies
            it: the sensor's scale does.
        offsets: The same for offsets other than 0.
        band_nodata: Nodata value of each band where the files do not agree, else None.
        passed_over: Sidecar files that exist and were not read.
    """

    path: str
    files: tuple[str, ...]
    driver: str
    width: int
    height: int
    bands: int
    dtype: str
    descriptions: tuple[str, ...]
    crs: str | None = None
    transform: Six | None = None
    gsd: float | None = None
    nodata: float | None = None
    has_alpha: bool = False
    block: tuple[int, int] = (1, 1)
    overviews: tuple[int, ...] = ()
    footprint: tuple[tuple[float, float], ...] | None = None
    time: datetime | None = None
    tags: dict[str, str] = field(default_factory=dict, hash=False)
    has_mask: bool = False
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    band_nodata: tuple[float | None, ...] | None = None
    passed_over: tuple[str, ...] = ()


def read_header(
    path: PathLike | Sequence[PathLike],
    *,
    limits: ReadLimits = DEFAULT_LIMITS,
    nodata: float | Literal["file"] | None = "file",
    palette: Literal["refuse", "index"] = "refuse",
) -> SceneHeader:
    """Read the header of one file, or of one file for each band. No pixel is decoded.

    Args:
        path: A file, or band files in the order of the bands.
        limits: What a header may claim.
        nodata: "file" believes the files; a number or None overrules them.
        palette: An image of colour-table indexes is no imagery and is refused; "index" takes it as it is (for
            class maps).

    Raises:
        ImageryError: Naming the file, what is wrong with it, and what to do.
    """
    if isinstance(path, str | os.PathLike):
        header = _header_of_file(os.fspath(path), limits, palette)
    else:
        files = [os.fspath(one) for one in path]
        if not files:
            raise ImageryError("a scene of no band files: give at least one file")
        parts = [_header_of_file(one, limits, palette) for one in files]
        header = parts[0] if len(parts) == 1 else _together(parts)
    return header if nodata == "file" else replace(header, nodata=nodata, band_nodata=None)


def _header_of_file(path: str, limits: ReadLimits, palette: str) -> SceneHeader:
    source = open_checked(path, limits)
    dataset = source.dataset
    try:
        with gdal_options():
            if source.palette and palette == "refuse":
                raise ImageryError(
                    f"{path}: its values are indexes into a colour table, not colours. Expand them: "
                    f"gdal_translate -expand rgb {path} OUT.tif"
                )
            crs, transform, gsd, ring = _georeference(dataset)
            tags = {str(key): str(value) for key, value in dataset.tags().items()}
            times = {**tags, **dataset.tags(ns="IMAGERY"), **dataset.tags(ns="EXIF")}
            each = [index - 1 for index in source.bands]
            nodata = [_number(dataset.nodatavals[i]) for i in each]
            scales = tuple(float(dataset.scales[i]) for i in each)
            offsets = tuple(float(dataset.offsets[i]) for i in each)
            return SceneHeader(
                path=path,
                files=(path,),
                driver=source.driver,
                width=source.width,
                height=source.height,
                bands=len(each),
                dtype=str(dataset.dtypes[0]),
                descriptions=tuple(dataset.descriptions[i] or "" for i in each),
                crs=crs,
                transform=transform,
                gsd=gsd,
                nodata=nodata[0] if len(set(nodata)) == 1 else None,
                has_alpha=source.alpha is not None,
                has_mask=source.masked,
                block=(int(dataset.block_shapes[0][0]), int(dataset.block_shapes[0][1])),
                overviews=source.overviews,
                footprint=ring,
                time=acquisition_time(times),
                tags=tags,
                scales=scales if any(scale != 1 for scale in scales) else (),
                offsets=offsets if any(offset != 0 for offset in offsets) else (),
                band_nodata=tuple(nodata) if len(set(nodata)) > 1 else None,
                passed_over=tuple(path + suffix for suffix in SIDECARS if Path(path + suffix).exists()),
            )
    finally:
        dataset.close()


def _number(nodata: float | None) -> float | None:
    """NaN needs no nodata value: what is not finite is never valid (and NaN would not equal itself)."""
    return None if nodata is None or math.isnan(nodata) else float(nodata)


def _georeference(
    dataset: Any,
) -> tuple[str | None, Six | None, float | None, tuple[tuple[float, float], ...] | None]:
    affine = dataset.transform
    if affine.is_identity or affine.determinant == 0 or not all(math.isfinite(x) for x in affine[:6]):
        return (dataset.crs.to_string() if dataset.crs else None), None, None, None
    transform: Six = (affine.a, affine.b, affine.c, affine.d, affine.e, affine.f)
    if not dataset.crs:
        return None, transform, None, None
    crs = str(dataset.crs.to_string())
    size = (dataset.width, dataset.height)
    try:
        gsd = effective_gsd(transform, crs, *size)
        ring = footprint(transform, crs, *size)
    except (
        ImageryError
    ):  # the centre is off the Earth, or pyproj does not know this CRS: the user has to state GSD
        return crs, transform, None, None
    return crs, transform, gsd, ring


def window_gsd(
    header: SceneHeader, window: Window | None = None, out_shape: tuple[int, int] | None = None
) -> float | None:
    """Effective GSD of a window after resampling to `out_shape` (h, w), measured at the window's own centre.

    None where the scene has no georeference to measure by.
    """
    window = window or Window(0, 0, header.width, header.height)
    if header.transform is None or header.crs is None or header.gsd is None:
        return None
    height, width = out_shape or (window.height, window.width)
    transform = scaled(
        moved(header.transform, window.column, window.row), window.width / width, window.height / height
    )
    return effective_gsd(transform, header.crs, width, height)


_TIME_TAGS = (
    "ACQUISITION_DATETIME",
    "ACQUISITIONDATETIME",
    "ACQUISITION_DATE",
    "SENSING_TIME",
    "DATE_ACQUIRED",
    "PRODUCT_START_TIME",
    "DATETIME",
    "EXIF_DATETIMEORIGINAL",
    "TIFFTAG_DATETIME",
)


def acquisition_time(tags: dict[str, str]) -> datetime | None:
    """When the scene was taken, by its tags (the most specific first); None where they do not say.

    Understands ISO 8601 and TIFF's "YYYY:MM:DD HH:MM:SS". A time without zone is taken for UTC.
    """
    known = {key.upper(): value for key, value in tags.items()}
    for tag in _TIME_TAGS:
        text = known.get(tag, "").strip()
        if len(text) >= 10 and text[4] == ":" and text[7] == ":":
            text = text[:4] + "-" + text[5:7] + "-" + text[8:]
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            continue
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time
    return None


# ------------------------------------------------------------------------------------- one file for each band


def _together(parts: list[SceneHeader]) -> SceneHeader:
    """One header of one-band files; the grid is that of the finest."""
    for part in parts:
        if part.bands != 1:
            raise ImageryError(
                f"{part.path}: has {part.bands} bands, but files given together hold one band each. "
                "Give it alone, or split it: gdal_translate -b N"
            )
    finest = max(parts, key=lambda part: part.width * part.height)
    for part in parts:
        _check_alignment(finest, part)
    nodata = [part.nodata for part in parts]
    scales = tuple(part.scales[0] if part.scales else 1.0 for part in parts)
    offsets = tuple(part.offsets[0] if part.offsets else 0.0 for part in parts)
    folders = {str(Path(part.path).parent) for part in parts}
    return replace(
        finest,
        path=folders.pop() if len(folders) == 1 else os.path.commonpath([part.path for part in parts]),
        files=tuple(part.path for part in parts),
        bands=len(parts),
        dtype=str(np.result_type(*(np.dtype(part.dtype) for part in parts))),
        descriptions=tuple(part.descriptions[0] or Path(part.path).stem for part in parts),
        nodata=nodata[0] if len(set(nodata)) == 1 else None,
        band_nodata=tuple(nodata) if len(set(nodata)) > 1 else None,
        has_alpha=any(part.has_alpha for part in parts),
        has_mask=any(part.has_mask for part in parts),
        time=finest.time or next((part.time for part in parts if part.time), None),
        scales=scales if any(scale != 1 for scale in scales) else (),
        offsets=offsets if any(offset != 0 for offset in offsets) else (),
        passed_over=tuple(name for part in parts for name in part.passed_over),
    )


def _check_alignment(finest: SceneHeader, part: SceneHeader) -> None:
    both = f"{part.path} and {finest.path}"
    if part.crs != finest.crs or (part.transform is None) != (finest.transform is None):
        raise ImageryError(f"{both}: not in the same CRS. Warp them to one grid: gdalwarp -t_srs")
    whole = Window(0, 0, finest.width, finest.height)
    try:
        x0, y0, x1, y1 = _box(finest, whole, part.width, part.height, part.transform)
    except ImageryError as error:
        raise ImageryError(f"{both}: {error}") from None
    if min(x0, y0) < -1 or x1 > part.width + 1 or y1 > part.height + 1:
        raise ImageryError(
            f"{both}: the bands do not cover the same ground (by more than a pixel). Give the files of one "
            "scene, or warp them to one extent: gdalwarp -te"
        )


def _box(
    header: SceneHeader, window: Window, width: int, height: int, transform: Sequence[float] | None
) -> Box:
    """The window of the scene's grid as (x0, y0, x1, y1) on another grid of the same scene."""
    left, top = window.column, window.row
    right, bottom = left + window.width, top + window.height
    if transform is None or header.transform is None:
        x, y = width / header.width, height / header.height
        if transform is None and header.transform is None and max(x, y) > min(x, y) * 1.01:
            raise ImageryError("the bands have different shapes. Resample them to one")
        return left * x, top * y, right * x, bottom * y
    from affine import Affine

    to_other = ~Affine(*transform[:6]) * Affine(*header.transform)
    if max(abs(to_other.b), abs(to_other.d)) > 1e-6 or min(to_other.a, to_other.e) <= 0:
        raise ImageryError("the bands' grids are turned against each other. Warp them to one: gdalwarp")
    return (*(to_other * (left, top)), *(to_other * (right, bottom)))


# ----------------------------------------------------------------------------------------------------- pixels


def read_window(
    header: SceneHeader,
    window: Window | None = None,
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
        resampling: "area", "nearest", "bilinear" or "cubic", see `swath.imagery.resample`. Also takes coarser
            band files to the finest grid, where "area" replicates.
        limits: What one read may cost.

    Returns:
        (stored [C, h, w] in the header's dtype; valid [h, w] bool, by the rules at the head of the module).
        Where not valid, stored values mean nothing.

    Raises:
        ImageryError: The window is not in the scene, the read would exceed the limits, or a file is damaged.
    """
    check_kernel(resampling)
    window = window or Window(0, 0, header.width, header.height)
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
    size = len(picked) * shape[0] * shape[1] * np.dtype(header.dtype).itemsize
    if min(shape) < 1 or size > limits.read_bytes:
        raise ImageryError(
            f"{header.path}: {len(picked)} x {shape[0]} x {shape[1]} values of type {header.dtype} are "
            f"{size:,} bytes, the limit for one read is {limits.read_bytes:,}. Read it in windows, or smaller (`out_shape`)"
        )
    if len(header.files) == 1:
        left, top = window.column, window.row
        box: Box = (left, top, left + window.width, top + window.height)
        return _read_file(header, opened(header.files[0], limits), picked, box, shape, resampling)
    stored = np.empty((len(picked), *shape), header.dtype)
    valid = np.ones(shape, bool)
    for i, band in enumerate(picked):
        source = opened(header.files[band], limits)
        affine = source.dataset.transform
        transform = None if affine.is_identity else affine
        box = _box(header, window, source.width, source.height, transform)
        one = replace(header, nodata=_nodata(header, band), band_nodata=None)
        part, ok = _read_file(one, source, (0,), box, shape, resampling)
        stored[i] = part[0]
        valid &= ok
    return stored, valid


def _nodata(header: SceneHeader, band: int) -> float | None:
    return header.nodata if header.band_nodata is None else header.band_nodata[band]


def _read_file(
    header: SceneHeader,
    source: Opened,
    picked: Sequence[int],
    box: Box,
    shape: tuple[int, int],
    kernel: Kernel,
) -> tuple[Array, Array]:
    """Read `box` of one file, given in its own pixels (possibly fractional), resampled to `shape`."""
    if len(header.files) == 1 and (source.width, source.height, len(source.bands)) != (
        header.width,
        header.height,
        header.bands,
    ):
        raise ImageryError(f"{source.path}: has changed since its header was read. Read the header again")
    x0, y0, x1, y1 = (round(edge) if abs(edge - round(edge)) < 1e-6 else edge for edge in box)
    step = ((y1 - y0) / shape[0], (x1 - x0) / shape[1])
    whole = isinstance(x0, int) and isinstance(y0, int) and step == (1, 1)
    if whole and 0 <= x0 and 0 <= y0 and x1 <= source.width and y1 <= source.height:
        return _pixels(header, source, picked, (int(x0), int(y0), int(x1), int(y1)))

    # An overview, where one is fine enough. Its pixels are taken as they are.
    level = max((i for i, factor in enumerate(source.overviews) if factor <= min(step)), default=None)
    if level is not None:
        full, source = source, opened(source.path, source.limits, level)
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
    beyond_rows, beyond_columns = reach(kernel, step[0]), reach(kernel, step[1])
    left, right = _clip(x0 - beyond_columns, x1 + beyond_columns, source.width)
    for first in range(0, shape[0], rows_at_once):
        last = min(first + rows_at_once, shape[0])
        y_first, y_last = y0 + first * step[0], y0 + last * step[0]
        top, bottom = _clip(y_first - beyond_rows, y_last + beyond_rows, source.height)
        part, ok = _pixels(header, source, picked, (left, top, right, bottom))
        rows, columns = (y_first - top, y_last - top), (x0 - left, x1 - left)
        out = resize(part, ok, rows, columns, (last - first, shape[1]), kernel)
        stored[:, first:last], valid[first:last] = out
    return stored, valid


_STRIP_PIXELS = 2**24


def _clip(low: float, high: float, size: int) -> tuple[int, int]:
    """The whole pixels of [low, high) that exist; at least one."""
    first = min(max(0, math.floor(low + 1e-6)), size - 1)
    return first, max(min(size, math.ceil(high - 1e-6)), first + 1)


def _pixels(
    header: SceneHeader, source: Opened, picked: Sequence[int], box: tuple[int, int, int, int]
) -> tuple[Array, Array]:
    """Native pixels of a file as they are stored, and which of them are valid."""
    dataset = source.dataset
    nodata = [_nodata(header, band) for band in (picked if len(header.files) == 1 else (0,))]
    wanted = [source.bands[band] for band in picked]
    # See the head of the module: in 8-bit colour, all bands decide together whether a pixel is no data.
    by_all = dataset.dtypes[0] in ("uint8", "int8") and len(source.bands) > 1 and header.nodata is not None
    read = list(source.bands) if by_all else wanted
    extra = [source.alpha] if source.alpha is not None else []
    x0, y0, x1, y1 = box
    span = ((y0, y1), (x0, x1))
    mask = None
    try:
        if source.strict:
            with gdal_options():
                values = dataset.read(read + extra, window=span)
        else:
            values = dataset.read(read + extra, window=span)
        if source.masked:
            mask = dataset.read_masks(wanted[0], window=span)
    except Exception as error:
        if type(error).__module__.startswith("rasterio"):
            raise damaged(source.path, "read", error) from None
        raise
    valid = np.ones(values.shape[1:], bool)
    if extra:
        valid &= values[-1] > 0
        values = values[:-1]
    if mask is not None:
        valid &= mask > 0
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    if by_all:
        valid &= (values != header.nodata).any(axis=0)
        if read != wanted:
            values = values[[read.index(band) for band in wanted]]
    else:
        for value, none in zip(values, nodata, strict=True):
            if none is not None:
                valid &= value != _as_stored(none, values.dtype)
    return values, valid


def _as_stored(nodata: float, dtype: np.dtype[Any]) -> Any:
    """The nodata value as the file's type holds it (float32 rounds -3.4e38 and 0.1)."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(nodata)
    return int(nodata) if float(nodata).is_integer() else nodata
