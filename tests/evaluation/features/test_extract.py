"""Features at several scales: GSD follows, nodata stays out, broken images are left out and named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.eval_scenes import Fake, constant, split_of
from swath.datasets.chip import Batch
from swath.encoders import create_model
from swath.errors import ContractError, ImageryError
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.features.extract import (
    extract_features,
    pooling_variants,
    resize_batch,
    supported_image_sizes,
)
from swath.evaluation.features.model import ModelFeatureExtractor
from swath.models import Contract, GsdRangeWarning, Model


def model(pooling: str | None = None, **contract: Any) -> Model:
    torch.manual_seed(0)
    encoder = create_model("vit_micro_patch8", bands=3, embed_dim=24, depth=1, heads=2)
    return Model(encoder, Contract.of("rgb_aerial", **contract), name="tiny", pooling=pooling)


# ---- resizing


def test_area_mean_and_gsd() -> None:
    image = torch.arange(32.0).reshape(1, 2, 4, 4)
    batch: Batch = {
        "image": image,
        "gsd": torch.tensor([0.5]),
        "valid": torch.ones(1, 4, 4, dtype=torch.bool),
    }
    small = resize_batch(batch, 2)
    assert small["gsd"].tolist() == [1.0]
    assert small["image"][0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert bool(small["valid"].all())


def test_gsd_of_an_oblong_image_grows_by_the_geometric_mean() -> None:
    batch: Batch = {"image": torch.zeros(1, 1, 8, 32), "gsd": torch.tensor([1.0])}
    assert resize_batch(batch, 8)["gsd"].item() == pytest.approx(2.0)


def test_native_side_is_left_alone() -> None:
    batch: Batch = {"image": torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "gsd": torch.tensor([1.0])}
    assert resize_batch(batch, 8) is batch


def test_invalid_pixels_stay_out_of_the_mean() -> None:
    image = torch.full((1, 1, 4, 4), 10.0)
    image[0, 0, :, 0] = float("nan")  # a quarter of the pixel is not there
    image[0, 0, 2:, 2:], image[0, 0, 2, 2] = -9999.0, 7.0  # three quarters are not
    valid = (image[:, 0] > 0) & torch.isfinite(image[:, 0])
    small = resize_batch({"image": image, "gsd": torch.ones(1), "valid": valid}, 2)
    assert small["valid"].tolist() == [[[True, True], [True, False]]]
    assert small["image"][0, 0].tolist() == [[10.0, 10.0], [10.0, 0.0]]


# ---- extraction


def test_every_featurizer_sees_every_side_of_every_image_once(split: TrainTestSplit) -> None:
    seen: list[tuple[int, int]] = []

    def look(batch: Batch) -> torch.Tensor:
        seen.extend((int(i), batch["image"].shape[-1]) for i in batch["index"])
        return batch["gsd"].unsqueeze(1)

    found = extract_features(
        [Fake("look", look), Fake("other", constant)], split.test, [16, 32], batch_size=7
    )
    assert sorted(seen) == sorted((i, image_size) for i in split.test.indices for image_size in (16, 32))
    assert found.features["look", 16].flatten().tolist() == [1.0] * 20, "half the side, twice the GSD of 0.5"
    assert found.features["look", 32].flatten().tolist() == [0.5] * 20
    assert found.features["other", 16].shape == (20, 8)
    assert (found.labels.numpy() == split.test.labels).all()


def test_progress_ends_at_the_number_of_images(split: TrainTestSplit) -> None:
    summary: list[tuple[int, int]] = []
    extract_features(
        [Fake("c", constant)], split.test, [32], batch_size=8, progress=lambda *now: summary.append(now)
    )
    assert summary == [(8, 20), (16, 20), (20, 20)]


def test_image_that_breaks_after_opening_is_left_out_and_named(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table.parent, tmp_path / "copy")
    split = split_of(tmp_path / "copy" / "index.csv")
    victim = Path(split.test.paths[3])
    victim.write_bytes(victim.read_bytes()[:200])
    found = extract_features([Fake("c", constant)], split.test, [32])
    assert len(found.labels) == 19
    assert split.test.indices[3] not in found.indices
    assert [path for path, _ in found.problems] == [str(victim)]


def test_nothing_readable_is_an_error(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table.parent, tmp_path / "copy")
    split = split_of(tmp_path / "copy" / "index.csv")
    part = EvalSubset(split.test.dataset, split.test.indices[:2], "val")
    for path in part.paths:
        Path(path).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(ImageryError, match="none of the 2 val images could be read"):
        extract_features([Fake("c", constant)], part, [32])


def test_a_whole_chunk_that_cannot_be_read_leaves_the_others(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table.parent, tmp_path / "copy")
    split = split_of(tmp_path / "copy" / "index.csv")
    for path in split.test.paths[4:8]:
        Path(path).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    fake = Fake("c", constant)
    fake.identity, fake.learns = "c/1", False  # type: ignore[attr-defined]
    for _ in range(2):
        cache = FeatureCache(tmp_path / "cache", chunk=4)
        found = extract_features([fake], split.test, [32], batch_size=2, cache=cache)
        assert len(found.features["c", 32]) == len(found.labels) == 16
        assert len(found.problems) == 4


# ---- sides


def test_side_below_a_patch_is_refused_with_the_reason() -> None:
    good, refused = supported_image_sizes(
        [8, 16, 24, 40], [Fake("a", constant), Fake("vit", constant, min_image_size=16)]
    )
    assert good == [16]
    assert refused == [
        "8 px is less than one patch of vit (16 px)",
        "24 px is no multiple of vit's patch (16 px); 32 would be",
        "40 px is no multiple of vit's patch (16 px); 32 would be",
    ]


def test_extract_does_not_take_a_refused_side(split: TrainTestSplit) -> None:
    with pytest.raises(ContractError, match="less than one patch"):
        extract_features([ModelFeatureExtractor(model())], split.test, [4])


# ---- models


def test_model_featurizer_gives_what_embed_gives(split: TrainTestSplit) -> None:
    net = model()
    found = extract_features([ModelFeatureExtractor(net)], split.test, [16, 32])
    batch = split.test.dataset.get_batch(split.test.indices)
    assert torch.allclose(found.features["tiny", 32], net.embed(batch["image"], gsd=0.5), atol=1e-6)
    small = resize_batch(batch, 16)
    assert torch.allclose(found.features["tiny", 16], net.embed(small["image"], gsd=1.0), atol=1e-6)


def test_relative_model_counts_from_its_reference_size(split: TrainTestSplit) -> None:
    net = model(gsd_mode="relative", reference_size=64)
    found = extract_features([ModelFeatureExtractor(net)], split.test, [16])
    small = resize_batch(split.test.dataset.get_batch(split.test.indices), 16)
    assert torch.allclose(found.features["tiny", 16], net.embed(small["image"], gsd=4.0), atol=1e-6)


def test_metres_model_can_be_told_relative_scale(table: Path) -> None:
    net = model(reference_gsd=10.0)
    part = split_of(table, gsd="relative").test
    found = extract_features([ModelFeatureExtractor(net, gsd_mode="relative")], part, [16])
    small = resize_batch(part.dataset.get_batch(part.indices), 16)
    assert torch.allclose(found.features["tiny", 16], net.embed(small["image"], gsd=20.0), atol=1e-6)


def test_pooling_can_be_chosen(split: TrainTestSplit) -> None:
    found = extract_features([ModelFeatureExtractor(model(), pooling="mean_std")], split.test, [32])
    assert found.features["tiny", 32].shape == (20, 48)


def test_scale_that_training_never_saw_is_told(split: TrainTestSplit) -> None:
    with pytest.warns(GsdRangeWarning, match="GSD 1 m lie outside the 0.4 to 0.6 m"):
        extract_features([ModelFeatureExtractor(model(gsd_range=(0.4, 0.6)))], split.test, [16])


def test_contract_is_checked(split: TrainTestSplit) -> None:
    dataset = split.test.dataset
    batch = dataset.get_batch(np.arange(4))
    wrong = {**batch, "image": batch["image"] / 255}
    with pytest.raises(ContractError, match="share of 1"):
        ModelFeatureExtractor(model())(wrong)  # type: ignore[arg-type]


def test_read_outs_of_a_model_encode_each_batch_once(split: TrainTestSplit) -> None:
    own = model()
    seen: list[int] = []
    own.encoder.register_forward_hook(lambda *_: seen.append(1))
    both = pooling_variants(own, ["mean", "mean_std"], "m")
    found = extract_features(both, split.test, [16, 32], batch_size=100)
    assert len(seen) == 2  # a batch at two sides
    alone = extract_features([ModelFeatureExtractor(own, "alone", "mean_std")], split.test, [16, 32])
    for image_size in (16, 32):
        assert torch.equal(found.features["m, mean_std", image_size], alone.features["alone", image_size])
        assert torch.equal(
            found.features["m, mean", image_size], found.features["m, mean_std", image_size][:, :24]
        )


def test_read_outs_are_shared_within_a_model_only(split: TrainTestSplit) -> None:
    with pytest.raises(ContractError, match="another model"):
        ModelFeatureExtractor(model(), "a", fractions=ModelFeatureExtractor(model(), "b"))
