"""A small real model, rows and imagery for the archive's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from helpers.archive_images import make_pictures
from helpers.archive_rows import make_rows
from swath.encoders import create_model
from swath.models import Contract, Model, load_model, save_model
from swath.sensors.registry import get_sensor

DIMENSIONS = 8


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A randomly initialized vit_micro over RGB, saved and loaded; same images, same embeddings."""
    torch.manual_seed(0)
    path = save_model(
        tmp_path_factory.mktemp("models") / "micro",
        encoder_name="vit_micro_patch16",
        encoder_options={"bands": 3},
        encoder=create_model("vit_micro_patch16", bands=3),
        contract=Contract(sensors={"rgb_aerial": get_sensor("rgb_aerial")}),
    )
    return load_model(path)


@pytest.fixture(scope="session")
def rows() -> Callable[..., pa.Table]:
    """Makes rows of an archive of 8 dimensions: rows(count, first=0, **columns)."""
    return make_rows


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 12 distinct 32 x 32 PNGs without georeference."""
    return make_pictures(tmp_path / "pictures", 12)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two georeferenced RGB GeoTIFFs at 10 m, with a corner of nodata (0 in all bands) and a date."""
    return make_scenes(tmp_path / "scenes")


def make_scenes(folder: Path) -> Path:
    import rasterio
    from rasterio.transform import from_origin

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        coarse = np.random.default_rng(number).integers(1, 255, (3, 12, 16), dtype=np.uint8)
        pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)
        pixels[:, :40, :40] = 0
        with rasterio.open(
            folder / f"scene_{number}.tif",
            "w",
            driver="GTiff",
            width=128,
            height=96,
            count=3,
            dtype="uint8",
            crs="EPSG:32633",
            transform=from_origin(500_000 + 5_000 * number, 5_000_000, 10, 10),
            nodata=0,
            photometric="RGB",
        ) as scene:
            scene.write(pixels)
            scene.update_tags(ACQUISITION_DATE=f"2021-0{number + 1}-03")
    return folder
