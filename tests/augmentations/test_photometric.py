"""Photometric changes keep to the physics of a sensor, to the samples' keys and to valid pixels."""

from __future__ import annotations

import math

import pytest
import torch

from swath.augmentations.blur import gaussian_blur
from swath.augmentations.photometric import PhotometricAugmentation, make_photometric
from swath.augmentations.photometric_options import (
    PhotometricStrengths,
    allowed_photometric,
    default_strengths,
)
from swath.augmentations.speckle import speckle_db
from swath.errors import RecipeError
from swath.keyed_random import normal, sample_keys
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor

LINEAR = get_sensor("sentinel1_grd_linear").with_statistics([0.2, 0.05], [0.3, 0.1], "made up")
HEIGHTS = Sensor(name="dem", bands=[{"name": "z", "unit": "metres", "mean": 100.0, "std": 50.0}])
OPTICAL, RADAR, RGB = map(get_sensor, ("sentinel2_l2a", "sentinel1_grd", "rgb_aerial"))
EVERY_OPTICAL = PhotometricStrengths(
    gain=0.3, band_gain=0.1, haze=0.5, contrast=0.3, blur=1.5, noise=0.1, panchromatic=0.5, band_drop=0.2
)


def batch_of(sensor, count=4, height=24, width=32, holes=False):
    """Normalized images of `sensor` whose values in the unit make sense."""
    generator = torch.Generator().manual_seed(7)
    image = 0.5 * torch.randn(count, len(sensor.bands), height, width, generator=generator)
    image = image + torch.randn(count, len(sensor.bands), 1, 1, generator=generator) * 0.3
    valid = torch.ones(count, height, width, dtype=torch.bool)
    if holes:
        valid = torch.rand(count, height, width, generator=generator) > 0.2
    image = image.masked_fill(~valid[:, None], 0.0)
    return {
        "image": image,
        "valid": valid,
        "key": sample_keys(3, 1, torch.arange(count)),
        "sensor": sensor.name,
    }


def in_unit(image, sensor):
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (sensor.mean, sensor.std))
    return image.double() * std + mean


CHANGES = [
    make_photometric("auto", OPTICAL),
    make_photometric("auto", RADAR),
    make_photometric("auto", LINEAR),
    make_photometric("auto", HEIGHTS),
    make_photometric("auto", RGB),
    make_photometric("paper", RGB),
    PhotometricAugmentation(OPTICAL, EVERY_OPTICAL),
    PhotometricAugmentation(RGB, PhotometricStrengths(solarize=0.5, gain=0.2)),
]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
@pytest.mark.parametrize("holes", [False, True])
def test_a_sample_is_the_same_alone_in_any_company_and_order(change, holes):
    batch = batch_of(getattr(change, "sensor", RGB), holes=holes)
    before, state = batch["image"].clone(), torch.get_rng_state()
    together = change(batch)["image"]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batch["image"], before), "the batch was changed in place"
    assert torch.equal(change(batch)["image"], together)
    assert not torch.equal(change(batch, "another")["image"], together)
    order = torch.tensor([2, 0, 3, 1])
    mixed = change({k: v if k == "sensor" else v[order] for k, v in batch.items()})["image"]
    assert torch.equal(mixed, together[order])
    alone = change({k: v if k == "sensor" else v[2:3] for k, v in batch.items()})["image"]
    torch.testing.assert_close(alone[0], together[2], rtol=1e-5, atol=1e-6)
    assert together.isfinite().all()
    assert not torch.equal(together[0], before[0])


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_what_is_not_valid_stays_zero_and_lends_nothing(change):
    sensor = getattr(change, "sensor", RGB)
    batch = batch_of(sensor, holes=True)
    hidden = ~batch["valid"][:, None].expand_as(batch["image"])
    new = change(batch)["image"]
    assert new[hidden].eq(0).all()
    # Whatever lies under the holes, nobody sees it.
    other = {**batch, "image": batch["image"].masked_fill(hidden, 40.0)}
    torch.testing.assert_close(change(other)["image"], new)


