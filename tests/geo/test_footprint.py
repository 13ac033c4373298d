"""Footprints on the globe, the antimeridian included."""

from __future__ import annotations

import numpy as np
import pytest
from shapely import from_wkb

from swath.geo.areas import boxes_overlap
from swath.geo.footprint import footprint_geometry, to_geojson_geometry

SQUARE = [(10.0, 0.0), (11.0, 0.0), (11.0, 1.0), (10.0, 1.0), (10.0, 0.0)]
CROSSING = {
    "going on beyond 180": [(179.0, 0.0), (182.0, 0.0), (182.0, 1.0), (179.0, 1.0), (179.0, 0.0)],
    "going on beyond -180": [(-181.0, 0.0), (-178.0, 0.0), (-178.0, 1.0), (-181.0, 1.0), (-181.0, 0.0)],
    "jumping": [(179.0, 0.0), (-178.0, 0.0), (-178.0, 1.0), (179.0, 1.0), (179.0, 0.0)],
}


def test_a_plain_footprint() -> None:
    wkb, bbox = footprint_geometry(SQUARE)
    assert from_wkb(wkb).geom_type == "Polygon"
    assert bbox == {"xmin": 10.0, "ymin": 0.0, "xmax": 11.0, "ymax": 1.0}


@pytest.mark.parametrize("how", CROSSING)
def test_a_footprint_across_the_antimeridian_is_cut_there(how: str) -> None:
    wkb, bbox = footprint_geometry(CROSSING[how])
    geometry = from_wkb(wkb)
    assert geometry.geom_type == "MultiPolygon"
    assert geometry.area == pytest.approx(3)
    assert sorted(part.bounds for part in geometry.geoms) == [(-180, 0, -178, 1), (179, 0, 180, 1)]
    assert bbox == {"xmin": 179.0, "ymin": 0.0, "xmax": -178.0, "ymax": 1.0}


def test_overlap_of_boxes() -> None:
    nan = float("nan")
    boxes = np.array([[10, 0, 11, 1], [179, 0, -178, 1], [-179.5, 0, -179, 1], [nan, nan, nan, nan]])
    for place, expected in (
        ((10.5, 0.5, 10.6, 0.6), [True, False, False, False]),
        ((-180, -90, 180, 90), [True, True, True, False]),
        ((179.5, 0, -179.2, 1), [False, True, True, False]),  # crosses itself
        ((-178.5, 0, -170, 1), [False, True, False, False]),
        ((10, 2, 11, 3), [False, False, False, False]),
        ((11, 1, 12, 2), [True, False, False, False]),  # touching counts
    ):
        assert boxes_overlap(boxes, place).tolist() == expected


def test_geojson_geometry_is_rounded_to_a_centimetre() -> None:
    wkb, _ = footprint_geometry([(x + 1 / 3, y) for x, y in SQUARE])
    geometry = to_geojson_geometry(wkb)
    assert geometry is not None
    assert geometry["coordinates"][0][0] == [10.3333333, 0.0]
    assert to_geojson_geometry(None) is None
