"""CSMAE beyond its parity files: every option does what it says, and what cannot work is refused."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from swath.augmentations.geometric import paired_random_crop
from swath.encoders.multi_sensor import MultiSensorViT
from swath.encoders.vit import ViT
from swath.errors import ContractError, RecipeError
from swath.objectives.check import check_objective, example_batch, example_paired_batch
from swath.objectives.csmae import CSMAE
from swath.objectives.csmae_config import CSMAEConfig

BANDS = {"radar": 2, "optical": 5}
SMALL = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}


def build(bands=BANDS, encoder=None, **options):
    torch.manual_seed(0)
    shape = {"patch_size": 8, "embed_dim": 32, "specific_depth": 1, "common_depth": 1, "heads": 4}
    return CSMAE(MultiSensorViT(bands, **(shape | (encoder or {}))), CSMAEConfig(**(SMALL | options)))


@pytest.mark.parametrize("decoder", ["specific", "common"])
@pytest.mark.parametrize("specific", [0, 1])
def test_four_variants_keep_the_promises_of_an_objective(decoder, specific):
    encoder = {"specific_depth": specific, "common_depth": 2 - specific}
    check_objective(
        lambda: build(encoder=encoder, decoder=decoder), example_paired_batch(BANDS, 32), ranks_average=False
    )


@pytest.mark.parametrize("masking", ["random", "identical", "disjoint"])
@pytest.mark.parametrize("reconstruction", ["source", "target", "opposite"])
def test_every_masking_goes_with_every_reconstruction(masking, reconstruction):
    check_objective(
        lambda: build(masking=masking, reconstruction=reconstruction, mim_weight=0, mask_ratio=0.75),
        example_paired_batch(BANDS, 32),
    )


@pytest.mark.parametrize(
    "options",
    [
        {"norm_pix": True},
        {"pixel_loss": "l1"},
        {"crossmodal": False},
        {"unimodal": False},
        {"mde_weight": 0.5},
        {"mim_weight": 0, "mde_weight": 1.0},
        {"crop_scale": (0.3, 1.0), "orientation": "dihedral"},
        {"target_weights": {"radar": 5.0}},
        {"target_weights": {"radar": 0.0}},
        {"target_weights": {"radar": 0.0}, "decoder": "specific"},
    ],
    ids=str,
)
def test_options_keep_the_promises_too(options):
    check_objective(lambda: build(**options), example_paired_batch(BANDS, 32), ranks_average=False)


def test_three_sensors():
    bands = {**BANDS, "aerial": 3}
    objective = build(bands)
    losses = objective(objective.views(example_paired_batch(bands, 32)))
    assert len([name for name in losses if "_from_" in name]) == 9
    with pytest.raises(RecipeError, match="disjoint is for two sensors"):
        build(bands, masking="disjoint")


def test_sensors_with_grids_of_their_own():
    """The optical image has 8 x 8 patches and the radar image 2 x 2; each rebuilds the other."""
    size = {"radar": 16, "optical": 64}
    options = {"reconstruction": "target", "mim_weight": 0}
    check_objective(
        lambda: build(encoder={"scale_aware": True}, **options),
        example_paired_batch(BANDS, size),
        ranks_average=True,
    )
    shown = example_paired_batch(BANDS, size)
    unaware = build(**options)
    with pytest.raises(ContractError, match="radar 2 x 2, optical 8 x 8"):
        unaware(unaware.views(shown))
    source = build(encoder={"scale_aware": True})
    with pytest.raises(ContractError, match="reconstruction target"):
        source(source.views(shown))


def test_asking_by_place_needs_the_place():
    """Across grids the decoder is told where the patches lie: another GSD, other pixels."""
    objective = build(encoder={"scale_aware": True}, reconstruction="target", mim_weight=0).eval()
    views = objective.views(example_paired_batch(BANDS, {"radar": 16, "optical": 64}))
    before = objective.predictions(views)["radar", "optical"]
    views["gsd"]["optical"] = views["gsd"]["optical"] * 1.5
    assert (before - objective.predictions(views)["radar", "optical"]).abs().max() > 1e-4


def test_a_common_decoder_runs_once_for_routes_that_see_the_same():
    objective = build(decoder="common")
    runs = []
    objective.decoder.norm.register_forward_hook(lambda *_: runs.append(1))
    objective(objective.views(example_paired_batch(BANDS, 32)))
    assert len(runs) == 2  # four reconstructions of two sensors


def test_a_sensor_of_weight_zero_is_never_rebuilt():
    """No layer, no loss that would be logged as 0, no picture; and the others' losses are what they were."""
    batch = example_paired_batch(BANDS, 32)
    without, whole = build(target_weights={"radar": 0.0}), build()
    assert not any("pred.radar" in name for name in without.state_dict())
    whole.load_state_dict(without.state_dict(), strict=False)
    losses, every = without(without.views(batch)), whole(whole.views(batch))
    assert set(every) - set(losses) == {"radar_from_radar", "radar_from_optical"}
    for name in set(losses) - {"total"}:
        assert losses[name] == every[name]
    assert not any(name.startswith("radar: from") for name in without.images(without.views(batch)))
    with pytest.raises(RecipeError, match="all 0"):
        build(target_weights=dict.fromkeys(BANDS, 0.0))


