"""What the contract refuses, in which words, and what it makes of what fits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from swath.errors import ContractError
from swath.models import Contract, GsdRangeWarning
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Band, Sensor


def reflectance_sensor(bands: int = 2, name: str = "two_bands") -> Sensor:
    return Sensor(
        name=name,
        bands=tuple(Band(name=f"B{i}", unit="reflectance", mean=0.1, std=0.05) for i in range(bands)),
    )


def sensor_in(unit: str, mean: float, std: float) -> Sensor:
    return Sensor(name="one_unit", bands=(Band(name="B", unit=unit, mean=mean, std=std),))


# ---- the contract itself


def test_survives_json() -> None:
    contract = Contract.of("sentinel2_l2a", "sentinel1_grd", reference_gsd=10.0, gsd_range=(9.0, 41.0))
    again = Contract.from_dict(contract.to_dict())
    assert again == contract
    assert again.sensors["sentinel1_grd"] == get_sensor("sentinel1_grd")


def test_sensor_without_statistics_is_refused_with_the_way_to_get_them() -> None:
    with pytest.raises(ContractError, match=r"no mean and std for band SR_B1.*swath inspect"):
        Contract.of("landsat89_l2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gsd_mode": "relative", "reference_gsd": 2.0}, "reference_gsd is 1 in relative mode"),
        ({"gsd_mode": "metres", "reference_size": 224}, "reference_size has a meaning in relative mode only"),
        ({"gsd_range": (2.0, 1.0)}, "smallest <= largest"),
    ],
)
def test_contradictions_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Contract.of("rgb_aerial", **options)


def test_unknown_key_in_a_file_is_refused_with_the_file_named() -> None:
    data = Contract.of("rgb_aerial").to_dict() | {"gsd_unit": "feet"}
    with pytest.raises(ContractError, match=r"somewhere/config.json.*gsd_unit"):
        Contract.from_dict(data, where="somewhere/config.json")


# ---- sensors and bands


def test_unknown_sensor_is_refused_with_a_suggestion(contract: Contract) -> None:
    with pytest.raises(ContractError, match=r"not trained on sensor 'rgb_areal'. Did you mean 'rgb_aerial'"):
        contract.sensor("rgb_areal")


def test_sensor_must_be_named_where_there_are_several() -> None:
    contract = Contract.of("sentinel2_l2a", "sentinel1_grd")
    with pytest.raises(ContractError, match="say which one"):
        contract.sensor()


def test_same_name_with_another_unit_is_refused() -> None:
    contract = Contract.of(reflectance_sensor())
    other = Sensor(name="two_bands", bands=tuple(Band(name=f"B{i}", unit="DN") for i in range(2)))
    with pytest.raises(ContractError, match="band B0 is in reflectance for this model but in DN"):
        contract.sensor(other)


def test_wrong_number_of_bands_is_refused(contract: Contract) -> None:
    with pytest.raises(ContractError, match=r"4 bands, but sensor 'rgb_aerial' has 3 .*R, G, B"):
        contract.check(torch.zeros(1, 4, 8, 8, dtype=torch.uint8))


def test_wrong_order_of_bands_is_refused_with_the_indexing_that_mends_it(contract: Contract) -> None:
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ContractError, match=r"images\[:, \[2, 1, 0\]\]"):
        contract.check(image, bands=["B", "G", "R"])
    assert contract.check(image, bands=["R", "G", "B"]).name == "rgb_aerial"


def test_missing_band_is_named(contract: Contract) -> None:
    with pytest.raises(ContractError, match="band B of sensor 'rgb_aerial' is not there"):
        contract.check(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), bands=["R", "G", "NIR"])


# ---- units


def noise(low: float, high: float, bands: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return low + (high - low) * torch.rand(2, bands, 32, 32, generator=generator)


REFUSED = [
    ("reflectance", 0.1, 0.05, noise(200, 4000), "looks like digital numbers"),
    ("reflectance", 0.1, 0.05, noise(-2, 2), "standardized already"),
    ("reflectance", 0.1, 0.05, noise(-0.1, 0.1), "an offset of -1000 was applied"),
    ("reflectance", 0.1, 0.05, noise(200, 4000).to(torch.int16), r"integers \(int16\), as files store them"),
    ("dB", -12.0, 5.0, noise(0.001, 0.8), "looks like linear power"),
    ("dB", -12.0, 5.0, noise(-2, 2), "standardized already"),
    ("linear", 0.1, 0.1, noise(-25, -3), "looks like dB"),
    ("uint8", 120.0, 60.0, noise(0, 1), "share of 1. Multiply by 255"),
    ("uint8", 120.0, 60.0, noise(-2, 2), "standardized already"),
    ("uint8", 120.0, 60.0, noise(0, 3000), "more than 8 bits"),
    ("kelvin", 290.0, 10.0, noise(5, 30), "Celsius"),
    ("DN", 1500.0, 700.0, noise(0, 1), "looks scaled"),
]


@pytest.mark.parametrize(("unit", "mean", "std", "image", "message"), REFUSED)
def test_values_in_another_unit_are_refused(
    unit: str, mean: float, std: float, image: torch.Tensor, message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        Contract.of(sensor_in(unit, mean, std)).check(image)


ACCEPTED = [
    ("reflectance", 0.1, 0.05, noise(0.0, 0.02)),  # deep water
    ("reflectance", 0.1, 0.05, noise(0.6, 1.6)),  # cloud and snow
    ("reflectance", 0.1, 0.05, noise(-0.03, 0.3)),  # atmospheric correction overshoots a little
    ("dB", -12.0, 5.0, noise(-35, -18)),  # calm water
    ("dB", -12.0, 5.0, noise(-12, 20)),  # a city
    ("linear", 0.1, 0.1, noise(0, 3)),
    ("uint8", 120.0, 60.0, noise(0, 255)),
    ("uint8", 120.0, 60.0, noise(0, 255).to(torch.uint8)),
    ("uint8", 120.0, 60.0, noise(0, 2).to(torch.uint8)),  # a black chip is dark, not wrong
    ("kelvin", 290.0, 10.0, noise(250, 310)),
    ("DN", 1500.0, 700.0, noise(0, 60000).to(torch.uint16)),
    ("reflectance", 0.1, 0.05, torch.zeros(1, 1, 8, 8)),  # nothing but fill
    ("reflectance", 0.1, 0.05, torch.full((1, 1, 8, 8), float("nan"))),
]


@pytest.mark.parametrize(("unit", "mean", "std", "image"), ACCEPTED)
def test_unusual_but_true_values_pass(unit: str, mean: float, std: float, image: torch.Tensor) -> None:
    Contract.of(sensor_in(unit, mean, std)).check(image)


def test_invalid_pixels_do_not_decide_about_the_unit() -> None:
    image = noise(0.0, 0.3)
    valid = torch.ones(2, 32, 32, dtype=torch.bool)
    image[:, :, :16], valid[:, :16] = -9999.0, False
    contract = Contract.of(sensor_in("reflectance", 0.1, 0.05))
    contract.check(image, valid=valid)
    with pytest.raises(ContractError):
        contract.check(image)


def test_bands_of_a_mixed_sensor_are_judged_by_their_own_unit() -> None:
    sensor = Sensor(
        name="mixed",
        bands=(
            Band(name="VV", unit="dB", mean=-12, std=5),
            Band(name="red", unit="reflectance", mean=0.1, std=0.1),
        ),
    )
    good = torch.cat([noise(-20, -5), noise(0, 0.4)], dim=1)
    Contract.of(sensor).check(good)
    with pytest.raises(ContractError, match="band red of sensor 'mixed'"):
        Contract.of(sensor).check(torch.cat([noise(-20, -5), noise(0, 4000)], dim=1))


# ---- scale


def test_missing_gsd_is_refused_with_what_was_trained_on(contract: Contract) -> None:
    with pytest.raises(ContractError, match=r"GSD is missing.*metres per pixel.*0.3 to 2.2 m"):
        contract.gsd(None, 1, 64)
    with pytest.raises(ContractError, match="relative to an image's native resolution"):
        Contract.of("rgb_aerial", gsd_mode="relative").gsd(None, 1, 64)


def test_relative_default_is_reference_size_over_width() -> None:
    contract = Contract.of("rgb_aerial", gsd_mode="relative", reference_size=224)
    assert contract.gsd(None, 2, 56).tolist() == [4.0, 4.0]


@pytest.mark.parametrize("gsd", [0.0, -1.0, float("nan"), float("inf"), [1.0, -2.0]])
def test_gsd_that_is_no_positive_number_is_refused(contract: Contract, gsd: object) -> None:
    with pytest.raises(ContractError, match="positive number"):
        contract.gsd(gsd, 2, 64)


def test_number_of_gsds_must_be_one_or_that_of_the_images(contract: Contract) -> None:
    with pytest.raises(ContractError, match="3 GSDs for 2 images"):
        contract.gsd([1.0, 1.0, 1.0], 2, 64)


def test_gsd_outside_the_trained_range_warns_once(contract: Contract) -> None:
    with pytest.warns(GsdRangeWarning, match=r"GSD 10 m lie outside the 0.3 to 2.2 m"):
        contract.gsd(10.0, 1, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        contract.gsd(10.0, 1, 64)


def test_gsd_inside_the_trained_range_does_not_warn(contract: Contract) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        contract.gsd(np.array([0.3, 2.2], dtype=np.float32), 2, 64)


# ---- normalizing


def test_normalizes_by_the_contracts_statistics() -> None:
    contract = Contract.of("sentinel2_l2a", reference_gsd=10.0)
    sensor = contract.sensors["sentinel2_l2a"]
    image = torch.rand(2, 12, 4, 6)
    ready = contract.normalize({"image": image, "gsd": torch.tensor([10.0, 20.0]), "sensor": sensor.name})
    mean = torch.tensor(sensor.mean, dtype=torch.float64).view(12, 1, 1)
    std = torch.tensor(sensor.std, dtype=torch.float64).view(12, 1, 1)
    torch.testing.assert_close(ready["image"], ((image - mean) / std).float(), rtol=1e-5, atol=1e-5)
    assert ready["gsd"].tolist() == [1.0, 2.0]
    torch.testing.assert_close(contract.denormalize(ready["image"]), image)


def test_invalid_and_non_finite_pixels_become_zero_and_are_marked(contract: Contract) -> None:
    image = torch.full((1, 3, 4, 4), 200.0)
    image[0, 1, 0, 0], image[0, 2, 0, 1] = float("nan"), float("inf")
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    valid[0, 3, 3] = False
    ready = contract.normalize({"image": image, "gsd": torch.ones(1), "valid": valid})
    for row, column in ((0, 0), (0, 1), (3, 3)):
        assert ready["image"][0, :, row, column].tolist() == [0, 0, 0]
        assert not ready["valid"][0, row, column]
    assert ready["valid"].sum() == 13
    assert (ready["image"][0, :, 1, 1] > 0).all()
    assert torch.isnan(image[0, 1, 0, 0]), "the batch itself is left as it is"


def test_integers_of_any_width_are_normalized(contract: Contract) -> None:
    image = torch.randint(0, 255, (1, 3, 4, 4), dtype=torch.uint8)
    byte = contract.normalize({"image": image, "gsd": torch.ones(1)})
    real = contract.normalize({"image": image.float(), "gsd": torch.ones(1)})
    assert torch.equal(byte["image"], real["image"])


def test_normalizes_the_same_under_inference_mode_and_after_it(contract: Contract) -> None:
    batch = {"image": torch.rand(1, 3, 4, 4) * 255, "gsd": torch.ones(1)}
    with torch.inference_mode():
        contract.normalize(batch)  # type: ignore[arg-type]
    image = batch["image"].clone().requires_grad_()
    contract.normalize({**batch, "image": image})["image"].sum().backward()  # type: ignore[arg-type, typeddict-item]
    assert image.grad is not None


def test_transpose_swaps_rows_and_columns_of_image_and_mask() -> None:
    contract = Contract.of("rgb_aerial", transpose=True)
    image = torch.rand(1, 3, 4, 6) * 255
    valid = torch.rand(1, 4, 6) > 0.5
    ready = contract.normalize({"image": image, "gsd": torch.ones(1), "valid": valid})
    plain = Contract.of("rgb_aerial").normalize({"image": image, "gsd": torch.ones(1), "valid": valid})
    assert torch.equal(ready["image"], plain["image"].transpose(2, 3))
    assert torch.equal(ready["valid"], plain["valid"].transpose(1, 2))
