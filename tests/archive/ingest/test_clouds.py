"""Cloud screening by what products say: classification layers, the scene's own figure, or nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from swath.archive.archive import Archive
from swath.archive.ingest.run import embed_archive
from swath.catalog.catalog import Catalog, build_catalog
from swath.datasets.opening import open_dataset
from swath.errors import ImageryError
from swath.geo.grid import PixelWindow
from swath.models import Model
from swath.rasters.cloud_mask import cloud_fraction
from swath.rasters.read import read_header


def write(path: Path, values: np.ndarray, metres: float, **more: object) -> Path:
    """A GeoTIFF [C, H, W] whose upper left corner is always the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "count": len(values),
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype,
    }
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, metres, metres)}
    with rasterio.open(path, "w", driver="GTiff", **(profile | place | more)) as file:
        file.write(values)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """An RGB scene of 2 x 2 chips of 32 pixels at 10 m with its SCL at 20 m: the upper right chip is cloud,
    of the lower left one a quarter, the lower right one is not classified."""
    pixels = np.random.default_rng(0).integers(1, 255, (3, 64, 64), dtype=np.uint8)
    write(tmp_path / "scenes" / "T33_2021.tif", pixels, 10, photometric="RGB")
    classes = np.full((1, 32, 32), 4, np.uint8)
    classes[0, :16, 16:] = 9
    classes[0, 16:24, :8] = 10
    classes[0, 24:, :8] = 3  # shadow is no cloud
    classes[0, 16:, 16:] = 0
    write(tmp_path / "scenes" / "T33_2021_SCL.tif", classes, 20)
    return tmp_path / "scenes"


def test_the_layer_beside_a_scene_says_the_share_of_each_chip(
    scene: Path, model: Model, tmp_path: Path
) -> None:
    dataset = open_dataset(scene, sensor="rgb_aerial", chip_size=32)
    assert len(dataset) == 4
    assert dataset.problems == []  # the layer is not taken for an image that does not fit
    report = embed_archive(model, dataset, tmp_path / "archive", workers=0, max_cloud=0.5)
    assert (report.total, report.embedded, report.clouded, report.cloud_known) == (4, 3, 1, 3)
    found = {
        (row["window"]["column"], row["window"]["row"]): row["cloud_fraction"]
        for row in Archive.open(tmp_path / "archive").rows(["window", "cloud_fraction"]).to_pylist()
    }
    assert found == {(0, 0): 0.0, (0, 32): 0.25, (32, 32): None}
    again = embed_archive(model, dataset, tmp_path / "archive", workers=0)  # no limit: now it is wanted
    assert (again.embedded, again.clouded) == (1, 0)


def test_band_files_and_catalogs_keep_their_layer(tmp_path: Path) -> None:
    for band in ("B02", "B03", "B04"):
        write(tmp_path / "in" / f"T33_{band}_10m.tif", np.ones((1, 8, 8), np.uint16), 10)
    write(tmp_path / "in" / "T33_SCL_20m.tif", np.full((1, 4, 4), 8, np.uint8), 20)
    catalog = build_catalog(tmp_path / "in")
    (entry,) = catalog.entries
    assert entry.header is not None
    assert len(entry.files) == 3
    assert entry.header.cloud_layer == ("SCL", str(tmp_path / "in" / "T33_SCL_20m.tif"))
    catalog.write(tmp_path / "in" / "catalog.parquet")
    (tmp_path / "in").rename(tmp_path / "moved")
    (moved,) = Catalog.read(tmp_path / "moved" / "catalog.parquet").scenes
    assert cloud_fraction(moved, PixelWindow(0, 0, 8, 8)) == 1.0


