"""Change search: calibrated by date and neighborhood, of places that are shown at both times."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from swath.archive.archive import Archive
from swath.archive.changes.detect import find_changes, write_changes
from swath.archive.changes.heatmap import write_heatmap
from swath.archive.query.filters import Filter, parse_datetime
from swath.errors import ArchiveError
from swath.geo.footprint import footprint_geometry

Rows = Callable[..., pa.Table]
SIDE = 12
BEFORE, AFTER = parse_datetime("2018"), parse_datetime("2020")
CHANGED = {17, 100}
DEGREES = 0.01


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Three looks [3, 144, 16] at 144 places: each date shifts all, the western half blooms, two changed."""
    random = np.random.default_rng(0)
    ground = 3 * random.standard_normal((SIDE * SIDE, 16))
    season = 2 * random.standard_normal((3, 1, 16))
    looks = ground + season + 0.3 * random.standard_normal((3, SIDE * SIDE, 16))
    west = np.arange(SIDE * SIDE) % SIDE < SIDE // 2
    looks[1:, west] += 1.2 * random.standard_normal((2, int(west.sum()), 16))  # crops: different every year
    for place in CHANGED:
        looks[1:, place] += 3 * random.standard_normal(16)  # for good
    looks[2, 60] += 6 * random.standard_normal(16)  # a cloud, once
    return looks.astype(np.float32)


