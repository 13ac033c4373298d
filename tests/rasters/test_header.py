"""Headers: what a scene says about itself, for one file and for one file a band."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

from helpers.rasters import noise, write_tiff
from swath.errors import ImageryError
from swath.rasters.header import acquisition_time, read_header


def test_a_header_holds_what_the_file_says(tmp_path: Path) -> None:
    path = write_tiff(
        tmp_path / "scene.tif",
        noise(2, 256, 512),
        nodata=0,
        tiled=True,
        blockxsize=128,
        blockysize=64,
        descriptions=("B04", "B08"),
        tags={"ACQUISITION_DATE": "2020-05-06", "PROCESSING_LEVEL": "L2A"},
    )
    header = read_header(path)
    assert (header.path, header.files, header.driver) == (str(path), (str(path),), "GTiff")
    assert (header.width, header.height, header.bands, header.dtype) == (512, 256, 2, "uint16")
    assert header.descriptions == ("B04", "B08")
    assert header.crs == "EPSG:32633"
    assert header.transform == (10, 0, 500_000, 0, -10, 5_000_000)
    assert header.gsd == pytest.approx(10.004, abs=0.001)
    assert header.nodata == 0
    assert header.block == (64, 128)
    assert header.time == datetime(2020, 5, 6, tzinfo=UTC)
    assert header.tags["PROCESSING_LEVEL"] == "L2A"
    assert header.footprint is not None
    assert header.scales == header.offsets == header.passed_over == ()


def test_a_header_is_plain_data(tmp_path: Path) -> None:
    header = read_header(write_tiff(tmp_path / "a.tif", noise()))
    assert pickle.loads(pickle.dumps(header)) == header == copy.deepcopy(header)
    assert len({header, header}) == 1


def test_overviews_alpha_and_mask_are_noted(tmp_path: Path) -> None:
    cog = write_tiff(
        tmp_path / "cog.tif", noise(3, 1100, 1100, np.uint8), driver="COG", mask=np.ones((1100, 1100), bool)
    )
    header = read_header(cog)
    assert header.overviews[0] == 2
    assert header.has_mask
    assert not header.has_alpha
    rgba = read_header(write_tiff(tmp_path / "rgba.tif", noise(4, 9, 9, np.uint8), alpha=True))
    assert rgba.has_alpha
    assert rgba.bands == 3
    assert len(rgba.descriptions) == 3


def test_scale_and_offset_of_the_file_are_told(tmp_path: Path) -> None:
    import rasterio

    path = write_tiff(tmp_path / "a.tif", noise(2))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4, 1e-4), (-0.1, -0.1)
    header = read_header(path)
    assert header.scales == (1e-4, 1e-4)
    assert header.offsets == (-0.1, -0.1)


def test_a_wrong_nodata_tag_can_be_overruled(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(), nodata=255)
    assert read_header(path).nodata == 255
    assert read_header(path, nodata=None).nodata is None
    assert read_header(path, nodata=7).nodata == 7


def test_images_without_georeference_have_none(tmp_path: Path) -> None:
    header = read_header(write_tiff(tmp_path / "a.tif", noise(), crs=None, transform=Affine.identity()))
    assert (header.crs, header.transform, header.gsd, header.footprint) == (None, None, None, None)


def test_a_grid_without_crs_has_a_transform_but_no_gsd(tmp_path: Path) -> None:
    header = read_header(write_tiff(tmp_path / "a.tif", noise(), crs=None))
    assert header.transform is not None
    assert header.gsd is None


def test_a_rotated_grid_has_the_same_gsd(data_dir: Path, tmp_path: Path) -> None:
    turned = Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(10, -10)
    header = read_header(write_tiff(tmp_path / "a.tif", noise(), transform=turned))
    assert header.gsd == pytest.approx(10.004, abs=0.001)
    assert read_header(data_dir / "geotiff_misc" / "rasterio" / "rotated.tif").transform is not None


@pytest.mark.parametrize(
    ("tags", "time"),
    [
        # TIFFTAG_DATETIME is when a program wrote the file.
        ({"TIFFTAG_DATETIME": "2022:01:17 10:43:43"}, None),
        ({"EXIF_DateTimeOriginal": "2022:01:17 10:43:43"}, datetime(2022, 1, 17, 10, 43, 43, tzinfo=UTC)),
        ({"ACQUISITION_DATE": "20160130"}, datetime(2016, 1, 30, tzinfo=UTC)),
        ({"acquisition_datetime": "2016-01-30T10:11:12Z"}, datetime(2016, 1, 30, 10, 11, 12, tzinfo=UTC)),
        (
            {"TIFFTAG_DATETIME": "2022:01:17 10:43:43", "ACQUISITION_DATE": "2016-01-30"},
            datetime(2016, 1, 30, tzinfo=UTC),
        ),
        (
            {"ACQUISITION_DATE": "unknown", "DATE_ACQUIRED": "2022-01-17"},
            datetime(2022, 1, 17, tzinfo=UTC),
        ),
        ({"EXIF_DateTimeOriginal": "0000:00:00 00:00:00"}, None),
        ({}, None),
    ],
)
def test_acquisition_time(tags: dict[str, str], time: datetime | None) -> None:
    assert acquisition_time(tags) == time


def test_a_time_with_a_zone_keeps_it() -> None:
    time = acquisition_time({"ACQUISITION_DATETIME": "2020-05-06T12:00:00+02:00"})
    assert time == datetime(2020, 5, 6, 10, tzinfo=UTC)


# --------------------------------------------------------------------------------------- one file a band


def test_band_files_make_one_scene_on_the_finest_grid(tmp_path: Path) -> None:
    files = [
        write_tiff(tmp_path / "p_B01.tif", noise(1, 10, 10), pixel=60.0),
        write_tiff(
            tmp_path / "p_B02.tif", noise(1, 60, 60), pixel=10.0, tags={"ACQUISITION_DATE": "2017-06-13"}
        ),
        write_tiff(tmp_path / "p_B05.tif", noise(1, 30, 30), pixel=20.0),
    ]
    header = read_header(files)
    assert (header.width, header.height, header.bands) == (60, 60, 3)
    assert header.files == tuple(str(path) for path in files)
    assert header.path == str(tmp_path)
    assert header.descriptions == ("p_B01", "p_B02", "p_B05")
    assert header.gsd == pytest.approx(10.004, abs=0.001)
    assert header.time == datetime(2017, 6, 13, tzinfo=UTC)


def test_band_files_may_disagree_on_nodata_and_type(tmp_path: Path) -> None:
    files = [
        write_tiff(tmp_path / "a.tif", noise(1), nodata=0),
        write_tiff(tmp_path / "b.tif", noise(1, dtype=np.float32), nodata=-9999),
    ]
    header = read_header(files)
    assert header.nodata is None
    assert header.band_nodata == (0, -9999)
    assert header.dtype == "float32"


def test_band_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    one = write_tiff(tmp_path / "one.tif", noise(1, 40, 50))
    other_crs = write_tiff(tmp_path / "crs.tif", noise(1, 40, 50), crs="EPSG:32634")
    elsewhere = write_tiff(
        tmp_path / "else.tif", noise(1, 40, 50), transform=Affine(10, 0, 500_100, 0, -10, 5_000_000)
    )
    turned = write_tiff(
        tmp_path / "turned.tif", noise(1, 40, 50), transform=Affine(0, 10, 500_000, -10, 0, 5_000_000)
    )
    several = write_tiff(tmp_path / "several.tif", noise(3, 40, 50))
    for other, words in (
        (other_crs, "not in the same CRS"),
        (elsewhere, "do not cover the same ground"),
        (turned, "turned against each other"),
        (several, "has 3 bands, but files given together hold one band each"),
    ):
        with pytest.raises(ImageryError, match=words) as error:
            read_header([one, other])
        assert str(other) in str(error.value)
    with pytest.raises(ImageryError, match="at least one file"):
        read_header([])


def test_bigearthnet_in_its_original_files(data_dir: Path) -> None:
    patch = next(
        path for path in sorted((data_dir / "s1s2" / "bigearthnet_original").rglob("*_B02.tif*"))
    ).parent
    files = sorted(patch.glob("*_B[0-9]*.tif*"))
    header = read_header(files)
    assert (header.width, header.height) == (120, 120)
    assert header.bands == len(files) >= 10
    assert header.gsd == pytest.approx(10, rel=1e-3)