@pytest.mark.parametrize("sensor", [OPTICAL, RADAR, LINEAR, HEIGHTS], ids=lambda s: s.name)
def test_strengths_of_zero_change_nothing(sensor):
    batch = batch_of(sensor, holes=True)
    assert torch.equal(
        PhotometricAugmentation(sensor, PhotometricStrengths())(batch)["image"], batch["image"]
    )
    assert make_photometric("none", sensor) is None


def test_gain_keeps_ratios_of_reflectances():
    batch = batch_of(OPTICAL)
    new = PhotometricAugmentation(OPTICAL, PhotometricStrengths(gain=0.4))(batch)["image"]
    ratio = in_unit(new, OPTICAL) / in_unit(batch["image"], OPTICAL)
    one = ratio.flatten(1).median(dim=1).values
    assert (ratio - one.view(-1, 1, 1, 1)).abs().quantile(0.99) < 1e-3
    assert ((one > 0.6) & (one < 1.4)).all()
    assert len(one.unique()) == 4
    bands = PhotometricAugmentation(OPTICAL, PhotometricStrengths(band_gain=0.1))(batch)["image"]
    per_band = (in_unit(bands, OPTICAL) / in_unit(batch["image"], OPTICAL)).flatten(2).median(dim=2).values
    assert ((per_band > 0.9) & (per_band < 1.1)).all()
    assert per_band[0].std() > 0.01


def test_haze_adds_less_the_longer_the_wavelength():
    batch = batch_of(OPTICAL, count=50)
    new = PhotometricAugmentation(OPTICAL, PhotometricStrengths(haze=0.5))(batch)["image"]
    added = (in_unit(new, OPTICAL) - in_unit(batch["image"], OPTICAL)).flatten(2)
    assert added.std(dim=2).max() < 1e-6  # the same everywhere in an image
    added = added.mean(dim=2)
    wave = torch.tensor([band.wavelength for band in OPTICAL.bands], dtype=torch.float64)
    order = wave.argsort()
    assert (added >= 0).all()
    assert (added[:, order].diff(dim=1) < 1e-9).all()
    assert added.max() <= 0.5 * OPTICAL.std[int(order[0])]
    slope = torch.log(added[:, order[3]] / added[:, order[0]]) / torch.log(wave[order[3]] / wave[order[0]])
    assert ((slope < -0.99) & (slope > -4.01)).all()  # from thick haze to Rayleigh's clear air


def test_contrast_turns_about_the_mean_of_each_image():
    batch = batch_of(OPTICAL, holes=True)
    new = PhotometricAugmentation(OPTICAL, PhotometricStrengths(contrast=0.5))(batch)["image"]
    shown = batch["valid"][:, None].float()

    def moments(x):
        mean = (x * shown).sum((2, 3)) / shown.sum((2, 3))
        spread = (((x - mean[..., None, None]) * shown) ** 2).sum((2, 3)) / shown.sum((2, 3))
        return mean, spread.sqrt()

    (mean, spread), (new_mean, new_spread) = moments(batch["image"]), moments(new)
    torch.testing.assert_close(new_mean, mean, rtol=1e-4, atol=1e-5)
    factor = new_spread / spread
    assert factor.std(dim=1).max() < 1e-4
    assert ((factor > 0.5) & (factor < 1.5)).all()


