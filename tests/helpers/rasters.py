"""Small rasters for tests, written to order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def write_tiff(path: Path, values: np.ndarray, **profile: Any) -> Path:
    """Write [C, H, W] as a GeoTIFF: UTM 33N, 10 m, upper left at (500000, 5000000), unless told otherwise."""
    import rasterio
    from rasterio.transform import Affine

    pixel = profile.pop("pixel", 10.0)
    tags = profile.pop("tags", {})
    descriptions = profile.pop("descriptions", None)
    mask = profile.pop("mask", None)
    alpha = profile.pop("alpha", False)
    settings = {
        "driver": "GTiff",
        "count": values.shape[0],
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype,
        "crs": "EPSG:32633",
        "transform": Affine(pixel, 0, 500_000, 0, -pixel, 5_000_000),
        **profile,
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **settings) as dataset:
        if alpha:
            from rasterio.enums import ColorInterp as Color

            dataset.colorinterp = [Color.red, Color.green, Color.blue, Color.alpha]
        dataset.write(values)
        dataset.update_tags(**tags)
        if descriptions:
            dataset.descriptions = descriptions
        if mask is not None:
            dataset.write_mask(mask)
    return path


def noise(
    bands: int = 3, height: int = 40, width: int = 50, dtype: Any = np.uint16, seed: int = 0
) -> np.ndarray:
    """Values in [1, 250], so 0 and 255 are free."""
    values: np.ndarray = np.random.default_rng(seed).integers(1, 251, (bands, height, width)).astype(dtype)
    return values
