"""Oriented boxes: conventions there and back, overlap against shapely, suppression by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swath.tasks.detection.rotated_boxes import (
    corners,
    from_xyxy,
    intersection_area,
    le90,
    min_area_rect,
    overlapping_pairs,
    pair_iou,
    rotated_iou,
    rotated_nms,
    to_xyxy,
)


def draw(count: int, seed: int, extent: float = 30.0) -> torch.Tensor:
    u = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scale = torch.tensor([extent, extent, 40.0, 20.0, 8.0], dtype=torch.float64)
    return u * scale + torch.tensor([0, 0, 0.1, 0.1, -4.0], dtype=torch.float64)


def by_shapely(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    a, b = (shapely.polygons(corners(boxes).numpy()) for boxes in (first, second))
    common = shapely.area(shapely.intersection(a, b))
    return common / (shapely.area(a) + shapely.area(b) - common)


def test_overlap_of_thousands_of_pairs_is_shapelys():
    first, second = draw(5000, 0), draw(5000, 1)
    expected = by_shapely(first, second)
    assert (expected > 0).mean() > 0.3
    assert np.abs(pair_iou(first, second).numpy() - expected).max() < 1e-12


def test_a_scene_far_from_the_origin_and_in_float32_is_as_exact_as_its_numbers():
    first, second = draw(500, 2), draw(500, 3)
    moved = torch.tensor([1e6, -1e6, 0, 0, 0], dtype=torch.float64)
    assert np.abs(pair_iou(first + moved, second + moved).numpy() - by_shapely(first, second)).max() < 1e-8
    assert pair_iou(first.float(), second.float()).dtype == torch.float64
    assert np.abs(pair_iou(first.float(), second.float()).numpy() - by_shapely(first, second)).max() < 1e-5


def test_polygons_may_be_of_any_shape():
    generator = np.random.default_rng(0)
    angle = np.sort(generator.random((300, 9)) * 2 * math.pi, axis=1)
    radius = generator.random((300, 9)) * 20 + 1
    star = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1) + 15
    shapes = shapely.polygons(star)
    good = shapely.is_valid(shapes)
    boxes = draw(300, 4)
    expected = shapely.area(
        shapely.intersection(shapely.polygons(corners(boxes).numpy())[good], shapes[good])
    )
    ours = intersection_area(boxes, torch.from_numpy(star)).numpy()[good]
    assert np.abs(ours - expected).max() < 1e-9


SIDE = st.floats(0.0, 50.0)
PLACE = st.floats(-30.0, 30.0)
ANGLE = st.sampled_from([0.0, math.pi / 2, -math.pi / 2, math.pi / 4, 1.0]) | st.floats(-7.0, 7.0)
BOX = st.tuples(PLACE, PLACE, SIDE, SIDE, ANGLE).map(
    lambda values: torch.tensor([values], dtype=torch.float64)
)


@settings(max_examples=80, deadline=None)
@given(BOX, BOX, PLACE, PLACE, ANGLE)
def test_overlap_is_symmetric_and_does_not_mind_motion(first, second, dx, dy, turn):
    iou = pair_iou(first, second)
    assert 0 <= iou <= 1
    assert torch.equal(iou, pair_iou(second, first)) or abs(iou - pair_iou(second, first)) < 1e-9
    cos, sin = math.cos(turn), math.sin(turn)

    def move(box: torch.Tensor) -> torch.Tensor:
        x, y, w, h, angle = box.unbind(1)
        return torch.stack([cos * x - sin * y + dx, sin * x + cos * y + dy, w, h, angle + turn], 1)

    small = min(float(first[0, 2:4].prod()), float(second[0, 2:4].prod()))
    if small > 1e-3:  # slivers amplify the rounding of the angle and of the motion itself
        assert abs(pair_iou(le90(first), second) - iou) < 1e-6
        assert abs(pair_iou(move(first), move(second)) - iou) < 1e-6
    assert rotated_iou(first, second)[0, 0] == iou or iou < 1e-12  # what the circles rule out is nothing


@settings(max_examples=40, deadline=None)
@given(BOX, st.floats(0.05, 0.95))
def test_identical_nested_touching_and_flat_boxes(box, share):
    inner = box * torch.tensor([1, 1, share, share, 1], dtype=torch.float64)
    angle = float(box[0, 4])
    step = torch.tensor([math.cos(angle), math.sin(angle), 0, 0, 0], dtype=torch.float64) * box[0, 2]
    flat = box * torch.tensor([1, 1, 1, 0, 1], dtype=torch.float64)
    if float(box[0, 2:4].min()) > 1e-3:  # rounding is too large a share of thinner slivers
        assert abs(pair_iou(box, box) - 1) < 1e-9
        assert abs(pair_iou(box, inner) - share**2) < 1e-6
        assert abs(rotated_iou(inner, box, of="first") - 1) < 1e-6
        assert abs(rotated_iou(box, inner, of="first") - share**2) < 1e-6
        assert pair_iou(box, box + step) < 1e-6  # side by side
    assert pair_iou(box, flat) == 0
    assert pair_iou(flat, flat) == 0


def test_nearly_coincident_sides_do_not_upset_it():
    box = torch.tensor([[10.0, 10.0, 8.0, 4.0, 0.3]], dtype=torch.float64)
    for exponent in range(-17, -3):
        for axis in range(5):
            other = box.clone()
            other[0, axis] += 10.0**exponent
            assert abs(pair_iou(box, other) - 1) < 10 * 10.0**exponent + 1e-12


def test_gradients_are_those_of_differences():
    first, second = draw(2, 5, 10.0).requires_grad_(), draw(2, 6, 10.0)
    assert torch.autograd.gradcheck(lambda boxes: pair_iou(boxes, second), first, atol=1e-4)


def test_nothing_against_something():
    for n, m in ((0, 3), (3, 0), (0, 0)):
        assert rotated_iou(draw(n, 0), draw(m, 0)).shape == (n, m)
    assert len(pair_iou(draw(0, 0), draw(0, 0))) == 0
    assert len(rotated_nms(draw(0, 0), torch.zeros(0), 0.5)) == 0
    assert len(overlapping_pairs(draw(1, 0))[0]) == 0
    with pytest.raises(ValueError, match="'union' or 'first'"):
        rotated_iou(draw(1, 0), draw(1, 0), of="second")


@pytest.mark.parametrize("at_once", [1 << 18, 1, 16])  # in one block, a row at a time, a few
@pytest.mark.parametrize("case", ["even", "one is huge", "far away", "flat", "on a line"])
def test_the_broad_phase_loses_no_pair(monkeypatch, case, at_once):
    monkeypatch.setattr("swath.tasks.detection.rotated_boxes.PAIRS_AT_ONCE", at_once)
    first, second = draw(40, 7, 200.0), draw(60, 8, 200.0)
    if case == "one is huge":
        second[7, 2:4] = 500.0
    elif case == "far away":
        first[::2, :2] += 1e7
        second[::3, :2] += 1e7
        second[0, 1] = -1e12
    elif case == "flat":
        first[:, 3], second[:, 3] = 0.0, 0.0
    elif case == "on a line":
        first[:, 1], second[:, 1] = 5.0, 5.0
    upright = [to_xyxy(boxes) for boxes in (first, second)]
    low, high = (
        torch.maximum(upright[0][:, None, :2], upright[1][None, :, :2]),
        torch.minimum(upright[0][:, None, 2:], upright[1][None, :, 2:]),
    )
    expected = (low < high).all(2)
    found = torch.zeros_like(expected, dtype=torch.int64)
    i, j = overlapping_pairs(first, second)
    found.index_put_((i, j), torch.ones_like(i), accumulate=True)
    assert torch.equal(found, expected.long())
    assert (i.diff() >= 0).all()
    if case in ("even", "one is huge"):
        assert np.allclose(rotated_iou(first, second)[i, j].numpy(), by_shapely(first[i], second[j]))


@pytest.mark.parametrize("at_once", [1 << 18, 16])
@pytest.mark.parametrize("extent", [0.0, 40.0, 400.0, 4000.0])
def test_pairs_within_one_set_come_once(monkeypatch, extent, at_once):
    monkeypatch.setattr("swath.tasks.detection.rotated_boxes.PAIRS_AT_ONCE", at_once)
    boxes = draw(150, 13, extent)
    both = overlapping_pairs(boxes, boxes)
    expected = {(i, j) for i, j in zip(*(side.tolist() for side in both), strict=True) if i < j}
    pairs = [
        tuple(sorted(pair))
        for pair in zip(*(side.tolist() for side in overlapping_pairs(boxes)), strict=True)
    ]
    assert len(pairs) == len(set(pairs)) == len(expected)
    assert set(pairs) == expected


def test_le90_is_the_same_rectangle_in_its_one_description():
    boxes = draw(2000, 9)
    boxes[:8, 4] = torch.tensor([math.pi / 2, -math.pi / 2, 0, math.pi, -math.pi, 1e-17, -1e-17, 5 * math.pi])
    canonical = le90(boxes)
    assert (canonical[:, 2] >= canonical[:, 3]).all()
    assert (canonical[:, 4] >= -math.pi / 2).all()
    assert (canonical[:, 4] < math.pi / 2).all()
    assert (pair_iou(boxes, canonical) - 1).abs().max() < 1e-9
    assert torch.allclose(le90(canonical), canonical)
    single = le90(boxes.float())
    assert (single[:, 4] < math.pi / 2).all()


def test_polygons_there_and_back():
    boxes = le90(draw(2000, 10))
    assert (min_area_rect(corners(boxes)) - boxes).abs().max() < 1e-7
    points = torch.rand(1000, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 50
    shapes = shapely.minimum_rotated_rectangle(shapely.multipoints(points.numpy()))
    found = min_area_rect(points)
    assert np.abs(found[:, 2:4].prod(1).numpy() - shapely.area(shapes)).max() < 1e-6
    corner = torch.tensor([[[1.0, 2.0]] * 4, [[0.0, 0.0], [3.0, 3.0], [1.0, 1.0], [2.0, 2.0]]])
    point, line = min_area_rect(corner)
    assert point.tolist() == [1, 2, 0, 0, 0]
    assert torch.allclose(line, torch.tensor([1.5, 1.5, 18**0.5, 0.0, math.pi / 4]), atol=1e-5)


def test_upright_boxes_there_and_back():
    upright = torch.tensor([[1.0, 2.0, 5.0, 4.0], [0.0, 0.0, 2.0, 6.0]])
    oriented = from_xyxy(upright)
    assert oriented[0].tolist() == [3, 3, 4, 2, 0]
    assert oriented[1, 4] == pytest.approx(-math.pi / 2)
    assert torch.allclose(to_xyxy(oriented), upright, atol=1e-5)
    boxes = draw(100, 11)
    points = corners(boxes)
    assert torch.allclose(to_xyxy(boxes), torch.cat([points.amin(1), points.amax(1)], 1))


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("classes", [None, 3])
def test_suppression_is_the_greedy_one(threshold, classes):
    boxes = draw(150, 12, 60.0)
    scores = torch.rand(150, generator=torch.Generator().manual_seed(1)).mul(20).round()  # with ties
    labels = None if classes is None else torch.arange(150) % classes
    iou = rotated_iou(boxes, boxes)
    if labels is not None:
        iou = iou * (labels[:, None] == labels)
    expected: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(iou[i, kept] <= threshold for kept in expected):
            expected.append(i)
    assert rotated_nms(boxes, scores, threshold, labels=labels).tolist() == expected