def test_blur_keeps_what_is_even_and_widens_a_point():
    flat = torch.full((2, 3, 20, 30), 1.7)
    sigma = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(gaussian_blur(flat, sigma), flat)
    point = torch.zeros(2, 1, 41, 41)
    point[:, :, 20, 20] = 1
    spread = gaussian_blur(point, sigma)
    assert torch.equal(spread[0], point[0])
    at = torch.arange(41.0) - 20
    assert float((spread[1, 0].sum(0) * at**2).sum()) == pytest.approx(4.0, rel=1e-3)
    assert float(spread[1].sum()) == pytest.approx(1.0, rel=1e-4)
    holes = torch.rand(2, 1, 20, 30, generator=torch.Generator().manual_seed(0)) > 0.5
    seen = gaussian_blur(flat, sigma, holes) * holes
    torch.testing.assert_close(seen, flat * holes)  # a hole takes nothing away from its neighbors


def test_noise_is_normal_and_differs_by_pixel_and_band():
    batch = batch_of(OPTICAL, count=2, height=128, width=128)
    noise = PhotometricAugmentation(OPTICAL, PhotometricStrengths(noise=0.2))(batch)["image"] - batch["image"]
    sigma = noise.flatten(1).std(dim=1)
    assert (sigma <= 0.2).all()
    scaled = noise / sigma.view(-1, 1, 1, 1)
    assert scaled.mean().abs() < 5e-3
    assert (scaled**4).mean() == pytest.approx(3.0, rel=0.03)
    bands = scaled[0].flatten(1)
    assert torch.corrcoef(bands).fill_diagonal_(0).abs().max() < 0.04


def test_panchromatic_leaves_gray_and_grays_colors():
    gray = batch_of(OPTICAL)
    gray["image"] = gray["image"][:, :1].expand(-1, 12, -1, -1).contiguous()
    change = PhotometricAugmentation(OPTICAL, PhotometricStrengths(panchromatic=1.0))
    torch.testing.assert_close(change(gray)["image"], gray["image"])
    batch = batch_of(OPTICAL)
    new = change(batch)["image"]
    torch.testing.assert_close(new.mean(1), batch["image"].mean(1), rtol=1e-4, atol=1e-5)
    assert (new.std(dim=1) < batch["image"].std(dim=1)).all()


def test_dropped_bands_are_at_their_mean_and_never_all():
    batch = batch_of(RADAR, count=200, height=4, width=4)
    new = PhotometricAugmentation(RADAR, PhotometricStrengths(band_drop=0.9))(batch)["image"]
    gone = new.eq(0).flatten(2).all(dim=2)
    assert gone.sum(dim=1).max() == 1
    assert 0.6 < float(gone.float().mean(dim=0).sum()) <= 1.0


@pytest.mark.parametrize("looks", [1.0, 4.0, 4.4, 20.0])
def test_speckle_has_the_distribution_of_theory(looks):
    z = normal(sample_keys(0, 0, torch.arange(64)), "speckle", 8192).double()
    decibel = speckle_db(z.float(), looks).double()
    power = 10 ** (decibel / 10)
    count = power.numel()
    assert float(power.mean()) == pytest.approx(1.0, abs=5 / math.sqrt(looks * count))
    assert float(power.var()) * looks == pytest.approx(1.0, rel=0.03)
    shape = torch.tensor(looks, dtype=torch.float64)
    mean = 10 / math.log(10) * (torch.digamma(shape) - torch.log(shape))
    spread = 10 / math.log(10) * torch.polygamma(1, shape).sqrt()
    assert float(decibel.mean()) == pytest.approx(float(mean), abs=5 * float(spread) / math.sqrt(count))
    assert float(decibel.std()) == pytest.approx(float(spread), rel=0.01)
    # Kolmogorov and Smirnov: the largest distance between the distributions.
    ordered = power.flatten().sort().values
    theory = torch.special.gammainc(shape, ordered * looks)
    steps = torch.arange(1, count + 1) / count
    assert float((theory - steps).abs().max()) * math.sqrt(count) < 2.0  # exceeded by chance in 0.07 %


