"""CMID: the promises of an objective with every encoder that can mark hidden cells, and its own rules."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from swath.encoders.multi_sensor import MultiSensorViT
from swath.encoders.vit import ViT
from swath.errors import ContractError, RecipeError
from swath.keyed_random import sample_keys
from swath.objectives.check import check_objective, example_batch, example_pairs
from swath.objectives.cmid import CMID, CMIDConfig
from swath.objectives.contrast import KeyQueue
from swath.objectives.matching import cell_locations, match_cells
from swath.objectives.momentum import follow, teacher_of

SMALL = {
    "view_size": 64, "mask_block": 16, "hidden_dim": 32, "out_dim": 16, "queue_size": 50, "prototypes": 24,
    "bottleneck_dim": 12, "matches": 6,
}  # fmt: skip


def build(bands=3, **options):
    torch.manual_seed(0)
    encoder = ViT(bands, patch_size=16, embed_dim=32, depth=2, heads=2)
    return CMID(encoder, CMIDConfig(**(SMALL | options)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"matching": "released", "flips": "none"},
        {"flips": "both", "jitter": 0.0},
        {"mask_second": False},
        {"local_batch_norm": True, "views_together": False},
        {"global_weight": 0.0},
        {"local_weight": 0.0},
        {"reconstruction_weight": 0.0},
    ],
    ids=str,
)
def test_keeps_every_promise_of_an_objective(options):
    check_objective(lambda: build(**options), example_batch(3, 80), ranks_average=False, fixed_target=False)


def test_reconstruction_alone_learns():
    check_objective(
        lambda: build(global_weight=0.0, local_weight=0.0), example_batch(3, 80), ranks_average=False
    )


def test_two_sensors_are_the_two_views():
    bands = {"radar": 2, "optical": 5}
    batch = example_pairs(bands, {"radar": 80, "optical": 160})
    check_objective(lambda: build(bands), batch, ranks_average=False, fixed_target=False)
    views = build(bands).views(batch)
    assert [views["image"][name].shape[1] for name in ("first", "second")] == [2, 5]
    with pytest.raises(ContractError, match="pairs of 3 sensors"):
        build({**bands, "x": 1}).views(example_pairs({**bands, "x": 1}, 80))


def test_matched_cells_show_the_same_ground():
    """With the ground's coordinates as bands, matched cells of the two views have nearly equal values."""
    size, count = 160, 64
    at = torch.arange(size, dtype=torch.float32)
    ground = torch.stack([at[:, None].expand(size, size), at[None].expand(size, size)]).expand(
        count, -1, -1, -1
    )
    key = sample_keys(1, 0, torch.arange(count))
    batch = {"image": ground.clone(), "gsd": torch.ones(count), "key": key, "sensor": "x"}
    objective = build(2, jitter=0.0, flips="both")
    views = objective.views(batch)
    grid = (4, 4)
    places, values = {}, {}
    for name in ("first", "second"):
        places[name] = cell_locations(
            views["boxes"][name], views["flipped"][name], grid, upside_down=views["upside_down"][name]
        )
        seen = torch.nn.functional.adaptive_avg_pool2d(views["image"][name], grid)
        values[name] = seen.permute(0, 2, 3, 1) + 0.5
        assert (places[name] - values[name]).abs().max() < 1.0  # where a cell says that it is, it is
    pairs = match_cells(places["first"], places["second"], 6)
    near = pairs.distance.median()
    assert near < 0.5 * size / 4
    released = build(2, jitter=0.0, flips="both", matching="released").views(batch)
    wrong = cell_locations(released["boxes"]["first"], released["flipped"]["first"], grid)
    assert (wrong * (size / 64) - values["first"]).abs().mean() > 5  # the released code's are elsewhere


def test_crops_without_common_ground_have_no_local_loss():
    objective = build()
    views = objective.views(example_batch(3, 80))
    views["boxes"] = {
        "first": torch.tensor([[0.0, 0.0, 30.0, 30.0]]).repeat(4, 1),
        "second": torch.tensor([[40.0, 40.0, 30.0, 30.0]]).repeat(4, 1),
    }
    losses = objective(views)
    assert float(losses["no_overlap"]) == 1.0
    assert float(losses["local"]) == 0.0
    assert losses["total"].isfinite()


