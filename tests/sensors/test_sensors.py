"""Sensors: the built-in ones are right, a user's own is checked, bands match by name, units convert."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from swath.errors import ImageryError, SwathError
from swath.sensors.matching import match_band_by_filename, match_bands
from swath.sensors.registry import (
    get_sensor,
    list_sensors,
    read_sensor,
    register_sensor,
    sensors,
    write_sensor,
)
from swath.sensors.sensor import Band, Sensor
from swath.sensors.units import to_unit

BUILT_IN = [
    "landsat89_l2",
    "naip",
    "rgb_aerial",
    "sentinel1_ben",
    "sentinel1_grd",
    "sentinel1_grd_linear",
    "sentinel2_ben",
    "sentinel2_l1c",
    "sentinel2_l2a",
]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# -------------------------------------------------------------------------------------------------- built in


def test_the_built_in_sensors_are_listed() -> None:
    assert set(BUILT_IN) <= set(list_sensors())


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_sensor_is_complete(name: str) -> None:
    sensor = get_sensor(name)
    assert sensor.name == name
    assert sensor.title
    assert sensor.description
    assert sensor.unit != "mixed"
    if any(band.mean is not None for band in sensor.bands):
        assert sensor.statistics_source


def test_sentinel2_has_the_bands_of_its_products() -> None:
    l1c, l2a = get_sensor("sentinel2_l1c"), get_sensor("sentinel2_l2a")
    assert len(l1c.bands) == 13
    assert len(l2a.bands) == 12
    assert set(l1c.band_names) - set(l2a.band_names) == {"B10"}
    assert [band.gsd for band in l2a.select(["B02", "B8A", "B09"]).bands] == [10, 20, 60]


def test_sentinel2_statistics_are_bigearthnets_in_reflectance() -> None:
    band = get_sensor("sentinel2_l2a").bands[1]
    assert band.mean == pytest.approx(429.9430203 / 10000)
    assert band.std == pytest.approx(572.41639287 / 10000)


def test_sentinel1_is_vv_then_vh_in_db_and_notes_its_orbit() -> None:
    sensor = get_sensor("sentinel1_grd")
    assert sensor.band_names == ("VV", "VH")
    assert sensor.unit == "dB"
    assert sensor.orbit == "both"
    assert get_sensor("sentinel1_grd_linear").unit == "linear"


def test_statistics_that_nobody_has_measured_are_not_invented() -> None:
    sensor = get_sensor("sentinel2_l1c")
    assert not sensor.has_statistics
    with pytest.raises(ImageryError, match=r"no mean for band B01.*swath inspect DIR --statistics"):
        _ = sensor.mean


def test_landsat_scale_and_offset_give_reflectance() -> None:
    sensor = get_sensor("landsat89_l2").select(["SR_B4"])
    value = to_unit(np.full((1, 1, 1), 13705, np.uint16), sensor)
    assert value.item() == pytest.approx(13705 * 2.75e-5 - 0.2, abs=1e-6)


# ------------------------------------------------------------------------------------------------- the class


def test_a_sensor_survives_json_pickle_and_yaml(tmp_path: Path) -> None:
    for name in BUILT_IN:
        sensor = get_sensor(name)
        assert Sensor.from_dict(json.loads(json.dumps(sensor.to_dict()))) == sensor
        assert pickle.loads(pickle.dumps(sensor)) == sensor
        write_sensor(sensor, tmp_path / "sensor.yaml")
        assert read_sensor(tmp_path / "sensor.yaml") == sensor
        assert hash(sensor) == hash(get_sensor(name))


def test_select_takes_names_and_common_names_in_the_order_asked_for() -> None:
    sensor = get_sensor("sentinel2_l2a").select(["red", "B03", "blue"])
    assert sensor.band_names == ("B04", "B03", "B02")
    assert sensor.name == "sentinel2_l2a"


def test_select_of_an_unknown_band_suggests_one() -> None:
    with pytest.raises(ImageryError, match=r"no band 'B8a'.*Did you mean 'B8A'"):
        get_sensor("sentinel2_l2a").select(["B8a"])
    with pytest.raises(TypeError):
        get_sensor("sentinel2_l2a").select("B02")


def test_with_statistics_replaces_them_and_names_their_source() -> None:
    sensor = get_sensor("sentinel1_grd_linear").with_statistics([0.1, 0.02], [0.2, 0.03], "my archive")
    assert sensor.mean == [0.1, 0.02]
    assert sensor.std == [0.2, 0.03]
    assert sensor.statistics_source == "my archive"
    with pytest.raises(ImageryError, match=r"bands\[1\].std"):
        sensor.with_statistics([0.1, 0.02], [0.2, 0.0], "constant band")


def test_bands_of_several_units_are_called_mixed() -> None:
    sensor = Sensor(name="x", bands=(Band(name="a", unit="dB"), Band(name="b", unit="kelvin")))
    assert sensor.unit == "mixed"


def test_threads_that_ask_first_at_the_same_time_all_get_their_sensor() -> None:
    """In a process of its own, where nobody has asked before."""
    script = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from swath.sensors.registry import get_sensor
together = Barrier(8)
def ask(_):
    together.wait()
    return get_sensor("naip").name
with ThreadPoolExecutor(8) as pool:
    print(set(pool.map(ask, range(8))))
"""
    asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert asked.stdout.strip() == "{'naip'}", asked.stderr


