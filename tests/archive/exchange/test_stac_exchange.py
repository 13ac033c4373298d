"""An archive in STAC: valid to pystac and to the rules of the embedding extension, without a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest

from swath.archive.archive import Archive
from swath.archive.exchange.geojson import write_archive_geojson
from swath.archive.exchange.stac import write_stac
from swath.archive.exchange.stac_objects import EMB
from swath.errors import ArchiveError
from swath.geo.footprint import footprint_geometry
from swath.models import Model, load_model, save_model

Rows = Callable[..., pa.Table]

# The names that the extension's schema (v0.0.1) allows; it refuses others that begin with emb:.
OF_COLLECTIONS = {
    "emb:type", "emb:dimensions", "emb:chip_layout", "emb:temporal_resolution", "emb:fit_for_use",
    "emb:uncertainty",
}  # fmt: skip
OF_ITEMS = {
    "emb:runtime_parameters", "emb:preprocessing", "emb:postprocessing", "emb:fit_for_use",
    "emb:spatial_coverage", "emb:uncertainty", "emb:quantization", "emb:energy",
}  # fmt: skip


def fill(archive: Archive, rows: Rows) -> Archive:
    ring = [(10.0, 0.0), (11.0, 0.0), (11.0, 1.0), (10.0, 1.0), (10.0, 0.0)]
    geometry, bbox = footprint_geometry(ring)
    archive.upsert(
        rows(
            3,
            dimensions=archive.dimensions,
            geometry=[geometry, geometry, None],
            bbox=[bbox, bbox, None],
            datetime=[datetime(2020, 1, 2, tzinfo=UTC), datetime(2021, 5, 6, 7, 8, 9, tzinfo=UTC), None],
            model_id=[archive.model_id] * 3,
        )
    )
    return archive


@pytest.fixture
def archive(rows: Rows, tmp_path: Path) -> Archive:
    return fill(Archive.create(tmp_path / "my archive", "micro-1", 8), rows)


def pages(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def assert_valid(page: dict[str, Any]) -> None:
    """To STAC's own schemas, which pystac carries; those of extensions are elsewhere, and so left out."""
    found = (pystac.Item if page["type"] == "Feature" else pystac.Collection).from_dict(page)
    found.stac_extensions = []
    found.validate()


def test_a_catalog_of_an_archive(archive: Archive, tmp_path: Path) -> None:
    assert write_stac(archive, tmp_path / "out") == 3
    found = pages(tmp_path / "out")
    assert set(found) == {"collection", "item"}
    collection, item = found["collection"], found["item"]
    for page in found.values():
        assert_valid(page)
        assert EMB in page["stac_extensions"]
    assert {key for key in collection if key.startswith("emb:")} <= OF_COLLECTIONS
    assert collection["emb:type"] == "chip"
    assert (collection["emb:dimensions"], collection["data_type"]) == (8, "float32")
    assert collection["emb:chip_layout"] == {"layout_type": "regular_grid", "chip_size": [4, 4]}
    assert {"emb:model", "emb:source-data"} <= {link["rel"] for link in collection["links"]}
    assert collection["extent"]["temporal"]["interval"] == [["2020-01-02T00:00:00Z", "2021-05-06T07:08:09Z"]]
    assert {key for key in item["properties"] if key.startswith("emb:")} <= OF_ITEMS
    assert not any(key.startswith("emb:") for key in item["assets"]["embeddings"])
    assert item["bbox"] == [10.0, 0.0, 11.0, 1.0]
    assert item["collection"] == collection["id"] == "my-archive"
    table = tmp_path / "out" / item["assets"]["embeddings"]["href"]
    assert pq.read_metadata(table).num_rows == item["assets"]["embeddings"]["table:row_count"] == 3


def test_without_place_and_time(rows: Rows, tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "a", "micro-1", 8)
    archive.upsert(rows(2))
    write_stac(archive, tmp_path / "out")
    found = pages(tmp_path / "out")
    for page in found.values():
        assert_valid(page)
    assert found["item"]["geometry"] is None
    assert "bbox" not in found["item"]


def test_the_model_beside_it(model: Model, rows: Rows, tmp_path: Path) -> None:
    folder = save_model(
        tmp_path / "micro",
        encoder_name=model.config["encoder"]["name"],
        encoder_options=model.config["encoder"]["options"],
        encoder=model.encoder,
        contract=model.contract,
    )
    archive = fill(Archive.create(tmp_path / "a", load_model(folder).id, 192), rows)
    write_stac(archive, tmp_path / "out", model=folder)
    found = pages(tmp_path / "out")
    assert found["model"]["id"] == archive.model_id
    link = next(link for link in found["collection"]["links"] if link["rel"] == "emb:model")
    assert link["href"] == "./model.json"
    other = fill(Archive.create(tmp_path / "b", "other-1", 8), rows)
    with pytest.raises(ArchiveError, match="not with vit_micro"):
        write_stac(other, tmp_path / "out2", model=folder)
    with pytest.raises(ArchiveError, match="no model directory"):
        write_stac(other, tmp_path / "out2", model=tmp_path)
    assert not (tmp_path / "out2").exists()


def test_only_an_older_export_is_replaced(archive: Archive, tmp_path: Path) -> None:
    write_stac(archive, tmp_path / "out")
    write_stac(archive, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ArchiveError, match="a folder of its own"):
        write_stac(archive, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_footprints_as_geojson(archive: Archive, tmp_path: Path) -> None:
    assert write_archive_geojson(archive, tmp_path / "a.geojson") == 3
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert sorted(f["id"] for f in features) == sorted(archive.rows(["id"])["id"].to_pylist())
    last = next(f for f in features if f["geometry"] is None)
    assert last["properties"]["datetime"] is None
    assert "embedding" not in last["properties"]
    empty = Archive.create(tmp_path / "empty", "micro-1", 8)
    assert write_archive_geojson(empty, tmp_path / "b.geojson") == 0
    assert json.loads((tmp_path / "b.geojson").read_text())["features"] == []
