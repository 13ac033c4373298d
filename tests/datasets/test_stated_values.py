"""A stated GSD or offset is for images that do not state their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from typer.testing import CliRunner

from helpers.rasters import write_tiff
from swath.catalog.band_statistics import compute_band_statistics
from swath.catalog.catalog import build_catalog, check_scenes, open_catalog
from swath.cli.main import build_app
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


def test_inspect_checks_values_and_says_what_is_lacking(tmp_path: Path) -> None:
    """Scaled reflectance is a problem whatever its type; digital numbers kept as floats are not."""
    random = np.random.default_rng(0).uniform(0.05, 0.45, (12, 32, 32))
    stated = {"descriptions": BANDS, "tags": {"PROCESSING_BASELINE": "03.01"}}
    write_tiff(tmp_path / "scaled.tif", random.astype(np.float32), **stated)
    write_tiff(tmp_path / "numbers.tif", np.round(10_000 * random), **stated)
    write_tiff(tmp_path / "integers.tif", (10_000 * random).astype(np.uint16), **stated)
    write_tiff(tmp_path / "silent.tif", (10_000 * random).astype(np.uint16), descriptions=BANDS)
    sensor = get_sensor("sentinel2_l2a")
    for offset, lacking in ((None, ["silent.tif"]), (0, [])):
        catalog = build_catalog(tmp_path, sensor=sensor)
        unstated = check_scenes(catalog, sensor, offset_dn=offset)
        assert [Path(path).name for path, _ in unstated] == lacking
        assert [Path(path).name for path, _ in catalog.problems] == ["scaled.tif"]
        assert "scale" in catalog.problems[0][1]
    scenes = build_catalog(tmp_path, sensor=sensor).scenes
    statistics = compute_band_statistics(scenes, sensor)  # of those that say their offset
    assert {Path(path).name for path, _ in statistics.problems} == {"scaled.tif", "silent.tif"}
    assert statistics.sensor.bands[0].mean == pytest.approx(float(random[0].mean()), abs=1e-3)


def test_linear_power_is_no_decibels(tmp_path: Path) -> None:
    power = np.random.default_rng(0).uniform(0.001, 0.5, (2, 32, 32)).astype(np.float32)
    write_tiff(tmp_path / "radar.tif", power, descriptions=("VV", "VH"))
    for name, problems in (("sentinel1_grd", 1), ("sentinel1_grd_linear", 0)):
        sensor = get_sensor(name)
        catalog = build_catalog(tmp_path, sensor=sensor)
        check_scenes(catalog, sensor)
        assert len(catalog.problems) == problems


@pytest.mark.parametrize("broken", [1, 2])
def test_inspect_ends_with_an_error_only_where_nothing_is_usable(tmp_path: Path, broken: int) -> None:
    write_tiff(tmp_path / "a.tif", rgb(0))
    (tmp_path / "b.tif").write_bytes(b"no image")
    if broken == 2:
        (tmp_path / "a.tif").write_bytes(b"II*\0cut")
    words = ["inspect", str(tmp_path), "--out", str(tmp_path / "catalog.parquet")]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == (1 if broken == 2 else 0)
    assert "b.tif" in result.stdout


@pytest.mark.parametrize(("href", "name"), [("./a%20b.tif", "a b.tif"), ("./50%20.tif", "50%20.tif")])
def test_a_percent_sign_in_a_link_and_in_a_name(tmp_path: Path, href: str, name: str) -> None:
    write_tiff(tmp_path / name, rgb(0))
    assets = {"image": {"href": href, "type": "image/tiff; application=geotiff", "roles": ["data"]}}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "x", "properties": {}, "assets": assets}
    (tmp_path / "item.json").write_text(json.dumps(item))
    catalog = build_catalog(tmp_path / "item.json")
    assert [Path(header.path).name for header in catalog.scenes] == [name]
