"""The filter options of `swath search` and `swath changes`, as one filter."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from swath.archive.query.filters import Filter


def parse_filters(
    *,
    gsd: str | None = None,
    time: str | None = None,
    bbox: str | None = None,
    area: Path | None = None,
    valid: float | None = None,
    cloud: float | None = None,
) -> Filter | None:
    """One filter of what was given; None of nothing."""
    from swath.archive.query.filters import Filter

    if all(part is None for part in (gsd, time, bbox, area, valid, cloud)):
        return None
    return Filter(
        gsd=gsd_range(gsd) if gsd else None,
        datetime=period_of(time) if time else None,
        bbox=box_of(bbox) if bbox else None,
        intersects=area_in(area) if area else None,
        min_valid=valid,
        max_cloud=cloud,
    )


def gsd_range(text: str) -> tuple[float, float]:
    """LOW:HIGH, or one GSD."""
    low, _, high = text.partition(":")
    try:
        bounds = float(low), float(high or low)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a GSD such as 10 or a range such as 0.3:2") from None
    if not 0 < bounds[0] <= bounds[1]:
        raise typer.BadParameter(f"{text!r}: a range goes from the smaller to the larger GSD")
    return bounds


def period_of(text: str) -> tuple[datetime, datetime]:
    """A year, month, day or FIRST:LAST."""
    from swath.archive.query.filters import parse_datetime
    from swath.errors import ArchiveError

    try:
        return parse_datetime(text)
    except ArchiveError as error:
        raise typer.BadParameter(str(error)) from None


def box_of(text: str) -> tuple[float, float, float, float]:
    """WEST,SOUTH,EAST,NORTH."""
    from swath.errors import ArchiveError
    from swath.geo.areas import parse_bbox

    try:
        return parse_bbox([float(part) for part in text.split(",")])
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not WEST,SOUTH,EAST,NORTH in degrees") from None
    except ArchiveError as error:
        raise typer.BadParameter(str(error)) from None


def area_in(path: Path) -> Any:
    """The polygons of a GeoJSON file as one geometry."""
    from swath.errors import ArchiveError
    from swath.geo.areas import parse_area

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArchiveError(f"{path}: is no GeoJSON file ({error})") from None
    if not isinstance(found, dict):
        raise ArchiveError(f"{path}: is no GeoJSON file")
    if found.get("type") == "FeatureCollection":
        from shapely import union_all

        features = found.get("features") or []
        if not features:
            raise ArchiveError(f"{path}: has no feature")
        return union_all([parse_area(feature) for feature in features])
    return parse_area(found)
