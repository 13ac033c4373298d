"""Browsing an archive without a query: footprints for a map, and pages of chips."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.archive.index.columns import ChipColumns
from swath.archive.query.filters import Filter
from swath.archive.query.results import results_from_rows
from swath.serving.http.errors import ApiError
from swath.serving.http.query_types import parse_interval
from swath.serving.http.schemas import ChipPage, Feature, FeatureCollection
from swath.serving.workers.archive_handle import ArchiveHandle, chip_record

_MAX_GSD = 1e9  # metres per pixel

Range = tuple[float | None, float | None]


def filter_from_query(
    sensor: str | None, gsd: Range, interval: str | None, bbox: str | None = None
) -> Filter:
    """The filter of the archive for the parameters of a query string.

    Raises:
        ApiError: 422 for a malformed box.
    """
    return Filter(
        sensors=[sensor] if sensor is not None else None,
        gsd=(gsd[0] or 0.0, _MAX_GSD if gsd[1] is None else gsd[1]) if gsd != (None, None) else None,
        datetime=parse_interval(interval) if interval is not None else None,
        bbox=parse_wrapped_bbox(bbox) if bbox is not None else None,
    )


def list_footprints(handle: ArchiveHandle, where: Filter, limit: int) -> FeatureCollection:
    """At most `limit` matching chips that have a footprint; an even subset if there are more.

    The subset is even over the order of the archive, so that it represents dense places and is the same each
    time.
    """
    _check(limit, handle.settings.max_footprints, "footprints")
    with handle.open() as archive:
        chips = archive.searcher.chips()
        mask = where.mask(chips)
        rows = np.flatnonzero(chips.placed if mask is None else chips.placed & mask)
        total = len(rows)
        selected = _results(chips, rows[_even(total, limit)])
    features = []
    for chip in selected:
        properties = chip_record(chip).model_dump(mode="json")
        features.append(Feature(id=chip.id, geometry=properties.pop("geometry"), properties=properties))
    return FeatureCollection(features=features, total=total, truncated=total > len(features))


def list_chips(handle: ArchiveHandle, where: Filter, limit: int, offset: int) -> ChipPage:
    """Matching chips, with or without footprint, in an order that is shuffled but fixed for a version."""
    _check(limit, handle.settings.max_results, "chips")
    with handle.open() as archive:
        chips = archive.searcher.chips()
        mask = where.mask(chips)
        rows = np.arange(len(chips)) if mask is None else np.flatnonzero(mask)
        shuffled = np.random.default_rng(0).permutation(len(rows))
        selected = _results(chips, rows[shuffled[offset : offset + limit]])
    return ChipPage(chips=[chip_record(chip) for chip in selected], total=len(rows))


def _check(limit: int, maximum: int, objects: str) -> None:
    if limit > maximum:
        detail = f"limit is {limit}; this server returns at most {maximum:,} {objects}"
        raise ApiError(422, detail, f"Use limit={maximum} or less.")


def _results(chips: ChipColumns, rows: NDArray[np.int64]) -> list[Any]:
    return results_from_rows(chips, rows, np.ones(len(rows), np.float32))


def _even(total: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of the numbers 0 to `total` - 1, evenly spaced."""
    if total <= limit:
        return np.arange(total)
    return np.linspace(0, total - 1, limit).astype(np.int64)


def parse_wrapped_bbox(text: str) -> tuple[float, float, float, float]:
    """Parse west,south,east,north; longitudes may exceed 180, and 360 degrees or more are the whole Earth.

    Raises:
        ApiError: 422.
    """
    error = ApiError(
        422, f"bbox={text[:60]!r} is not west,south,east,north in degrees", "Example: bbox=4.2,50.1,4.9,50.8"
    )
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise error from None
    if not all(map(np.isfinite, (west, south, east, north))) or not -90 <= south <= north <= 90:
        raise error
    if max(abs(west), abs(east)) > 1080:
        raise error
    if east - west >= 360:
        return -180.0, south, 180.0, north
    return _wrapped(west), south, _wrapped(east), north


def _wrapped(longitude: float) -> float:
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % 360 - 180
