"""What a scene's files say about themselves, read without decoding a pixel.

A scene is one file with many bands, or one file a band (Sentinel-2 and Landsat products, BigEarthNet). The
grid of a scene is that of its finest file.
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

from swath.errors import ImageryError
from swath.geo.footprint import image_footprint
from swath.geo.grid import PixelWindow
from swath.geo.gsd import effective_gsd
from swath.rasters.remote import is_remote
from swath.rasters.safe_open import (
    DEFAULT_LIMITS,
    ReadLimits,
    gdal_options,
    open_checked,
    translate_gdal_errors,
)
from swath.rasters.sidecars import Pam, georeference_beside, not_read_beside, read_pam

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
        gsd: Effective ground sample distance at the center, metres per pixel; None where unknown.
        nodata: Stored value that means no data in every band; None if there is none. To overrule a wrong tag,
            use ``dataclasses.replace(header, nodata=None)`` or ``read_header(..., nodata=...)``.
        has_alpha: Whether transparency is stored beside the bands.
        has_mask: Whether the file holds a mask of its own, or has one beside it (``.msk``).
        block: (rows, columns) of a block; windows along blocks are read fastest.
        overviews: Factors of the internal overviews, ascending.
        footprint: Closed ring of (longitude, latitude) corners in OGC:CRS84.
        time: Acquisition time (timezone-aware; times without zone are taken for UTC), from the product's
            name, its STAC item or tags; never TIFFTAG_DATETIME, which is when a program wrote the file.
        tags: The file's own metadata.
        scales: Scale of each band where the file states one other than 1, else empty. Nothing here applies
            it: the sensor's scale does.
        offsets: The same for offsets other than 0.
        band_nodata: Nodata value of each band where the files do not agree, else None.
        passed_over: Sidecar files that exist and were not read.
        cloud_layer: Kind and file of the classification that says where clouds are (see
            `swath.rasters.cloud_mask`), where the scene has one.
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
    cloud_layer: tuple[str, str] | None = None


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
        palette: An image of color-table indexes is no imagery and is refused; "index" takes it as it is (for
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
        with translate_gdal_errors(path, "read"), gdal_options():
            if source.palette and palette == "refuse":
                raise ImageryError(
                    f"{path}: its values are indexes into a color table, not colors. Expand them: "
                    f"gdal_translate -expand rgb {path} OUT.tif"
                )
            pam = Pam() if is_remote(path) else read_pam(path)
            crs, transform, gsd, ring = _georeference(dataset, path, pam)
            tags = {str(key): str(value) for key, value in dataset.tags().items()}
            times = {**tags, **dataset.tags(ns="IMAGERY"), **dataset.tags(ns="EXIF")}
            each = [index - 1 for index in source.bands]
            nodata = [_number(dataset.nodatavals[i]) for i in each]
            beside = _number(pam.nodata)
            if beside is not None and any(own not in (None, beside) for own in nodata):
                raise ImageryError(
                    f"{path}: states nodata {nodata[0]}, and {path}.aux.xml states {beside:g}. Take one away"
                )
            nodata = [beside if own is None else own for own in nodata]
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
                has_mask=source.masked or source.mask_beside is not None,
                block=(int(dataset.block_shapes[0][0]), int(dataset.block_shapes[0][1])),
                overviews=source.overviews,
                footprint=ring,
                time=acquisition_time(times),
                tags=tags,
                scales=scales if any(scale != 1 for scale in scales) else (),
                offsets=offsets if any(offset != 0 for offset in offsets) else (),
                band_nodata=tuple(nodata) if len(set(nodata)) > 1 else None,
                passed_over=tuple(name for name in not_read_beside(path) if Path(name).exists()),
            )
    finally:
        dataset.close()


def _number(nodata: float | None) -> float | None:
    """NaN needs no nodata value: what is not finite is never valid (and NaN would not equal itself)."""
    return None if nodata is None or math.isnan(nodata) else float(nodata)


def _georeference(
    dataset: Any, path: str, pam: Pam
) -> tuple[str | None, Six | None, float | None, tuple[tuple[float, float], ...] | None]:
    affine = dataset.transform
    transform: Six | None = (affine.a, affine.b, affine.c, affine.d, affine.e, affine.f)
    if affine.is_identity or affine.determinant == 0 or not all(math.isfinite(x) for x in affine[:6]):
        transform = None
    crs = str(dataset.crs.to_string()) if dataset.crs else None
    if (transform is None or crs is None) and not is_remote(path):
        beside = georeference_beside(path, pam)
        transform, crs = transform or beside[0], crs or beside[1]
    return locate(transform, crs, dataset.width, dataset.height)


def locate(
    transform: Six | None, crs: str | None, width: int, height: int
) -> tuple[str | None, Six | None, float | None, tuple[tuple[float, float], ...] | None]:
    """(CRS, transform, GSD, footprint), the last two None where the first two do not give them."""
    if transform is None or crs is None:
        return crs, transform, None, None
    size = (width, height)
    try:
        gsd = effective_gsd(transform, crs, *size)
        ring = image_footprint(transform, crs, *size)
    except (
        ImageryError
    ):  # the center is off the Earth, or pyproj does not know this CRS: the user has to state GSD
        return crs, transform, None, None
    return crs, transform, gsd, ring


_TIME_TAGS = (
    "ACQUISITION_DATETIME",
    "ACQUISITIONDATETIME",
    "ACQUISITION_DATE",
    "SENSING_TIME",
    "DATE_ACQUIRED",
    "PRODUCT_START_TIME",
    "DATETIME",
    "EXIF_DATETIMEORIGINAL",
)


def acquisition_time(tags: dict[str, str]) -> datetime | None:
    """When the scene was taken, by its tags (the most specific first); None where they do not say.

    Understands ISO 8601 and EXIF's "YYYY:MM:DD HH:MM:SS". A time without zone is taken for UTC.
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
    folders = {_folder(part.path) for part in parts}
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


