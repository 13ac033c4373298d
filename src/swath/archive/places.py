"""Footprints in longitude and latitude: to WKB and back, bounds, and what overlaps what.

A ring that crosses the antimeridian either goes on beyond +-180 degrees or jumps by more than half a turn
between two corners. As RFC 7946 and GeoParquet 1.1 have it, its geometry is cut there into two polygons, and
its bounding box has xmin > xmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ring = Sequence[tuple[float, float]]


def footprint_geometry(ring: Ring) -> tuple[bytes, dict[str, float]]:
    """A ring of (longitude, latitude) as WKB (OGC:CRS84) and its bbox (xmin, ymin, xmax, ymax)."""
    from shapely import MultiPolygon, Polygon, box, make_valid, to_wkb
    from shapely.affinity import translate

    corners = np.array(ring, dtype=np.float64)
    corners[:, 0] = np.unwrap(corners[:, 0], period=360)
    corners[:, 0] -= 360 * np.round(corners[:, 0].mean() / 360)  # the middle lies within +-180
    whole = Polygon(corners)
    west, south, east, north = whole.bounds
    if west >= -180 and east <= 180:
        return to_wkb(whole), {"xmin": west, "ymin": south, "xmax": east, "ymax": north}
    parts = []
    for turn in (-360, 0, 360):
        world = box(turn - 180, -90, turn + 180, 90)
        part = translate(make_valid(whole).intersection(world), -turn)
        parts += [piece for piece in getattr(part, "geoms", [part]) if piece.geom_type == "Polygon"]
    bounds = {"xmin": _within_a_turn(west), "ymin": south, "xmax": _within_a_turn(east), "ymax": north}
    return to_wkb(MultiPolygon([piece for piece in parts if not piece.is_empty])), bounds


def _within_a_turn(longitude: float) -> float:
    return (longitude + 180) % 360 - 180


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


def overlap_shares(
    geometries: Sequence[bytes | None], boxes: NDArray[np.float64], footprint: bytes
) -> NDArray[np.float64]:
    """How much of the smaller footprint each of `geometries` shares with `footprint`, 0 to 1.

    Args:
        geometries: [N] WKB in longitude and latitude, None where unknown (0 shared).
        boxes: [N, 4] their bounds (xmin, ymin, xmax, ymax), NaN where unknown.
        footprint: WKB.
    """
    import shapely

    own = shapely.from_wkb(footprint)
    shares = np.zeros(len(geometries), dtype=np.float64)
    near = np.zeros(len(geometries), dtype=np.bool_)
    for part in getattr(own, "geoms", [own]):  # one, or one on either side of the antimeridian
        near |= boxes_overlap(boxes, part.bounds)
    rows = [row for row in np.flatnonzero(near).tolist() if geometries[row] is not None]
    if rows:
        others = shapely.from_wkb(np.array([geometries[row] for row in rows], dtype=object))
        common = shapely.area(shapely.intersection(others, own))
        # Areas in square degrees: both lie at one latitude, so their ratio is that on the ground.
        shares[rows] = common / np.maximum(np.minimum(shapely.area(others), shapely.area(own)), 1e-30)
    return shares
