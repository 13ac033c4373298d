"""Windows and grids of pixels: rectangles on an image, and where they lie on the Earth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from swath.geo.gsd import effective_gsd
from swath.geo.transform import SixNumbers


@dataclass(frozen=True, slots=True)
class PixelWindow:
    """A rectangle of pixels on a scene's native grid: column and row of its upper left pixel, and size."""

    column: int
    row: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class PixelGrid:
    """A window of a pixel grid on the Earth.

    Attributes:
        crs: "EPSG:32633", WKT, ...
        transform: (a, b, c, d, e, f) of ``x = a column + b row + c``, ``y = d column + e row + f``.
        width: Columns.
        height: Rows.
    """

    crs: str
    transform: SixNumbers
    width: int
    height: int

    @property
    def gsd(self) -> float:
        """Metres per pixel on the ground at the center."""
        return effective_gsd(self.transform, self.crs, self.width, self.height)


@lru_cache(maxsize=256)
def crs_transformer(source: str, target: str) -> Any:
    """pyproj's transformer, x before y in both."""
    from pyproj import Transformer

    return Transformer.from_crs(source, target, always_xy=True)
