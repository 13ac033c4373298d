"""Detectors: codings there and back, pooling and anchors in their places, and that each learns a tiny set."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import roi_align

from helpers.drawn_boxes import SmallEncoder, drawn_batch
from swath.encoders.pyramid import build_pyramid
from swath.encoders.swin import Swin
from swath.encoders.vit import ViT
from swath.tasks.detection.average_precision import coco_ap
from swath.tasks.detection.detectors.box_coding import (
    delta_decode,
    delta_encode,
    midpoint_decode,
    midpoint_encode,
)
from swath.tasks.detection.detectors.common import (
    Anchors,
    MultiLevelRoIAlign,
    exclude_ignored,
    overlap_with_regions,
    rotated_align,
    seeded_sampling,
)
from swath.tasks.detection.detectors.oriented_rcnn import OrientedRCNN, match_anchors, sample_balanced
from swath.tasks.detection.detectors.torchvision_detectors import FCOS, FasterRCNN
from swath.tasks.detection.rotated_boxes import from_xyxy, le90, pair_iou

SMALL = {"channels": 32, "most": 20}
BUILD = {
    "faster": lambda maps: FasterRCNN(maps, 2, anchor_scale=6, hidden=64, **SMALL),
    "fcos": lambda maps: FCOS(maps, 2, **SMALL),
    "oriented": lambda maps: OrientedRCNN(maps, 2, anchor_scale=6, hidden=64, proposals=200, **SMALL),
}


def boxes_of(count: int, seed: int) -> torch.Tensor:
    u = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scale = torch.tensor([100.0, 100.0, 60.0, 30.0, math.pi], dtype=torch.float64)
    return le90(u * scale + torch.tensor([0, 0, 3.0, 3.0, -math.pi / 2], dtype=torch.float64))


def test_midpoint_offsets_there_and_back():
    boxes = boxes_of(1000, 0)
    boxes[:4, 4] = torch.tensor([0.0, -math.pi / 2, math.pi / 4, 1e-9])
    u = torch.rand(1000, 4, dtype=torch.float64) * 60
    anchors = torch.cat([u[:, :2], u[:, :2] + u[:, 2:] + 5], 1)
    numbers = midpoint_encode(anchors, boxes)
    assert numbers[:, 4:].abs().max() <= 0.5 + 1e-9
    assert (pair_iou(midpoint_decode(anchors, numbers), boxes) - 1).abs().max() < 1e-6
    wild = midpoint_decode(anchors, torch.randn(1000, 6, dtype=torch.float64) * 20)
    assert wild.isfinite().all()
    assert (wild[:, 2] >= wild[:, 3]).all()


def test_deltas_there_and_back_turn_by_no_more_than_45_degrees():
    proposals, boxes = boxes_of(1000, 1), boxes_of(1000, 2)
    numbers = delta_encode(proposals, boxes)
    assert numbers[:, 4].abs().max() * 0.1 <= math.pi / 4 + 1e-9
    assert (pair_iou(delta_decode(proposals, numbers), boxes) - 1).abs().max() < 1e-6
    assert delta_encode(boxes, boxes).abs().max() < 1e-9


def test_rotated_pooling_of_upright_boxes_is_roi_align():
    x = torch.randn(2, 5, 20, 30)
    upright = torch.tensor([[16.0, 20.0, 60.0, 40.0], [8.0, 8.0, 100.0, 60.0]])
    image = torch.tensor([1, 0])
    expected = roi_align(x, torch.cat([image[:, None].float(), upright], 1), 7, 1 / 4, 2, aligned=True)
    assert torch.allclose(rotated_align(x, from_xyxy(upright), image, 4), expected, atol=1e-4)


def test_rotated_pooling_follows_the_box():
    x = torch.randn(1, 3, 24, 24)
    box = torch.tensor([[40.0, 50.0, 40.0, 20.0, 0.4]])
    turned = torch.tensor([[50.0, 96.0 - 40.0, 40.0, 20.0, 0.4 - math.pi / 2]])  # of the image turned left
    one = rotated_align(x, box, torch.zeros(1, dtype=torch.int64), 4)
    other = rotated_align(x.rot90(1, (2, 3)), turned, torch.zeros(1, dtype=torch.int64), 4)
    assert torch.allclose(one, other, atol=1e-4)


def test_regions_are_read_at_the_level_of_their_size():
    maps = [torch.full((1, 1, 256 // s, 256 // s), float(s)) for s in (4, 8, 16, 32)]
    sides = torch.tensor([20.0, 60.0, 120.0, 230.0])
    upright = torch.stack([128 - sides / 2] * 2 + [128 + sides / 2] * 2, 1)
    for regions in (upright, from_xyxy(upright)):
        pooled = MultiLevelRoIAlign((4, 8, 16, 32))(maps, [regions])
        assert pooled.mean((1, 2, 3)).round().tolist() == [4, 4, 8, 16]
    assert MultiLevelRoIAlign((4, 8, 16, 32))(maps, [upright[:0]]).shape == (0, 1, 7, 7)


def test_pooling_is_not_coarser_in_half_precision():
    maps = [torch.randn(1, 2, 300, 300).bfloat16()]
    upright = torch.tensor([[1001.3, 1050.7, 1030.9, 1080.2]])
    for regions in (upright, from_xyxy(upright)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = MultiLevelRoIAlign((4,))(maps, [regions])
        assert torch.allclose(rough, MultiLevelRoIAlign((4,))([maps[0].float()], [regions]), atol=1e-5)


@pytest.mark.parametrize("name", list(BUILD))
def test_losses_in_half_precision_are_about_the_same(name):
    torch.manual_seed(0)
    detector, batch = BUILD[name](build_pyramid(SmallEncoder())), drawn_batch(side=64, count=1)
    exact = sum(detector.losses(batch).values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = sum(detector.losses(batch).values())
        assert all(one["scores"].isfinite().all() for one in detector.predict(batch))
    assert abs(rough.item() / exact.item() - 1) < 0.1


def test_anchors_stand_around_the_middle_of_their_cells():
    first, second = Anchors((8, 16), 4.0).levels([torch.zeros(1, 1, 3, 5), torch.zeros(1, 1, 2, 3)])
    assert first.shape == (3 * 5 * 3, 4)
    assert second.shape == (2 * 3 * 3, 4)
    assert first[1].tolist() == [4 - 16, 4 - 16, 4 + 16, 4 + 16]  # ratio 1 of the first cell
    assert first[3 + 1].tolist() == [12 - 16, 4 - 16, 12 + 16, 4 + 16]  # its right neighbor
    flat, _, tall = first[:3]
    assert (flat[2:] - flat[:2]).tolist() == pytest.approx([32 * 2**0.5, 32 / 2**0.5])
    assert (tall[3] - tall[1]) / (tall[2] - tall[0]) == pytest.approx(2)


def test_candidates_are_assigned_and_sampled():
    iou = torch.tensor([[0.8, 0.1], [0.5, 0.2], [0.1, 0.35], [0.0, 0.1]])
    assert match_anchors(iou, 0.7, 0.3, best=False).tolist() == [0, -2, -2, -1]
    assert match_anchors(iou, 0.7, 0.3, best=True).tolist() == [0, -2, 1, -1]
    assert match_anchors(iou[:, :0], 0.7, 0.3, best=True).tolist() == [-1] * 4
    assigned = torch.tensor([0] * 10 + [-1] * 50 + [-2] * 5)
    front, back = sample_balanced(assigned, 16, 0.25)
    assert len(front) == 4
    assert len(back) == 12
    assert (assigned[front] == 0).all()
    assert (assigned[back] == -1).all()


def learn(detector, batch, steps: int, lr: float = 2e-3) -> list[float]:
    optimizer = torch.optim.AdamW(detector.parameters(), lr)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 10) * (0.1 if step > 0.8 * steps else 1)
        loss = sum(detector.losses(batch).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("name", "steps"), [("faster", 45), ("fcos", 80), ("oriented", 90)])
def test_learns_a_tiny_set_by_heart(name, steps):
    torch.manual_seed(0)
    detector, batch = BUILD[name](build_pyramid(SmallEncoder())), drawn_batch()
    losses = learn(detector.train(), batch, steps)
    assert losses[-1] < 0.5 * losses[0]
    found = detector.eval().predict(batch)
    truths = [{key: batch[key][i] for key in ("obb", "bbox_xyxy", "label")} for i in range(len(found))]
    scores = coco_ap(found, truths, ["long", "short"], oriented=name == "oriented")
    assert scores.more["ap50"] > 0.9, scores


@pytest.mark.parametrize("name", list(BUILD))
@pytest.mark.parametrize(
    "encoder",
    [
        lambda: Swin(3, embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=4),
        lambda: ViT(3, patch_size=16, embed_dim=16, depth=2, heads=2),
    ],
    ids=["swin", "vit"],
)
def test_any_size_no_boxes_difficult_boxes_and_either_mode(name, encoder):
    detector, batch = BUILD[name](build_pyramid(encoder())), drawn_batch(side=80, count=2)
    batch["image"] = batch["image"][:, :, :70, :75]
    batch["size"] = [(70, 75), (66, 40)]
    for key in ("obb", "bbox_xyxy", "label"):
        batch[key][1] = batch[key][1][:0]
    for mode in (True, False):
        losses = detector.train(mode).losses(batch)
        assert all(value.ndim == 0 and value.isfinite() for value in losses.values())
        assert detector.training is mode
    again = detector.losses(batch)
    assert all(torch.equal(losses[key], again[key]) for key in losses)  # what is drawn follows from the keys
    torch.autograd.backward(sum(losses.values()))
    batch["difficult"] = [torch.ones(len(labels), dtype=torch.bool) for labels in batch["label"]]
    losses = detector.losses(batch)
    assert all(value.isfinite() for value in losses.values())
    assert all(value.item() == 0 for key, value in losses.items() if "box" in key or "reg" in key)
    found = detector.eval().predict(batch)
    for image, (height, width) in zip(found, batch["size"], strict=True):
        boxes = image["obb"][:, :2] if name == "oriented" else image["boxes"].view(-1, 2)
        assert len(image["scores"]) == len(image["labels"]) <= 20
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height])).all()
        assert (image["scores"].diff() <= 0).all()


def test_draws_follow_from_keys_and_leave_torchs_generator_alone():
    batch = drawn_batch()
    state = torch.get_rng_state()
    with seeded_sampling(batch):
        one = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    with seeded_sampling(batch | {"key": batch["key"] + 1}):
        assert not torch.equal(one, torch.rand(3))


def test_what_lies_in_regions_to_be_ignored_stands_for_nothing():
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [50, 50, 60, 60]])
    regions = torch.tensor([[0.0, 0, 10, 20]])
    assert overlap_with_regions(boxes, regions).tolist() == pytest.approx([1.0, 0.6, 0.2, 0.0])
    assigned = torch.tensor([0, -1, -1, -1])  # the first stands for an object, though in the region
    freed = exclude_ignored(assigned, boxes, regions, background=-1, neither=-2)
    assert freed.tolist() == [0, -2, -1, -1]
    alone = exclude_ignored(assigned[1:2], boxes[1:2], regions, background=-1, neither=-2)
    assert alone.tolist() == [-1]  # something has to be learned from
    turned = exclude_ignored(assigned, from_xyxy(boxes), from_xyxy(regions), background=-1, neither=-2)
    assert torch.equal(turned, freed)


@pytest.mark.parametrize("name", list(BUILD))
def test_ignoring_an_object_is_not_the_same_as_having_none(name):
    torch.manual_seed(0)
    detector, batch = BUILD[name](build_pyramid(SmallEncoder())).train(), drawn_batch(images=2)
    batch["difficult"] = [torch.tensor([False, True, False])] * 2
    ignoring = detector.losses(batch)
    missing = {key: [x[[0, 2]] for x in batch[key]] for key in ("obb", "bbox_xyxy", "label", "difficult")}
    learned = detector.losses(batch | missing)
    about = "classification" if name == "fcos" else "loss_objectness"
    assert ignoring[about].item() != learned[about].item()
    assert {key for key in ignoring if "box" in key or "ctr" in key or "reg" in key}
    torch.autograd.backward(sum(ignoring.values()))
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
