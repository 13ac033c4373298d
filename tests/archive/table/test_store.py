"""The archive's table: one model, whole transactions, versions, and clear words when it is damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import swath
from swath.archive.archive import Archive
from swath.archive.table.lance import archive_exists
from swath.archive.table.rows import schema
from swath.errors import ArchiveError

Rows = Callable[..., pa.Table]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / "archive", "micro-1", 8)


def table_folder(archive: Archive) -> Path:
    return Path(archive.path) / "chips.lance"


def test_upsert_inserts_and_replaces_by_id(archive: Archive, rows: Rows) -> None:
    assert archive.upsert(rows(10)) == 10
    assert archive.upsert(rows(10, first=5, sensor=["naip"] * 10)) == 5
    assert archive.count() == len(archive) == 15
    sensors = dict(zip(*archive.rows(["id", "sensor"]).to_pydict().values(), strict=True))
    assert sensors[f"{4:032x}"] == "rgb_aerial"
    assert sensors[f"{5:032x}"] == "naip"


def test_rows_come_back_as_they_were(archive: Archive, rows: Rows) -> None:
    from datetime import UTC, datetime

    given = rows(
        2,
        geometry=[b"\x01\x02", None],
        bbox=[{"xmin": 1.0, "ymin": 2.0, "xmax": 3.0, "ymax": 4.0}, None],
        datetime=[datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC), None],
        files=[["a.tif", "b.tif"], None],
        label=["Forest", None],
        gsd=[0.29, 10.0],
    )
    archive.upsert(given)
    back = Archive.open(archive.path).rows().sort_by("id")
    assert back.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    assert back.to_pylist() == given.to_pylist()


def test_only_the_rows_asked_for(archive: Archive, rows: Rows) -> None:
    archive.upsert(rows(5))
    requested = [f"{1:032x}", f"{3:032x}", "unknown", "it's ' OR 1=1 --"]
    assert sorted(archive.rows(["id"], ids=requested)["id"].to_pylist()) == sorted(requested[:2])
    assert archive.rows(["id"], ids=[]).num_rows == 0


def test_delete_takes_only_these_ids(archive: Archive, rows: Rows) -> None:
    archive.upsert(rows(5))
    assert archive.delete([f"{2:032x}", "x' OR 1=1 --", "unknown"]) == 1
    assert archive.count() == 4


def test_every_change_is_a_version_that_can_be_opened(archive: Archive, rows: Rows) -> None:
    archive.upsert(rows(3))
    three = archive.version
    archive.upsert(rows(4, first=3))
    old = archive.at(three)
    assert (old.count(), archive.count()) == (3, 7)
    assert [version.rows for version in archive.versions()] == [0, 3, 7]
    with pytest.raises(ArchiveError, match="reading only"):
        old.upsert(rows(1))
    with pytest.raises(ArchiveError, match=r"no version 99; kept are 1 to 3"):
        archive.at(99)


def test_compacting_changes_no_row_and_keeps_versions(archive: Archive, rows: Rows) -> None:
    for first in range(6):
        archive.upsert(rows(1, first=first))
    before = archive.rows().sort_by("id")
    version = archive.version
    assert archive.files() == 6
    archive.compact()
    assert archive.files() == 1
    assert archive.rows().sort_by("id").equals(before)
    assert archive.at(version).count() == 6
    assert archive.model_id == Archive.open(archive.path).model_id == "micro-1"


def test_a_reader_sees_commits_of_another_writer(archive: Archive, rows: Rows) -> None:
    reader = Archive.open(archive.path)
    assert reader.count() == 0
    archive.upsert(rows(3))
    assert reader.count() == 3


def test_remembers_where_the_model_was(archive: Archive) -> None:
    assert archive.model_path is None
    archive.remember_model("models/first")
    archive.remember_model("models/second")
    assert Archive.open(archive.path).model_path == "models/second"
    assert archive.model_id == "micro-1"


def test_another_model_is_refused_naming_both(archive: Archive, rows: Rows) -> None:
    for attempt in (
        lambda: Archive.open(archive.path, model_id="other-2"),
        lambda: Archive.open_or_create(archive.path, "other-2", 8),
        lambda: archive.upsert(rows(2, model_id=["micro-1", "other-2"])),
    ):
        with pytest.raises(ArchiveError, match=r"embedded with model micro-1, not with other-2"):
            attempt()
    assert archive.count() == 0


def test_rows_that_do_not_fit_are_refused_whole(archive: Archive, rows: Rows) -> None:
    twice = rows(2, id=["a" * 32, "a" * 32])
    spoilt = rows(2)
    vectors = np.ones((2, 8), np.float32)
    vectors[1, 3] = np.nan
    spoilt = spoilt.set_column(
        1, spoilt.schema.field(1), pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)
    )
    for bad, words in (
        (twice, "an id occurs twice"),
        (spoilt, "not finite"),
        (rows(2, dimensions=9), "embeddings of 8 numbers"),
        (rows(2).drop_columns("gsd"), r"lack columns \['gsd'\]"),
        (rows(2).append_column("extra", [[1, 2]]), r"unknown ones \['extra'\]"),
        (rows(2).set_column(6, "gsd", [["ten", "one"]]), "do not fit"),
    ):
        with pytest.raises(ArchiveError, match=words):
            archive.upsert(bad)
    assert archive.count() == 0
    assert archive.upsert(rows(0)) == 0


def test_no_archive_there(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"no archive there; `swath embed MODEL DATA --to"):
        Archive.open(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    with pytest.raises(ArchiveError, match="is not an archive"):
        Archive.open(tmp_path / "photos")
    with pytest.raises(ArchiveError, match="holds other files"):
        Archive.create(tmp_path / "photos", "micro-1", 8)
    with pytest.raises(ArchiveError, match="is a file"):
        Archive.create(tmp_path / "photos" / "a.png", "micro-1", 8)
    assert not archive_exists(tmp_path / "photos")


def test_an_existing_archive_is_not_covered(archive: Archive) -> None:
    with pytest.raises(ArchiveError, match="an archive already"):
        Archive.create(archive.path, "micro-1", 8)


def test_archive_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    import lancedb

    note = {"format": "swath-archive", "version": 99, "model_id": "m", "dimensions": 8}
    for name, metadata in (("newer", {"swath": json.dumps(note)}), ("foreign", None)):
        columns = schema(8).with_metadata(metadata)
        lancedb.connect(str(tmp_path / name)).create_table("chips", schema=columns)
    with pytest.raises(ArchiveError, match=r"newer Swath \(archive format 99, this one reads up to 2\)"):
        Archive.open(tmp_path / "newer")
    with pytest.raises(ArchiveError, match="not an archive that Swath made"):
        Archive.open(tmp_path / "foreign")


def test_a_half_deleted_archive_is_told(archive: Archive, rows: Rows) -> None:
    """Whatever is missing or cut short: an ArchiveError that names the archive; no crash, no made-up rows."""
    archive.upsert(rows(50))
    folder = table_folder(archive)
    victims = [*folder.glob("data/*"), *folder.glob("_versions/*.manifest")]
    assert len(victims) == 3
    for victim in victims[:2]:  # the data file, and the newest manifest (they count down)
        content = victim.read_bytes()
        for damage in (None, b"", content[: len(content) // 2], b"\xff" * len(content)):
            if damage is None:
                victim.unlink()
            else:
                victim.write_bytes(damage)
            if damage is None and victim.suffix == ".manifest":
                assert Archive.open(archive.path).count() == 0  # the version before, whole
            else:
                with pytest.raises(ArchiveError, match=f"{archive.path}: .*damaged"):
                    Archive.open(archive.path).rows()
            victim.write_bytes(content)
    assert Archive.open(archive.path).count() == 50


def test_lost_manifests_are_not_taken_for_an_empty_archive(archive: Archive, rows: Rows) -> None:
    archive.upsert(rows(5))
    for manifest in table_folder(archive).glob("_versions/*"):
        manifest.unlink()
    for attempt in (
        lambda: Archive.open(archive.path),
        lambda: Archive.create(archive.path, "micro-1", 8),
        lambda: Archive.open_or_create(archive.path, "micro-1", 8),
    ):
        with pytest.raises(ArchiveError, match="holds no manifest"):
            attempt()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers.archive_rows import make_rows
from swath.archive.archive import Archive
archive = Archive.open_or_create({path!r}, "micro-1", 8)
for first in range(0, 40, 8):
    archive.upsert(make_rows(8, first=first))
"""


