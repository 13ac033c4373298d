"""Scale-MAE: promises of an objective, options, GSD of the views, nodata, and what the chunked heads cost."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from helpers.reference_options import reduce_views
from swath.encoders.vit import ViT
from swath.errors import RecipeError
from swath.objectives.check import check_objective, example_batch
from swath.objectives.protocol import objectives
from swath.objectives.scale_mae import ScaleMAE, ScaleMAEConfig

TINY = {
    "source_size": 32,
    "decoder_dim": 32,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "fcn_dim": 16,
    "fcn_layers": 1,
}


def build(bands=3, patch_size=8, **options):
    torch.manual_seed(0)
    encoder = ViT(bands, patch_size=patch_size, embed_dim=32, depth=1, heads=2)
    return ScaleMAE(encoder, ScaleMAEConfig(**(TINY | options)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"frequency": "paper", "head_chunk": 3},
        {"independent_heads": False, "progressive": True, "patch_size": 16, "mask_ratio": 0.5},
        {"head": "linear", "fcn_dim": 512, "fcn_layers": 2},
        {"patch_size": 4, "fcn_layers": 0, "source_filter": "bilinear", "orientation": "none"},
        {"patch_size": 14, "source_size": 28, "orientation": "flip"},
        {"bands": 13},
    ],
    ids=str,
)
def test_keeps_every_promise_of_an_objective(options):
    check_objective(lambda: build(**options), example_batch(bands=options.get("bands", 3), size=80))


def test_several_sensors_share_the_encoder():
    bands = {"sentinel2_l2a": 12, "sentinel1_grd": 2}
    objective = build(bands)
    for sensor, count in bands.items():
        views = objective.views(example_batch(count, sensor=sensor))
        objective(views)["total"].backward()
        assert objective.images(views)["combined"].shape == (4, count, 64, 64)


def test_is_registered():
    entry = objectives.get("scale_mae")
    assert entry.config is ScaleMAEConfig
    assert entry.summary.startswith("Masked autoencoding at known scale")


def test_gsd_follows_the_crop():
    """A crop of half the side at the same pixel count halves the GSD; the source's is twice the target's."""
    objective = build(crop_scale=(0.25, 0.25))
    batch = example_batch(size=64)
    views = objective.views(batch)
    torch.testing.assert_close(views["target_gsd"], batch["gsd"] * 32 / 64)
    torch.testing.assert_close(views["gsd"], views["target_gsd"] * 2)
    assert views["target"].shape[-1] == 2 * views["image"].shape[-1] == 64


def test_sizes_of_the_bands_by_default():
    assert (ScaleMAEConfig().high_pass, ScaleMAEConfig().low_pass) == (7, None)
    paper = ScaleMAEConfig(frequency="paper")
    assert (paper.low_pass, paper.high_pass, paper.high_loss) == (14, 56, "l1")
    assert ScaleMAEConfig(**paper.model_dump()) == paper, "what a recipe stores makes the same options again"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"high_pass": 64}, "below the target's side 64"),
        ({"frequency": "paper", "low_pass": 32}, "below source_size 32"),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"decoder_heads": 5}, "decoder_dim 32"),
        ({"fcn_dim": 18}, "multiple of 4"),
        ({"head": "linear", "fcn_dim": 16}, "only head 'pyramid'"),
        ({"norm_pix_loss": True}, "Extra inputs"),
        ({"mask_ratio": 1.0}, "less than 1"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValidationError, match=message):
        ScaleMAEConfig(**(TINY | options))


def test_refuses_encoders_that_do_not_fit():
    with pytest.raises(RecipeError, match="multiple of the encoder's patch size 8"):
        build(source_size=36)
    with pytest.raises(RecipeError, match="leaves no patch"):
        build(patch_size=16, mask_ratio=0.9)
    with pytest.raises(RecipeError, match="use a vit"):
        ScaleMAE(torch.nn.Conv2d(3, 8, 3), ScaleMAEConfig(**TINY))


@pytest.mark.parametrize("frequency", ["released", "paper"])
def test_nodata_reaches_no_target(frequency):
    """Valid target pixels are the same whatever stands in the nodata pixels beside them."""
    objective = build(frequency=frequency, low_pass=8, high_pass=16)
    target = torch.randn(2, 3, 64, 64)
    valid = torch.ones(2, 64, 64, dtype=torch.bool)
    valid[0, :20, 10:] = False
    valid[1] = False
    results = []
    for junk in (0.0, 1e4):
        filled = torch.where(valid[:, None], target, junk)
        results.append(objective.targets(filled, valid))
    (low, high, low_weight, weight), (low2, high2, _, _) = results
    torch.testing.assert_close(low, low2, atol=1e-5, rtol=0)
    torch.testing.assert_close(high * weight, high2 * weight, atol=1e-5, rtol=0)
    assert low_weight[1].sum() == 0
    assert low_weight[0, 0, 20:].min() == 1


def test_paper_bands():
    """A constant image is all low; what the low band's map can show is not in the high band."""
    objective = build(frequency="paper", low_pass=2, high_pass=8)
    low, high, _, _ = objective.targets(torch.full((1, 3, 64, 64), 2.0), None)
    torch.testing.assert_close(low, torch.full((1, 3, 32, 32), 2.0))
    assert high.abs().max() < 1e-6


