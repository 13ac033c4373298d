"""From a pixel grid to the ground: effective ground sample distance (GSD) and footprint, in any CRS.

A pixel's size in its CRS is not its size on the ground: degrees shrink with latitude, Web Mercator stretches
by 1 / cos(latitude), polar and global projections distort by place, feet are not metres. So the distance
between neighbouring pixels is *measured* on the CRS's own ellipsoid (Karney's geodesic, by pyproj).

A transform is the six numbers (a, b, c, d, e, f) of ``x = a * column + b * row + c`` and
``y = d * column + e * row + f``, where pixel (0, 0) spans columns 0 to 1 (as rasterio's Affine, without its
last row).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from swath.errors import ImageryError

Transform = Sequence[float]
_EDGE_STEPS = 8


def effective_gsd(transform: Transform, crs: str, width: float, height: float) -> float:
    """Ground sample distance at the image's centre: geometric mean of the x and the y direction.

    Args:
        transform: Six numbers (a, b, c, d, e, f), see the module.
        crs: "EPSG:32633", WKT, or whatever else pyproj understands.
        width: Columns of the image (or of the window, with the transform moved to its corner).
        height: Rows of it.

    Returns:
        Metres per pixel.

    Raises:
        ImageryError: Unknown CRS, or the centre of the image does not lie on the Earth.
    """
    along_x, along_y = pixel_size_on_ground(transform, crs, width / 2, height / 2)
    return math.sqrt(along_x * along_y)


def pixel_size_on_ground(transform: Transform, crs: str, column: float, row: float) -> tuple[float, float]:
    """Metres on the ground of one step in column and one step in row direction, around a point of the grid.

    Args:
        transform: Six numbers, see the module.
        crs: See `effective_gsd`.
        column: Continuous column coordinate of the point (0.5 is the centre of the first pixel).
        row: Continuous row coordinate.

    Raises:
        ImageryError: Unknown CRS, or the point does not lie on the Earth.
    """
    to_lonlat, geod, unit = _ground(crs)
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    if geod is None:  # a local, flat CRS: its axes are lengths already
        return math.hypot(a, d) * unit, math.hypot(b, e) * unit
    # The neighbours half a step to either side: left, right, above, below.
    columns = (column - 0.5, column + 0.5, column, column)
    rows = (row, row, row - 0.5, row + 0.5)
    xs = [a * i + b * j + c for i, j in zip(columns, rows, strict=True)]
    ys = [d * i + e * j + f for i, j in zip(columns, rows, strict=True)]
    lon, lat = to_lonlat.transform(xs, ys)
    if all(math.isfinite(value) for value in (*lon, *lat)):
        _, _, distance = geod.inv((lon[0], lon[2]), (lat[0], lat[2]), (lon[1], lon[3]), (lat[1], lat[3]))
        if all(math.isfinite(value) and value > 0 for value in distance):
            return float(distance[0]), float(distance[1])
    raise ImageryError(
        f"the grid point (column {column:g}, row {row:g}) is not on the Earth in {crs:.60}, so the ground "
        "sample distance cannot be measured. State it (`gsd=`), or warp the image to a fitting CRS."
    )


def image_footprint(
    transform: Transform, crs: str, width: float, height: float
) -> tuple[tuple[float, float], ...] | None:
    """Closed ring of the image's corners as (longitude, latitude) in OGC:CRS84, counter-clockwise.

    Across the antimeridian longitudes go on beyond +-180, so that the ring stays simple. None where a corner
    is not on the Earth, and in a local, flat CRS, whose place on the Earth nobody knows.
    """
    if _ground(crs)[1] is None:
        return None
    to_crs84 = _to_crs84(crs)
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


def window_transform(
    transform: Transform, column: float, row: float
) -> tuple[float, float, float, float, float, float]:
    """The transform of a window whose upper left corner is at (column, row) of the grid."""
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    return a, b, a * column + b * row + c, d, e, d * column + e * row + f


def resampled_transform(
    transform: Transform, x: float, y: float
) -> tuple[float, float, float, float, float, float]:
    """The transform after resampling: one new pixel is x old columns wide and y old rows high."""
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    return a * x, b * y, c, d * x, e * y, f


def _parse(crs: str) -> Any:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(crs)
    except CRSError as error:
        raise ImageryError(f"unknown coordinate reference system {crs!r:.80}: {error}") from None


@lru_cache(maxsize=256)
def _ground(crs: str) -> tuple[Any, Any, float]:
    """(transformer from the CRS to longitude and latitude on its own datum, its Geod, metres a unit)."""
    from pyproj import Transformer

    parsed = _parse(crs)
    geod = parsed.get_geod()
    if parsed.geodetic_crs is None or geod is None:
        factor = parsed.axis_info[0].unit_conversion_factor if parsed.axis_info else 0.0
        if not factor:
            raise ImageryError(f"the CRS {crs!r:.80} has no length unit; state the ground sample distance")
        return None, None, float(factor)
    # To the CRS's own datum: no datum shift, so no grid files and no loss where one is not defined.
    return Transformer.from_crs(parsed, parsed.geodetic_crs, always_xy=True), geod, 1.0


@lru_cache(maxsize=256)
def _to_crs84(crs: str) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs(_parse(crs), "OGC:CRS84", always_xy=True)