def test_writers_in_two_processes_make_no_duplicates(tmp_path: Path) -> None:
    script = WRITER.format(tests=str(Path(__file__).parents[2]), path=str(tmp_path / "archive"))
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    ids = Archive.open(tmp_path / "archive").rows(["id"])["id"].to_pylist()
    assert len(ids) == len(set(ids)) == 40


FULL = """
import resource, sys
sys.path.insert(0, {tests!r})
from helpers.archive_rows import make_rows
from swath.archive.archive import Archive
from swath.errors import ArchiveError

archive = Archive.open({path!r})
# The largest size that a file may have stands in for a full disk: the same write fails, by another code.
for limit in (10_000, 2_000, 0):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        archive.upsert(make_rows(500, first=3))  # some ids are there already, most are new
    except ArchiveError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print(limit, archive.count(), error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits there")
def test_a_full_disk_is_told_and_leaves_the_archive_as_it_was(archive: Archive, rows: Rows) -> None:
    archive.upsert(rows(10))
    before, version = archive.rows().sort_by("id"), archive.version
    script = FULL.format(tests=str(Path(__file__).parents[2]), path=archive.path)
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    told = child.stdout.splitlines()
    assert [line.split()[:2] for line in told] == [["10000", "10"], ["2000", "10"], ["0", "10"]]
    for line in told:
        assert f"{archive.path}: could not be written: the disk is full" in line
        assert line.endswith("Nothing committed is lost; free space and run it again")
    found = Archive.open(archive.path)
    assert found.version == version
    assert found.rows().sort_by("id") == before
    assert found.upsert(rows(500, first=3)) == 493  # with room again, the same call succeeds


def test_shows_itself(archive: Archive, rows: Rows) -> None:
    from datetime import UTC, datetime

    assert "0 chips" in repr(archive)
    assert "none" in archive._repr_html_()
    archive.upsert(
        rows(
            2,
            sensor=["naip", "<b>"],
            datetime=[datetime(2020, 5, 1, tzinfo=UTC), None],
            bbox=[{"xmin": 1.0, "ymin": 2.0, "xmax": 3.0, "ymax": 4.0}, None],
        )
    )
    assert "2 chips x 8, model micro-1" in repr(archive)
    html = archive._repr_html_()
    assert "&lt;b&gt; (1)" in html
    assert "2020-05-01" in html
    summary = archive.summary()
    assert (summary.placed, summary.bounds, summary.gsd) == (1, (1.0, 2.0, 3.0, 4.0), (1.0, 1.0))


def test_is_public() -> None:
    assert swath.Archive is Archive
