"""Masks and georeference beside an image count as if they were inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from pyproj import CRS

from helpers.rasters import noise, write_tiff
from swath.datasets.image_reading import read_header_any, read_image_file
from swath.errors import ImageryError
from swath.rasters.read import read_header, read_window
from swath.rasters.sensor_scene import match_scene_to_sensor
from swath.sensors.registry import get_sensor

WORLD = "0.5\n0\n0\n-0.5\n600000.25\n5699999.75\n"
TRANSFORM = (0.5, 0.0, 600000.0, 0.0, -0.5, 5700000.0)
PAM = "<PAMDataset><SRS>{srs}</SRS></PAMDataset>"


@pytest.fixture
def mask() -> np.ndarray:
    """The left quarter is not valid."""
    values = np.full((1, 64, 96), 255, np.uint8)
    values[:, :, :24] = 0
    return values


@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png"])
def test_a_mask_beside_an_image(tmp_path: Path, mask: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    pixels = noise(3, 64, 96, np.uint8)
    if suffix == ".tif":
        write_tiff(path, pixels)
    else:
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    write_tiff(Path(f"{path}.msk"), mask)
    header = read_header(path)
    assert header.has_mask
    _, valid = read_window(header)
    np.testing.assert_array_equal(valid, mask[0] > 0)
    _, valid = read_window(header, out_shape=(16, 24))
    assert valid.mean() == 0.75
    _, valid = read_image_file(str(path), get_sensor("rgb_aerial"))
    np.testing.assert_array_equal(valid, mask[0] > 0)


def test_a_mask_of_another_shape_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    path = write_tiff(tmp_path / "image.tif", noise(3, 64, 96, np.uint8))
    write_tiff(tmp_path / "image.tif.msk", mask[:, :, :48])
    with pytest.raises(ImageryError, match=r"image\.tif\.msk.*48 x 64"):
        read_window(read_header(path))


@pytest.mark.parametrize("crs", ["aux", "prj"])
@pytest.mark.parametrize(("suffix", "world"), [(".tif", ".tfw"), (".jpg", ".jgw"), (".png", ".PGW")])
def test_a_world_file_and_a_crs_place_an_image(tmp_path: Path, suffix: str, world: str, crs: str) -> None:
    path = tmp_path / f"tile{suffix}"
    Image.fromarray(noise(3, 64, 96, np.uint8).transpose(1, 2, 0)).save(path)
    (tmp_path / f"tile{world}").write_text(WORLD)
    wkt = CRS.from_epsg(25832).to_wkt("WKT1_GDAL")
    if crs == "aux":
        Path(f"{path}.aux.xml").write_text(PAM.format(srs=wkt))
    else:
        (tmp_path / "tile.prj").write_text(wkt)
    for header in (read_header(path), read_header_any(str(path))):
        assert header.transform == TRANSFORM
        assert header.gsd == pytest.approx(0.5, rel=1e-3)
        assert header.footprint is not None
        assert CRS.from_user_input(header.crs).to_epsg() == 25832


def test_a_georeference_inside_counts_before_one_beside(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "tile.tif", noise())
    (tmp_path / "tile.tfw").write_text(WORLD)
    with rasterio.open(path) as dataset:
        assert read_header(path).transform == tuple(dataset.transform)[:6]


def test_a_world_file_without_a_crs_is_said_and_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "tile.png"
    Image.fromarray(noise(3, 64, 96, np.uint8).transpose(1, 2, 0)).save(path)
    (tmp_path / "tile.pgw").write_text(WORLD)
    with pytest.raises(ImageryError, match="no usable CRS"):
        match_scene_to_sensor(read_header(path), get_sensor("rgb_aerial"))


@pytest.mark.parametrize("text", ["", "1\n2\n3", "a b c d e f", "0\n0\n0\n0\n1\n1", "nan\n0\n0\n1\n0\n0"])
def test_a_broken_world_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tile.png"
    Image.fromarray(noise(3, 64, 96, np.uint8).transpose(1, 2, 0)).save(path)
    (tmp_path / "tile.pgw").write_text(text)
    with pytest.raises(ImageryError, match=r"tile\.pgw"):
        read_header(path)


@pytest.mark.parametrize("own", [None, 7.0, 0.0])
def test_nodata_beside_an_image(tmp_path: Path, own: float | None) -> None:
    path = write_tiff(tmp_path / "image.tif", noise(1, 8, 8, np.uint8), nodata=own)
    band = "<PAMRasterBand band='1'><NoDataValue>7</NoDataValue></PAMRasterBand>"
    Path(f"{path}.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    if own == 0:
        with pytest.raises(ImageryError, match=r"nodata 0.*states 7"):
            read_header(path)
    else:
        assert read_header(path).nodata == 7


def test_a_mask_of_another_shape_beside_a_photograph_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(noise(3, 64, 96, np.uint8).transpose(1, 2, 0)).save(path)
    write_tiff(tmp_path / "image.jpg.msk", mask[:, :, :48])
    with pytest.raises(ImageryError, match=r"image\.jpg\.msk.*48 x 64"):
        read_image_file(str(path), get_sensor("rgb_aerial"))
