"""CMID: the promises of an objective with every encoder that can mark hidden cells, and its own rules."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from swath.augmentations.photometric_options import PhotometricStrengths
from swath.encoders.multi_sensor import MultiSensorViT
from swath.encoders.protocol import create_model
from swath.encoders.vit import ViT
from swath.errors import ContractError, RecipeError
from swath.keyed_random import sample_keys
from swath.objectives.check import check_objective, example_batch, example_paired_batch
from swath.objectives.cmid import CMID
from swath.objectives.cmid_config import CMIDConfig
from swath.objectives.losses.contrastive import KeyQueue
from swath.objectives.modules.cell_matching import cell_locations, match_cells
from swath.objectives.modules.ema import ema_copy, ema_update
from swath.sensors.registry import get_sensor

SMALL = {
    "view_size": 64, "mask_block": 16, "hidden_dim": 32, "out_dim": 16, "queue_size": 50, "prototypes": 24,
    "bottleneck_dim": 12, "matches": 6, "photometric": "none",
}  # fmt: skip


def build(bands=3, encoder=None, **options):
    torch.manual_seed(0)
    encoder = encoder or ViT(bands, patch_size=16, embed_dim=32, depth=2, heads=2)
    return CMID(encoder, CMIDConfig(**(SMALL | options)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"matching": "released", "flips": "none"},
        {"flips": "both"},
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
    batch = example_paired_batch(bands, {"radar": 80, "optical": 160})
    check_objective(lambda: build(bands), batch, ranks_average=False, fixed_target=False)
    views = build(bands).views(batch)
    assert [views["image"][name].shape[1] for name in ("first", "second")] == [2, 5]
    with pytest.raises(ContractError, match="pairs of 3 sensors"):
        build({**bands, "x": 1}).views(example_paired_batch({**bands, "x": 1}, 80))


def test_the_second_view_is_changed_as_its_sensor_allows():
    radar, optical = get_sensor("sentinel1_grd"), get_sensor("sentinel2_l2a")
    bands = {radar.name: 2, optical.name: 12}
    batch = example_paired_batch(bands, 80)
    plain = build(bands).views(batch)["image"]
    for option in ("auto", PhotometricStrengths(gain=0.3)):
        objective = build(bands, photometric=option)
        objective.know_sensors([radar, optical])
        image = objective.views(batch)["image"]
        assert torch.equal(image["first"], plain["first"])
        assert not torch.equal(image["second"], plain["second"])
    with pytest.raises(RecipeError, match=r"options.photometric.gain: not for sensor 'sentinel1_grd' \(dB\)"):
        build(bands, photometric=PhotometricStrengths(gain=0.3)).know_sensors([optical, radar])
    with pytest.raises(RecipeError, match=r"options\.photometric: paper is for photographs"):
        build(photometric="paper").know_sensors([optical])
    with pytest.raises(RecipeError, match="know_sensors"):
        build(photometric="auto").views(example_batch(3, 80, sensor="rgb_aerial"))


@pytest.mark.parametrize("option", ["auto", "paper", {"gain": 0.2, "solarize": 0.2}])
def test_keeps_its_promises_with_photometric_changes(option):
    def known():
        objective = build(photometric=option)
        objective.know_sensors([get_sensor("rgb_aerial")])
        return objective

    batch = example_batch(3, 80, sensor="rgb_aerial")
    check_objective(known, batch, ranks_average=False, fixed_target=False)


def test_matched_cells_show_the_same_ground():
    """With the ground's coordinates as bands, matched cells of the two views have nearly equal values."""
    size, count = 160, 64
    at = torch.arange(size, dtype=torch.float32)
    ground = torch.stack([at[:, None].expand(size, size), at[None].expand(size, size)]).expand(
        count, -1, -1, -1
    )
    key = sample_keys(1, 0, torch.arange(count))
    batch = {"image": ground.clone(), "gsd": torch.ones(count), "key": key, "sensor": "x"}
    views = build(2, flips="both").views(batch)
    places, values = views["places"], {}
    for name in ("first", "second"):
        seen = torch.nn.functional.adaptive_avg_pool2d(views["image"][name], (4, 4))
        values[name] = seen.permute(0, 2, 3, 1) + 0.5
        assert (places[name] - values[name]).abs().max() < 1.0  # where a cell says that it is, it is
    pairs = match_cells(places["first"], places["second"], 6)
    near = pairs.distance.median()
    assert near < 0.5 * size / 4
    released = build(2, flips="none", matching="released").views(batch)
    where = build(2, flips="none").views(batch)["places"]["first"]
    assert (released["places"]["first"] * (size / 64) - where).abs().mean() > 5  # theirs are elsewhere


