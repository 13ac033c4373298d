"""What products' names and companions say: dates, levels, layers, and what is not read at all."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from helpers.rasters import noise, write_tiff
from swath.catalog.catalog import build_catalog
from swath.catalog.products.dates import time_from_name
from swath.catalog.products.layers import layer_of
from swath.sensors.registry import get_sensor
from swath.sensors.sentinel2_level import detect_level


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("path", "time"),
    [
        ("a/T36KVU_20210513T073609_B02_10m.tif", utc(2021, 5, 13, 7, 36, 9)),
        ("S2B_MSIL2A_20191105T101141_N0213_R022_T32TQM_2019.SAFE/x/B02.tif", utc(2019, 11, 5, 10, 11, 41)),
        ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57/b.tif", utc(2017, 6, 13, 10, 10, 31)),
        ("S2A_33UUP_20230701_0_L2A/B04.tif", utc(2023, 7, 1)),
        ("S1A_IW_GRDH_1SDV_20230702T165910_20230702T165935_049246.tif", utc(2023, 7, 2, 16, 59, 10)),
        ("LC09_L2SP_193026_20230715_20230717_02_T1/SR_B2.TIF", utc(2023, 7, 15)),
        ("HLS.S30.T17SLU.2020209T155956.v2.0.B04.tif", utc(2020, 7, 27, 15, 59, 56)),
        ("m_3807708_sw_18_060_20191026.tif", utc(2019, 10, 26)),
        ("m_3807708_sw_18_060_20191026_20200115.tif", utc(2019, 10, 26)),
        ("20230701_095601_12_24a5_3B_AnalyticMS_SR_8b_clip.tif", utc(2023, 7, 1, 9, 56, 1)),
        ("site4_20190514_ortho.tif", None),  # a free name: eight digits may be anything
        ("scene_12345678.tif", None),
        ("T36KVU_20219913T073609_B02.tif", None),
    ],
)  # fmt: skip
def test_the_date_in_a_products_name(path: str, time: datetime | None) -> None:
    assert time_from_name(path) == time


def test_the_products_date_counts_before_a_tag(tmp_path: Path) -> None:
    tags = {"TIFFTAG_DATETIME": "2023:11:02 10:00:00", "ACQUISITION_DATE": "2021-03-02"}
    write_tiff(tmp_path / "m_3807708_sw_18_060_20191026.tif", noise(4, 20, 20, np.uint8), tags=tags)
    write_tiff(
        tmp_path / "ortho.tif", noise(3, 20, 20, np.uint8), tags={"TIFFTAG_DATETIME": "2023:11:02 10:00:00"}
    )
    times = {Path(header.path).name: header.time for header in build_catalog(tmp_path).scenes}
    assert times == {"m_3807708_sw_18_060_20191026.tif": utc(2019, 10, 26), "ortho.tif": None}


def test_landsats_metadata_gives_the_time_of_day(tmp_path: Path) -> None:
    product = "LC09_L2SP_193026_20230715_20230717_02_T1"
    for band in get_sensor("landsat89_l2").band_names:
        write_tiff(tmp_path / f"{product}_{band}.TIF", noise(1, 20, 20))
    assert build_catalog(tmp_path).scenes[0].time == utc(2023, 7, 15)
    text = '  DATE_ACQUIRED = 2023-07-15\n  SCENE_CENTER_TIME = "10:11:12.3456789Z"\n'
    (tmp_path / f"{product}_MTL.txt").write_text(text)
    assert build_catalog(tmp_path).scenes[0].time == utc(2023, 7, 15, 10, 11, 12)


@pytest.mark.parametrize(
    ("stem", "layer"),
    [
        ("T33UUP_20210513T073609_TCI_10m", ("T33UUP_20210513T073609", "TCI")),
        ("20230701_095601_12_24a5_3B_udm2_clip", ("20230701_095601_12_24a5_3B", "UDM2")),
        ("LC08_SR_QA_AEROSOL", ("LC08", "SR_QA_AEROSOL")),
        ("visual", ("", "VISUAL")),
        ("T33UUP_B02", None),
        ("quality_street", None),
    ],
)
def test_layers_by_name(stem: str, layer: tuple[str, str] | None) -> None:
    assert layer_of(stem) == layer


def test_layers_are_counted_and_left_out_beside_an_image_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "scene").mkdir()
    write_tiff(tmp_path / "scene" / "p_3B_AnalyticMS.tif", noise(4, 20, 20))
    for layer in ("udm2", "DN_udm"):
        write_tiff(tmp_path / "scene" / f"p_3B_{layer}.tif", noise(8, 20, 20, np.uint8))
    with caplog.at_level(logging.WARNING, "swath"):
        catalog = build_catalog(tmp_path)
    assert [Path(header.path).name for header in catalog.scenes] == ["p_3B_AnalyticMS.tif"]
    assert not catalog.problems
    assert "1 DN_UDM, 1 UDM2" in caplog.text
    (tmp_path / "scene" / "p_3B_AnalyticMS.tif").unlink()
    assert len(build_catalog(tmp_path).scenes) == 2  # a folder of masks is imagery


@pytest.mark.parametrize("evidence", ["tag", "type", "name"])
@pytest.mark.parametrize(("level", "sensor"), [("1C", "sentinel2_l2a"), ("2A", "sentinel2_l1c")])
def test_a_scene_of_another_level_is_refused(tmp_path: Path, evidence: str, level: str, sensor: str) -> None:
    tags = {
        "tag": {"PROCESSING_LEVEL": f"L{level}"},
        "type": {"PRODUCT_TYPE": f"S2MSI{level}"},
    }
    name = f"S2A_MSIL{level}_20230701T095601_N0509_R122_T33UUP_20230701T120000" if evidence == "name" else "a"
    bands = [band.name for band in get_sensor("sentinel2_l1c").bands]
    write_tiff(tmp_path / f"{name}.tif", noise(13, 20, 20), descriptions=bands, tags=tags.get(evidence, {}))
    catalog = build_catalog(tmp_path, sensor=sensor)
    assert not catalog.scenes
    right = {"sentinel2_l2a": "sentinel2_l1c", "sentinel2_l1c": "sentinel2_l2a"}[sensor]
    assert right in catalog.problems[0][1]
    assert build_catalog(tmp_path, sensor=right).scenes


def test_the_level_that_stac_states() -> None:
    assert detect_level({"s2:product_type": "S2MSI1C"}, "a.tif") == ("1C", "s2:product_type = S2MSI1C")
    assert detect_level({"processing:level": "L2A"}, "a.tif") == ("2A", "processing:level = L2A")
    assert detect_level({"note": "Level-1C"}, "a.tif") is None


def test_band_ten_alone_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bands = [band.name for band in get_sensor("sentinel2_l1c").bands]
    write_tiff(tmp_path / "a.tif", noise(13, 20, 20), descriptions=bands)
    assert build_catalog(tmp_path, sensor="sentinel2_l2a").scenes
    assert "B10" in caplog.text


def test_formats_that_are_not_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tiff(tmp_path / "a.tif", noise())
    for name in ("b.jp2", "c.JP2", "d.nc", "e.img", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "f.zarr" / "0").mkdir(parents=True)
    (tmp_path / "f.zarr" / "0" / "g.tif").write_bytes(b"x")
    assert len(build_catalog(tmp_path).entries) == 1
    assert "5 files of formats that are not read: 1 .img, 2 .jp2, 1 .nc, 1 .zarr" in caplog.text


def test_links_to_folders_are_entered_once(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "scenes").mkdir()
    for name in ("x", "y"):
        write_tiff(tmp_path / "store" / f"{name}.tif", noise())
    (tmp_path / "scenes" / "2020").symlink_to(tmp_path / "store")
    (tmp_path / "scenes" / "again").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "back").symlink_to(tmp_path / "scenes")
    (tmp_path / "scenes" / "gone.tif").symlink_to(tmp_path / "nowhere.tif")
    catalog = build_catalog(tmp_path / "scenes")
    assert {Path(header.path).name for header in catalog.scenes} == {"x.tif", "y.tif"}
    assert [Path(path).name for path, _ in catalog.problems] == ["gone.tif"]


@pytest.mark.parametrize("names", ["ABCDEFGN", ("B1", "B2", "B3", "B8A")])
def test_a_file_of_three_bands_is_no_band_file(tmp_path: Path, names: str) -> None:
    for name in names:
        write_tiff(tmp_path / f"sheet_{name}.tif", noise(3, 20, 20, np.uint8))
    catalog = build_catalog(tmp_path)
    assert len(catalog.scenes) == len(names)
    assert not catalog.problems


def test_a_damaged_text_is_a_listed_problem(tmp_path: Path) -> None:
    """A citation key whose text is cut short, in one file of two."""
    write_tiff(tmp_path / "a.tif", noise())
    path = write_tiff(tmp_path / "b.tif", noise(seed=1))
    data = bytearray(path.read_bytes())
    at = data.index(b"WGS 84 / UTM zone 33N|")
    data[at : at + 22] = b"\0" * 22
    count = data.index((34737).to_bytes(2, "little")) + 4  # the tag of GeoAsciiParams: its length
    data[count : count + 4] = (2).to_bytes(4, "little")
    path.write_bytes(data)
    catalog = build_catalog(tmp_path)
    assert "a.tif" in {Path(header.path).name for header in catalog.scenes}
    assert all("again" in reason for _, reason in catalog.problems)
