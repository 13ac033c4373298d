"""A small archive with real files, and a real server process over it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from swath.archive.archive import Archive
from swath.archive.ingest.run import embed_archive
from swath.datasets.opening import open_dataset
from swath.encoders import create_model
from swath.models import Contract, Model, load_model, save_model
from swath.sensors.registry import get_sensor

SIDE, CHIP = 96, 32  # pixels of a scene and of a chip: 9 chips a scene
TOKEN = "a-token-for-tests-only"


def make_model(folder: Path) -> Path:
    torch.manual_seed(0)
    return save_model(
        folder,
        encoder_name="vit_micro_patch16",
        encoder_options={"bands": 3},
        encoder=create_model("vit_micro_patch16", bands=3),
        contract=Contract(sensors={"rgb_aerial": get_sensor("rgb_aerial")}),
    )


def write_scene(
    path: Path, pixels: np.ndarray, east: float, *, crs: str = "EPSG:32633", day: str = "2021-01-03"
) -> Path:
    """An RGB GeoTIFF at 10 m with its upper left corner `east` metres along."""
    import rasterio
    from rasterio.transform import from_origin

    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=pixels.shape[2], height=pixels.shape[1], count=3, dtype="uint8",
        crs=crs, transform=from_origin(east, 5_000_000, 10, 10), nodata=0, photometric="RGB",
    ) as file:  # fmt: skip
        file.write(pixels)
        file.update_tags(ACQUISITION_DATE=day)
    return path


def pixels_of(number: int) -> np.ndarray:
    """[3, 96, 96] uint8, smooth and never 0."""
    coarse = np.random.default_rng(number).integers(40, 255, (3, 6, 6), dtype=np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


def make_archive(folder: Path, model: Model, *, scenes: int = 2, first: int = 0) -> Archive:
    """Chips of `scenes` scenes side by side, one a month of 2021; added if there is an archive."""
    data = folder / f"imagery_{first}"
    for number in range(first, first + scenes):
        write_scene(
            data / f"scene_{number}.tif",
            pixels_of(number),
            500_000 + 2_000 * number,
            day=f"2021-{number + 1:02d}-03",
        )
    dataset = open_dataset(data, sensor="rgb_aerial", layout="chips", chip_size=CHIP)
    embed_archive(model, dataset, folder / "archive", workers=0)
    return Archive.open(folder / "archive")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(
    archive: Path, *options: str, token: str | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`swath serve` in a process of its own, ready; its address and the process. It must end well."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "SWATH_TOKEN"}
    if token is not None:
        environment["SWATH_TOKEN"] = token
    process = subprocess.Popen(
        [sys.executable, "-m", "swath.cli.main", "serve", str(archive), "--port", str(port), *options],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert process.returncode == 0, process.returncode


def wait_for(port: int, process: subprocess.Popen[str], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise AssertionError(process.stdout.read() if process.stdout else "it ended")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the server does not come up")


def load(path: Path) -> Model:
    return load_model(path)