def test_views_of_two_resolutions_are_matched_in_metres():
    """Both sensors see a map of the same ground's coordinates, one in pixels four times as large."""
    count, metres, images = 32, 160.0, {}
    for name, side in (("fine", 160), ("coarse", 40)):
        at = (torch.arange(side, dtype=torch.float32) + 0.5) * (metres / side)
        image = torch.stack([at[:, None].expand(side, side), at[None].expand(side, side)])
        images[name] = {
            "image": image.expand(count, -1, -1, -1).clone(),
            "gsd": torch.full((count,), metres / side),
            "key": sample_keys(3, 0, torch.arange(count)),
            "sensor": name,
        }
    batch = {"sensors": images, "key": images["fine"]["key"], "index": torch.arange(count)}
    views = build({"fine": 2, "coarse": 2}, flips="both", crop_scale=(0.3, 1.0)).views(batch)
    assert views["sensor"] == {"first": "fine", "second": "coarse"}
    for name in ("first", "second"):
        seen = torch.nn.functional.adaptive_avg_pool2d(views["image"][name], (4, 4)).permute(0, 2, 3, 1)
        assert (views["places"][name] - seen).abs().max() < 4.0  # a coarse pixel, at the border of a crop
    pairs = match_cells(views["places"]["first"], views["places"]["second"], 6)
    assert pairs.distance[~views["apart"]].median() < 0.5 * metres / 4


def test_crops_of_different_scale_are_matched_where_they_overlap():
    """A small crop within a large one: all its cells lie within the large crop's, whatever their sizes."""
    small, large = torch.tensor([[60.0, 80.0, 40.0, 40.0]]), torch.tensor([[0.0, 0.0, 160.0, 160.0]])
    upright = torch.zeros(1, dtype=torch.bool)
    inner, outer = (cell_locations(box, upright, (4, 4)) for box in (small, large))
    pairs = match_cells(inner, outer, 16)
    assert pairs.distance.max() < 0.75 * 40  # half the diagonal of a large cell of 40
    assert set(pairs.second.flatten().tolist()) == {6, 10}  # the cells of rows 1 and 2 and column 2 hold it


def test_crops_without_common_ground_have_no_local_loss():
    objective = build()
    views = objective.views(example_batch(3, 80))
    views["apart"] = torch.ones(4, dtype=torch.bool)
    losses = objective(views)
    assert float(losses["no_overlap"]) == 1.0
    assert float(losses["local"]) == 0.0
    losses["total"].backward()
    assert losses["total"].isfinite()
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)


def test_crops_without_common_ground_are_left_out_one_by_one():
    """The loss of a batch in which two crops lie apart is that of the others, and their share is logged."""
    batch, objective = example_batch(3, 80), build(views_together=False)
    views = objective.views(batch)
    views["apart"] = torch.tensor([False, True, False, True])
    some = objective(views)
    assert float(some["no_overlap"]) == 0.5
    kept = {
        key: {n: v[::2] if isinstance(v, torch.Tensor) else v for n, v in one.items()}
        if isinstance(one, dict)
        else (one[::2] if isinstance(one, torch.Tensor) else one)
        for key, one in views.items()
    }
    assert float(build(views_together=False)(kept)["local"]) == pytest.approx(float(some["local"]), rel=1e-5)


def test_small_crops_of_a_large_image_often_lie_apart():
    """What the views say about common ground is what the places of their cells say."""
    count = 64
    batch = example_batch(3, 128, count=count)
    views = build(crop_scale=(0.1, 0.3)).views(batch)
    ends = {}
    for name, places in views["places"].items():
        corners = places.flatten(1, 2)
        half = (corners.amax(1) - corners.amin(1)) / 6  # of four cells, half of one
        ends[name] = corners.amin(1) - half, corners.amax(1) + half
    (low, high), (other_low, other_high) = ends["first"], ends["second"]
    apart = ((torch.minimum(high, other_high) - torch.maximum(low, other_low)) < 1e-3).any(1)
    assert torch.equal(views["apart"], apart)
    assert 0 < int(apart.sum()) < count
    assert not build(crop_scale=(0.1, 0.3), matching="released").views(batch)["apart"].any()