@pytest.mark.parametrize("head", ["pyramid", "linear"])
def test_chunks_change_nothing_but_rounding(head):
    options = {"head": head} if head == "pyramid" else {"head": head, "fcn_dim": 512, "fcn_layers": 2}
    results = []
    for chunk in (1, 3, 4):
        objective = build(head_chunk=chunk, **options)
        loss = objective(objective.views(example_batch()))
        (loss["total"] * 8).backward()
        results.append((loss["total"].item(), [p.grad for p in objective.parameters()]))
    for total, grads in results[1:]:
        assert total == pytest.approx(results[0][0], rel=1e-6)
        for a, b in zip(grads, results[0][1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_gradients_are_those_of_autograd():
    """The gradient taken chunk by chunk on the way equals the ordinary one of the same loss."""
    objective = build(head_chunk=2)
    views = objective.views(example_batch())
    with torch.no_grad():
        before = objective(views)["total"]
    objective(views)["total"].backward()
    direction = {n: p.grad.clone() for n, p in objective.named_parameters()}
    norm = sum(g.double().square().sum() for g in direction.values())
    step = 1e-3 / norm.sqrt().item()
    with torch.no_grad():
        for name, p in objective.named_parameters():
            p -= step * direction[name]
        after = objective(views)["total"]
    assert (before - after).item() == pytest.approx(step * norm.item(), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    objective = build()
    views = objective.views(example_batch())
    exact = objective(views)["total"]
    with torch.autocast("cpu", dtype=dtype):
        losses = objective(views)
    assert losses["total"].item() == pytest.approx(exact.item(), rel=0.02)
    losses["total"].backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in objective.parameters())


def test_frozen_parts_get_no_gradient():
    objective = build()
    objective.encoder.requires_grad_(False)
    objective.decoder.pixels.head_low.requires_grad_(False)
    views = objective.views(example_batch())
    objective(views)["total"].backward()
    for name, p in objective.named_parameters():
        assert (p.grad is None) == (not p.requires_grad), name
    objective.requires_grad_(False)
    assert not objective(views)["total"].requires_grad


def test_non_square_views():
    objective = build()
    views = {
        "image": torch.randn(2, 3, 32, 48),
        "gsd": torch.tensor([1.0, 2.0]),
        "target": torch.randn(2, 3, 64, 96),
        "noise": torch.rand(2, 24),
    }
    objective(views)["total"].backward()
    assert objective.images(views)["high"].shape == (2, 3, 64, 96)


def test_smaller_views():
    objective = build()
    views = objective.views(example_batch())
    small = reduce_views(views, 16)
    assert small["image"].shape[-1] == 16
    assert small["target"].shape[-1] == 32
    torch.testing.assert_close(small["gsd"], views["gsd"] * 2)
    torch.testing.assert_close(small["target_gsd"], views["target_gsd"] * 2)
    blurred = reduce_views(views, 16, targets_from_source=True)
    assert blurred["target"].std() < small["target"].std()
