"""Baselines: what they compute, and that they look at the bank alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers.eval_scenes import split_of
from swath.datasets.chip import Batch
from swath.encoders import create_model
from swath.errors import SwathError
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.baselines import (
    BASELINES,
    ColorHistogram,
    ImageStatistics,
    RandomConvolutionalFeatures,
    RandomPatches,
    RawPixels,
    all_baselines,
    make_baseline,
    random_init,
)
from swath.evaluation.features.extract import extract_features
from swath.models import Contract, Model
from swath.sensors.sensor import Band, Sensor


class InMemory:
    """The least that a data set has to be."""

    def __init__(self, images: torch.Tensor, unit: str = "reflectance") -> None:
        bands = tuple(Band(name=f"B{i}", unit=unit) for i in range(images.shape[1]))
        self.sensor = Sensor(name="memory", bands=bands)
        self.images, self.labels = images, np.zeros(len(images), dtype=np.int64)
        self.classes, self.problems = ["only"], []
        self.paths = [f"{i}.tif" for i in range(len(images))]

    def __len__(self) -> int:
        return len(self.images)

    def get_batch(self, indices: Any) -> Batch:
        rows = torch.as_tensor(indices)
        return {
            "image": self.images[rows],
            "gsd": torch.ones(len(rows)),
            "valid": torch.isfinite(self.images[rows]).all(1),
            "sensor": "memory",
            "index": rows,
        }


def part_of(images: torch.Tensor, unit: str = "reflectance") -> EvalSubset:
    return EvalSubset(InMemory(images, unit), np.arange(len(images)), "train")  # type: ignore[arg-type]


def batch_of(image: torch.Tensor, **more: Any) -> Batch:
    return {"image": image, "gsd": torch.ones(len(image)), **more}  # type: ignore[typeddict-item]


@pytest.mark.parametrize("name", list(BASELINES))
@pytest.mark.parametrize("image_size", [4, 16, 33])
def test_every_baseline_takes_every_side_and_any_bands(name: str, image_size: int) -> None:
    images = torch.rand(20, 5, 24, 24)
    images[3, :, :6, :6] = float("nan")  # no data
    baseline = make_baseline(name)
    baseline.fit(part_of(images), image_size)
    found = extract_features([baseline], part_of(images), [image_size]).features[baseline.name, image_size]
    assert found.shape[0] == 20
    assert torch.isfinite(found).all()
    assert image_size < 16 or found.std(0).max() > 0


def test_statistics_are_those_of_the_valid_pixels() -> None:
    image = torch.rand(2, 3, 6, 6)
    valid = torch.ones(2, 6, 6, dtype=torch.bool)
    valid[:, 4:] = False
    found = ImageStatistics()(batch_of(image.masked_fill(~valid.unsqueeze(1), -9999), valid=valid))
    seen = image[:, :, :4].flatten(2)
    assert torch.allclose(found, torch.cat([seen.mean(2), seen.std(2, correction=0)], 1), atol=1e-6)


def test_histogram_of_display_values_has_fixed_bins() -> None:
    image = torch.tensor([0, 31, 32, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)
    histogram = ColorHistogram()
    histogram.fit(part_of(image, "uint8"), 2)
    assert histogram(batch_of(image)).tolist() == [[0.5, 0.25, 0, 0, 0, 0, 0, 0.25]]


def test_histogram_of_other_units_spans_the_bank() -> None:
    images = torch.randn(30, 1, 16, 16) * 0.01 + 0.2
    histogram = ColorHistogram()
    histogram.fit(part_of(images), 16)
    fraction = histogram(batch_of(images)).mean(0)
    assert fraction.sum() == pytest.approx(1.0)
    assert fraction.min() > 0.005
    assert fraction.argmax() in (3, 4)


def test_raw_pixels_are_the_standardized_image() -> None:
    images = torch.rand(10, 2, 32, 32)
    pixels = RawPixels()
    pixels.fit(part_of(images), 32)
    found = pixels(batch_of(images)).reshape(10, 2, 16, 16)
    assert found[0, 0, 0, 0].item() == pytest.approx(
        ((images[0, 0, :2, :2].mean() - pixels.mean[0]) / pixels.std[0]).item(), abs=1e-5
    )


def test_rcf_is_the_mean_rectified_response_to_whitened_patches() -> None:
    images = torch.rand(12, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    rcf = RandomConvolutionalFeatures(RandomPatches(8, size=3))
    rcf.fit(part_of(images), 16)
    found = rcf(batch_of(images[:1]))
    ready = (images[:1] - rcf.patches.mean) / rcf.patches.std
    patches = ready.unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 18)
    response = patches @ rcf.patches.kernel.flatten(1).T + rcf.patches.bias
    expected = torch.cat([(response - 1).clamp_min(0).mean(0), (-response - 1).clamp_min(0).mean(0)])
    assert torch.allclose(found[0], expected, atol=1e-5)


def test_rcf_repeats_itself_and_depends_on_the_seed() -> None:
    part = part_of(torch.rand(12, 2, 16, 16))
    first, again, other = (RandomPatches(8, seed=seed) for seed in (0, 0, 1))
    for rcf in (first, again, other):
        rcf.fit(part, 16)
    assert torch.equal(first.kernel, again.kernel)
    assert not torch.equal(first.kernel, other.kernel)


@pytest.mark.parametrize("name", list(BASELINES))
def test_queries_do_not_change_what_is_fitted(name: str, split: TrainTestSplit) -> None:
    """The same bank with other queries gives the same features of the bank."""
    found = []
    for test in (split.test, EvalSubset(split.test.dataset, split.test.indices[:2], "val")):
        baseline = make_baseline(name)
        baseline.fit(split.train, 32)
        extract_features([baseline], test, [32])
        found.append(extract_features([baseline], split.train, [16]).features[baseline.name, 16])
    assert torch.equal(*found)


def test_sharing_patches_changes_nothing(split: TrainTestSplit) -> None:
    shared = all_baselines()
    assert len({baseline.name for baseline in shared}) == len(shared) == len(BASELINES)
    alone = [make() for make in BASELINES.values()]
    assert [b.settings for b in shared] == [b.settings for b in alone]
    for baseline in [*shared, *alone]:
        baseline.fit(split.train, 32)
    together = extract_features(shared, split.test, [16, 32], batch_size=7).features
    for baseline in alone:
        for image_size in (16, 32):
            expected = extract_features([baseline], split.test, [image_size]).features[
                baseline.name, image_size
            ]
            assert torch.allclose(together[baseline.name, image_size], expected, atol=1e-5)


def test_unknown_baseline_is_refused_with_a_suggestion() -> None:
    with pytest.raises(SwathError, match=r"unknown baseline 'rfc'. Did you mean 'rcf'"):
        make_baseline("rfc")


def test_random_init_is_the_same_encoder_with_other_weights(table: Any) -> None:
    options = {"bands": 3, "embed_dim": 24, "depth": 1, "heads": 2}
    torch.manual_seed(5)
    model = Model(
        create_model("vit_micro_patch8", **options),
        Contract.of("rgb_aerial", gsd_range=(0.1, 10.0)),
        pooling="mean_std",
        config={"encoder": {"name": "vit_micro_patch8", "options": options}},
    )
    before = torch.get_rng_state()
    first, again, other = random_init(model), random_init(model), random_init(model, seed=1)
    assert torch.equal(torch.get_rng_state(), before), "nobody else's random numbers are touched"
    test = split_of(table).test
    a, b, c = (extract_features([f], test, [32]).features[f.name, 32] for f in (first, again, other))
    assert a.shape == (20, 48)
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)
    assert first.settings["model"] == "random initialization of vit_micro_patch8"
    with pytest.raises(SwathError, match="does not say how its encoder is built"):
        random_init(Model(model.encoder, model.contract))
