"""Archives for the tests of the page, with and without georeference, and a real server in a thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image

CHROMIUM = Path("/usr/bin/chromium")
PLACES = ((500_000, 10.0), (520_000, 20.0))  # easting in UTM 33N, metres per pixel
DAYS = ("2020-06-01", "2022-06-01")
EAST, NORTH = 15.0, 45.15  # of the first place, degrees, about


def make_placed(model: Any, folder: Path) -> str:
    """Two places at two scales, each on two days: 4 scenes of 12 chips."""
    import rasterio
    from rasterio.transform import from_origin

    scenes = folder / "scenes"
    scenes.mkdir()
    for i, (east, gsd) in enumerate(PLACES):
        for j, day in enumerate(DAYS):
            coarse = np.random.default_rng(10 * i + j).integers(1, 255, (3, 12, 16), dtype=np.uint8)
            grid = {"crs": "EPSG:32633", "transform": from_origin(east, 5_000_000, gsd, gsd)}
            size = {"width": 128, "height": 96, "count": 3, "dtype": "uint8", "photometric": "RGB"}
            with rasterio.open(scenes / f"place{i}_{day}.tif", "w", driver="GTiff", **grid, **size) as scene:
                scene.write(coarse.repeat(8, axis=1).repeat(8, axis=2))
                scene.update_tags(ACQUISITION_DATE=day)
    return _embedded(model, scenes, folder / "placed", layout="chips", chip_size=32)


def make_plain(model: Any, folder: Path) -> str:
    """24 pictures without georeference, in two classes."""
    pictures = folder / "pictures"
    for i in range(24):
        coarse = np.random.default_rng(i).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        file = pictures / ("fields", "homes")[i % 2] / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse.repeat(8, axis=0).repeat(8, axis=1)).save(file)
    return _embedded(model, pictures, folder / "plain", layout="class_folder", gsd=1.0, size=32)


def _embedded(model: Any, data: Path, to: Path, **options: Any) -> str:
    from swath.archive.ingest.run import embed_archive
    from swath.datasets.opening import open_dataset

    dataset = open_dataset(data, sensor="rgb_aerial", **options)
    report = embed_archive(model, dataset, str(to), model_path="", workers=0)
    assert report.embedded > 0
    assert not report.failures
    return str(to)


@contextmanager
def running(archive: str, model: Any, token: str | None = None) -> Iterator[str]:
    """The address of a real server on loopback."""
    from swath.serving.http.app import create_app
    from swath.serving.settings import ServerSettings, host_names

    settings = ServerSettings(token=token, hosts=host_names("127.0.0.1", ()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(create_app(archive, model, settings), port=port, log_level="warning", ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server ended"
        assert time.monotonic() < until, "the server does not start"
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(timeout=30)
    assert not thread.is_alive(), "the server does not end"
