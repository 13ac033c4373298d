"""Places in longitude and latitude: footprints and areas to geometry and back, and what touches what.

A ring may cross the antimeridian by going on beyond +-180 degrees or by jumping there; it may run around a
pole. As RFC 7946 and GeoParquet 1.1 have it, its geometry is cut at the antimeridian into polygons within
+-180 degrees, and its bounding box has xmin > xmax. A ring around a pole holds the pole.

An edge of more than 180 degrees goes the short way round, as on the globe; areas wider than that are given as
a box (west, south, east, north), or with more corners.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.geo.crs import crs84_transformer, geodetic_crs
from swath.geo.transform import Transform

Ring = Sequence[tuple[float, float]]
Box = tuple[float, float, float, float]  # west, south, east, north in degrees; west > east crosses 180


def footprint_geometry(ring: Ring) -> tuple[bytes, dict[str, float]]:
    """A ring of (longitude, latitude) as WKB (OGC:CRS84) and its bbox (xmin, ymin, xmax, ymax)."""
    from shapely import MultiPolygon, Polygon, to_wkb

    whole = Polygon(unwrapped_ring(ring))
    west, south, east, north = whole.bounds
    if west >= -180 and east <= 180:
        return to_wkb(whole), {"xmin": west, "ymin": south, "xmax": east, "ymax": north}
    round_the_globe = east - west >= 360 * (1 - 1e-9)
    bounds = {
        "xmin": -180.0 if round_the_globe else _within_a_turn(west),
        "ymin": south,
        "xmax": 180.0 if round_the_globe else _within_a_turn(east),
        "ymax": north,
    }
    return to_wkb(MultiPolygon(split_at_antimeridian(whole))), bounds


def unwrapped_ring(ring: Ring) -> NDArray[np.float64]:
    """Corners [n, 2] of a ring whose longitudes do not jump, middle within +-180; around a pole, with it."""
    corners = np.array(ring, dtype=np.float64)[:, :2]
    while len(corners) > 3 and _same_point(corners[0], corners[-1]):
        corners = corners[:-1]
    closed = np.concatenate([corners, corners[:1]])
    steps = np.diff(closed[:, 0])
    # From -180 to 180 is the edge of a map of the world, not a jump.
    jumps = (np.abs(steps) > 180) & (np.abs(steps) < 360)
    closed[1:, 0] -= np.cumsum(np.where(jumps, 360 * np.round(steps / 360), 0))
    turn = closed[-1, 0] - closed[0, 0]
    if abs(turn) > 180:
        pole = 90.0 if closed[:, 1].mean() >= 0 else -90.0
        cap = [[closed[-1, 0], pole], [closed[0, 0], pole]]
        closed = np.concatenate([closed, cap])
    else:
        closed = closed[:-1]
    closed[:, 0] -= 360 * np.round(closed[:, 0].mean() / 360)
    return closed


def _same_point(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return bool(one[1] == other[1] and (one[0] - other[0]) % 360 == 0)


def split_at_antimeridian(whole: Any) -> list[Any]:
    """Polygons of a geometry cut at +-180 degrees and moved between them."""
    from shapely import box, make_valid
    from shapely.affinity import translate

    parts = []
    for turn in (-360, 0, 360):
        world = box(turn - 180, -90, turn + 180, 90)
        part = translate(make_valid(whole).intersection(world), -turn)
        parts += [piece for piece in getattr(part, "geoms", [part]) if piece.geom_type == "Polygon"]
    return [piece for piece in parts if not piece.is_empty]


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


_EDGE_STEPS = 8


def image_footprint(
    transform: Transform, crs: str, width: float, height: float
) -> tuple[tuple[float, float], ...] | None:
    """Closed ring of the image's corners as (longitude, latitude) in OGC:CRS84, counter-clockwise.

    Across the antimeridian longitudes go on beyond +-180, so that the ring stays simple. None where a corner
    is not on the Earth, and in a local, flat CRS, whose place on the Earth nobody knows.
    """
    if geodetic_crs(crs)[1] is None:
        return None
    to_crs84 = crs84_transformer(crs)
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    # Walk the edges in small steps, so that a jump of longitude is known from a wide image.
    walk = [k / _EDGE_STEPS for k in range(_EDGE_STEPS)]
    outline = [(0.0, t) for t in walk] + [(t, 1.0) for t in walk]
    outline += [(1.0, 1 - t) for t in walk] + [(1 - t, 0.0) for t in walk]
    xs = [a * i * width + b * j * height + c for i, j in outline]
    ys = [d * i * width + e * j * height + f for i, j in outline]
    try:
        lon, lat = to_crs84.transform(xs, ys)
    except Exception as error:  # pyproj.ProjError: no transformation for this place
        if type(error).__module__.startswith("pyproj"):
            return None
        raise
    if not all(math.isfinite(value) for value in (*lon, *lat)):
        return None
    for k in range(1, len(lon)):
        lon[k] -= 360 * round((lon[k] - lon[k - 1]) / 360)
    lon, lat = lon[::_EDGE_STEPS], lat[::_EDGE_STEPS]
    ring = [(float(x), float(y)) for x, y in zip(lon, lat, strict=True)]
    area = sum(p[0] * q[1] - q[0] * p[1] for p, q in zip(ring, [*ring[1:], ring[0]], strict=True))
    if area < 0:
        ring.reverse()
    return (*ring, ring[0])