def test_one_sensor_alone_is_a_masked_autoencoder():
    options = {"crossmodal": False, "mim_weight": 0}
    check_objective(lambda: build({"radar": 2}, **options), example_batch(2, 32, sensor="radar"))
    check_objective(lambda: build(3, **options), example_batch(3, 32, sensor="anything"))
    with pytest.raises(RecipeError, match="radar is the only sensor"):
        build({"radar": 2})


def test_fc_norm_is_left_alone_where_nothing_trains_it():
    assert build(mim_weight=1.0).encoder.fc_norm.weight.requires_grad
    assert not build(mim_weight=0.0).encoder.fc_norm.weight.requires_grad


def test_views_orient_all_sensors_alike():
    batch = example_paired_batch({"a": 1, "b": 1}, 32, count=16)
    batch["sensors"]["b"]["image"] = batch["sensors"]["a"]["image"].clone()
    views = build({"a": 1, "b": 1}, orientation="dihedral", crop_scale=(0.2, 1.0)).views(batch)
    assert torch.equal(views["image"]["a"], views["image"]["b"])
    assert not torch.equal(views["image"]["a"], batch["sensors"]["a"]["image"])


def test_crops_of_sensors_with_other_pixels_show_the_same_ground():
    """A fine image that is the coarse one with every pixel repeated stays so after the crop."""
    batch = example_paired_batch({"coarse": 1, "fine": 1}, 16, count=12)["sensors"]
    image = batch["coarse"]["image"]
    batch["fine"]["image"] = image.repeat_interleave(4, 2).repeat_interleave(4, 3)
    batch["fine"]["valid"] = torch.ones(12, 64, 64, dtype=torch.bool)
    cut = paired_random_crop(batch, scale=(0.2, 0.6), filter="area", stream="x")
    again = torch.nn.functional.interpolate(cut["fine"]["image"], size=(16, 16), mode="area")
    assert cut["fine"]["image"].shape[-1] == 64
    assert (again - cut["coarse"]["image"]).abs().mean() < 0.12  # area averages twice, at other phases
    assert torch.allclose(
        cut["fine"]["gsd"] / batch["fine"]["gsd"], cut["coarse"]["gsd"] / batch["coarse"]["gsd"]
    )


def test_a_sensor_that_is_not_there_is_named():
    with pytest.raises(ContractError, match="have no optical: only radar"):
        build().views(example_paired_batch({"radar": 2}, 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_dim": 18}, "multiple of decoder_heads"),
        ({"unimodal": False, "crossmodal": False}, "nothing is reconstructed"),
        ({"crossmodal": False, "reconstruction": "target"}, "crossmodal is off"),
        ({"crop_scale": (0.5, 0.2)}, "low <= high"),
        ({"target_weights": {"radar": -1}}, "not negative"),
        ({"masking": "same"}, "random"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(ValidationError, match=message):
        CSMAEConfig(**(SMALL | options))


def test_encoders_and_sensors_that_do_not_fit():
    with pytest.raises(RecipeError, match="use a vit_multi_sensor"):
        CSMAE(ViT(3, embed_dim=32, depth=1, heads=2), CSMAEConfig(**SMALL))
    with pytest.raises(RecipeError, match=r"'rader' is no sensor.*radar"):
        build(target_weights={"rader": 2.0})
