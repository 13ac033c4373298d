"""Ready-made vectors into an archive: rows made of them, and appending many in one transaction."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from shapely import from_wkb

from swath.archive.archive import Archive
from swath.archive.table.rows import rows_from_vectors, schema
from swath.errors import ArchiveError

Rows = Callable[..., pa.Table]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / "archive", "micro-1", 8)


def test_vectors_become_rows_with_footprints() -> None:
    vectors = np.arange(32, dtype=np.float32).reshape(4, 8)
    bounds = [[10, 50, 11, 51], [np.nan] * 4, [179, -1, -179, 1], [-5, -80, -4, -79]]
    made = rows_from_vectors(
        "m-1",
        list("abcd"),
        vectors,
        sensor="naip",
        gsd=[1, 2, 3, 4],
        bounds=bounds,
        label=["x", None, "y", "z"],
    )
    assert made.schema == schema(8)
    assert np.array_equal(np.stack(made["embedding"].to_numpy()), vectors)
    assert made["sensor"].to_pylist() == ["naip"] * 4
    assert made["gsd"].to_pylist() == [1, 2, 3, 4]
    assert made["label"].to_pylist() == ["x", None, "y", "z"]
    assert made["cloud_fraction"].null_count == 4
    first, none, across, last = made["geometry"].to_pylist()
    assert from_wkb(first).bounds == (10, 50, 11, 51)
    assert from_wkb(last).equals(from_wkb(last).envelope)
    assert none is None
    assert from_wkb(across).geom_type == "MultiPolygon"
    assert from_wkb(across).area == pytest.approx(4)
    assert made["bbox"].to_pylist()[1] is None
    assert made["bbox"].to_pylist()[2] == {"xmin": 179, "ymin": -1, "xmax": -179, "ymax": 1}


def test_vectors_that_do_not_fit_are_refused() -> None:
    vectors = np.zeros((2, 8), np.float32)
    for change, words in (
        ({"ids": ["a"]}, r"shape \(2, 8\); 1 ids"),
        ({"bounds": [[0, 0, 1, 1]]}, r"2 rows need \[2, 4\]"),
        ({"color": ["red", "blue"]}, "no column 'color'; it has id, embedding"),
        ({"gsd": ["ten", "one"]}, "do not fit"),
        ({"label": ["only one"]}, "do not fit"),
    ):
        options = {"ids": ["a", "b"], "sensor": "naip", "gsd": 1.0} | change
        with pytest.raises(ArchiveError, match=words):
            rows_from_vectors("m-1", options.pop("ids"), vectors, **options)


def test_appended_pieces_are_one_version(archive: Archive, rows: Rows) -> None:
    archive.upsert(rows(3))
    before = archive.version
    pieces = [rows(40, first=3), rows(0), *rows(20, first=43, sensor=["naip"] * 20).to_batches()]
    assert archive.append(iter(pieces)) == 60
    assert (archive.version, archive.count()) == (before + 1, 63)
    stored = archive.stored_means()
    assert stored is not None
    assert {name: part.count for name, part in stored.items()} == {"rgb_aerial": 43, "naip": 20}
    vectors = np.stack(
        archive.rows(["embedding", "sensor"]).to_pandas().query("sensor == 'naip'")["embedding"]
    )
    assert np.allclose(stored["naip"].mean, vectors.mean(axis=0), atol=1e-6)


def test_columns_that_may_be_null_may_be_missing(archive: Archive, rows: Rows) -> None:
    archive.append(rows(2).drop_columns(["label", "cloud_fraction", "files"]))
    archive.upsert(rows(2, first=2).drop_columns(["geometry"]))
    assert archive.rows(["label"])["label"].null_count == 4


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda rows: [rows(5, first=3), rows(5, first=9), rows(1)], f"holds a row '{0:032x}' already"),
        (lambda rows: [rows(5, first=3), rows(5, first=7)], f"'{7:032x}' occurs twice"),
        (lambda rows: [rows(5, first=3), rows(1, first=9, model_id=["other"])], "not with other"),
        (lambda rows: [rows(5, first=3), rows(1, first=9, dimensions=7)], "embeddings of 8 numbers"),
    ],
    ids=["held", "twice", "model", "dimensions"],
)
def test_one_bad_piece_undoes_the_whole(
    archive: Archive, rows: Rows, spoil: Callable[[Rows], list[pa.Table]], words: str
) -> None:
    archive.upsert(rows(3))
    version = archive.version
    with pytest.raises(ArchiveError, match=words):
        archive.append(spoil(rows))
    assert (archive.count(), archive.version) == (3, version)
    assert archive.append(rows(5, first=3)) == 5  # and the archive is as usable as before


def test_an_error_of_the_caller_comes_through(archive: Archive, rows: Rows) -> None:
    def broken() -> Iterator[pa.Table]:
        yield rows(5)
        raise FileNotFoundError("my own source is gone")

    with pytest.raises(FileNotFoundError, match="my own source"):
        archive.append(broken())
    assert archive.count() == 0


def test_an_archive_of_the_first_format_is_read_and_brought_up_to_date(tmp_path: Path, rows: Rows) -> None:
    import json

    import lancedb

    note = {"format": "swath-archive", "version": 1, "model_id": "micro-1", "dimensions": 8}
    old = rows(4).drop_columns(["cloud_fraction"])
    table = old.replace_schema_metadata({"swath": json.dumps(note)})
    lancedb.connect(str(tmp_path / "old")).create_table("chips", data=table)
    archive = Archive.open(tmp_path / "old")
    assert archive.rows().schema.names == schema(8).names
    assert archive.rows(["cloud_fraction"], ids=[f"{1:032x}"])["cloud_fraction"].to_pylist() == [None]
    assert next(archive.batches(["id", "cloud_fraction"])).num_columns == 2
    archive.upsert(rows(4, first=2, cloud_fraction=[0.5] * 4))
    assert archive.count() == 6
    clouds = Archive.open(tmp_path / "old").rows(["cloud_fraction"])["cloud_fraction"].to_pylist()
    assert sorted(clouds, key=str) == [0.5] * 4 + [None] * 2
    assert archive.at(1).rows()["cloud_fraction"].null_count == 4  # the old version is still readable


def test_a_writer_that_never_ends_is_named(
    archive: Archive, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swath.archive.table.lance import write_lock

    monkeypatch.setattr("swath.archive.table.lance.PATIENCE", 0.2)
    with write_lock(archive.path):
        with pytest.raises(ArchiveError, match=f"process {os.getpid()} has been writing"):
            archive.upsert(rows(2))
        assert archive.count() == 0  # readers go on
    assert archive.upsert(rows(2)) == 2
