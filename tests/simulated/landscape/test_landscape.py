"""Landscapes: reproducible, fixed to the ground in metres, with labels, mask and boxes that agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swath.errors import ImageryError
from swath.simulated import CLASSES, Landscape, simulate_landscape
from swath.simulated.landscape.plan import draw_plan, world_size
from swath.simulated.landscape.primitives import LandscapePlan, LineFeature, RectangleFeatures
from swath.simulated.landscape.rasterize import BOX_KINDS
from swath.simulated.landscape.surfaces import LABEL_SHARE, PATCH_CLASS, PATCHES, SURFACES

INDEX = {name: number for number, name in enumerate(CLASSES)}


@pytest.fixture(scope="module")
def many() -> list[Landscape]:
    return [simulate_landscape(11, index) for index in range(50)]


def test_a_landscape_depends_on_seed_and_index_only() -> None:
    first, again = simulate_landscape(1, 5), simulate_landscape(1, 5)
    assert np.array_equal(first.cells, again.cells)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.cells, simulate_landscape(1, 6).cells)
    assert not np.array_equal(first.cells, simulate_landscape(2, 5).cells)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    index=st.integers(0, 2**40),
    size=st.integers(1, 70),
    gsd=st.floats(0.3, 60),
)
def test_any_size_and_gsd_gives_a_whole_landscape(seed: int, index: int, size: int, gsd: float) -> None:
    found = simulate_landscape(seed, index, size=size, gsd=gsd)
    assert found.mask.shape == (size, size)
    assert found.mask.max() < len(CLASSES)
    assert found.cells.max() < len(PATCHES)
    assert found.fractions.sum() == pytest.approx(1)
    assert np.isfinite(found.slopes).all()
    assert found.boxes.shape == (len(found.box_kinds), 4)
    if len(found.boxes):
        assert found.boxes.min() >= 0
        assert found.boxes.max() <= size
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_labels_mask_and_shares_tell_the_same_story(many: list[Landscape]) -> None:
    for scene in many:
        by_pixel = np.bincount(scene.mask.ravel(), minlength=len(CLASSES)) / scene.mask.size
        by_cell = np.bincount(PATCH_CLASS[scene.cells.ravel()], minlength=len(CLASSES)) / scene.cells.size
        assert scene.fractions == pytest.approx(by_cell)
        # Majority votes lose what is thinner than a pixel, which is a few percent at most.
        assert np.abs(by_pixel - scene.fractions).max() < 0.04
        assert np.array_equal(scene.labels, (scene.fractions >= LABEL_SHARE).astype(np.float32))
        assert scene.labels.any()


def test_every_class_is_common_and_none_is_everywhere(many: list[Landscape]) -> None:
    frequency = np.mean([scene.labels for scene in many], axis=0)
    assert frequency.min() > 0.08, dict(zip(CLASSES, frequency, strict=True))
    assert frequency.max() < 0.65, dict(zip(CLASSES, frequency, strict=True))
    assert 2.5 < np.sum(frequency) < 4.5


def test_boxes_lie_round_what_they_name(many: list[Landscape]) -> None:
    inside = {"settlement": "settlement", "building": "industry", "ship": "water"}
    counts = dict.fromkeys(BOX_KINDS, 0)
    for scene in many:
        classes = PATCH_CLASS[scene.cells]
        o = scene.cells.shape[0] // scene.size
        for box, kind in zip(scene.boxes, scene.box_kinds, strict=True):
            x0, y0, x1, y1 = np.rint(box * o).astype(int)
            assert (classes[y0:y1, x0:x1] == INDEX[inside[kind]]).any(), (scene.index, kind, box)
            counts[kind] += 1
    assert min(counts.values()) > 5, counts


@pytest.mark.parametrize("index", range(6))
def test_the_same_ground_at_another_gsd(index: int) -> None:
    coarse, fine = simulate_landscape(3, index), simulate_landscape(3, index, size=400, gsd=3.0)
    assert np.abs(coarse.fractions - fine.fractions).max() < 0.01
    # Each 10 m pixel against the 3 m pixel at its middle; borders fall into different pixels.
    at = np.floor((np.arange(120) + 0.5) * 10 / 3).astype(int)
    assert (fine.mask[np.ix_(at, at)] == coarse.mask).mean() > 0.9
    kinds = [kind for kind in coarse.box_kinds if kind != "ship"]
    assert abs(len(kinds) - len([kind for kind in fine.box_kinds if kind != "ship"])) <= 3
    towns = [
        box for box, kind in zip(coarse.boxes * 10, coarse.box_kinds, strict=True) if kind == "settlement"
    ]
    for box in towns:
        others = [b for b, kind in zip(fine.boxes * 3, fine.box_kinds, strict=True) if kind == "settlement"]
        assert np.abs(np.array(others) - box).max(axis=1).min() < 30


def test_a_smaller_footprint_is_the_middle_of_a_larger_one() -> None:
    large, small = simulate_landscape(4, 0, size=120), simulate_landscape(4, 0, size=60)
    assert (large.cells[120:360, 120:360] == small.cells).mean() > 0.995


def test_worlds_double_with_the_footprint() -> None:
    assert world_size(64) == world_size(1280) == 1280
    assert world_size(1281) == 2560
    large = simulate_landscape(4, 1, size=250)
    assert large.plan.size == 2560
    assert len(large.plan.polygons) > len(draw_plan(4, 1).polygons)


def test_bands_and_blocks_keep_their_area_at_any_cell_size() -> None:
    from swath.simulated.landscape.rasterize import rasterize

    ground = PATCHES.tolist().index([s.name for s in SURFACES].index("meadow"))
    road = PATCHES.tolist().index([s.name for s in SURFACES].index("carriageway"))
    field = np.array([(-700.0, -700), (700, -700), (700, 700), (-700, 700)])
    line = LineFeature(road, np.array([(-700.0, -310), (700, 260)]), 12.0)
    hall = RectangleFeatures(
        np.array([road], np.uint8), np.array([(100.0, -200)]), np.array([(90.0, 40)]), np.array([0.6])
    )
    for stroke, square_metres in ((line, 1200 * np.hypot(1, 570 / 1400) * 12), (hall, 3600)):
        plan = LandscapePlan(1280.0, [(ground, field)], [stroke])
        for size, gsd in ((60, 20.0), (120, 10.0), (400, 3.0)):
            found = rasterize(plan, 0, 0, size=size, gsd=gsd).fractions[INDEX["road"]] * (size * gsd) ** 2
            assert found == pytest.approx(square_metres, rel=0.08), (size, gsd)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "1 to 8192 pixels"),
        ({"size": 10_000}, "1 to 8192 pixels"),
        ({"gsd": 0.01}, "0.1 to 1000 metres"),
        ({"gsd": float("nan")}, "0.1 to 1000 metres"),
    ],
)
def test_impossible_requests_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ImageryError, match=words):
        simulate_landscape(0, 0, **options)  # type: ignore[arg-type]


def test_series_are_counted_from_zero() -> None:
    with pytest.raises(ImageryError, match="counted from 0"):
        simulate_landscape(-1, 0)
