"""An archive that is damaged, newer, empty, or at the edges of the map: the service says so, or copes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from swath.archive.archive import Archive
from swath.archive.table.rows import schema
from swath.errors import ArchiveError
from swath.serving.http.app import create_app

Box = tuple[float, float, float, float]
ASKED = ("/api/archive", "/api/chips", "/api/footprints", "/api/health", "/metrics", "/api/tiles/1/0/0.png")


@contextmanager
def asked(path: Path) -> Iterator[TestClient]:
    """The whole application in this process; an error of the server is an answer with 500."""
    with TestClient(
        create_app(str(path)), base_url="http://localhost", raise_server_exceptions=False
    ) as client:
        yield client


def archive_at(path: Path, boxes: list[Box]) -> Archive:
    """One chip a box (west, south, east, north; west > east crosses the antimeridian), without imagery."""
    import shapely

    archive = Archive.create(path, "m-1", 4)
    rows = []
    for number, (west, south, east, north) in enumerate(boxes):
        parts = [(west, 180.0), (-180.0, east)] if west > east else [(west, east)]
        ground = shapely.union_all([shapely.box(left, south, right, north) for left, right in parts])
        rows.append(
            {
                "id": f"{number:032x}",
                "embedding": np.eye(4, dtype=np.float32)[number % 4].tolist(),
                "geometry": shapely.to_wkb(ground),
                "bbox": {"xmin": west, "ymin": south, "xmax": east, "ymax": north},
                "datetime": datetime(2021, 6, 30, tzinfo=UTC),
                "sensor": "rgb_aerial",
                "gsd": 10.0,
                "source": str(path.parent / f"{number}.tif"),
                "window": {"column": 0, "row": 0, "width": 8, "height": 8},
                "valid_fraction": 1.0,
                "model_id": "m-1",
                "preprocessing": "{}",
                "fingerprint": "f",
            }
        )
    archive.upsert(pa.Table.from_pylist(rows, schema=schema(4)))
    return archive


def newer(path: Path) -> None:
    """Write an archive as a Swath of the future might."""
    import lancedb

    note = {"format": "swath-archive", "version": 99, "model_id": "m-1", "dimensions": 4}
    columns = schema(4).with_metadata({"swath": json.dumps(note)})
    lancedb.connect(str(path)).create_table("chips", schema=columns)


def test_an_archive_of_a_newer_version_is_not_served(tmp_path: Path) -> None:
    newer(tmp_path / "archive")
    with pytest.raises(ArchiveError, match="newer Swath"):
        create_app(str(tmp_path / "archive"))


def test_an_archive_that_is_replaced_by_a_newer_one_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    archive_at(path, [(10, 50, 11, 51)])
    with asked(path) as client:
        assert client.get("/api/archive").json()["rows"] == 1
        path.rename(tmp_path / "away")
        newer(path)
        for address in ASKED:
            answer = client.get(address)
            assert answer.status_code == 503, (address, answer.text)
            assert answer.headers["retry-after"]
            assert str(tmp_path) not in answer.text
        shutil.rmtree(path)
        (tmp_path / "away").rename(path)
        again = client.get("/api/archive")
        assert again.status_code == 200, again.text


@pytest.mark.parametrize("damage", ["all", "table", "data", "manifests", "garbled"])
def test_a_half_deleted_archive_is_unavailable_until_it_is_back(tmp_path: Path, damage: str) -> None:
    path, away = tmp_path / "archive", tmp_path / "away"
    archive_at(path, [(10, 50, 11, 51)])
    shutil.copytree(path, away)
    with asked(path) as client:
        one = {"like": [f"{0:032x}"], "k": 1}
        victims = {"all": path, "table": path / "chips.lance", "data": path / "chips.lance" / "data"}
        victims["manifests"] = path / "chips.lance" / "_versions"
        if damage == "garbled":
            for file in (path / "chips.lance").rglob("*"):
                if file.is_file():
                    file.write_bytes(b"\xff" * file.stat().st_size)
        else:
            shutil.rmtree(victims[damage])
        for answer in (*(client.get(address) for address in ASKED), client.post("/api/search", json=one)):
            # What is in memory already may still answer; nobody is told of a mistake of the server.
            assert answer.status_code in (200, 204, 503), answer.text
            assert str(tmp_path) not in answer.text
        told = client.get("/api/archive")
        assert (damage in ("data",)) or told.status_code == 503, told.text
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(away, path)
        assert client.get("/api/archive").json()["rows"] == 1
        assert client.get(f"/api/chips/{0:032x}").status_code == 200


def test_an_empty_archive_is_served(tmp_path: Path) -> None:
    Archive.create(tmp_path / "archive", "m-1", 4)
    with asked(tmp_path / "archive") as client:
        info = client.get("/api/archive").json()
        assert (info["rows"], info["bounds"], info["gsd"], info["time"]) == (0, None, None, None)
        assert client.get("/api/footprints").json()["features"] == []
        assert client.get("/api/chips").json() == {"chips": [], "total": 0}
        assert client.get("/api/tiles/0/0/0.png").status_code == 204
        missing = client.post("/api/search", json={"like": ["x"]})
        assert (missing.status_code, "no chip" in missing.json()["detail"]) == (404, True)


# --- the edges of the map -----------------------------------------------------------------------------------

EDGES: list[Box] = [
    (179.5, -1, -179.5, 1),  # 0: across the antimeridian
    (178, -1, 179, 1),  # 1: west of it
    (-179, -1, -178, 1),  # 2: east of it
    (-180, 88, 180, 90),  # 3: the north pole
    (30, -90, 60, -88),  # 4: at the south pole
    (0, 0, 1, 1),  # 5: far from all of them
]


def box(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


@pytest.mark.parametrize(
    ("area", "inside"),
    [
        (box(177.9, -1, 182.1, 1), {0, 1, 2}),  # goes on beyond 180
        (box(-182.1, -1, -177.9, 1), {0, 1, 2}),  # the same from the other side
        (
            {
                "type": "MultiPolygon",  # cut at 180, as RFC 7946 wants it
                "coordinates": [
                    box(177.9, -1, 180, 1)["coordinates"],
                    box(-180, -1, -177.9, 1)["coordinates"],
                ],
            },
            {0, 1, 2},
        ),
        (box(-180, 85, 180, 90), {3}),
        (box(-180, -90, 180, -85), {4}),
        (box(-180, -90, 180, 90), {0, 1, 2, 3, 4, 5}),
        (box(0.2, 0.2, 0.4, 0.4), {5}),
    ],
)
def test_areas_across_the_antimeridian_and_at_the_poles(
    tmp_path: Path, area: dict[str, Any], inside: set[int]
) -> None:
    archive_at(tmp_path / "archive", EDGES)
    with asked(tmp_path / "archive") as client:
        by_area = client.post("/api/search", json={"area": area}).json()
        assert {int(id, 16) for id in by_area["query"]["like"]} == inside
        filtered = client.post(
            "/api/search", json={"place": [0.5, 0.5], "filters": {"intersects": area}, "k": 10}
        ).json()
        assert {int(one["id"], 16) for one in filtered["results"]} == inside - {5}


@pytest.mark.parametrize(
    ("place", "shown"), [((180, 0), {0}), ((-180, 0), {0}), ((-20, 89.9), {3}), ((45, -90), {4})]
)
def test_places_at_the_edges(tmp_path: Path, place: tuple[float, float], shown: set[int]) -> None:
    archive_at(tmp_path / "archive", EDGES)
    with asked(tmp_path / "archive") as client:
        found = client.post("/api/search", json={"place": place}).json()
        assert {int(id, 16) for id in found["query"]["like"]} == shown
        boxed = client.get("/api/footprints", params={"bbox": "179.9,-1,180.1,1"}).json()
        assert {int(one["id"], 16) for one in boxed["features"]} == {0}
