"""Areas as grids: they settle most boxes, and never one wrongly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely

from swath.geo import areas
from swath.geo.areas import footprints_intersecting, parse_area
from swath.geo.footprint import footprint_geometry
from swath.geo.polygon_grid import BORDER, INSIDE, OUTSIDE, classify_boxes


def star(x: float, y: float, size: float, points: int, inner: float) -> Any:
    angle = 2 * np.pi * np.arange(points) / points
    radius = size * np.where(np.arange(points) % 2, inner, 1.0)
    return shapely.Polygon(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1))


AREAS = {
    "convex": shapely.Polygon([(0, 0), (8, 1), (9, 7), (1, 6)]),
    "a star": star(4, 4, 5, 40, 0.5),
    "with a hole": shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 6, 7)),
    "several parts": shapely.MultiPolygon([shapely.box(0, 0, 2, 9), star(6, 5, 3, 10, 0.4)]),
    "many parts": shapely.MultiPolygon(
        [shapely.box(x, y, x + 0.6, y + 0.5) for x in range(9) for y in range(9)]
    ),
    "a sliver": shapely.Polygon([(0, 0), (9, 9), (9, 9.001)]),
}


def boxes_around(count: int) -> np.ndarray:
    """Small and large ones, in and beyond 0 to 9, some exactly on the grid's and the areas' own lines."""
    random = np.random.default_rng(3)
    corner = random.uniform(-2, 10, (count, 2))
    corner[::3] = np.round(corner[::3] * 4) / 4
    side = np.where(np.arange(count) % 50 == 0, 5.0, random.choice([0.0, 0.01, 0.25, 1.0], count))[:, None]
    return np.concatenate([corner, corner + side], axis=1)


@pytest.mark.parametrize("name", AREAS)
def test_the_grid_never_errs(name: str) -> None:
    area, boxes = AREAS[name], boxes_around(20_000)
    shapely.prepare(area)
    kinds = classify_boxes(area, boxes)
    shapes = shapely.box(*boxes.T)
    assert shapely.covers(area, shapes[kinds == INSIDE]).all()
    assert not shapely.intersects(area, shapes[kinds == OUTSIDE]).any()
    small = boxes[:, 2] - boxes[:, 0] < 0.1
    if name not in ("many parts", "a sliver"):
        assert (kinds[small] == BORDER).mean() < 0.1  # else it would be no help
        assert (kinds == INSIDE).any()


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("name", AREAS)
def test_footprints_are_found_as_without_the_grid(
    name: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    area, boxes = AREAS[name], boxes_around(4_000)
    boxes = boxes[boxes[:, 2] > boxes[:, 0]]
    # Footprints smaller than their boxes, as those of turned chips are.
    west, south, east, north = boxes.T
    x, y = (west + east) / 2, (south + north) / 2
    corners = [np.stack(pair, axis=1) for pair in ((x, south), (east, y), (x, north), (west, y))]
    shapes = shapely.polygons(np.stack(corners, axis=1))
    geometries = pa.chunked_array([pa.array(shapely.to_wkb(shapes), pa.binary())])
    by_grid = footprints_intersecting(geometries, boxes, area, overlap=share)
    monkeypatch.setattr(areas, "_MANY", 10**9)
    one_by_one = footprints_intersecting(geometries, boxes, area, overlap=share)
    assert by_grid.tolist() == one_by_one.tolist()
    assert by_grid.any() or (name, share) == ("a sliver", 0.5)


def test_across_the_antimeridian(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both the area and some footprints cross it; boxes then have west > east."""
    area = parse_area((170.0, -10.0, -170.0, 10.0))
    random = np.random.default_rng(0)
    found = [
        footprint_geometry([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1), (x, y)])
        for x, y in zip(random.uniform(165, 195, 3000), random.uniform(-15, 15, 3000), strict=True)
    ]
    boxes = np.array([list(box.values()) for _, box in found])
    assert (boxes[:, 0] > boxes[:, 2]).any()
    geometries = pa.chunked_array([pa.array([wkb for wkb, _ in found], pa.binary())])
    by_grid = footprints_intersecting(geometries, boxes, area)
    monkeypatch.setattr(areas, "_MANY", 10**9)
    assert by_grid.tolist() == footprints_intersecting(geometries, boxes, area).tolist()
    assert 1000 < by_grid.sum() < 2500
