"""An archive as GeoParquet: what other tools see of it, and that it comes back whole or not at all."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swath.archive.archive import Archive
from swath.archive.exchange import spatial_sort as spatial_order
from swath.archive.exchange.geoparquet import read_geoparquet, write_geoparquet
from swath.archive.exchange.spatial_sort import hilbert
from swath.archive.table.rows import schema
from swath.errors import ArchiveError
from swath.geo.footprint import footprint_geometry

Rows = Callable[..., pa.Table]


def square(x: float, y: float, side: float = 0.1) -> tuple[bytes, dict[str, float]]:
    return footprint_geometry([(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)])


def placed(rows: Rows, places: list[tuple[float, float] | None], **columns: Any) -> pa.Table:
    found = [square(*place) if place else (None, None) for place in places]
    return rows(len(places), geometry=[g for g, _ in found], bbox=[b for _, b in found], **columns)


def archive_of(path: Path, table: pa.Table, model_id: str = "micro-1") -> Archive:
    archive = Archive.create(path, model_id, table.schema.field("embedding").type.list_size)
    archive.upsert(table)
    return archive


@pytest.fixture
def archive(rows: Rows, tmp_path: Path) -> Archive:
    """Four chips: two neighbors, one across the antimeridian, one without place and time."""
    when = datetime(2020, 1, 2, tzinfo=UTC)
    table = placed(
        rows,
        [(10, 0), (11, 0), (179.95, 50), None],
        datetime=[when, when, when, None],
        label=["Forest", None, None, None],
    )
    return archive_of(tmp_path / "archive", table)


def by_id(table: pa.Table) -> list[dict[str, Any]]:
    return table.sort_by("id").to_pylist()


def test_geopandas_opens_it(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "archive.parquet"
    assert write_geoparquet(archive, path) == 4
    frame = geopandas.read_parquet(path)
    assert frame.crs == "OGC:CRS84"
    assert frame.geometry.isna().sum() == 1
    assert sorted(frame.geom_type.dropna()) == ["MultiPolygon", "Polygon", "Polygon"]
    assert np.stack(frame["embedding"]).shape == (4, 8)
    # By the covering: readers compare boxes, and know nothing of xmin > xmax.
    assert len(geopandas.read_parquet(path, bbox=(9.9, 0.0, 10.5, 1.0))) == 1
    assert len(geopandas.read_parquet(path, bbox=(-180.0, 49.0, -179.99, 51.0))) == 1


def test_duckdb_opens_it(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "archive.parquet"
    write_geoparquet(archive, path)
    with duckdb.connect() as database:
        database.execute(f"CREATE VIEW chips AS SELECT * FROM '{path}'")
        found = database.execute(
            "SELECT label, len(embedding), list_inner_product(embedding, embedding) FROM chips "
            "WHERE covering.xmin < 10.5 AND covering.xmax > 9 AND covering.ymax < 10"
        ).fetchall()
    row = next(row for row in archive.rows().to_pylist() if row["label"] == "Forest")
    assert found == [("Forest", 8, pytest.approx(sum(x * x for x in row["embedding"]), rel=1e-5))]


def test_metadata_say_what_it_is(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "archive.parquet"
    write_geoparquet(archive, path)
    found = pq.read_schema(path)
    assert found.field("embedding").type == pa.list_(pa.float32(), 8)
    notes = {key: json.loads(found.metadata[key]) for key in (b"geo", b"swath", b"stac")}
    column = notes[b"geo"]["columns"]["geometry"]
    assert notes[b"geo"]["version"] == "1.1.0"
    assert column["bbox"] == [-180.0, 0.0, 180.0, pytest.approx(50.1)]
    assert column["covering"]["bbox"]["xmin"] == ["covering", "xmin"]
    assert notes[b"swath"]["model_id"] == "micro-1"
    assert notes[b"stac"]["emb:dimensions"] == 8


def test_row_groups_are_small_places(rows: Rows, tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(
        [(float(x), float(y)) for x in range(64) for y in range(-32, 32)], 4096
    )
    archive = archive_of(tmp_path / "archive", placed(rows, shuffled))
    path = tmp_path / "archive.parquet"
    write_geoparquet(archive, path, group_rows=64)
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 64
    sides = []
    for group in range(file.num_row_groups):
        boxes = pa.Table.from_struct_array(file.read_row_group(group, ["bbox"])["bbox"])
        sides += [np.ptp(boxes["xmin"].to_numpy()), np.ptp(boxes["ymin"].to_numpy())]
    assert np.mean(sides) < 16  # of 64; unsorted they are all about 63
    assert by_id(pq.read_table(path, columns=["id", "embedding"])) == by_id(archive.rows(["id", "embedding"]))


def test_buckets_change_nothing(rows: Rows, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    places = [tuple(place) for place in rng.integers(-60, 60, (300, 2)).astype(float)]
    places[::7] = [None] * len(places[::7])
    places[1::5] = [(3.0, 3.0)] * len(places[1::5])  # many chips of one place
    archive = archive_of(tmp_path / "archive", placed(rows, places))
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    write_geoparquet(archive, whole)
    write_geoparquet(archive, parts, bucket_rows=17)
    assert pq.read_table(whole).num_rows == 300
    assert pq.read_table(whole).select(["embedding"]).equals(pq.read_table(parts).select(["embedding"]))
    assert [entry.name for entry in tmp_path.iterdir()].count(".buckets") == 0
    assert sorted(e.name for e in tmp_path.iterdir()) == ["archive", "parts.parquet", "whole.parquet"]


def test_the_curve_visits_every_cell_and_goes_to_neighbors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spatial_order, "_LEVELS", 4)
    middle = (np.arange(16) + 0.5) / 16
    x, y = (v.ravel() for v in np.meshgrid(middle, middle))
    distance = hilbert(x, y)
    assert sorted(distance.tolist()) == list(range(256))
    order = np.argsort(distance)
    steps = np.abs(np.diff(x[order])) + np.abs(np.diff(y[order]))
    assert np.allclose(steps, 1 / 16)


# ---- there and back

number = st.floats(allow_nan=False, allow_infinity=False, width=32)
words = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
places = st.one_of(st.none(), st.tuples(st.floats(-180, 180), st.floats(-89, 88)))
times = st.one_of(
    st.none(), st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
)  # fmt: skip
chip = st.fixed_dictionaries(
    {
        "id": words.filter(bool),
        "embedding": st.lists(number, min_size=3, max_size=3),
        "place": places,
        "datetime": times,
        "sensor": st.sampled_from(["rgb_aerial", "sentinel2_l2a"]),
        "gsd": st.floats(1e-3, 1e4),
        "source": words,
        "files": st.one_of(st.none(), st.lists(words, max_size=2)),
        "window": st.fixed_dictionaries(
            {name: st.integers(0, 2**31 - 1) for name in ("column", "row", "width", "height")}
        ),
        "valid_fraction": st.floats(0, 1, width=32),
        "label": st.one_of(st.none(), words),
    }
)


@settings(max_examples=8, deadline=None)
@given(chips=st.lists(chip, max_size=6, unique_by=lambda c: c["id"]), size=st.integers(1, 4))
def test_what_goes_out_comes_back(
    chips: list[dict[str, Any]], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("round")
    entries = []
    for entry in chips:
        place = entry.pop("place")
        geometry, bbox = square(*place, side=0.7) if place else (None, None)
        rest = {"model_id": "m-1", "preprocessing": "{}", "fingerprint": "f"}
        entries.append({**entry, **rest, "geometry": geometry, "bbox": bbox})
    archive = Archive.create(folder / "there", "m-1", 3)
    archive.upsert(pa.Table.from_pylist(entries, schema=schema(3)))
    write_geoparquet(archive, folder / "a.parquet", group_rows=size, bucket_rows=size)
    assert read_geoparquet(folder / "a.parquet", folder / "back") == (len(entries), len(entries))
    back = Archive.open(folder / "back", model_id="m-1")
    assert back.dimensions == 3
    assert by_id(back.rows()) == by_id(archive.rows())
    again = folder / "b.parquet"
    write_geoparquet(back, again, group_rows=size, bucket_rows=size)
    assert pq.read_table(again).equals(pq.read_table(folder / "a.parquet"))


def test_import_replaces_and_adds(archive: Archive, rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "archive.parquet"
    write_geoparquet(archive, path)
    other = archive_of(tmp_path / "other", rows(2, first=3, label=["old", "mine"]))
    assert read_geoparquet(path, tmp_path / "other") == (4, 3)
    assert {row["id"]: row["label"] for row in other.rows(["id", "label"]).to_pylist()} == {
        f"{0:032x}": "Forest", f"{1:032x}": None, f"{2:032x}": None, f"{3:032x}": None, f"{4:032x}": "mine",
    }  # fmt: skip
    assert read_geoparquet(path, tmp_path / "other") == (4, 0)
    assert other.count() == 5


def test_progress_ends_with_all(archive: Archive, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_geoparquet(archive, tmp_path / "a.parquet", progress=lambda *at: seen.append(at))
    assert seen[-1] == (4, 4)
    seen.clear()
    read_geoparquet(tmp_path / "a.parquet", tmp_path / "b", progress=lambda *at: seen.append(at))
    assert seen[-1] == (4, 4)


def test_duckdb_may_write_it_again(archive: Archive, tmp_path: Path) -> None:
    path, other = tmp_path / "archive.parquet", tmp_path / "other.parquet"
    write_geoparquet(archive, path)
    with duckdb.connect() as database:
        database.execute(f"COPY (SELECT * FROM '{path}' WHERE covering.ymax < 20) TO '{other}'")
    assert read_geoparquet(other, tmp_path / "back") == (2, 2)
    back = by_id(Archive.open(tmp_path / "back", model_id="micro-1").rows())
    assert back == by_id(archive.rows())[:2]


def test_geopandas_may_write_it_again(archive: Archive, tmp_path: Path) -> None:
    path, other = tmp_path / "archive.parquet", tmp_path / "other.parquet"
    write_geoparquet(archive, path)
    frame = geopandas.read_parquet(path)
    frame[frame["label"] == "Forest"].to_parquet(other)
    assert read_geoparquet(other, tmp_path / "back") == (1, 1)
    back = by_id(Archive.open(tmp_path / "back", model_id="micro-1").rows())
    assert back == by_id(archive.rows())[:1]


# ---- what is refused


def rewritten(path: Path, table: pa.Table, **note: Any) -> Path:
    metadata = dict(table.schema.metadata or {})
    if note:
        metadata[b"swath"] = json.dumps(json.loads(metadata[b"swath"]) | note).encode()
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, t: rewritten(p, t, version=99), "newer Swath .*install a newer"),
        (lambda p, t: rewritten(p, t, format="other"), "says to be 'other'"),
        (lambda p, t: rewritten(p, t, dimensions=9), "say 9 dimensions, its column 8"),
        (lambda p, t: rewritten(p, t.drop_columns(["fingerprint"])), "no column fingerprint.*archive export"),
        (lambda p, t: p, "no such file"),
        (lambda p, t: p.write_bytes(b"PAR1 and no more") and p, "cannot be read as Parquet"),
        (lambda p, t: p.write_bytes(rewritten(p, t).read_bytes()[:-300]) and p, "cannot be read as Parquet"),
    ],
)
def test_wrong_files_are_refused(
    change: Callable[[Path, pa.Table], Path], message: str, archive: Archive, tmp_path: Path
) -> None:
    write_geoparquet(archive, tmp_path / "good.parquet")
    path = change(tmp_path / "bad.parquet", pq.read_table(tmp_path / "good.parquet"))
    with pytest.raises(ArchiveError, match=message):
        read_geoparquet(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_model_is_refused(archive: Archive, rows: Rows, tmp_path: Path) -> None:
    write_geoparquet(archive, tmp_path / "a.parquet")
    other = archive_of(tmp_path / "other", rows(1, model_id=["x-2"]), "x-2")
    with pytest.raises(ArchiveError, match="embedded with model x-2, not with micro-1"):
        read_geoparquet(tmp_path / "a.parquet", other.path)
    assert other.count() == 1


def test_other_dimensions_are_refused(archive: Archive, rows: Rows, tmp_path: Path) -> None:
    write_geoparquet(archive, tmp_path / "a.parquet")
    Archive.create(tmp_path / "other", "micro-1", 3)
    with pytest.raises(ArchiveError, match=r"8 numbers, the archive .* of 3"):
        read_geoparquet(tmp_path / "a.parquet", tmp_path / "other")


def test_rows_of_two_models_are_refused(archive: Archive, tmp_path: Path) -> None:
    write_geoparquet(archive, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    place = table.schema.get_field_index("model_id")
    mixed = table.set_column(place, table.schema.field("model_id"), pa.array(["a", "a", "b", "b"]))
    pq.write_table(mixed.replace_schema_metadata(None), tmp_path / "mixed.parquet")
    with pytest.raises(ArchiveError, match=r"2 models \(a, b\)"):
        read_geoparquet(tmp_path / "mixed.parquet", tmp_path / "new")
    # With our metadata, but rows that contradict them, the transaction as a whole is undone.
    pq.write_table(mixed, tmp_path / "mixed.parquet")
    with pytest.raises(ArchiveError, match="micro-1"):
        read_geoparquet(tmp_path / "mixed.parquet", tmp_path / "new")
    assert Archive.open(tmp_path / "new").count() == 0


def test_an_export_is_of_one_version(archive: Archive, rows: Rows, tmp_path: Path) -> None:
    older = archive.at(archive.version)
    archive.upsert(rows(1, first=50, datetime=[datetime(2030, 1, 1, tzinfo=UTC) + timedelta(days=1)]))
    assert write_geoparquet(older, tmp_path / "older.parquet") == 4
    assert write_geoparquet(archive, tmp_path / "newer.parquet") == 5
