"""Answers as GeoJSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pytest

from swath.archive.archive import Archive
from swath.archive.exchange.geojson import write_geojson
from swath.geo.footprint import footprint_geometry

SQUARE = [(10.0, 0.0), (11.0, 0.0), (11.0, 1.0), (10.0, 1.0), (10.0, 0.0)]


@pytest.fixture
def archive(rows: Callable[..., pa.Table], tmp_path: Path) -> Archive:
    """Three chips; the last without place and time."""
    archive = Archive.create(tmp_path / "archive", "micro-1", 8)
    places = [footprint_geometry([(x + i, y) for x, y in SQUARE]) for i in range(2)]
    archive.upsert(
        rows(
            3,
            geometry=[wkb for wkb, _ in places] + [None],
            bbox=[box for _, box in places] + [None],
            datetime=[datetime(2020, 1, 2, tzinfo=UTC)] * 2 + [None],
            label=["Forest", None, None],
        )
    )
    return archive


def test_geojson_of_answers(archive: Archive, tmp_path: Path) -> None:
    answers = archive.search(np.ones(8), 3)
    write_geojson(tmp_path / "a.geojson", answers, query={"text": "x"})
    collection = json.loads((tmp_path / "a.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    assert collection["query"] == {"text": "x"}
    assert [feature["id"] for feature in collection["features"]] == [answer.id for answer in answers]
    by_id = {int(feature["id"], 16): feature for feature in collection["features"]}
    assert by_id[0]["geometry"]["type"] == "Polygon"
    assert by_id[0]["bbox"] == [10.0, 0.0, 11.0, 1.0]
    assert by_id[0]["properties"]["datetime"] == "2020-01-02T00:00:00+00:00"
    assert by_id[0]["properties"]["label"] == "Forest"
    assert by_id[2]["geometry"] is None
    assert "bbox" not in by_id[2]
    frame = geopandas.read_file(tmp_path / "a.geojson")
    assert len(frame) == 3
    assert list(frame["rank"]) == [1, 2, 3]