def test_a_batch_of_one():
    objective = build()
    objective(objective.views(example_batch(3, 80, count=1)))["total"].backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in objective.parameters() if p.requires_grad
    )


def test_hidden_blocks_are_the_stated_share_and_filled_with_the_mean():
    views = build(mask_ratio=0.6).views(example_batch(3, 80))
    hidden = views["hidden"]["first"]
    assert hidden.flatten(1).sum(1).tolist() == [10] * 4  # ceil(0.6 * 16)
    pixels = hidden.repeat_interleave(16, 1).repeat_interleave(16, 2)
    image, shown = views["image"]["first"], views["shown"]["first"]
    assert torch.equal(shown.permute(0, 2, 3, 1)[~pixels], image.permute(0, 2, 3, 1)[~pixels])
    mean = image.mean((2, 3))
    assert torch.allclose(shown[0, :, pixels[0]], mean[0][:, None].expand(-1, int(pixels[0].sum())))


def test_the_teacher_follows_and_is_no_parameter_to_train():
    objective = build(momentum=0.5)
    teacher = objective.teacher["encoder"]
    before = teacher.norm.weight.clone()
    with torch.no_grad():
        objective.encoder.norm.weight.add_(1.0)
    objective.after_step(1, 10)
    assert torch.allclose(teacher.norm.weight, before + 0.5)
    assert not any(p.requires_grad for p in objective.teacher.parameters())
    assert float(objective.progress) == pytest.approx(0.1)


def test_following_copies_statistics_only_if_asked():
    student = torch.nn.BatchNorm1d(3)
    teacher = teacher_of(student)
    student.running_mean.fill_(2.0)
    follow(teacher, student, 0.5)
    assert teacher.running_mean.eq(0).all()
    follow(teacher, student, 0.5, buffers=True)
    assert teacher.running_mean.eq(1).all()


@pytest.mark.parametrize("size", [5, 7, 64])
def test_queue_holds_the_newest_keys_once(size):
    queue, pushed = KeyQueue(size, 4), []
    for turn in range(9):
        keys = torch.randn(3, 4, generator=torch.Generator().manual_seed(turn))
        queue.push(keys)
        pushed.extend(torch.nn.functional.normalize(keys, dim=1).unbind())
    newest = torch.stack(pushed[-size:])
    for key in newest:
        assert ((queue.keys - key).abs().max(1).values < 1e-6).sum() == 1
    assert torch.allclose(queue.keys.norm(dim=1), torch.ones(size))


def test_a_queue_smaller_than_a_batch():
    queue = KeyQueue(2, 4)
    queue.push(torch.eye(4))
    assert sorted(queue.keys.argmax(1).tolist()) == [2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view_size": 60}, "multiple of mask_block"),
        ({"crop_scale": (0.9, 0.5)}, "low <= high"),
        ({"crop_ratio": (2.0, 1.0)}, "low <= high"),
        ({"teacher_temperature": (0.0, 0.1)}, "positive"),
        ({"reconstruction_weight": 0.0, "global_weight": 0.0, "local_weight": 0.0}, "nothing is learned"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(ValidationError, match=message):
        CMIDConfig(**(SMALL | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_block": 8}, "16, 32, 64 would fit"),
        ({"view_size": 72, "mask_block": 8}, "64 is|80 is"),
        ({"matches": 17}, "more than the 16 cells"),
    ],
)
def test_sizes_that_do_not_fit_the_encoder(options, message):
    with pytest.raises(RecipeError, match=message):
        build(**options)


def test_an_encoder_that_cannot_mark_cells_is_refused():
    with pytest.raises(RecipeError, match="use a vit_"):
        CMID(MultiSensorViT(3, patch_size=16, embed_dim=32, heads=2, common_depth=1), CMIDConfig(**SMALL))