def test_an_unknown_sensor_name_suggests_one() -> None:
    with pytest.raises(SwathError, match=r"unknown sensor 'sentinel2_l2'. Did you mean 'sentinel2_l2a'"):
        get_sensor("sentinel2_l2")


def test_a_registered_sensor_is_found_and_its_name_is_taken_once() -> None:
    sensor = Sensor(name="test_only_camera", bands=(Band(name="a", unit="DN"),))
    try:
        assert register_sensor(sensor) is sensor
        assert get_sensor("test_only_camera") is sensor
        with pytest.raises(ValueError, match="already registered"):
            register_sensor(Sensor(name="naip", bands=(Band(name="a", unit="DN"),)))
    finally:
        sensors._members.pop("test_only_camera", None)


# --------------------------------------------------------------------------------------------- a user's YAML


def test_a_users_own_sensor_is_read_from_yaml_with_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path / "drone.yaml",
        "name: my_drone\ndefaults: {unit: reflectance, scale: 0.0001, nodata: 0}\n"
        "bands:\n  - {name: blue, wavelength: 475}\n  - {name: green, scale: 0.001, mean: 0.06, std: 0.03}\n",
    )
    for given in (path, str(path)):
        sensor = get_sensor(given)
        assert [band.scale for band in sensor.bands] == [0.0001, 0.001]
        assert [band.nodata for band in sensor.bands] == [0, 0]


WRONG = {
    "unknown key of a band": (
        "name: a\nbands: [{name: x, unit: DN, wavelenght: 5}]",
        r"bands\[0\].wavelenght: unknown key. Did you mean 'wavelength'",
    ),
    "unknown key of the sensor": (
        "name: a\ntitel: b\nbands: [{name: x, unit: DN}]",
        r"titel: unknown key. Did you mean 'title'",
    ),
    "unknown unit": ("name: a\nbands: [{name: x, unit: reflectence}]", r"bands\[0\].unit.*'reflectance'"),
    "missing unit": ("name: a\nbands: [{name: x}]", r"bands\[0\].unit: missing; add it"),
    "missing bands": ("name: a", r"bands: missing; add it"),
    "no bands": ("name: a\nbands: []", r"bands:"),
    "wrong type": (
        "name: a\nbands: [{name: x, unit: DN, gsd: ten}]",
        r"bands\[0\].gsd: .*number.*\(it is 'ten'\)",
    ),
    "negative gsd": ("name: a\nbands: [{name: x, unit: DN, gsd: -1}]", r"bands\[0\].gsd: .*greater than 0"),
    "infinite scale": ("name: a\nbands: [{name: x, unit: DN, scale: .inf}]", r"bands\[0\].scale: .*finite"),
    "scale of zero": ("name: a\nbands: [{name: x, unit: DN, scale: 0}]", r"bands\[0\].scale: .*same"),
    "mean without std": ("name: a\nbands: [{name: x, unit: DN, mean: 1}]", r"bands\[0\]: .*give both"),
    "name with a capital": ("name: My Drone\nbands: [{name: x, unit: DN}]", r"name: 'My Drone'.*lower-case"),
    "orbit": ("name: a\norbit: up\nbands: [{name: x, unit: DN}]", r"orbit: 'up'.*ascending"),
    "a band twice": ("name: a\nbands: [{name: x, unit: DN}, {name: x, unit: DN}]", r"twice: x"),
    "a key twice": ("name: a\nname: b\nbands: [{name: x, unit: DN}]", r"key given twice: name"),
    "wrong defaults": (
        "name: a\ndefaults: {units: DN}\nbands: [{name: x}]",
        r"defaults.units: unknown. Did you mean 'unit'",
    ),
    "defaults no mapping": (
        "name: a\ndefaults: DN\nbands: [{name: x}]",
        r"defaults: a mapping of band fields",
    ),
    "no mapping": ("- a\n- b", r"a mapping with `name` and `bands`"),
    "empty": ("", r"a mapping with `name` and `bands`"),
    "no yaml": ("name: [", r"not valid YAML"),
    "code": ("name: !!python/object/apply:os.getcwd []", r"not valid YAML"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_sensor_file_is_explained(what: str, tmp_path: Path) -> None:
    text, message = WRONG[what]
    path = write(tmp_path / "own.yaml", text)
    with pytest.raises(ImageryError, match=message) as error:
        read_sensor(path)
    assert str(path) in str(error.value)


def test_all_wrong_keys_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "own.yaml", "name: a\ncolor: 1\nbands: [{unit: DN}, {name: b, unit: db}]")
    with pytest.raises(ImageryError) as error:
        read_sensor(path)
    for expected in ("color: unknown key", "bands[0].name: missing", "Did you mean 'dB'"):
        assert expected in str(error.value)


def test_a_missing_sensor_file_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match=r"nowhere.yaml: cannot read"):
        get_sensor(tmp_path / "nowhere.yaml")


