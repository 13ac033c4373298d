"""Small archives of pairs for tests, written to order."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from helpers.rasters import write_tiff

S1, S2 = "sentinel1_grd", "sentinel2_l2a"
S2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


def radar(size: int = 24, seed: int = 0) -> np.ndarray:
    """[2, size, size] backscatter in dB."""
    values: np.ndarray = np.random.default_rng(seed).normal(-14, 3, (2, size, size)).astype(np.float32)
    return values


def optical(size: int = 24, seed: int = 0, bands: int = 12) -> np.ndarray:
    """[bands, size, size] digital numbers of reflectance."""
    values: np.ndarray = (
        np.random.default_rng(seed).integers(200, 4000, (bands, size, size)).astype(np.uint16)
    )
    return values


def write_pair(
    folder: Path, number: int = 0, size: int = 24, s2: Any = None, **profile: Any
) -> dict[str, str]:
    """One pair in two files; the row that a table has for it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tiff(folder / f"s1_{number}.tif", radar(size, number), descriptions=("VV", "VH"))
    values = optical(size, number) if s2 is None else s2
    write_tiff(folder / f"s2_{number}.tif", values, **{"descriptions": S2_BANDS, **profile})
    return {"id": f"p{number}", S1: f"s1_{number}.tif", S2: f"s2_{number}.tif"}


def write_table(folder: Path, rows: list[dict[str, str]], **columns: list[str]) -> Path:
    """`pairs.csv` with these rows and further columns."""
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    path = folder / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_pairs(folder: Path, count: int = 4, **columns: list[str]) -> Path:
    """A table of `count` pairs."""
    return write_table(folder, [write_pair(folder, i) for i in range(count)], **columns)
