"""A stated GSD or offset is for images that do not state their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from helpers.rasters import write_tiff
from swath.catalog.catalog import build_catalog, open_catalog
from swath.datasets.chips import ChipGrid, RandomChips
from swath.datasets.opening import open_dataset
from swath.errors import ImageryError
from swath.rasters.sensor_scene import match_scene_to_sensor, resolve_gsd
from swath.sensors.registry import get_sensor


def rgb(seed: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, (3, side, side)).astype(np.uint8)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two georeferenced scenes, and a photograph that says nothing of its scale."""
    write_tiff(tmp_path / "a.tif", rgb(0), transform=rasterio.Affine(10, 0, 600000, 0, -10, 5.7e6))
    write_tiff(tmp_path / "c.tif", rgb(1), transform=rasterio.Affine(0.5, 0, 600000, 0, -0.5, 5.7e6))
    Image.fromarray(rgb(2).transpose(1, 2, 0)).save(tmp_path / "b.jpg")
    return tmp_path


def gsd_by_file(grid: ChipGrid) -> dict[str, float]:
    return {Path(grid.paths[i]).name: grid[i]["gsd"] for i in range(len(grid))}


@pytest.mark.parametrize("stated", [0.3, 25.0])
def test_a_stated_gsd_is_for_images_without_one(mixed: Path, stated: float) -> None:
    scenes, _ = open_catalog(mixed, sensor=get_sensor("rgb_aerial"))
    found = gsd_by_file(ChipGrid(scenes, "rgb_aerial", gsd=stated, chip_size=64))
    assert found == pytest.approx({"a.tif": 10, "c.tif": 0.5, "b.jpg": stated}, rel=2e-3)
    images = open_dataset(mixed, sensor="rgb_aerial", gsd=stated, layout="images", size=64)
    assert {Path(path).name: gsd for path, gsd in zip(images.paths, images.gsds, strict=True)} == (
        pytest.approx({"a.tif": 10, "c.tif": 0.5, "b.jpg": stated}, rel=2e-3)
    )


def test_an_override_is_for_all(mixed: Path) -> None:
    scenes, _ = open_catalog(mixed, sensor=get_sensor("rgb_aerial"))
    found = gsd_by_file(ChipGrid(scenes, "rgb_aerial", gsd="override:0.3", chip_size=64))
    assert set(found.values()) == {0.3}
    images = open_dataset(mixed, sensor="rgb_aerial", gsd="override:0.3", layout="images", size=64)
    assert set(images.gsds) == {0.3}


def test_one_image_without_gsd_is_a_listed_problem_where_others_have_one(mixed: Path) -> None:
    scenes, _ = open_catalog(mixed, sensor=get_sensor("rgb_aerial"))
    grid = ChipGrid(scenes, "rgb_aerial", chip_size=64)
    assert {Path(path).name for path in grid.paths} == {"a.tif", "c.tif"}
    assert [Path(path).name for path, _ in grid.problems] == ["b.jpg"]
    # To train on less than what was given is worse than to stop.
    with pytest.raises(ImageryError, match=r"b\.jpg.*data\.gsd"):
        RandomChips(scenes, "rgb_aerial", chip_size=64)


@pytest.mark.parametrize("stated", ["nonsense", "override:", "override:x", "override:0", 0.0, -1.0])
def test_a_stated_gsd_that_is_none_is_refused(stated: float | str) -> None:
    with pytest.raises(ImageryError):
        resolve_gsd(stated, None, "a.tif")


def digital_numbers(value: int) -> np.ndarray:
    return np.full((12, 32, 32), value, np.uint16)


BANDS = get_sensor("sentinel2_l2a").band_names


@pytest.mark.parametrize("stated", [0, -1000, None])
def test_a_stated_offset_is_for_scenes_that_do_not_say_theirs(tmp_path: Path, stated: float | None) -> None:
    new, old = tmp_path / "new.tif", tmp_path / "old.tif"
    write_tiff(new, digital_numbers(2000), descriptions=BANDS, tags={"PROCESSING_BASELINE": "05.10"})
    write_tiff(old, digital_numbers(1000), descriptions=BANDS)
    sensor = get_sensor("sentinel2_l2a")
    scenes = {Path(header.path).name: header for header in build_catalog(tmp_path, sensor=sensor).scenes}
    grid = ChipGrid(scenes.values(), sensor, gsd="override:10", chip_size=32, offset_dn=stated)
    if stated is None:  # one says it, the other is a problem
        assert [Path(path).name for path in grid.paths] == ["new.tif"]
        assert [Path(path).name for path, _ in grid.problems] == ["old.tif"]
        return
    means = {Path(grid.paths[i]).name: float(grid[i]["image"].mean()) for i in range(2)}
    assert means == pytest.approx({"new.tif": 0.1, "old.tif": (1000 + stated) / 10000}, abs=1e-6)


@pytest.mark.parametrize(
    ("bands", "gsd"), [(("B05", "B8A", "B11"), 20), (("B01", "B09"), 60), (("B02", "B05"), 10)]
)
@pytest.mark.parametrize("by_catalog", [False, True])
def test_the_grid_is_that_of_the_finest_band_of_the_sensor(
    tmp_path: Path, bands: tuple[str, ...], gsd: float, by_catalog: bool
) -> None:
    sizes = {"B01": 60, "B09": 60, "B02": 10, "B05": 20, "B8A": 20, "B11": 20}
    (tmp_path / "scene").mkdir()
    for band, size in sizes.items():
        side = 480 // size
        columns = np.broadcast_to(1000 + np.arange(side), (1, side, side)).astype(np.uint16)
        transform = rasterio.Affine(size, 0, 600000, 0, -size, 5.7e6)
        write_tiff(tmp_path / "scene" / f"T33_{band}.tif", columns, transform=transform)
    full = get_sensor("sentinel2_l2a")
    sensor = full.model_copy(update={"name": "some", "bands": [b for b in full.bands if b.name in bands]})
    if by_catalog:  # one that was made for no sensor holds all files
        build_catalog(tmp_path).write(tmp_path / "catalog.parquet")
    scenes, problems = open_catalog(tmp_path / "catalog.parquet" if by_catalog else tmp_path, sensor=sensor)
    assert not problems
    assert scenes[0].gsd == pytest.approx(gsd, rel=2e-3)
    assert (scenes[0].height, scenes[0].width) == (480 // gsd, 480 // gsd)
    image, _ = match_scene_to_sensor(scenes[0], sensor, offset_dn=0).read()
    finest = [band.name for band in sensor.bands].index(
        next(b.name for b in sensor.bands if sizes[b.name] == gsd)
    )
    np.testing.assert_allclose(image[finest][0], (1000 + np.arange(480 // gsd)) * 1e-4, rtol=1e-6)
