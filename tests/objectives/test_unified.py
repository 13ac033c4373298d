"""The unified objective: each ingredient is a switch, and each switch does what it says."""

import math

import pytest
import torch

from swath.encoders.vit import ViT
from swath.errors import ContractError, RecipeError
from swath.objectives.check import check_objective, example_batch, example_paired_batch
from swath.objectives.scale_mae import ScaleMAE, ScaleMAEConfig
from swath.objectives.unified import Unified, UnifiedConfig

SMALL = {
    "source_size": 32,
    "decoder_dim": 48,
    "decoder_depth": 1,
    "decoder_heads": 3,
    "head": "linear",
    "hidden_dim": 32,
    "out_dim": 16,
    "queue_size": 50,
    "prototypes": 20,
    "bottleneck_dim": 8,
    "photometric": "none",
}
PAIRS = {"optical": 3, "radar": 2}


def small(bands=3, **options):
    torch.manual_seed(0)
    encoder = ViT(bands, patch_size=4, embed_dim=48, depth=2, heads=2)
    return Unified(encoder, UnifiedConfig(**SMALL, **options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"teacher": False},
        {"local_weight": 1.0},
        {"embedding": "mean"},
        {"global_weight": 0.0},
        {"reconstruction_weight": 0.0, "local_weight": 1.0, "global_weight": 1.0},
    ],
    ids=str,
)
def test_it_is_an_objective(options):
    check_objective(lambda: small(**options), example_batch(3, 64), ranks_average=False, fixed_target=False)


@pytest.mark.parametrize("options", [{}, {"teacher": False}, {"local_weight": 1.0}], ids=str)
def test_it_is_an_objective_for_pairs(options):
    check_objective(
        lambda: small(PAIRS, **options),
        example_paired_batch(PAIRS, 64),
        ranks_average=False,
        fixed_target=False,
    )


def test_without_agreement_it_is_scale_mae():
    """The same weights and the same crops give the same losses."""
    batch = example_batch(3, 64)
    unified = small(global_weight=0.0)
    torch.manual_seed(0)
    encoder = ViT(3, patch_size=4, embed_dim=48, depth=2, heads=2)
    options = {name: SMALL[name] for name in SMALL if name in ScaleMAEConfig.model_fields}
    scale_mae = ScaleMAE(encoder, ScaleMAEConfig(**options))
    scale_mae.load_state_dict(unified.state_dict())
    looks = unified.views(batch)["looks"]
    assert list(looks) == ["first"]
    expected, found = scale_mae(looks["first"]), unified({"looks": looks})
    assert {name: float(value.detach()) for name, value in found.items()} == pytest.approx(
        {name: float(value.detach()) for name, value in expected.items()}, rel=1e-6
    )


def test_the_second_look_has_its_own_scale_and_its_cells_lie_on_the_ground():
    """A map of ground coordinates as the image: what a cell shows is where it says that it lies."""
    batch = example_batch(2, 64, count=16)
    batch["gsd"] = torch.full((16,), 2.0)
    metres = (torch.arange(64) + 0.5) * 2.0
    batch["image"] = torch.stack(torch.meshgrid(metres, metres, indexing="ij")).expand(16, -1, -1, -1).clone()
    model = small(2, crop_scale=(0.25, 1.0))
    looks = model.views(batch)["looks"]
    assert not torch.equal(looks["first"]["gsd"], looks["second"]["gsd"])
    for look in looks.values():
        shown = torch.nn.functional.avg_pool2d(look["image"], 4).flatten(2).transpose(1, 2)
        # Bicubic resampling at the border of a crop is off by less than a fine pixel.
        assert float((shown - look["cells"]).abs().max()) < 2.0