@pytest.mark.parametrize(
    ("kind", "values", "share"),
    [
        ("QA_PIXEL", [1 << 3, 1 << 2, 1 << 1, 1 << 4], 3 / 4),  # cloud, cirrus, dilated; shadow
        ("QA_PIXEL", [1, 1 | 1 << 3, 1 << 6, 1 << 3], 1 / 2),  # fill says nothing
        ("FMASK", [1 << 1, 1 << 2, 1 << 3, 255], 2 / 3),
    ],
)
def test_bits_of_other_products(tmp_path: Path, kind: str, values: list[int], share: float) -> None:
    image = write(tmp_path / "scene.tif", np.ones((3, 2, 2), np.uint8), 30)
    stored = np.array(values, np.uint16 if kind == "QA_PIXEL" else np.uint8).reshape(1, 2, 2)
    layer = write(tmp_path / "layer.tif", stored, 30)
    header = dataclasses.replace(read_header(image), cloud_layer=(kind, str(layer)))
    assert cloud_fraction(header, PixelWindow(0, 0, 2, 2)) == pytest.approx(share)


def test_items_say_it_by_an_asset_or_by_a_figure(tmp_path: Path, model: Model) -> None:
    write(tmp_path / "rgb.tif", np.full((3, 32, 32), 99, np.uint8), 10, photometric="RGB")
    write(tmp_path / "classes.tif", np.full((1, 32, 32), 9, np.uint8), 10)

    def item(**assets: str) -> Path:
        listed = {
            key: {"href": href, "type": "image/tiff; application=geotiff"} for key, href in assets.items()
        }
        about = {"datetime": "2021-05-01T10:00:00Z", "eo:cloud_cover": 37.5}
        whole = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "properties": about, "assets": listed}
        path = tmp_path / "item.json"
        path.write_text(json.dumps(whole))
        return path

    for assets, share in (
        ({"visual_data": "rgb.tif"}, 0.375),
        ({"data": "rgb.tif", "scl": "classes.tif"}, 1.0),
    ):
        dataset = open_dataset(item(**assets), sensor="rgb_aerial", chip_size=32, layout="chips")
        assert dataset.problems == []
        path = tmp_path / f"archive_{share}"
        assert embed_archive(model, dataset, path, workers=0).embedded == 1
        assert Archive.open(path).rows(["cloud_fraction"])["cloud_fraction"].to_pylist() == [share]
        out = embed_archive(model, dataset, tmp_path / f"none_{share}", workers=0, max_cloud=0.3)
        assert (out.clouded, out.embedded) == (1, 0)


def test_a_layer_that_does_not_fit_is_a_failure_of_its_chips(
    scene: Path, model: Model, tmp_path: Path
) -> None:
    layer = scene / "T33_2021_SCL.tif"
    for spoil, words in (
        (lambda: write(layer, np.full((1, 8, 8), 4, np.uint8), 20), "does not cover its scene"),
        (lambda: write(layer, np.full((1, 32, 32), 4, np.uint8), 20, crs="EPSG:32634"), "is in EPSG:32634"),
        (lambda: write(layer, np.full((1, 32, 32), 4, np.float32), 20), "holds whole numbers"),
        (layer.unlink, "cannot be opened"),
    ):
        header = open_dataset(scene, sensor="rgb_aerial", chip_size=32).scenes[0].header  # type: ignore[attr-defined]
        spoil()
        with pytest.raises(ImageryError, match=words):
            cloud_fraction(header, PixelWindow(32, 32, 32, 32))
    write(layer, np.full((1, 16, 16), 4, np.uint8), 20)  # of the first chip alone
    dataset = open_dataset(scene, sensor="rgb_aerial", chip_size=32)
    report = embed_archive(model, dataset, tmp_path / "archive", workers=0)
    assert report.embedded == 1
    assert all("does not cover" in reason for _, reason in report.failures)
    assert len(report.failures) == 3


def test_without_information_nothing_is_claimed(scenes: Path, model: Model, tmp_path: Path) -> None:
    dataset = open_dataset(scenes, sensor="rgb_aerial", chip_size=64)
    report = embed_archive(model, dataset, tmp_path / "archive", workers=0, max_cloud=0.0)
    assert (report.clouded, report.cloud_known) == (0, 0)
    assert report.embedded > 0
    assert (
        Archive.open(tmp_path / "archive").rows(["cloud_fraction"])["cloud_fraction"].null_count
        == report.embedded
    )