def test_radar_in_db_and_in_power_are_changed_alike():
    power = 10 ** (in_unit(batch_of(RADAR)["image"], RADAR) / 10)
    batch = batch_of(LINEAR)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (LINEAR.mean, LINEAR.std))
    batch["image"] = ((power - mean) / std).float()
    strengths = PhotometricStrengths(speckle=4, calibration=1.0)
    in_db = in_unit(PhotometricAugmentation(RADAR, strengths)(batch_of(RADAR))["image"], RADAR)
    in_power = in_unit(PhotometricAugmentation(LINEAR, strengths)(batch)["image"], LINEAR)
    torch.testing.assert_close(in_power, 10 ** (in_db / 10), rtol=1e-2, atol=1e-5)


def test_calibration_is_one_offset_an_image():
    batch = batch_of(RADAR, count=30)
    new = PhotometricAugmentation(RADAR, PhotometricStrengths(calibration=2.0))(batch)["image"]
    offset = (in_unit(new, RADAR) - in_unit(batch["image"], RADAR)).flatten(1)
    assert offset.std(dim=1).max() < 1e-5
    assert offset.abs().max() <= 2.0
    assert offset[:, 0].std() > 0.5


@pytest.mark.parametrize(
    "name", ["gain", "band_gain", "haze", "contrast", "blur", "noise", "panchromatic", "solarize"]
)
@pytest.mark.parametrize("sensor", [RADAR, LINEAR], ids=lambda s: s.unit)
def test_radar_refuses_what_is_of_light(name, sensor):
    with pytest.raises(RecipeError) as error:
        PhotometricAugmentation(sensor, PhotometricStrengths(**{name: 0.1}))
    assert all(word in str(error.value) for word in (name, sensor.name, sensor.unit, "speckle, calibration"))


@pytest.mark.parametrize(
    ("sensor", "strengths", "message"),
    [
        (OPTICAL, {"speckle": 4}, "speckle has no meaning in reflectance"),
        (OPTICAL, {"solarize": 0.2}, "solarize is no physics"),
        (HEIGHTS, {"gain": 0.1}, r"gain has no meaning in metres.*allows blur, noise\."),
        (HEIGHTS, {"band_drop": 0.1}, "needs several bands"),
        (
            Sensor(name="mine", bands=[{"name": "x", "unit": "DN", "mean": 1.0, "std": 1.0}]),
            {"haze": 0.1},
            "band x states none",
        ),
    ],
)
def test_what_else_is_refused(sensor, strengths, message):
    with pytest.raises(RecipeError, match=message):
        PhotometricAugmentation(sensor, PhotometricStrengths(**strengths))


def test_auto_takes_what_each_sensor_allows():
    assert set(default_strengths(OPTICAL).requested()) == {
        "gain", "band_gain", "haze", "contrast", "blur", "noise", "panchromatic"
    }  # fmt: skip
    assert (
        default_strengths(RADAR).requested()
        == default_strengths(LINEAR).requested()
        == ["speckle", "calibration"]
    )
    assert default_strengths(HEIGHTS).requested() == ["blur", "noise"]
    assert "haze" in default_strengths(RGB).requested()  # by the nominal wavelengths of red, green and blue
    assert allowed_photometric(RADAR) == ["band_drop", "speckle", "calibration"]
    both = Sensor(name="both", bands=[*RADAR.bands, *HEIGHTS.bands])
    with pytest.raises(RecipeError, match="photometric: none"):
        default_strengths(both)


def test_solarization_inverts_what_is_bright():
    batch = batch_of(RGB, height=16, width=16)
    new = in_unit(PhotometricAugmentation(RGB, PhotometricStrengths(solarize=1.0))(batch)["image"], RGB)
    old = in_unit(batch["image"], RGB).clamp(0, 255)
    torch.testing.assert_close(new, torch.where(old >= 128, 255 - old, old), rtol=1e-4, atol=1e-3)


def test_paper_is_for_rgb_photographs_only():
    for sensor in (OPTICAL, RADAR, get_sensor("naip")):
        with pytest.raises(RecipeError, match="paper is for photographs"):
            make_photometric("paper", sensor)
