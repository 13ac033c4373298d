from .band_statistics import compute_band_statistics as compute_band_statistics
from .catalog import Catalog as Catalog
from .catalog import build_catalog as build_catalog
from .catalog import open_catalog as open_catalog
from .stac import read_stac as read_stac
from .table import CatalogEntry as CatalogEntry

__all__ = [
    "Catalog",
    "CatalogEntry",
    "build_catalog",
    "compute_band_statistics",
    "open_catalog",
    "read_stac",
]
