"""A model in use: one image or many, arrays or tensors, one sensor or several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import swath
from helpers.small_models import OPTIONS, save_small, small_encoder
from swath.errors import ContractError
from swath.models import Contract, Model

GENERATOR = torch.Generator().manual_seed(1)
IMAGES = torch.randint(0, 255, (5, 3, 32, 48), dtype=torch.uint8, generator=GENERATOR)
GSD = torch.tensor([0.3, 0.5, 1.0, 2.0, 2.2])


@pytest.fixture
def model(folder: Path) -> Model:
    return swath.load_model(folder)


def test_single_equals_batch(model: Model) -> None:
    together = model.embed(IMAGES, gsd=GSD)
    alone = torch.cat([model.embed(image, gsd=g) for image, g in zip(IMAGES, GSD, strict=True)])
    assert together.shape == (5, 32)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_batch_size_changes_nothing(model: Model, batch_size: int) -> None:
    torch.testing.assert_close(
        model.embed(IMAGES, gsd=GSD, batch_size=batch_size), model.embed(IMAGES, gsd=GSD), rtol=0, atol=1e-6
    )


def test_arrays_tensors_and_floats_are_the_same(model: Model) -> None:
    expected = model.embed(IMAGES, gsd=GSD)
    assert torch.equal(model.embed(IMAGES.numpy(), gsd=GSD.numpy()), expected)
    assert torch.equal(model.embed(IMAGES.float(), gsd=GSD.tolist()), expected)
    assert torch.equal(model.embed(IMAGES.double().numpy(), gsd=GSD), expected)
    assert torch.equal(model.embed(IMAGES.numpy().astype(np.uint16).astype(np.int32), gsd=GSD), expected)


def test_no_images_give_no_embeddings(model: Model) -> None:
    assert model.embed(IMAGES[:0], gsd=1.0).shape == (0, 32)
    assert model.embed(IMAGES[:0], gsd=1.0, pooling="mean_std").shape == (0, 64)


def test_gsd_matters_and_is_counted_from_the_reference(tmp_path: Path) -> None:
    encoder = small_encoder()
    one = swath.load_model(save_small(tmp_path / "a", Contract.of("rgb_aerial"), encoder))
    ten = swath.load_model(save_small(tmp_path / "b", Contract.of("rgb_aerial", reference_gsd=10.0), encoder))
    torch.testing.assert_close(one.embed(IMAGES, gsd=1.0), ten.embed(IMAGES, gsd=10.0))
    assert not torch.allclose(one.embed(IMAGES, gsd=1.0), one.embed(IMAGES, gsd=3.0))


def test_relative_model_needs_no_gsd(tmp_path: Path) -> None:
    contract = Contract.of("rgb_aerial", gsd_mode="relative", reference_size=96)
    model = swath.load_model(save_small(tmp_path / "m", contract))
    assert torch.equal(model.embed(IMAGES), model.embed(IMAGES, gsd=2.0))


def test_nodata_does_not_reach_the_embedding(model: Model) -> None:
    valid = torch.ones(5, 32, 48, dtype=torch.bool)
    valid[:, :10, :10] = False
    other = IMAGES.clone()
    other[:, :, :10, :10] = 255
    a, b = (model.embed(images, gsd=GSD, valid=valid) for images in (IMAGES, other))
    assert torch.equal(a, b)
    holes = IMAGES.float().masked_fill(~valid.unsqueeze(1), float("nan"))
    assert torch.equal(model.embed(holes, gsd=GSD), a)
    assert torch.equal(
        model.embed(IMAGES[0], gsd=GSD[0], valid=valid[0])[0], model.embed(holes[0], gsd=GSD[0])[0]
    )


@pytest.mark.parametrize(("pooling", "width"), [(None, 32), ("mean", 32), ("cls", 32), ("mean_std", 64)])
def test_pooling_can_be_chosen(model: Model, pooling: str | None, width: int) -> None:
    assert model.embed(IMAGES, gsd=GSD, pooling=pooling).shape == (5, width)


def test_pooling_of_the_directory_is_used(tmp_path: Path, contract: Contract) -> None:
    model = swath.load_model(save_small(tmp_path / "m", contract, pooling="mean_std"))
    assert model.embed_dim == 64
    assert torch.equal(model.embed(IMAGES, gsd=GSD), model.embed(IMAGES, gsd=GSD, pooling="mean_std"))


def test_several_sensors_each_have_their_own_way_in(tmp_path: Path) -> None:
    bands = {"sentinel2_l2a": 12, "sentinel1_grd": 2}
    contract = Contract.of("sentinel2_l2a", "sentinel1_grd", reference_gsd=10.0)
    path = save_small(
        tmp_path / "m", contract, small_encoder(bands=bands), encoder_options=OPTIONS | {"bands": bands}
    )
    model = swath.load_model(path)
    optical = torch.rand(2, 12, 32, 32) * 0.4
    radar = -25 + 20 * torch.rand(2, 2, 32, 32)
    assert model.embed(optical, gsd=10.0, sensor="sentinel2_l2a").shape == (2, 32)
    assert model.embed(radar, gsd=10.0, sensor="sentinel1_grd").shape == (2, 32)
    with pytest.raises(ContractError, match="say which one"):
        model.embed(optical, gsd=10.0)
    with pytest.raises(ContractError, match="2 bands, but sensor 'sentinel2_l2a' has 12"):
        model.embed(radar, gsd=10.0, sensor="sentinel2_l2a")


def test_refusals_reach_the_user(model: Model) -> None:
    with pytest.raises(ContractError, match="GSD is missing"):
        model.embed(IMAGES)
    with pytest.raises(ContractError, match="share of 1"):
        model.embed(IMAGES.float() / 255, gsd=1.0)
    with pytest.raises(ContractError, match=r"images\[:, \[2, 1, 0\]\]"):
        model.embed(IMAGES, gsd=1.0, bands=["B", "G", "R"])
    with pytest.raises(ContractError, match=r"multiples of 8.*to 32 x 40"):
        model.embed(IMAGES[..., :45], gsd=1.0)
    with pytest.raises(ContractError, match="to 8 x 48"):
        model.embed(IMAGES[:, :, :3], gsd=1.0)
    with pytest.raises(ContractError, match=r"valid is \[5, 32, 32\].*\[5, 32, 48\] is wanted"):
        model.embed(IMAGES, gsd=1.0, valid=np.ones((5, 32, 32), dtype=bool))
    with pytest.raises(ContractError, match="one array or tensor"):
        model.embed(["a.tif", "b.tif"], gsd=1.0)
    with pytest.raises(ContractError, match=r"\[N, bands, height, width\] is wanted"):
        model.embed(IMAGES[0, 0], gsd=1.0)


def test_features_have_gradients_and_the_place_of_the_pixels(model: Model) -> None:
    features = model.features(IMAGES, gsd=GSD)
    assert features.tokens is not None
    assert features.maps[0].shape == (5, 32, 4, 6)
    assert torch.equal(features.maps[0].flatten(2).transpose(1, 2), features.tokens)
    model(IMAGES, gsd=GSD).sum().backward()
    assert all(p.grad is not None for name, p in model.encoder.named_parameters() if "cls" not in name)


def test_transposed_model_gives_maps_in_the_images_own_order(tmp_path: Path) -> None:
    encoder = small_encoder()
    plain = swath.load_model(save_small(tmp_path / "a", Contract.of("rgb_aerial"), encoder))
    swapped = swath.load_model(save_small(tmp_path / "b", Contract.of("rgb_aerial", transpose=True), encoder))
    expected = plain.features(IMAGES.transpose(2, 3), gsd=GSD)
    found = swapped.features(IMAGES, gsd=GSD)
    torch.testing.assert_close(found.maps[0], expected.maps[0].transpose(2, 3))
    assert found.tokens is not None
    torch.testing.assert_close(found.tokens, found.maps[0].flatten(2).transpose(1, 2))


def test_embed_batch_is_what_embed_gives(model: Model) -> None:
    with torch.no_grad():
        found = model.embed_batch({"image": IMAGES, "gsd": GSD, "sensor": "rgb_aerial"})
    torch.testing.assert_close(found, model.embed(IMAGES, gsd=GSD))
