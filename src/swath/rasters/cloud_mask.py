"""How much of a place is under cloud, as the product itself says it; nothing is guessed from pixels.

Two sources, the finer first:

- a classification layer that comes with the scene: a file beside its band files (``..._SCL.tif``), or an
  asset of its STAC item. Read at the chip's own place. Shadows are no clouds here.
- the scene's own figure, ``eo:cloud_cover`` of a STAC item (percent): the same for every chip of the scene,
  so a coarse measure, and a chip may be clear in a cloudy scene.

Where there is neither, the share is not known, and that is what is stored.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from swath.errors import ImageryError
from swath.rasters.remote import is_remote

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from swath.geo.grid import PixelWindow
    from swath.rasters.header import SceneHeader


@dataclass(frozen=True, slots=True)
class CloudLayer:
    """How one kind of layer is read: which values are cloud, and which say nothing."""

    cloud: Callable[[NDArray[Any]], NDArray[np.bool_]]
    unknown: Callable[[NDArray[Any]], NDArray[np.bool_]]


# By the name that ends the file's name (in any case) or names the asset.
CLOUD_LAYERS: Mapping[str, CloudLayer] = {
    # Sentinel-2 L2A scene classification: 8 and 9 cloud of medium and high probability, 10 thin cirrus.
    "SCL": CloudLayer(lambda v: np.isin(v, (8, 9, 10)), lambda v: v == 0),
    # Landsat collection 2: bit 1 dilated cloud, 2 cirrus, 3 cloud; bit 0 fill.
    "QA_PIXEL": CloudLayer(lambda v: (v & 0b1110) != 0, lambda v: (v & 1) != 0),
    # Harmonised Landsat Sentinel-2: bit 1 cloud, bit 2 adjacent to cloud; 255 fill.
    "FMASK": CloudLayer(lambda v: (v & 0b0110) != 0, lambda v: v == 255),
}


def cloud_fraction(header: SceneHeader, window: PixelWindow) -> float | None:
    """Share of a scene's window that is under cloud, 0 to 1, or None where nothing says it.

    Raises:
        ImageryError: The scene's cloud layer cannot be read, or does not lie where the scene does.
    """
    if header.cloud_layer is not None:
        return _of_layer(header, window)
    try:
        share = float(header.tags["eo:cloud_cover"]) / 100
    except (KeyError, ValueError):
        return None
    return share if 0 <= share <= 1 else None


def _of_layer(header: SceneHeader, window: PixelWindow) -> float | None:
    from swath.geo.grid import PixelWindow as Box
    from swath.rasters.header import window_bounds_on
    from swath.rasters.read import read_window

    assert header.cloud_layer is not None
    kind, path = header.cloud_layer
    layer = _layer_header(path, _stamp(path))
    if layer.crs != header.crs:
        raise ImageryError(f"{path}: is in {layer.crs}, its scene {header.path} in {header.crs}")
    left, top, right, bottom = window_bounds_on(header, window, layer.width, layer.height, layer.transform)
    column, row = math.floor(left + 1e-6), math.floor(top + 1e-6)
    width, height = math.ceil(right - 1e-6) - column, math.ceil(bottom - 1e-6) - row
    if column < 0 or row < 0 or column + width > layer.width or row + height > layer.height:
        raise ImageryError(f"{path}: does not cover its scene {header.path}; remove it, or make it again")
    values, valid = read_window(layer, Box(column, row, max(1, width), max(1, height)), bands=[0])
    if values.dtype.kind not in "ui":
        raise ImageryError(f"{path}: is of type {values.dtype}; a {kind} layer holds whole numbers")
    known = valid & ~CLOUD_LAYERS[kind].unknown(values[0])
    if not known.any():
        return None
    return float((CLOUD_LAYERS[kind].cloud(values[0]) & known).sum() / known.sum())


def _stamp(path: str) -> int:
    if is_remote(path):
        return 0
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 -- for every chip
    except OSError as error:
        raise ImageryError(f"{path}: the cloud layer cannot be opened: {error.strerror}") from None


@lru_cache(maxsize=64)
def _layer_header(path: str, stamp: int) -> SceneHeader:
    from swath.rasters.header import read_header

    return read_header(path)