@pytest.mark.parametrize("name", ["vit", "swin_nano", "resnet_nano"])
def test_a_batch_of_one(name):
    encoder = create_model(name) if name != "vit" else None
    objective = build(matches=3, encoder=encoder)
    objective(objective.views(example_batch(3, 80, count=1)))["total"].backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in objective.parameters() if p.requires_grad
    )


def test_a_batch_of_one_that_has_no_statistics_is_refused():
    one = example_batch(3, 80, count=1)
    single = {"view_size": 32, "mask_block": 32, "matches": 1}
    for options in (single, single | {"view_size": 64}, single | {"local_weight": 0.0}):
        objective = build(encoder=create_model("resnet_nano"), **options)
        with pytest.raises(ContractError, match=r"a batch of 1, .* leave BatchNorm a single value"):
            objective(objective.views(one))
    spared = build(encoder=create_model("resnet_nano"), **single | {"view_size": 64, "local_weight": 0.0})
    assert spared(spared.views(one))["total"].isfinite()


def test_a_queue_larger_than_the_data():
    """The same four images again and again: their own older keys are no negatives."""
    objective = build(queue_size=50)
    batch = example_batch(3, 80)
    for step in range(3):
        losses = objective(objective.views(batch))
        assert losses["total"].isfinite()
        objective.after_step(step + 1, 3)
    seen = objective.queue.held_by(batch["index"])
    assert seen.sum(dim=1).tolist() == [6] * 4  # two views, three steps


def test_a_sample_without_a_valid_pixel_harms_nobody():
    batch = example_batch(3, 80, sensor="rgb_aerial")
    batch["valid"][1] = False
    batch["image"][1] = 0
    objective = build(photometric="auto")
    objective.know_sensors([get_sensor("rgb_aerial")])
    losses = objective(objective.views(batch))
    losses["total"].backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)


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
    teacher = ema_copy(student)
    student.running_mean.fill_(2.0)
    ema_update(teacher, student, 0.5)
    assert teacher.running_mean.eq(0).all()
    ema_update(teacher, student, 0.5, buffers=True)
    assert teacher.running_mean.eq(1).all()


def test_keys_join_the_queue_after_the_step_and_not_without_training():
    objective, batch = build(), example_batch(3, 80)
    before = objective.queue.keys.clone()
    objective(objective.views(batch))["total"].backward()
    assert torch.equal(objective.queue.keys, before)
    objective.after_step(1, 10)
    assert int((objective.queue.keys != before).any(1).sum()) == 8  # two views of four images, each once
    assert objective.queue.owners[:8].tolist() == [0, 1, 2, 3] * 2
    after = objective.queue.keys.clone()
    objective.eval()
    objective(objective.views(batch))
    objective.after_step(2, 10)
    assert torch.equal(objective.queue.keys, after)


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
        ({"view_size": 60}, "multiple of mask_block 16; 48 or 64 would fit"),
        ({"view_size": 8}, "multiple of mask_block 16; 16 would fit"),
        ({"crop_scale": (0.9, 0.5)}, "low <= high"),
        ({"crop_ratio": (2.0, 1.0)}, "low <= high"),
        ({"teacher_temperature": (0.0, 0.1)}, "positive"),
        ({"photometric": "blue"}, "none, auto, paper or a mapping"),
        ({"photometric": {"gian": 0.2}}, "Did you mean 'gain'"),
        ({"photometric": {"gain": 2}}, "gain: Input should be less than 1, but is 2"),
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


@pytest.mark.parametrize("name", ["vit_nano_patch8", "swin_nano", "resnet_nano"])
def test_the_first_layer_may_begin_as_patches_of_the_data(name):
    """Both networks begin alike, with a response that is centered and about as large in every filter."""
    options = SMALL | {"embedding": "mean_std", "matches": 2}
    objective = CMID(create_model(name, bands=3), CMIDConfig(**options, first_layer="whitened"))
    batch = example_batch(3, 96, count=8)
    objective.prepare(batch)
    networks = (objective.encoder, objective.teacher["encoder"])
    own, teacher = (n.first_convolution().requires_grad_(False) for n in networks)
    assert torch.equal(own.weight, teacher.weight)
    response = own(objective.views(batch)["image"]["first"]).transpose(0, 1).flatten(1)
    if own.bias is not None:
        assert float(response.mean(dim=1).abs().mean()) < 0.3 * float(response.std(dim=1).mean())
    spread = response.std(dim=1)
    assert float(spread.max() / spread.min()) < 20
    assert torch.isfinite(objective(objective.views(batch))["total"])