def test_cross_sensor_reconstruction_is_a_switch():
    batch = example_paired_batch(PAIRS, 64)
    on, off = small(PAIRS), small(PAIRS, cross_weight=0.0)
    assert "radar_from_optical/low" in on(on.views(batch))
    assert not any("radar_from_optical" in name for name in off(off.views(batch)))
    looks = on.views(batch)["looks"]
    assert torch.equal(looks["optical"]["cells"], looks["radar"]["cells"])  # one crop, one orientation
    assert not torch.equal(looks["optical"]["noise"], looks["radar"]["noise"])  # but masks of their own


def test_sensors_of_different_resolution_are_cut_to_the_same_ground():
    batch = example_paired_batch(PAIRS, {"optical": 96, "radar": 48})
    looks = small(PAIRS).views(batch)["looks"]
    ground = {name: look["target_gsd"] * look["target"].shape[-1] for name, look in looks.items()}
    torch.testing.assert_close(ground["optical"], ground["radar"])


def test_patches_without_common_ground_have_no_local_loss():
    model = small(local_weight=1.0)
    views = model.views(example_batch(3, 64))
    views["looks"]["second"]["cells"] += 1e4  # ten kilometres away
    losses = model(views)
    assert (float(losses["local"]), float(losses["no_overlap"])) == (0.0, 1.0)
    losses["total"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_looks_of_two_sensors_are_matched_on_the_same_ground():
    """One crop of both: every visible patch that the teacher sees too is its own partner."""
    batch = example_paired_batch(PAIRS, {"optical": 128, "radar": 64})
    model = small(PAIRS, local_weight=1.0, teacher_mask_ratio=0.0)
    views = model.views(batch)
    optical, radar = (views["looks"][name]["cells"] for name in ("optical", "radar"))
    torch.testing.assert_close(optical, radar)
    assert float(model(views)["no_overlap"]) == 0.0


def test_a_batch_of_one():
    for options in ({}, {"local_weight": 1.0}):
        model = small(**options)
        losses = model(model.views(example_batch(3, 64, count=1)))
        losses["total"].backward()
        assert all(value.isfinite() for value in losses.values())


def test_the_teacher_follows_and_its_keys_join_the_queue():
    model = small(momentum=0.5)
    before = model.queue.keys.clone()
    losses = model(model.views(example_batch(3, 64)))
    losses["total"].backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    with torch.no_grad():
        model.encoder.norm.weight.add_(1.0)
    model.after_step(1, 100)
    torch.testing.assert_close(model.teacher["encoder"].norm.weight, torch.full((48,), 1.5))
    assert int((model.queue.keys != before).any(dim=1).sum()) == 8  # two looks at four places, each once


def test_agreement_starts_near_chance():
    model = small(teacher=False, temperature=1.0)
    losses = model(model.views(example_batch(3, 64, count=8)))
    assert float(losses["global"]) == pytest.approx(math.log(15), rel=0.1)


def test_positions_that_count_patches_do_not_know_the_scale():
    image, gsd = torch.randn(2, 3, 16, 16), torch.tensor([1.0, 4.0])
    for aware in (True, False):
        torch.manual_seed(0)
        encoder = ViT(3, patch_size=4, embed_dim=48, depth=1, heads=2, scale_aware=aware)
        same = torch.equal(encoder.encode(image, gsd), encoder.encode(image, torch.ones(2)))
        assert same is not aware


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"local_weight": 1.0, "teacher": False}, "needs a teacher"),
        ({"reconstruction_weight": 0.0, "global_weight": 0.0}, "nothing is learned"),
        ({"reconstruction_weight": 0.0, "cross_weight": 1.0}, "cross_weight needs"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        UnifiedConfig(**SMALL, **options)


def test_more_matches_than_visible_patches_are_refused():
    with pytest.raises(RecipeError, match="16 visible patches"):
        small(local_weight=1.0, matches=17)


def test_data_of_other_sensors_are_refused():
    model = small(PAIRS)
    with pytest.raises(ContractError, match="optical, radar, but the data are of rgb"):
        model.views(example_batch(3, 64, sensor="rgb"))
