"""From a pixel grid to the ground: effective ground sample distance (GSD) and footprint, in any CRS.

A pixel's size in its CRS is not its size on the ground: degrees shrink with latitude, Web Mercator stretches
by 1 / cos(latitude), polar and global projections distort by place, feet are not metres. So the distance
between neighboring pixels is *measured* on the CRS's own ellipsoid (Karney's geodesic, by pyproj).

A transform is the six numbers (a, b, c, d, e, f) of ``x = a * column + b * row + c`` and
``y = d * column + e * row + f``, where pixel (0, 0) spans columns 0 to 1 (as rasterio's Affine, without its
last row).
"""

from __future__ import annotations

import math

from swath.errors import ImageryError
from swath.geo.crs import geodetic_crs
from swath.geo.transform import Transform


def effective_gsd(transform: Transform, crs: str, width: float, height: float) -> float:
    """Ground sample distance at the image's center: geometric mean of the x and the y direction.

    Args:
        transform: Six numbers (a, b, c, d, e, f), see the module.
        crs: "EPSG:32633", WKT, or whatever else pyproj understands.
        width: Columns of the image (or of the window, with the transform moved to its corner).
        height: Rows of it.

    Returns:
        Metres per pixel.

    Raises:
        ImageryError: Unknown CRS, or the center of the image does not lie on the Earth.
    """
    along_x, along_y = pixel_size_on_ground(transform, crs, width / 2, height / 2)
    return math.sqrt(along_x * along_y)


def pixel_size_on_ground(transform: Transform, crs: str, column: float, row: float) -> tuple[float, float]:
    """Metres on the ground of one step in column and one step in row direction, around a point of the grid.

    Args:
        transform: Six numbers, see the module.
        crs: See `effective_gsd`.
        column: Continuous column coordinate of the point (0.5 is the center of the first pixel).
        row: Continuous row coordinate.

    Raises:
        ImageryError: Unknown CRS, or the point does not lie on the Earth.
    """
    to_lonlat, geod, unit = geodetic_crs(crs)
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    if geod is None:  # a local, flat CRS: its axes are lengths already
        return math.hypot(a, d) * unit, math.hypot(b, e) * unit
    # The neighbors half a step to either side: left, right, above, below.
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
