"""Changes as a map: a Cloud-Optimized GeoTIFF of scores, for a GIS to lay over imagery."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.archive.changes.detect import ChangeResults
from swath.errors import ArchiveError
from swath.files import atomic_path

MOST_CELLS = 100_000_000
_CELLS_A_CHIP = 2  # across a chip, where no cell size is asked for: overlapping chips show finer than one
_DEGREE = 111_320.0  # metres, along a meridian
_BLOCK = 512


def write_heatmap(path: str | os.PathLike[str], changes: ChangeResults, *, cell: float | None = None) -> None:
    """Write scores of all places compared as a float32 COG, atomically; NaN where none was compared.

    The grid is UTM where the places lie within 6 degrees of longitude and off the poles, else longitude and
    latitude. A cell has the mean score of the chips over it.

    Args:
        path: The GeoTIFF.
        changes: From `find_changes`.
        cell: Side of a cell in metres; by default half of the median chip.

    Raises:
        ArchiveError: No place, a cell that is not positive, or more than 100 million cells.
    """
    boxes, scores = changes.boxes, changes.scores
    if not len(boxes):
        raise ArchiveError("there is no place to draw")
    if cell is not None and not (math.isfinite(cell) and cell > 0):
        raise ArchiveError(f"a cell's side is a number of metres above 0, not {cell}")
    crs, corners, metres = _projected(boxes)
    sides = np.median(corners[:, 2:] - corners[:, :2], axis=0)
    step = cell / metres if cell is not None else float(sides.mean()) / _CELLS_A_CHIP
    west, north = float(corners[:, 0].min()), float(corners[:, 3].max())
    width = max(1, math.ceil((corners[:, 2].max() - west) / step - 1e-6))
    height = max(1, math.ceil((north - corners[:, 1].min()) / step - 1e-6))
    if width * height > MOST_CELLS:
        raise ArchiveError(
            f"the map would have {width:,} x {height:,} cells of {step * metres:.3g} m; draw larger cells "
            f"(--cell-size {step * metres * math.sqrt(width * height / MOST_CELLS):.0f}), or a smaller area"
        )
    columns = np.clip(np.rint((corners[:, [0, 2]] - west) / step).astype(int), 0, width)
    rows = np.clip(np.rint((north - corners[:, [3, 1]]) / step).astype(int), 0, height)
    total = np.zeros((height, width), dtype=np.float64)
    count = np.zeros((height, width), dtype=np.int32)
    for (left, right), (top, bottom), score in zip(columns, rows, scores, strict=True):
        cells = slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
        total[cells] += score
        count[cells] += 1
    mean = np.full((height, width), np.nan, dtype=np.float32)
    np.divide(total, count, out=mean, where=count > 0, casting="same_kind")
    _write(Path(path), mean, crs, (west, north, step))


def _projected(boxes: NDArray[np.float64]) -> tuple[str, NDArray[np.float64], float]:
    """CRS, boxes [P, 4] in it, and metres in one of its units."""
    west, south, east, north = boxes.T.copy()
    east = np.where(west > east, east + 360, east)
    # Places on both sides of the antimeridian lie side by side when counted from the first.
    turn = np.round((west - west[0]) / 360) * 360
    west, east = west - turn, east - turn
    middle, high = (west.min() + east.max()) / 2, max(abs(south.min()), abs(north.max()))
    if east.max() - west.min() > 6 or high > 84:
        scale = _DEGREE * max(0.01, math.cos(math.radians((south.min() + north.max()) / 2)))
        return "OGC:CRS84", np.stack([west, south, east, north], axis=1), scale
    from pyproj import Transformer

    zone = int(((middle + 180) % 360) // 6) + 1
    crs = f"EPSG:{(32600 if (south.min() + north.max()) >= 0 else 32700) + zone}"
    transformer = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    x, y = transformer.transform(np.stack([west, east, east, west]), np.stack([south, south, north, north]))
    # The middle of each side: a chip cut on another grid is a little turned in this one.
    sides = [(x[0] + x[3]) / 2, (y[0] + y[1]) / 2, (x[1] + x[2]) / 2, (y[2] + y[3]) / 2]
    return crs, np.stack(sides, axis=1), 1.0


def _write(path: Path, values: NDArray[np.float32], crs: str, grid: tuple[float, float, float]) -> None:
    """[H, W] as a COG."""
    import rasterio
    from rasterio.shutil import copy
    from rasterio.transform import from_origin

    west, north, step = grid
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": values.shape[0],
        "width": values.shape[1],
        "count": 1,
        "dtype": "float32",
        "nodata": float("nan"),
        "crs": crs,
        "transform": from_origin(west, north, step, step),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as target:
        rough = target.with_suffix(".rough")
        try:
            with rasterio.open(rough, "w", **profile) as dataset:
                dataset.write(values, 1)
                dataset.set_band_description(1, "change score")
                dataset.update_tags(1, meaning="standard deviations above what is usual around a place")
            layout = {"COMPRESS": "DEFLATE", "BLOCKSIZE": _BLOCK, "OVERVIEW_RESAMPLING": "AVERAGE"}
            copy(rough, target, driver="COG", **layout)
        finally:
            rough.unlink(missing_ok=True)
