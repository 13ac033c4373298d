"""Areas as people give them: across the antimeridian, around a pole, with holes, and wrong."""

from __future__ import annotations

from typing import Any

import pytest
import shapely

from swath.errors import ArchiveError
from swath.geo import areas
from swath.geo.areas import parse_area


def polygon(*rings: list[list[float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]}


SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10]]


@pytest.mark.parametrize(
    "given",
    [
        polygon([[170, -10], [190, -10], [190, 10], [170, 10]]),  # goes on beyond 180
        polygon([[-190, -10], [-170, -10], [-170, 10], [-190, 10]]),
        polygon([[170, -10], [-170, -10], [-170, 10], [170, 10]]),  # jumps there
        (170, -10, -170, 10),  # a box whose west is east of its east
        {"type": "MultiPolygon", "coordinates": [  # cut there, as RFC 7946 has it
            [[[170, -10], [180, -10], [180, 10], [170, 10], [170, -10]]],
            [[[-180, -10], [-170, -10], [-170, 10], [-180, 10], [-180, -10]]],
        ]},
        {"type": "Feature", "properties": {}, "geometry": polygon(
            [[170, -10], [-170, -10], [-170, 10], [170, 10]]
        )},
    ],
    ids=["beyond", "before", "jumping", "box", "cut", "feature"],
)  # fmt: skip
def test_across_the_antimeridian_however_it_is_written(given: Any) -> None:
    area = parse_area(given)
    assert area.area == pytest.approx(400)
    assert area.contains(shapely.Point(179, 0))
    assert area.contains(shapely.Point(-179, 0))
    assert not area.contains(shapely.Point(0, 0))
    west, _, east, _ = area.bounds
    assert (west, east) == (-180, 180)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_ring_around_a_pole_holds_the_pole(sign: int) -> None:
    area = parse_area(polygon([[x, sign * 70.0] for x in range(-180, 180, 30)]))
    assert area.area == pytest.approx(360 * 20, rel=0.01)
    for longitude in (-179, 0, 100):
        assert area.contains(shapely.Point(longitude, sign * 89))
        assert not area.contains(shapely.Point(longitude, sign * 60))
        assert not area.contains(shapely.Point(longitude, -sign * 89))


def test_holes_and_bows() -> None:
    holed = parse_area(polygon(SQUARE, [[2, 2], [4, 2], [4, 4], [2, 4]]))
    assert holed.area == pytest.approx(96)
    bow = parse_area(polygon([[0, 0], [10, 10], [10, 0], [0, 10]]))  # crosses itself; both halves count
    assert bow.area == pytest.approx(50)
    whole = parse_area((-180, -90, 180, 90))
    assert whole.area == pytest.approx(360 * 180)


def test_geometries_and_bytes() -> None:
    box = shapely.box(1, 2, 3, 4)
    assert parse_area(box).equals(box)
    assert parse_area(shapely.to_wkb(box)).equals(box)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("somewhere", "an area is a GeoJSON Polygon"),
        ((1, 2, 3), "an area is a GeoJSON Polygon"),
        ((1, 2, 3, float("nan")), "south first"),
        ((0, 50, 10, 40), "south first"),
        ((0, -100, 10, 40), "latitudes -90 to 90"),
        ({"type": "Point", "coordinates": [1, 2]}, "not 'Point'"),
        ({"type": "Polygon"}, "not 'Polygon'|Polygon or MultiPolygon"),
        ({"type": "Polygon", "coordinates": [[["a", "b"]] * 4]}, "."),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, "."),
        (polygon([[0, 0], [float("inf"), 0], [1, 1]]), "."),
        (polygon([[0, 0], [1, 95], [2, 0]]), "."),
        (polygon([[0, 0], [1, 0], [2, 0]]), "encloses? nothing|empty"),
        (b"no wkb", "is no geometry"),
        (None, "an area is a GeoJSON Polygon"),
    ],
)
def test_wrong_areas_are_told(given: Any, words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        parse_area(given)


def test_too_many_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "MOST_CORNERS", 10)
    with pytest.raises(ArchiveError, match="corners"):
        parse_area(polygon([[x / 10, (x % 2) + x / 100] for x in range(12)]))
