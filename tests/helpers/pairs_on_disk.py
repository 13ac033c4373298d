"""Pairs of two sensors as files, and the smallest encoder for them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from swath.sensors.registry import get_sensor

S1, S2 = "sentinel1_grd", "sentinel2_l2a"
OPTIONS = {"bands": {S1: 2, S2: 12}, "patch_size": 8, "embed_dim": 24, "depth": 1, "heads": 2}


def write_pairs(folder: Path, count: int = 24, **columns: Any) -> Path:
    """16 px pairs of two classes on one UTM grid, and `pairs.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    rows = []
    for i in range(count):
        kind = i % 2
        s1 = (-20 + 10 * kind + random.normal(0, 1, (2, 16, 16))).astype(np.float32)
        s2 = (800 + 2000 * kind + random.normal(0, 50, (12, 16, 16))).astype(np.uint16)
        for name, pixels in ((S1, s1), (S2, s2)):
            with rasterio.open(
                folder / f"{name}_{i}.tif", "w", driver="GTiff", width=16, height=16, count=len(pixels),
                dtype=pixels.dtype, crs="EPSG:32633",
                transform=from_origin(500_000 + 160 * i, 5_000_000, 10, 10),
            ) as file:  # fmt: skip
                file.write(pixels)
                file.descriptions = get_sensor(name).band_names
                if name == S2:
                    file.update_tags(PROCESSING_BASELINE="02.10")
        row: dict[str, Any] = {"id": f"p{i}", S1: f"{S1}_{i}.tif", S2: f"{S2}_{i}.tif"}
        row |= {"class": ("sea", "land")[kind], "split": ("val", "test")[i // 2 % 2], "group": f"g{i}"}
        rows.append({key: value for key, value in (row | columns).items() if value is not None})
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "pairs.csv"
