"""Coordinate reference systems: parsing, and how to get to the ground and to longitude and latitude."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from swath.errors import ImageryError


def parse_crs(crs: str) -> Any:
    """A pyproj CRS from "EPSG:32633", WKT, ...; ImageryError where pyproj does not understand it."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(crs)
    except CRSError as error:
        raise ImageryError(f"unknown coordinate reference system {crs!r:.80}: {error}") from None


@lru_cache(maxsize=256)
def geodetic_crs(crs: str) -> tuple[Any, Any, float]:
    """Transformer to longitude and latitude on the CRS's own datum, its Geod, and metres per unit."""
    from pyproj import Transformer

    parsed = parse_crs(crs)
    geod = parsed.get_geod()
    if parsed.geodetic_crs is None or geod is None:
        factor = parsed.axis_info[0].unit_conversion_factor if parsed.axis_info else 0.0
        if not factor:
            raise ImageryError(f"the CRS {crs!r:.80} has no length unit; state the ground sample distance")
        return None, None, float(factor)
    # To the CRS's own datum: no datum shift, so no grid files and no loss where one is not defined.
    return Transformer.from_crs(parsed, parsed.geodetic_crs, always_xy=True), geod, 1.0


@lru_cache(maxsize=256)
def crs84_transformer(crs: str) -> Any:
    """A pyproj Transformer from a CRS to longitude and latitude (OGC:CRS84)."""
    from pyproj import Transformer

    return Transformer.from_crs(parse_crs(crs), "OGC:CRS84", always_xy=True)


def utm_crs(lon: float, lat: float) -> str:
    """The UTM zone of a place ("EPSG:32633"); polar stereographic (UPS) beyond 84 degrees north, 80 south."""
    if lat > 84 or lat < -80:
        return "EPSG:32661" if lat > 0 else "EPSG:32761"
    zone = int((lon + 180) // 6) % 60 + 1
    return f"EPSG:{32600 + zone if lat >= 0 else 32700 + zone}"