# -------------------------------------------------------------------------------------------- matching bands


def test_bands_are_found_by_description_whatever_their_order() -> None:
    sensor = get_sensor("sentinel2_l2a").select(["B02", "B8A"])
    assert match_bands(sensor, ["B8A", "B01", "B2"]) == [2, 0]
    assert match_bands(get_sensor("naip"), ["nir", "red", "green", "blue"]) == [1, 2, 3, 0]


def test_a_12_band_sensor_reads_the_13_band_file_without_b10() -> None:
    l1c, l2a = get_sensor("sentinel2_l1c"), get_sensor("sentinel2_l2a")
    assert match_bands(l2a, l1c.band_names) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12]


def test_position_decides_only_for_files_without_descriptions_and_with_the_same_count() -> None:
    rgb = get_sensor("rgb_aerial")
    assert match_bands(rgb, ["", "", ""]) == [0, 1, 2]
    assert match_bands(rgb, [None, None, None]) == [0, 1, 2]
    assert match_bands(rgb, ["Band 1", "Band 2", "Band 3"]) == [0, 1, 2]
    with pytest.raises(ImageryError, match=r"a.tif has 4 bands, sensor 'rgb_aerial' wants 3"):
        match_bands(rgb, [""] * 4, "a.tif")


def test_wrong_descriptions_are_not_taken_by_position() -> None:
    with pytest.raises(ImageryError, match=r"VV, VH.*not found: R, G, B"):
        match_bands(get_sensor("rgb_aerial"), ["VV", "VH", "ratio"])


@pytest.mark.parametrize(
    ("sensor", "name", "band"),
    [
        ("sentinel2_l2a", "S2A_MSIL2A_20170613T101031_0_45_B02.tif", "B02"),
        ("sentinel2_l2a", "T33UUP_20220212T101031_B8A_20m.tif", "B8A"),
        ("sentinel2_l2a", "B1.tiff", "B01"),
        ("sentinel1_grd", "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39_VH.tif", "VH"),
        ("landsat89_l2", "LC08_L2SP_193024_20200101_20200201_02_T1_SR_B4.TIF", "SR_B4"),
        ("sentinel2_l2a", "S2A_MSIL2A_20170613T101031_0_45_SCL.tif", None),
    ],
)
def test_a_band_files_name_tells_its_band(sensor: str, name: str, band: str | None) -> None:
    found = match_band_by_filename(get_sensor(sensor), name)
    assert (None if found is None else get_sensor(sensor).band_names[found]) == band


# ----------------------------------------------------------------------------------------------------- units


def test_the_baseline_offset_is_added_before_scaling() -> None:
    sensor = get_sensor("sentinel2_l2a").select(["B02"])
    stored = np.array([[[1000, 1500, 900]]], np.uint16)
    assert to_unit(stored, sensor, offset_dn=-1000.0).ravel() == pytest.approx([0.0, 0.05, -0.01], abs=1e-7)
    assert to_unit(stored, sensor).ravel() == pytest.approx([0.1, 0.15, 0.09], abs=1e-7)


def test_uint8_stays_as_it_is() -> None:
    stored = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    assert to_unit(stored, get_sensor("rgb_aerial")) is stored


def test_sixteen_bits_are_no_display_values() -> None:
    with pytest.raises(ImageryError, match=r"uint8.*file holds uint16"):
        to_unit(np.zeros((3, 2, 2), np.uint16), get_sensor("rgb_aerial"))


def test_everything_else_becomes_float32() -> None:
    for dtype in (np.int16, np.uint32, np.float64):
        assert to_unit(np.ones((2, 1, 1), dtype), get_sensor("sentinel1_grd")).dtype == np.float32
        assert to_unit(np.ones((12, 1, 1), dtype), get_sensor("sentinel2_l2a")).dtype == np.float32


def test_conversion_agrees_with_double_precision() -> None:
    sensor = get_sensor("landsat89_l2")
    stored = np.random.default_rng(0).integers(0, 65536, (7, 30, 30)).astype(np.uint16)
    wanted = stored.astype(np.float64) * 2.75e-5 - 0.2
    assert np.abs(to_unit(stored, sensor) - wanted).max() < 5e-7


def test_a_wrong_number_of_bands_is_refused() -> None:
    with pytest.raises(ImageryError, match=r"\[12, H, W\] is wanted"):
        to_unit(np.zeros((13, 2, 2), np.uint16), get_sensor("sentinel2_l2a"))
    with pytest.raises(ImageryError, match="finite"):
        to_unit(np.zeros((12, 2, 2), np.uint16), get_sensor("sentinel2_l2a"), offset_dn=float("nan"))
