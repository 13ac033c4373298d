"""Footprints in longitude and latitude: to WKB and back, bounds, and what overlaps what.

A footprint that crosses the antimeridian is told by a step of more than 180 degrees between two neighbouring
corners. As RFC 7946 and GeoParquet 1.1 have it, its geometry is cut there into two polygons, and its bounding
box has xmin > xmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ring = Sequence[tuple[float, float]]


def footprint_geometry(ring: Ring) -> tuple[bytes, dict[str, float]]:
    """A ring of (longitude, latitude) as WKB (OGC:CRS84) and its bbox (xmin, ymin, xmax, ymax)."""
    from shapely import MultiPolygon, Polygon, box, to_wkb
    from shapely.affinity import translate

    corners = np.asarray(ring, dtype=np.float64)
    longitude = corners[:, 0]
    crosses = bool(np.abs(np.diff(longitude)).max() > 180)
    if not crosses:
        polygon = Polygon(corners)
        west, south, east, north = polygon.bounds
        return to_wkb(polygon), {"xmin": west, "ymin": south, "xmax": east, "ymax": north}
    unrolled = corners.copy()
    unrolled[longitude < 0, 0] += 360
    whole = Polygon(unrolled)
    west_part = whole.intersection(box(0, -90, 180, 90))
    east_part = translate(whole.intersection(box(180, -90, 540, 90)), -360)
    low, south, high, north = whole.bounds
    parts = [part for part in (west_part, east_part) if part.geom_type == "Polygon" and not part.is_empty]
    return to_wkb(MultiPolygon(parts)), {"xmin": low, "ymin": south, "xmax": high - 360, "ymax": north}


def to_geojson_geometry(wkb: bytes | None) -> dict[str, Any] | None:
    """WKB as a GeoJSON geometry, coordinates to 1e-7 degrees (a centimetre); None stays None."""
    if wkb is None:
        return None
    from shapely import from_wkb
    from shapely.geometry import mapping

    geometry: dict[str, Any] = _rounded(mapping(from_wkb(wkb)))
    return geometry


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 7)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value


def boxes_overlap(boxes: NDArray[np.float64], place: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """Which of `boxes` [N, 4] (xmin, ymin, xmax, ymax; NaN where unknown) touch the box `place`.

    Both sides may cross the antimeridian (xmin > xmax): they are compared with their eastern edge moved by
    360 degrees, at the three turns where they could meet.
    """
    west, south, east, north = place
    east = east + 360 if west > east else east
    left, bottom, right, top = boxes.T
    right = np.where(left > right, right + 360, right)
    meets = np.zeros(len(boxes), dtype=np.bool_)
    for turn in (-360.0, 0.0, 360.0):
        meets |= (left + turn <= east) & (right + turn >= west)
    meets &= (bottom <= north) & (top >= south)
    return meets
