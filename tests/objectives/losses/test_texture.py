"""The texture target: blind to where in a patch a pattern lies, sensitive to which and how much of it."""

from __future__ import annotations

import pytest
import torch

from swath.encoders import create_model
from swath.errors import RecipeError, TrainingError
from swath.keyed_random import sample_keys
from swath.objectives.losses.texture import TextureTarget, whitened_patches
from swath.objectives.scale_mae import ScaleMAE, ScaleMAEConfig


def fields(count: int, smooth: int, seed: int, side: int = 64) -> torch.Tensor:
    """Noise of unit variance with structures of about `smooth` pixels: the same texture for any seed."""
    noise = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
    if smooth > 1:
        noise = torch.nn.functional.avg_pool2d(noise, smooth, stride=1, padding=smooth // 2)[
            ..., :side, :side
        ]
    return noise / noise.std()


def as_patches(image: torch.Tensor, side: int = 16) -> torch.Tensor:
    batch = len(image)
    return (
        image.unfold(2, side, side)
        .unfold(3, side, side)
        .permute(0, 2, 3, 4, 5, 1)
        .reshape(batch, -1, side, side, 3)
    )


def test_the_same_texture_elsewhere_is_nearer_than_another_texture() -> None:
    target = TextureTarget(3, count=8)
    target.fit(torch.cat([fields(32, 1, 0), fields(32, 5, 1)]), 16)
    fine, fine_elsewhere, coarse = (
        target(as_patches(x, 16)).mean(dim=(0, 1))
        for x in (fields(8, 1, 2), fields(8, 1, 3), fields(8, 5, 4))
    )
    assert (fine - coarse).square().mean() > 4 * (fine - fine_elsewhere).square().mean()


def test_targets_are_centered_and_about_white_on_what_they_were_fitted_to() -> None:
    target = TextureTarget(3, count=8)
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    target.fit(images, 8)
    energy = target(as_patches(images, 8)).flatten(0, 1)
    torch.testing.assert_close(energy.mean(dim=0), torch.zeros(16), atol=1e-3, rtol=0)
    assert 0.3 < energy.var(dim=0).mean() <= 1.01


def test_whitened_filters_answer_patches_with_mean_zero() -> None:
    images = torch.rand(16, 4, 32, 32, generator=torch.Generator().manual_seed(2)) + 5
    kernel, bias = whitened_patches(images, 4, 12, seed=0)
    response = torch.nn.functional.conv2d(images, kernel, bias)
    assert response.mean().abs() < 0.05


def test_an_unfitted_target_is_refused() -> None:
    with pytest.raises(TrainingError, match="prepare"):
        TextureTarget(3)(torch.zeros(1, 1, 8, 8, 3))


def objective(**options: object) -> ScaleMAE:
    torch.manual_seed(0)
    config = ScaleMAEConfig(
        source_size=32, decoder_dim=32, decoder_depth=1, decoder_heads=2, head="linear", **options
    )
    return ScaleMAE(create_model("vit_nano_patch4"), config)


def batch(count: int = 8) -> dict[str, object]:
    return {
        "image": torch.randn(count, 3, 80, 80, generator=torch.Generator().manual_seed(3)),
        "gsd": torch.ones(count),
        "valid": torch.ones(count, 80, 80, dtype=torch.bool),
        "key": sample_keys(0, 0, torch.arange(count)),
        "sensor": "rgb_aerial",
    }


def test_the_texture_loss_is_part_of_the_total_and_reaches_the_encoder() -> None:
    model = objective(texture_weight=2.0, patch_init="whitened", high_weight=0.0)
    model.prepare(batch())
    losses = model(model.views(batch()))
    torch.testing.assert_close(losses["total"], losses["low"] + losses["high"] + losses["texture"])
    assert losses["high"] == 0
    losses["total"].backward()
    assert model.encoder.patch_embed.proj.weight.grad.abs().sum() > 0
    assert model.texture_head.weight.grad.abs().sum() > 0


def test_nodata_never_enters_the_texture_loss() -> None:
    model = objective(texture_weight=1.0)
    model.prepare(batch())
    views = model.views(batch())
    valid = torch.rand(views["valid"].shape, generator=torch.Generator().manual_seed(4)) > 0.02
    plain = dict(views, valid=valid)
    poisoned = dict(
        views, valid=valid, target=torch.where(valid[:, None], views["target"], torch.tensor(1e3))
    )
    torch.testing.assert_close(model(plain)["texture"], model(poisoned)["texture"])


def test_prepare_is_the_same_on_every_call_and_whitens_the_patch_embedding() -> None:
    first, second = objective(patch_init="whitened"), objective(patch_init="whitened")
    first.prepare(batch())
    second.prepare(batch())
    weight = first.encoder.patch_embed.proj.weight
    torch.testing.assert_close(weight, second.encoder.patch_embed.proj.weight, atol=0, rtol=0)
    assert not torch.equal(weight, objective().encoder.patch_embed.proj.weight)


def test_several_sensors_are_refused_with_their_names() -> None:
    config = ScaleMAEConfig(
        source_size=32, decoder_dim=32, decoder_heads=2, head="linear", texture_weight=1.0
    )
    encoder = create_model("vit_nano_patch4", bands={"sentinel1_grd": 2, "sentinel2_l2a": 12})
    with pytest.raises(RecipeError, match="sentinel1_grd, sentinel2_l2a"):
        ScaleMAE(encoder, config)
