"""Degradations do what they say, in the sensor's unit; scores fall with strength; the bank stays clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.eval_scenes import Fake, color
from swath.datasets.chip import Batch
from swath.errors import SwathError
from swath.evaluation.audit.corruptions import DEGRADATIONS, corruptions_for
from swath.evaluation.audit.robustness import CLEAN, RobustnessReport, evaluate_robustness
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.protocols.setup import extract_split_features
from swath.keyed_random import sample_keys
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor


def batch_of(sensor: Sensor, count: int = 3, image_size: int = 40) -> Batch:
    generator = torch.Generator().manual_seed(0)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (sensor.mean, sensor.std))
    image = (
        mean + std * torch.randn(count, len(sensor.bands), image_size, image_size, generator=generator) / 2
    )
    if sensor.unit == "uint8":
        image = image.round().clamp(0, 255).to(torch.uint8)
    return {
        "image": image, "sensor": sensor.name, "gsd": torch.ones(count), "index": torch.arange(count),
        "valid": torch.ones(count, image_size, image_size, dtype=torch.bool),
        "key": sample_keys(0, 0, torch.arange(count)),
    }  # fmt: skip


SENSORS = ("rgb_aerial", "sentinel2_l2a", "sentinel1_grd")


@pytest.mark.parametrize("name", SENSORS)
def test_every_strength_changes_more_and_is_repeatable(name: str) -> None:
    sensor = get_sensor(name)
    batch = batch_of(sensor)
    std = torch.tensor(sensor.std).view(1, -1, 1, 1)
    chosen, _ = corruptions_for(sensor)
    for corruption in chosen:
        moved = []
        for level in corruption.levels(sensor):
            worse = corruption(batch, sensor, level)
            again = corruption(batch, sensor, level)
            assert torch.equal(worse["image"], again["image"])
            assert worse["image"].dtype == batch["image"].dtype
            assert bool(torch.isfinite(worse["image"].float()).all())
            moved.append(float(((worse["image"].float() - batch["image"].float()) / std).abs().mean()))
        assert min(moved) > 0.005, corruption.name
        if corruption.name != "rotation":
            assert moved == sorted(moved), corruption.name
        assert bool(batch["valid"].all()), "the batch that was given is left as it is"


def test_radar_is_refused_haze_and_noise_and_gets_speckle() -> None:
    radar, optical = get_sensor("sentinel1_grd"), get_sensor("sentinel2_l2a")
    names = [d.name for d in corruptions_for(radar)[0]]
    assert names == ["speckle", "missing-bands", "holes", "rotation"]
    with pytest.raises(SwathError, match=r"haze: not for sensor 'sentinel1_grd': haze has no meaning in dB"):
        corruptions_for(radar, ["haze"])
    with pytest.raises(SwathError, match="speckle is its noise"):
        corruptions_for(radar, ["noise"])
    with pytest.raises(SwathError, match="speckle has no meaning in reflectance"):
        corruptions_for(optical, ["speckle"])
    with pytest.raises(SwathError, match="Did you mean 'stripes'"):
        corruptions_for(optical, ["strips"])
    _, reasons = corruptions_for(radar)
    assert any(reason.startswith("stripes") for reason in reasons)


def test_haze_hides_blue_before_infrared() -> None:
    sensor = get_sensor("sentinel2_l2a")
    batch = batch_of(sensor)
    hazy = DEGRADATIONS["haze"](batch, sensor, 1.0)
    kept = hazy["image"].std(dim=(2, 3)).mean(dim=0) / batch["image"].std(dim=(2, 3)).mean(dim=0)
    blue, infrared = sensor.index("B02"), sensor.index("B12")
    waves = [sensor.bands[i].wavelength for i in (blue, infrared)]
    for i, wave in zip((blue, infrared), waves, strict=True):
        assert wave is not None
        assert float(kept[i]) == pytest.approx(np.exp(-1.0 * (550 / wave) ** 1.3), rel=1e-4)
    assert kept[blue] < kept[infrared]


def test_speckle_of_one_look_has_the_spread_that_theory_says() -> None:
    sensor = get_sensor("sentinel1_grd")
    batch = batch_of(sensor, 4, 64)
    change = DEGRADATIONS["speckle"](batch, sensor, 1.0)["image"] - batch["image"]
    assert float(change.std()) == pytest.approx(5.57, abs=0.1)  # dB, for an exponential variable
    power = 10 ** (change / 10)
    assert float(power.mean()) == pytest.approx(1, abs=0.05)


def test_noise_and_stripes_are_in_deviations_of_the_band() -> None:
    sensor = get_sensor("sentinel2_l2a")
    batch = batch_of(sensor, 4, 64)
    std = torch.tensor(sensor.std)
    noise = DEGRADATIONS["noise"](batch, sensor, 0.2)["image"] - batch["image"]
    assert torch.allclose(noise.std(dim=(0, 2, 3)), 0.2 * std, rtol=0.05)
    stripes = DEGRADATIONS["stripes"](batch, sensor, 0.2)["image"] - batch["image"]
    assert float(stripes.std(dim=2).max()) < 1e-4, "a column is shifted as a whole"
    assert float((stripes.mean(dim=2).std(dim=(0, 2)) / std).mean()) == pytest.approx(0.2, rel=0.15)


def test_lost_bands_are_whole_and_grow() -> None:
    sensor = get_sensor("sentinel2_l2a")
    batch = batch_of(sensor)
    before: set[tuple[int, int]] = set()
    for level in DEGRADATIONS["missing-bands"].levels(sensor):
        worse = DEGRADATIONS["missing-bands"](batch, sensor, level)["image"]
        flat = {(int(i), int(j)) for i, j in (worse.std(dim=(2, 3)) < 1e-6).nonzero()}
        assert len(flat) == 3 * round(level * 12)
        assert before <= flat
        before = flat
    assert DEGRADATIONS["missing-bands"].levels(get_sensor("rgb_aerial")) == [1 / 3, 2 / 3]


def test_holes_have_the_stated_area_and_grow() -> None:
    sensor = get_sensor("rgb_aerial")
    batch = batch_of(sensor, 3, 64)
    before = batch["valid"]
    for fraction in (0.1, 0.4):
        valid = DEGRADATIONS["holes"](batch, sensor, fraction)["valid"]
        assert torch.allclose((~valid).float().mean(dim=(1, 2)), torch.tensor(fraction), atol=0.01)
        assert bool((valid <= before).all())
        before = valid


def test_half_a_turn_is_exact_and_loses_nothing() -> None:
    sensor = get_sensor("rgb_aerial")
    batch = batch_of(sensor)
    worse = DEGRADATIONS["rotation"](batch, sensor, 180.0)
    difference = worse["image"].int() - batch["image"].flip((-2, -1)).int()
    assert int(difference.abs().max()) <= 1
    assert bool(worse["valid"].all())
    quarter = DEGRADATIONS["rotation"](batch, sensor, 90.0)["image"].int()
    turns = [torch.rot90(batch["image"], k, (-2, -1)).int() for k in (1, 3)]
    assert all(min(int((q - t[i]).abs().max()) for t in turns) <= 1 for i, q in enumerate(quarter))


def test_nodata_lends_nothing_to_its_surroundings() -> None:
    sensor = get_sensor("rgb_aerial")
    batch = batch_of(sensor)
    batch["valid"][:, :20] = False
    spoiled = {**batch, "image": batch["image"].clone()}
    spoiled["image"][:, :, :20] = 255
    for name in ("blur", "rotation"):
        first, second = (
            DEGRADATIONS[name](b, sensor, DEGRADATIONS[name].severities[1]) for b in (batch, spoiled)
        )
        seen = first["valid"][:, None]
        assert torch.equal(first["image"] * seen, second["image"] * seen)


@pytest.fixture(scope="module")
def report(split: TrainTestSplit) -> RobustnessReport:
    return evaluate_robustness(
        [Fake("color", color)], split, corruptions=["haze", "noise", "missing-bands"], k=3
    )


def test_scores_fall_with_strength_from_the_clean_score(
    report: RobustnessReport, split: TrainTestSplit
) -> None:
    curve = report.curve("color", "haze")
    assert [score.strength for score in curve] == [0, 0.1, 0.25, 0.5, 1.0, 2.0]
    assert curve[0].corruption == CLEAN
    assert curve[0].accuracy > 0.9
    assert curve[-1].accuracy < 0.6, "all colors become that of the air"
    assert curve[-1].loss == pytest.approx(curve[0].accuracy - curve[-1].accuracy)
    assert curve[-1].loss_low <= curve[-1].loss <= curve[-1].loss_high
    assert report.protocol["train"]["images"] == 48
    assert report.protocol["corruptions"]["noise"]["measure"] == "sigma, standard deviations"
    assert "color loses most by haze" in report.sentence() or "missing-bands" in report.sentence()


class Counted(Fake):
    """Learns its bank, counts the batches that it was shown, and may be killed."""

    identity, learns = "counted/robust", True

    def __init__(self, max_count: int = 10**9) -> None:
        super().__init__("color", self._centered)
        self.shown, self.max_count = 0, max_count
        self.center: torch.Tensor | None = None

    def fit(self, part: EvalSubset, image_size: int) -> None:
        super().fit(part, image_size)
        self.center = color(part.dataset.get_batch(part.indices)).mean(dim=0)

    def _centered(self, batch: Batch) -> torch.Tensor:
        assert self.center is not None, "asked before it was fitted"
        if self.shown >= self.max_count:
            raise KeyboardInterrupt
        self.shown += 1
        return color(batch) - self.center


def test_a_killed_run_goes_on_and_a_second_one_computes_nothing(
    split: TrainTestSplit, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"corruptions": ["noise", "blur"], "k": 3, "batch_size": 10}
    whole = Counted()
    expected = evaluate_robustness([whole], split, **options)
    states = len(expected.scores)
    assert whole.shown == 5 + 2 * states, "48 bank images, 20 queries, ten at a time"
    killed, again, third = Counted(max_count=5 + states + 3), Counted(), Counted()
    with pytest.raises(KeyboardInterrupt):
        evaluate_robustness([killed], split, cache=FeatureCache(tmp_path), **options)
    found = evaluate_robustness([again], split, cache=FeatureCache(tmp_path), **options)
    assert again.shown == 2 * states - (states + 3), "the rest, and only the rest"
    assert [s.accuracy for s in found.scores] == [s.accuracy for s in expected.scores]
    evaluate_robustness([third], split, cache=FeatureCache(tmp_path), **options)
    assert (third.shown, third.fitted_on) == (0, [])


def test_features_of_a_report_that_are_known_do_not_stop_the_rest(
    split: TrainTestSplit, tmp_path: Path
) -> None:
    """The bank is in the cache, so nothing has been fitted when the first degraded query comes."""
    known = extract_split_features([Counted()], split, [32], cache=FeatureCache(tmp_path))
    fresh = Counted()
    found = evaluate_robustness(
        [fresh],
        split,
        corruptions=["blur"],
        image_size=32,
        k=3,
        train=known.train,
        cache=FeatureCache(tmp_path),
    )
    assert fresh.fitted_on == [("train", 32)]
    assert found.curve("color", "blur")[0].accuracy > 0.9


def test_degradations_and_their_strengths_are_kept_apart(split: TrainTestSplit, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    plain = cache.entry(Counted(), split.test, 32, (split.train, 32))
    shelves = [
        cache.entry(Counted(), split.test, 32, (split.train, 32), state)
        for state in ("blur 1.0", "blur 2.0", "noise 1.0")
    ]
    assert len({entry._file for entry in (plain, *shelves)}) == 4  # type: ignore[attr-defined]


def test_files_hold_scores_and_a_picture(report: RobustnessReport, tmp_path: Path) -> None:
    data, image = report.write(tmp_path, command="swath evaluate robustness m d")
    stored = json.loads(data.read_text())
    assert stored["command"] == "swath evaluate robustness m d"
    assert len(stored["scores"]) == len(report.scores) == 1 + 5 + 5 + 2
    assert min(Image.open(image).size) > 200


def test_queries_can_be_limited_and_that_is_said(split: TrainTestSplit) -> None:
    found = evaluate_robustness([Fake("color", color)], split, corruptions=["blur"], k=3, max_images=8)
    assert found.protocol["test"]["images"] == 8
    assert "8 of 20 queries were looked at" in found.notes[-1]