def _folder(path: str) -> str:
    return path.rpartition("/")[0] if is_remote(path) else str(Path(path).parent)


def _check_alignment(finest: SceneHeader, part: SceneHeader) -> None:
    both = f"{part.path} and {finest.path}"
    if part.crs != finest.crs or (part.transform is None) != (finest.transform is None):
        raise ImageryError(f"{both}: not in the same CRS. Warp them to one grid: gdalwarp -t_srs")
    whole = PixelWindow(0, 0, finest.width, finest.height)
    try:
        x0, y0, x1, y1 = window_bounds_on(finest, whole, part.width, part.height, part.transform)
    except ImageryError as error:
        raise ImageryError(f"{both}: {error}") from None
    if min(x0, y0) < -1 or x1 > part.width + 1 or y1 > part.height + 1:
        raise ImageryError(
            f"{both}: the bands do not cover the same ground (by more than a pixel). Give the files of one "
            "scene, or warp them to one extent: gdalwarp -te"
        )


def window_bounds_on(
    header: SceneHeader, window: PixelWindow, width: int, height: int, transform: Sequence[float] | None
) -> Box:
    """The window of the scene's grid as (x0, y0, x1, y1) on another grid of the same scene."""
    left, top = window.column, window.row
    right, bottom = left + window.width, top + window.height
    if transform is None or header.transform is None:
        x, y = width / header.width, height / header.height
        if transform is None and header.transform is None and max(x, y) > min(x, y) * 1.01:
            raise ImageryError("the bands have different shapes. Resample them to one")
        return left * x, top * y, right * x, bottom * y
    a, b, c, d, e, f = transform[:6]
    area = a * e - b * d

    def to_other(column: float, row: float) -> tuple[float, float]:
        ours = header.transform
        assert ours is not None
        x = ours[0] * column + ours[1] * row + ours[2] - c
        y = ours[3] * column + ours[4] * row + ours[5] - f
        return (e * x - b * y) / area, (a * y - d * x) / area

    origin, right_of, below = to_other(0, 0), to_other(1, 0), to_other(0, 1)
    shear = max(abs(right_of[1] - origin[1]), abs(below[0] - origin[0]))
    if shear > 1e-6 or right_of[0] <= origin[0] or below[1] <= origin[1]:
        raise ImageryError("the bands' grids are turned against each other. Warp them to one: gdalwarp")
    return (*to_other(left, top), *to_other(right, bottom))
