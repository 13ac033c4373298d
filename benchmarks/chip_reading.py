"""Windows per second of `read_window` against bare rasterio reading the same windows.

The benchmark makes its own tiled GeoTIFFs (seeded, so always the same), reads the same random windows with
both in turns (round by round, so that whatever else the machine does hits both), and prints the median of the
rounds' ratios. `read_window` also returns a valid mask; bare rasterio is timed without and, for comparison,
with reading the data set's mask. Target: at least 0.9 of bare rasterio without mask, where tiles are decoded,
as from an archive that is larger than GDAL's block cache (set to 24 MB here). The last column has all windows
in a small corner whose tiles stay decoded in that cache: what is left then is copying, so it shows what Swath
adds to each call in the worst case.

    python benchmarks/chip_reading.py [--windows 300] [--rounds 7] [--json OUT.json]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.windows
from rasterio.env import set_gdal_config

from swath.rasters.read import PixelWindow, read_header, read_window
from swath.rasters.safe_open import rasterio_module

CASES: dict[str, dict[str, Any]] = {
    "uint8 x 3, deflate, 256 tiles": {"dtype": "uint8", "count": 3, "compress": "deflate"},
    "uint16 x 4, deflate, 256 tiles, nodata": {
        "dtype": "uint16",
        "count": 4,
        "compress": "deflate",
        "predictor": 2,
        "nodata": 0,
    },
    "uint8 x 3, JPEG in TIFF": {"dtype": "uint8", "count": 3, "compress": "jpeg", "photometric": "ycbcr"},
    "float32 x 2, LZW, 256 tiles": {"dtype": "float32", "count": 2, "compress": "lzw"},
    "uint16 x 12, uncompressed, 256 tiles": {"dtype": "uint16", "count": 12},
}


def make(path: Path, side: int, profile: dict[str, Any]) -> None:
    """A smooth, noisy scene: compresses about as well as imagery does."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    settings = {"crs": "EPSG:32633", "transform": rasterio.transform.Affine(10, 0, 5e5, 0, -10, 5e6)}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "pixel"}
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, **layout, **settings, **profile
    ) as out:
        for band in range(1, profile["count"] + 1):
            wave = np.sin(rows / (40 + band)) + np.cos(columns / (60 - band))
            image = 110 + 30 * wave + random.normal(0, 6, wave.shape)
            out.write(np.clip(image, 1, 254).astype(profile["dtype"]), band)


def rate(read: Callable[[PixelWindow], Any], windows: list[PixelWindow]) -> float:
    start = time.perf_counter()
    for window in windows:
        read(window)
    return len(windows) / (time.perf_counter() - start)


def measure(path: Path, side: int, chip: int, count: int, rounds: int) -> dict[str, float]:
    """Median windows per second of the three readers on the same windows within side x side pixels."""
    random = np.random.default_rng(1)
    header = read_header(path)
    with rasterio.open(path) as dataset:

        def bare(window: PixelWindow) -> Any:
            return dataset.read(window=rasterio.windows.Window(window.column, window.row, chip, chip))

        def masked(window: PixelWindow) -> Any:
            area = rasterio.windows.Window(window.column, window.row, chip, chip)
            return dataset.read(window=area), dataset.dataset_mask(window=area)

        def swath(window: PixelWindow) -> Any:
            return read_window(header, window)

        readers = {"bare rasterio": bare, "rasterio with mask": masked, "swath": swath}
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for turn in range(rounds + 1):
            corners = random.integers(0, side - chip, (count, 2))
            windows = [PixelWindow(int(x), int(y), chip, chip) for x, y in corners]
            order = list(readers) if turn % 2 else list(reversed(readers))
            for name in order:
                speed = rate(readers[name], windows)
                if turn:  # the first round warms up
                    rates[name].append(speed)
        assert np.array_equal(bare(windows[0]), swath(windows[0])[0])
    result = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [s / b for s, b in zip(rates["swath"], rates["bare rasterio"], strict=True)]
    return {**result, "ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=300, help="windows a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, default=4096, help="pixels of a scene's side")
    parser.add_argument("--chip", type=int, default=224, help="pixels of a window's side")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    rasterio_module()  # sets the cache to its usual size
    set_gdal_config("GDAL_CACHEMAX", 24 * 2**20)
    results: dict[str, dict[str, dict[str, float]]] = {}
    print(f"windows of {arguments.chip} px at random places, per second; median of {arguments.rounds} rounds")
    print(f"{'':40}{'bare':>8}{'+ mask':>8}{'swath':>8}{'ratio':>8}  (range)           in cache")
    with tempfile.TemporaryDirectory() as folder:
        for name, profile in CASES.items():
            path = Path(folder) / "scene.tif"
            make(path, arguments.side, profile)
            r = measure(path, arguments.side, arguments.chip, arguments.windows, arguments.rounds)
            cached = measure(path, 768, arguments.chip, 4 * arguments.windows, arguments.rounds)
            results[name] = {"decoded": r, "cached": cached}
            print(
                f"{name:40}{r['bare rasterio']:8.0f}{r['rasterio with mask']:8.0f}{r['swath']:8.0f}"
                f"{r['ratio']:8.3f}  ({r['ratio_low']:.3f} to {r['ratio_high']:.3f}) {cached['ratio']:9.3f}",
                flush=True,
            )
            path.unlink()
    worst = min(r["decoded"]["ratio"] for r in results.values())
    print(f"worst ratio {worst:.3f}; target 0.9: {'reached' if worst >= 0.9 else 'NOT reached'}")
    if arguments.json:
        from swath.files import write_json

        write_json(arguments.json, {"settings": {**vars(arguments), "json": None}, "results": results})


if __name__ == "__main__":
    main()
