"""Areas that users give, and which footprints lie in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.errors import InvalidQuery
from swath.geo.footprint import Box, split_at_antimeridian, unwrapped_ring
from swath.geo.polygon_grid import BORDER, OUTSIDE, classify_boxes

MOST_CORNERS = 20_000  # of an area; more is a coastline that wants to be simplified first


_MANY = 2_000  # footprints near an area from which a grid over it is quicker than looking at each


def parse_area(area: Any) -> Any:
    """An area as one shapely geometry within +-180 degrees.

    Args:
        area: A GeoJSON Polygon or MultiPolygon (or a Feature of one), a shapely geometry, WKB, or a box
            (west, south, east, north) where west > east crosses the antimeridian.

    Raises:
        ArchiveError: It is none of these, has no area, lies off the globe, or has too many corners.
    """
    import shapely
    from shapely.geometry import mapping

    try:
        if isinstance(area, bytes):
            area = mapping(shapely.from_wkb(area))
        elif isinstance(area, shapely.Geometry):
            area = mapping(area)
    except (shapely.errors.ShapelyError, ValueError, TypeError) as error:
        raise InvalidQuery(f"the area is no geometry ({error})") from None
    if isinstance(area, Mapping):
        polygons = _polygons(area)
    else:
        west, south, east, north = parse_bbox(area)
        east = east + 360 if west > east else east
        # A box may be wider than half the globe: corners in between keep its edges short.
        across = np.linspace(west, east, 5)
        polygons = [[[(x, south) for x in across] + [(x, north) for x in across[::-1]]]]
    parts = []
    for shell, *holes in polygons:
        whole = shapely.make_valid(shapely.Polygon(_checked_ring(shell)))
        for hole in holes:
            whole = whole.difference(_beside(shapely.make_valid(shapely.Polygon(_checked_ring(hole))), whole))
        parts += split_at_antimeridian(whole)
    merged = shapely.union_all(parts) if parts else shapely.Polygon()
    if merged.is_empty or merged.area == 0:
        raise InvalidQuery("the area is empty: its corners enclose nothing")
    return merged


def parse_bbox(box: Any) -> Box:
    """A box (west, south, east, north) in degrees, or an ArchiveError that says what is wrong with it."""
    try:
        west, south, east, north = (float(part) for part in box)
    except (TypeError, ValueError):
        raise InvalidQuery(
            f"an area is a GeoJSON Polygon or MultiPolygon, or four numbers west, south, east, north; not "
            f"{str(box)[:80]!r}"
        ) from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise InvalidQuery(
            f"a box is west, south, east, north: longitudes -180 to 180, latitudes -90 to 90, south first; "
            f"not {west:g}, {south:g}, {east:g}, {north:g}"
        )
    return west, south, east, north


def _polygons(geojson: Mapping[str, Any]) -> list[Any]:
    """Coordinates of the polygons of a GeoJSON geometry."""
    if geojson.get("type") == "Feature" and isinstance(geojson.get("geometry"), Mapping):
        geojson = geojson["geometry"]
    kind, coordinates = geojson.get("type"), geojson.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon") or not isinstance(coordinates, list | tuple):
        raise InvalidQuery(f"an area is a GeoJSON Polygon or MultiPolygon, not {kind!r}")
    polygons = list(coordinates) if kind == "MultiPolygon" else [coordinates]
    if not polygons or any(not isinstance(part, list | tuple) or not part for part in polygons):
        raise InvalidQuery("the area has no ring")
    corners = sum(len(ring) for part in polygons for ring in part if isinstance(ring, list | tuple))
    if corners > MOST_CORNERS:
        raise InvalidQuery(f"the area has {corners:,} corners; simplify it to at most {MOST_CORNERS:,}")
    return polygons


def _checked_ring(ring: Any) -> NDArray[np.float64]:
    """A ring of an area, made continuous."""
    try:
        corners = np.array([tuple(corner)[:2] for corner in ring], dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidQuery("the area's corners are not pairs of longitude and latitude") from None
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise InvalidQuery("a ring of the area has fewer than 3 corners of longitude and latitude")
    if not np.isfinite(corners).all() or (np.abs(corners).max(0) > (540, 90)).any():
        raise InvalidQuery(
            "the area lies off the globe: corners are longitude (-180 to 180) and latitude (-90 to 90) in "
            "degrees, longitude first"
        )
    return unwrapped_ring(corners.tolist())


def _beside(hole: Any, whole: Any) -> Any:
    """A hole moved by the turns that bring it over its polygon."""
    from shapely.affinity import translate

    middle = (whole.bounds[0] + whole.bounds[2]) / 2
    own = (hole.bounds[0] + hole.bounds[2]) / 2
    return translate(hole, 360 * round((middle - own) / 360))


def boxes_overlap(boxes: NDArray[np.float64], place: Box) -> NDArray[np.bool_]:
    """Which of `boxes` [N, 4] (xmin, ymin, xmax, ymax; NaN where unknown) touch the box `place`.

    Both sides may cross the antimeridian (xmin > xmax): they are compared with their eastern edge moved by
    360 degrees, at the three turns where they could meet.
    """
    west, south, east, north = place
    east = east + 360 if west > east else east
    left, bottom, right, top = boxes.T
    high: NDArray[np.bool_] = (bottom <= north) & (top >= south)
    meets: NDArray[np.bool_] = high & (left <= east) & (right >= west)
    # Of boxes within +-180 degrees another turn can only touch a place that reaches the antimeridian.
    if east >= 180:
        meets |= high & (left <= east - 360) & (right >= west - 360)
    if west <= -180:
        meets |= high & (left <= east + 360) & (right >= west + 360)
    across = np.flatnonzero(left > right)
    if len(across):
        first, last = left[across], right[across] + 360
        turns = [(first <= east - turn) & (last >= west - turn) for turn in (-360.0, 0.0, 360.0)]
        meets[across] = high[across] & np.logical_or.reduce(turns)
    return meets


def boxes_intersecting(boxes: NDArray[np.float64], geometry: Any) -> NDArray[np.bool_]:
    """Which of `boxes` [N, 4] touch the bounds of a shapely geometry, or of one of its parts."""
    near = np.zeros(len(boxes), dtype=np.bool_)
    for part in getattr(geometry, "geoms", [geometry]):  # one, or one on either side of the antimeridian
        near |= boxes_overlap(boxes, part.bounds)
    return near


def footprints_intersecting(
    geometries: Any, boxes: NDArray[np.float64], area: Any, *, overlap: float = 0.0
) -> NDArray[np.bool_]:
    """Which footprints touch `area`, or lie in it with at least `overlap` of themselves.

    Args:
        geometries: [N] WKB in longitude and latitude, null where unknown (an Arrow column); touched by
            nothing then. One with a box but no geometry counts as its box.
        boxes: [N, 4] their bounds, NaN where unknown.
        area: shapely geometry, from `area_of` (a point will do where `overlap` is 0).
        overlap: 0 to 1.
    """
    import shapely

    near = boxes_intersecting(boxes, area)
    rows = np.flatnonzero(near)
    if not len(rows):
        return near
    shapely.prepare(area)
    if len(rows) >= _MANY and area.area > 0:
        # Most rows of a large area are settled by their boxes, without decoding their geometry.
        kinds = classify_boxes(area, boxes[rows])
        near[rows[kinds == OUTSIDE]] = False
        rows = rows[kinds == BORDER]
        if not len(rows):
            return near
    wkb = geometries.take(rows).to_numpy(zero_copy_only=False)
    shapes = shapely.from_wkb(wkb)
    plain = shapely.is_missing(shapes)
    shapes[plain] = shapely.box(*boxes[rows[plain]].T)
    near[rows] = (
        shapely.intersects(area, shapes)
        if overlap == 0
        else shapely.area(shapely.intersection(shapes, area))
        >= overlap * (1 - 1e-6) * np.maximum(shapely.area(shapes), 1e-30)
    )
    return near


def overlap_fractions(
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
    rows = [
        row for row in np.flatnonzero(boxes_intersecting(boxes, own)).tolist() if geometries[row] is not None
    ]
    if rows:
        others = shapely.from_wkb(np.array([geometries[row] for row in rows], dtype=object))
        common = shapely.area(shapely.intersection(others, own))
        # Areas in square degrees: both lie at one latitude, so their ratio is that on the ground.
        shares[rows] = common / np.maximum(np.minimum(shapely.area(others), shapely.area(own)), 1e-30)
    return shares
