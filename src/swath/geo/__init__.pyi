from .areas import parse_area as parse_area
from .footprint import footprint_geometry as footprint_geometry
from .footprint import image_footprint as image_footprint
from .grid import PixelGrid as PixelGrid
from .grid import PixelWindow as PixelWindow
from .gsd import effective_gsd as effective_gsd
from .gsd import pixel_size_on_ground as pixel_size_on_ground

__all__ = [
    "PixelGrid",
    "PixelWindow",
    "effective_gsd",
    "footprint_geometry",
    "image_footprint",
    "parse_area",
    "pixel_size_on_ground",
]
