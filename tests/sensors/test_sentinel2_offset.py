"""Sentinel-2's offset: stated, found where something says it, never guessed."""

from __future__ import annotations

import pytest

from swath.errors import ImageryError
from swath.sensors.registry import get_sensor
from swath.sensors.sentinel2_offset import detect_offset_dn, resolve_offset_dn

NEW = "S2A_MSIL2A_20220212T101031_N0400_R022_T33UUP_20220212T140559.SAFE"
OLD = "S2B_MSIL1C_20170613T101031_N0205_R022_T33UUP_20170613T101608"


@pytest.mark.parametrize(
    ("given", "offset"),
    [
        ({"tags": {"BOA_ADD_OFFSET": "-1000"}}, -1000),
        ({"tags": {"RADIO_ADD_OFFSET_VALUES_LIST": "-1000 -1000 -1000"}}, -1000),
        ({"tags": {"PROCESSING_BASELINE": "05.09"}}, -1000),
        ({"tags": {"PROCESSING_BASELINE": "02.14"}}, 0),
        ({"stac": {"s2:processing_baseline": "04.00"}}, -1000),
        ({"stac": {"processing:version": "03.01"}}, 0),
        ({"stac": {"s2:processing_baseline": "05.00", "earthsearch:boa_offset_applied": True}}, 0),
        ({"stac": {"s2:processing_baseline": "05.00", "earthsearch:boa_offset_applied": False}}, -1000),
        ({"path": f"archive/{NEW}/GRANULE/B02.tif"}, -1000),
        ({"path": f"archive/{OLD}_B02.tif"}, 0),
        ({"path": "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57_B02.tif"}, None),
        ({"path": "S2A_MSIL2A_20170613T101031_0_45_B02.tif"}, None),
        ({"path": "scene.tif", "tags": {"PROCESSING_LEVEL": "L1C"}}, None),
    ],
)
def test_what_says_the_offset(given: dict[str, object], offset: float | None) -> None:
    found = detect_offset_dn(**given)  # type: ignore[arg-type]
    assert (None if found is None else found[0]) == offset


def test_a_date_decides_nothing_and_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(ImageryError, match=r"a.tif: nothing says.*`offset_dn`.*: -1000 from baseline 04.00"):
        resolve_offset_dn(get_sensor("sentinel2_l2a"), path="a.tif", tags={"ACQUISITION_DATE": "2017-06-13"})


def test_what_the_user_states_is_for_files_that_say_nothing() -> None:
    sensor = get_sensor("sentinel2_l2a")
    assert resolve_offset_dn(sensor, given=0, tags={"BOA_ADD_OFFSET": "-1000"})[0] == -1000
    assert resolve_offset_dn(sensor, given=0, path="a.tif") == (0.0, "stated")
    assert resolve_offset_dn(sensor, path=NEW)[0] == -1000


def test_other_sensors_have_no_such_offset() -> None:
    assert resolve_offset_dn(get_sensor("landsat89_l2"), path=NEW)[0] == 0


def test_different_offsets_for_different_bands_are_refused() -> None:
    with pytest.raises(ImageryError, match="one offset for all"):
        detect_offset_dn(tags={"BOA_ADD_OFFSET_VALUES_LIST": "-1000 -900"})


def test_sentinel2_under_another_name_has_the_offset_too() -> None:
    sensor = get_sensor("sentinel2_l2a").select(["B02", "B8A"]).model_copy(update={"name": "my_sentinel"})
    assert resolve_offset_dn(sensor, path=NEW)[0] == -1000
    with pytest.raises(ImageryError, match="nothing says"):
        resolve_offset_dn(sensor, path="a.tif")
    aerial = get_sensor("naip").model_copy(update={"name": "B02"})
    assert resolve_offset_dn(aerial, path=NEW)[0] == 0