@pytest.fixture(scope="module")
def archive(rows: Rows, vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The looks of 2018 and two days of 2020, on a grid of 0.01 degrees by 179.95 E, 10 N."""
    archive = Archive.create(tmp_path_factory.mktemp("changes") / "archive", "micro-1", 16)
    for number, day in enumerate((datetime(2018, 6, 1), datetime(2020, 6, 1), datetime(2020, 7, 1))):
        places = [grid_place(i) for i in range(SIDE * SIDE)]
        archive.upsert(
            rows(
                SIDE * SIDE,
                first=1000 * number,
                dimensions=16,
                embedding=pa.FixedSizeListArray.from_arrays(pa.array(vectors[number].reshape(-1)), 16),
                geometry=[geometry for geometry, _ in places],
                bbox=[box for _, box in places],
                datetime=[day.replace(tzinfo=UTC)] * SIDE * SIDE,
                gsd=[10.0] * SIDE * SIDE,
            )
        )
    return archive


def grid_place(number: int) -> tuple[bytes, dict[str, float]]:
    """Chips that cross the antimeridian in the middle of the grid."""
    west, south = 179.945 + DEGREES * (number % SIDE), 10 + DEGREES * (number // SIDE)
    east, north = west + DEGREES, south + DEGREES
    return footprint_geometry([(west, south), (east, south), (east, north), (west, north)])


def place_of(identity: str) -> int:
    return int(identity, 16) % 1000


def test_what_changed_for_good_comes_first(archive: Archive) -> None:
    found = find_changes(archive, BEFORE, AFTER, k=5)
    assert {place_of(change.after.id) for change in found[:2]} == CHANGED
    assert found.pairs == SIDE * SIDE  # one a place, though there are two dates after
    assert all(place_of(change.before.id) == place_of(change.after.id) for change in found)
    assert all(change.before.datetime.year == 2018 for change in found)
    assert [change.rank for change in found] == [1, 2, 3, 4, 5]
    assert found[1].score > 4 > found[2].score
    assert abs(float(np.median(found.scores))) < 1  # nothing happened at most places
    cloudy = find_changes(archive, BEFORE, parse_datetime("2020-07"), k=3)
    assert 60 in {place_of(change.after.id) for change in cloudy}  # a single date cannot tell


def test_distances_alone_would_be_misled(archive: Archive, vectors: np.ndarray) -> None:
    """Season and crops hide a change from the plain cosine; both calibrations are needed."""
    a, b = (look / np.linalg.norm(look, axis=1, keepdims=True) for look in vectors[:2])
    plain = np.argsort((a * b).sum(1))
    found = [
        place_of(change.after.id)
        for change in find_changes(archive, BEFORE, parse_datetime("2020-06"), k=None)
    ]
    worst = {name: max(list(order).index(place) for place in CHANGED) for name, order in
             (("plain", plain), ("calibrated", found))}  # fmt: skip
    assert worst["calibrated"] < worst["plain"]


def test_filters_and_sensors(archive: Archive) -> None:
    box = (179.9, 10, 180, 10.2)  # this side of the antimeridian
    some = find_changes(archive, BEFORE, AFTER, k=None, filter=Filter(bbox=box))
    assert {place_of(change.after.id) % SIDE for change in some} <= set(range(6))
    assert len(some) == some.pairs == 6 * SIDE
    with pytest.raises(ArchiveError, match="holds no chip of sensor 'naip'"):
        find_changes(archive, BEFORE, AFTER, sensor="naip")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("2020", "2018", "has to end before the second begins"),
        ("2018:2020", "2020", "has to end before the second begins"),
        ("2010", "2020", r"no place is shown both from 2010-01-01 to 2010-12-31 \(0 chips\)"),
    ],
)
def test_periods_that_make_no_sense(archive: Archive, before: str, after: str, words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        find_changes(archive, parse_datetime(before), parse_datetime(after))
    with pytest.raises(ArchiveError, match="k is 0"):
        find_changes(archive, BEFORE, AFTER, k=0)


def test_chips_of_other_scale_or_elsewhere_are_no_pair(rows: Rows, tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive", "micro-1", 8)
    geometry, box = grid_place(0)
    days = [datetime(2018, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)]
    archive.upsert(rows(2, geometry=[geometry] * 2, bbox=[box] * 2, datetime=days, gsd=[10.0, 30.0]))
    with pytest.raises(ArchiveError, match="no place is shown both"):
        find_changes(archive, BEFORE, AFTER)
    archive.upsert(rows(2, geometry=[geometry] * 2, bbox=[box] * 2, datetime=days, gsd=[10.0, 12.0]))
    found = find_changes(archive, BEFORE, AFTER)
    assert len(found) == 1
    assert any("nothing to calibrate by" in note for note in found.notes)


def test_the_heat_map_lies_where_the_places_do(archive: Archive, tmp_path: Path) -> None:
    import rasterio

    found = find_changes(archive, BEFORE, AFTER, k=None)
    path = tmp_path / "maps" / "change.tif"
    write_heatmap(path, found)
    with rasterio.open(path) as map_:
        assert map_.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        values = map_.read(1)
        assert map_.crs.to_epsg() in (32601, 32660)
        assert 500 < map_.res[0] < 600  # half a chip of about 1.1 km
        assert np.isfinite(values).mean() > 0.9
        from pyproj import Transformer

        project = Transformer.from_crs("OGC:CRS84", map_.crs, always_xy=True)
        for change in found[:2]:
            west, south, _, _ = change.after.bbox
            x, y = project.transform(west + DEGREES / 2, south + DEGREES / 2)
            assert values[map_.index(x, y)] > np.nanpercentile(values, 95)
    with pytest.raises(ArchiveError, match="larger cells"):
        write_heatmap(path, found, cell=0.5)
    with pytest.raises(ArchiveError, match="above 0"):
        write_heatmap(path, found, cell=0)


def test_places_are_written_as_geojson(archive: Archive, tmp_path: Path) -> None:
    write_changes(tmp_path / "changes.geojson", find_changes(archive, BEFORE, AFTER, k=3))
    found = json.loads((tmp_path / "changes.geojson").read_text())
    assert [feature["properties"]["rank"] for feature in found["features"]] == [1, 2, 3]
    assert found["features"][0]["geometry"]["type"] in ("Polygon", "MultiPolygon")
    assert found["features"][0]["properties"]["before_time"].startswith("2018-06-01")


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2018", "2018-01-01T00:00:00", "2018-12-31T23:59:59.999999"),
        ("2018-12", "2018-12-01T00:00:00", "2018-12-31T23:59:59.999999"),
        ("2018-02", "2018-02-01T00:00:00", "2018-02-28T23:59:59.999999"),
        ("2018-03-14", "2018-03-14T00:00:00", "2018-03-14T23:59:59.999999"),
        ("2018-03:2018-04-02", "2018-03-01T00:00:00", "2018-04-02T23:59:59.999999"),
        ("2018-03-14T10:00:00/2018-03-14T11:30:00", "2018-03-14T10:00:00", "2018-03-14T11:30:00"),
        ("2018-03-14T10:00:00+02:00/2018-03-15", "2018-03-14T08:00:00", "2018-03-15T23:59:59.999999"),
    ],
)
def test_periods_in_words(text: str, first: str, last: str) -> None:
    expected = tuple(datetime.fromisoformat(part).replace(tzinfo=UTC) for part in (first, last))
    assert parse_datetime(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "18", "2018-13", "2018:soon", "2019:2018", "2018-1-1:"])
def test_other_words_are_no_period(text: str) -> None:
    with pytest.raises(ArchiveError):
        parse_datetime(text)
