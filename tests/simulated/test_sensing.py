"""What sensors see of a landscape: sane spectra and backscatter, speckle as stated, one ground for all."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from swath.errors import ImageryError
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.simulated import CLASSES, Landscape, optical, radar, render, simulate_landscape, simulate_pair
from swath.simulated.landscape.primitives import LandscapePlan
from swath.simulated.landscape.rasterize import rasterize
from swath.simulated.landscape.surfaces import FIRST, MATERIALS, SURFACES, material_fractions, spectra

S2 = get_sensor("sentinel2_ben")
LINEAR = get_sensor("sentinel1_grd_linear")
INDEX = {name: number for number, name in enumerate(CLASSES)}


def uniform(surface: str, index: int = 0, size: int = 120) -> Landscape:
    """A landscape of nothing but one patch."""
    square = np.array([(-700.0, -700), (700, -700), (700, 700), (-700, 700)])
    return rasterize(LandscapePlan(1280.0, [(FIRST[surface], square)]), 0, index, size=size, gsd=10.0)


def reduced(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    return np.stack(
        [np.asarray(Image.fromarray(band).resize((side, side), Image.Resampling.BOX)) for band in image]
    )


# ---- optical


def test_materials_are_reflectances_and_mixes_are_shares() -> None:
    table = spectra(np.arange(443, 2191, 10.0))
    assert table.shape == (len(MATERIALS), 175)
    assert table.min() > 0
    assert table.max() < 0.7
    assert np.allclose(material_fractions().sum(axis=1), 1)


@pytest.mark.parametrize("surface", ["broad-leaved trees", "coniferous trees"])
def test_forest_is_green_in_every_scene(surface: str) -> None:
    for index in range(20):
        image = optical.render_optical(uniform(surface, index, 40), S2).mean(axis=(1, 2))
        red, nir = image[S2.index("B04")], image[S2.index("B08")]
        assert (nir - red) / (nir + red) > 0.5
        assert image[S2.index("B12")] < image[S2.index("B11")] < nir


@pytest.mark.parametrize("surface", ["lake", "river"])
def test_water_is_dark_in_the_infrared(surface: str) -> None:
    for index in range(20):
        image = optical.render_optical(uniform(surface, index, 40), S2).mean(axis=(1, 2))
        assert image[S2.index("B08")] < 0.09
        assert image[S2.index("B11")] < 0.05
        assert image[S2.index("B03")] > image[S2.index("B11")]


def test_classes_overlap_in_their_spectra() -> None:
    """No single threshold on the vegetation index parts arable land from meadows or woods."""
    found: dict[str, list[float]] = {"crop": [], "meadow": [], "broad-leaved trees": []}
    for surface, values in found.items():
        for index in range(30):
            image = optical.render_optical(uniform(surface, index, 16), S2).mean(axis=(1, 2))
            red, nir = image[S2.index("B04")], image[S2.index("B08")]
            values.append(float((nir - red) / (nir + red)))
    assert min(found["crop"]) < 0.35
    assert max(found["crop"]) > np.percentile(found["broad-leaved trees"], 10)
    assert min(found["crop"]) < np.median(found["meadow"]) < max(found["crop"])


def test_coarser_bands_are_smooth_on_the_common_grid() -> None:
    ground = simulate_landscape(5, 4)
    shown, native = optical.render_optical(ground, S2), optical.render_optical(ground, S2, common_grid=False)
    assert np.array_equal(shown[S2.index("B04")], native[S2.index("B04")])
    steps = [np.abs(np.diff(image[S2.index("B05")], axis=1)).mean() for image in (shown, native)]
    assert steps[0] < 0.8 * steps[1]
    assert shown[S2.index("B05")].mean() == pytest.approx(native[S2.index("B05")].mean(), rel=0.01)


def test_thin_cloud_brightens_and_is_off_by_default() -> None:
    ground = simulate_landscape(5, 3)
    clear = optical.render_optical(ground, S2)
    assert np.array_equal(clear, optical.render_optical(ground, S2, cloud=0.0))
    cloudy = optical.render_optical(ground, S2, cloud=0.6)
    assert cloudy[0].mean() > clear[0].mean() + 0.05


def test_photographs_fill_their_bytes() -> None:
    chip = render(simulate_landscape(5, 2, size=200, gsd=1.0), "rgb_aerial")
    assert chip.image.dtype == np.uint8
    assert chip.image.shape == (3, 200, 200)
    means = [render(simulate_landscape(5, i, size=64, gsd=3.0), "rgb_aerial").image.mean() for i in range(12)]
    assert 60 < np.mean(means) < 190
    assert np.std(means) > 8


# ---- radar


@pytest.mark.parametrize("looks", [1.0, 4.4, 20.0])
def test_speckle_has_the_stated_looks(looks: float) -> None:
    ground = uniform("meadow")
    mean = radar.render_radar(ground, LINEAR, looks=looks, speckle=False)
    speckle = (radar.render_radar(ground, LINEAR, looks=looks) / mean)[:, 8:-8, 8:-8].astype(np.float64)
    assert speckle.mean() == pytest.approx(1, abs=0.02)
    assert speckle.mean() ** 2 / speckle.var() == pytest.approx(looks, rel=0.12)
    # Close to a gamma distribution, whose skewness is 2 / sqrt(looks); neighbors overlap a little.
    skewness = ((speckle - speckle.mean()) ** 3).mean() / speckle.std() ** 3
    assert skewness == pytest.approx(2 / np.sqrt(looks), rel=0.3)
    neighbors = np.corrcoef(speckle[0, :, 1:].ravel(), speckle[0, :, :-1].ravel())[0, 1]
    assert 0.2 < neighbors < 0.55
    assert abs(np.corrcoef(speckle[0].ravel(), speckle[1].ravel())[0, 1]) < 0.03


def test_surfaces_answer_the_radar_as_they_should() -> None:
    def power(surface: str) -> NDArray[np.float64]:
        seen = [
            radar.render_radar(uniform(surface, index, 24), LINEAR).mean(axis=(1, 2)) for index in range(15)
        ]
        return 10 * np.log10(np.mean(seen, axis=0, dtype=np.float64))

    water, forest, meadow, houses = (power(name) for name in ("lake", "coniferous trees", "meadow", "house"))
    assert water[0] < meadow[0] < forest[0] < houses[0]
    assert water[1] < meadow[1] < forest[1] < houses[1]
    assert all(vv - vh > 3 for vv, vh in (water, forest, meadow, houses))
    assert -13 < forest[0] < -6
    assert houses[0] > -5


def test_buildings_shine_and_lakes_are_dark_in_whole_scenes() -> None:
    brighter = darker = seen_towns = seen_lakes = 0
    for index in range(40):
        ground = simulate_landscape(8, index)
        vv = render(ground, "sentinel1_grd").image[0]
        open_land = np.isin(ground.mask, [INDEX["arable land"], INDEX["pasture"]])
        town, lake = ground.mask == INDEX["settlement"], ground.mask == INDEX["water"]
        if open_land.sum() > 900 and town.sum() > 300:
            seen_towns, brighter = seen_towns + 1, brighter + (vv[town].mean() > vv[open_land].mean())
        if open_land.sum() > 900 and lake.sum() > 300:
            seen_lakes, darker = seen_lakes + 1, darker + (vv[lake].mean() < vv[open_land].mean())
    assert min(seen_towns, seen_lakes) >= 3
    assert brighter == seen_towns
    assert darker >= 0.6 * seen_lakes  # wind may roughen a lake to a field's brightness


def test_decibels_are_those_of_the_power() -> None:
    ground = simulate_landscape(5, 1)
    order = [get_sensor("sentinel1_grd").index(name) for name in LINEAR.band_names]
    decibel = radar.render_radar(ground, get_sensor("sentinel1_grd"))[order]
    assert np.allclose(decibel, 10 * np.log10(radar.render_radar(ground, LINEAR)), atol=1e-3)
    swapped = radar.render_radar(ground, get_sensor("sentinel1_ben"))
    assert get_sensor("sentinel1_ben").band_names == ("VH", "VV")
    assert np.array_equal(swapped[::-1], radar.render_radar(ground, get_sensor("sentinel1_grd")))


# ---- pairs


def test_sensors_draw_their_own_weather_and_share_the_ground() -> None:
    pair = simulate_pair(1, 3)
    again = simulate_pair(1, 3)
    alone = simulate_pair(1, 3, sensors=["sentinel2_ben"])
    assert list(pair) == ["sentinel1_ben", "sentinel2_ben"]
    for name, chip in pair.items():
        assert np.array_equal(chip.image, again[name].image)
        assert chip.valid.all()
        assert chip.gsd == 10.0
    # A sensor's image does not depend on who else looks.
    assert np.array_equal(pair["sentinel2_ben"].image, alone["sentinel2_ben"].image)


@pytest.mark.parametrize("index", range(4))
def test_three_metres_averaged_look_like_ten(index: int) -> None:
    coarse, fine = simulate_landscape(3, index), simulate_landscape(3, index, size=400, gsd=3.0)
    ten = optical.render_optical(coarse, S2, common_grid=False)
    three = reduced(optical.render_optical(fine, S2, common_grid=False), 120)
    assert ten.mean(axis=(1, 2)) == pytest.approx(three.mean(axis=(1, 2)), rel=0.04)
    assert ten.std(axis=(1, 2)) == pytest.approx(three.std(axis=(1, 2)), rel=0.2)
    assert min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(ten, three, strict=True)) > 0.75
    ten = radar.render_radar(coarse, LINEAR, speckle=False)
    three = reduced(radar.render_radar(fine, LINEAR, speckle=False), 120)
    off = 10 * np.log10(ten.mean(axis=(1, 2)) / three.mean(axis=(1, 2)))
    assert np.abs(off).max() < 0.3
    for a, b in zip(ten, three, strict=True):
        assert np.corrcoef(np.log(a).ravel(), np.log(b).ravel())[0, 1] > 0.85


def test_sensors_of_different_gsd_see_one_footprint() -> None:
    gsd = {"sentinel1_grd": 10.0, "rgb_aerial": 3.0}
    pair = simulate_pair(2, 0, sensors=list(gsd), gsd=gsd)
    assert pair["sentinel1_grd"].image.shape == (2, 120, 120)
    assert pair["rgb_aerial"].image.shape == (3, 400, 400)
    assert pair["rgb_aerial"].gsd == 3.0


def test_what_cannot_be_simulated_is_refused() -> None:
    ground = simulate_landscape(0, 0, size=8)
    lidar = Sensor.from_dict({"name": "lidar", "bands": [{"name": "height", "unit": "metres"}]})
    with pytest.raises(ImageryError, match="in metres: what can be simulated"):
        render(ground, lidar)
    nameless = Sensor.from_dict({"name": "x", "bands": [{"name": "a", "unit": "reflectance"}]})
    with pytest.raises(ImageryError, match="band 'a': cannot be simulated without a wavelength"):
        render(ground, nameless)
    odd = Sensor.from_dict({"name": "x", "bands": [{"name": "entropy", "unit": "dB"}]})
    with pytest.raises(ImageryError, match="VV, VH, HH or HV"):
        render(ground, odd)
    with pytest.raises(ImageryError, match="looks=0"):
        radar.render_radar(ground, LINEAR, looks=0)
    with pytest.raises(ImageryError, match="no whole number"):
        simulate_pair(0, 0, sensors=["sentinel1_grd", "rgb_aerial"],
                      gsd={"sentinel1_grd": 10, "rgb_aerial": 7})  # fmt: skip
    with pytest.raises(ImageryError, match="give one to each"):
        simulate_pair(0, 0, gsd={"sentinel1_ben": 10})
    with pytest.raises(ImageryError, match="each once"):
        simulate_pair(0, 0, sensors=["sentinel1_ben", "sentinel1_ben"])


def test_surfaces_are_fewer_than_a_byte_holds() -> None:
    assert sum(surface.patches for surface in SURFACES) < 256
