"""Looking around in an archive without a query: footprints for a map, and chips to begin with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.archive.index.columns import ChipColumns
from swath.archive.query.filters import Filter
from swath.archive.query.results import results_from_rows
from swath.serving.http.errors import ApiError
from swath.serving.http.schemas import ChipPage, Feature, FeatureCollection
from swath.serving.workers.archive_handle import ArchiveHandle, chip_record

_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_LARGEST = 1e9  # metres per pixel

Range = tuple[float | None, float | None]
Times = tuple[datetime | None, datetime | None]


def filter_from_query(sensor: str | None, gsd: Range, time: Times, bbox: str | None = None) -> Filter:
    """The archive's filter of what a query string says.

    Raises:
        Refusal: 422 for a malformed box.
    """
    return Filter(
        sensors=[sensor] if sensor is not None else None,
        gsd=(gsd[0] or 0.0, _LARGEST if gsd[1] is None else gsd[1]) if gsd != (None, None) else None,
        datetime=(time[0] or _EARLIEST, time[1] or _LATEST) if time != (None, None) else None,
        bbox=parse_wrapped_bbox(bbox) if bbox is not None else None,
    )


def list_footprints(handle: ArchiveHandle, where: Filter, limit: int) -> FeatureCollection:
    """At most `limit` chips with a footprint that pass; where there are more, evenly chosen ones.

    The choice is even over the archive's order, so that a sparse picture of a dense place is a fair one, and
    the same each time.
    """
    _check(limit, handle.settings.max_footprints, "footprints")
    with handle.archive() as archive:
        chips = archive.searcher.chips()
        mask = where.mask(chips)
        rows = np.flatnonzero(chips.placed if mask is None else chips.placed & mask)
        total = len(rows)
        found = _taken(chips, rows[_even(total, limit)])
    features = []
    for chip in found:
        properties = chip_record(chip).model_dump(mode="json")
        features.append(Feature(id=chip.id, geometry=properties.pop("geometry"), properties=properties))
    return FeatureCollection(features=features, total=total, truncated=total > len(features))


def list_chips(handle: ArchiveHandle, where: Filter, limit: int, offset: int) -> ChipPage:
    """Chips that pass, with or without a place, in a mixed order that stays while the archive does."""
    _check(limit, handle.settings.max_results, "chips")
    with handle.archive() as archive:
        chips = archive.searcher.chips()
        mask = where.mask(chips)
        rows = np.arange(len(chips)) if mask is None else np.flatnonzero(mask)
        mixed = np.random.default_rng(0).permutation(len(rows))
        found = _taken(chips, rows[mixed[offset : offset + limit]])
    return ChipPage(chips=[chip_record(chip) for chip in found], total=len(rows))


def _check(limit: int, most: int, what: str) -> None:
    if limit > most:
        raise ApiError(422, f"limit is {limit}, this server sends at most {most:,} {what}", "ask for fewer")


def _taken(chips: ChipColumns, rows: NDArray[np.int64]) -> list[Any]:
    return results_from_rows(chips, rows, np.ones(len(rows), np.float32))


def _even(total: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of the numbers 0 to `total`, evenly."""
    if total <= limit:
        return np.arange(total)
    return np.linspace(0, total - 1, limit).astype(np.int64)


def parse_wrapped_bbox(text: str) -> tuple[float, float, float, float]:
    """west,south,east,north; wider than the world is the world, and longitudes may go on beyond 180.

    Raises:
        Refusal: 422.
    """
    wrong = ApiError(
        422, f"bbox={text[:60]!r} is not west,south,east,north in degrees", "such as bbox=4.2,50.1,4.9,50.8"
    )
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise wrong from None
    if not all(map(np.isfinite, (west, south, east, north))) or not -90 <= south <= north <= 90:
        raise wrong
    if max(abs(west), abs(east)) > 1080:
        raise wrong
    if east - west >= 360:
        return -180.0, south, 180.0, north
    return _turned(west), south, _turned(east), north


def _turned(longitude: float) -> float:
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % 360 - 180
