"""The search index beside the table: in step with every change, whole or passed over, as good as exact."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from swath.archive.archive import Archive
from swath.archive.index import files as stored
from swath.archive.index.files import build_index, build_index_if_due, check_index, index_status, open_index
from swath.archive.index.ivf import IvfSearchIndex, build_ivf
from swath.archive.index.protocol import ExactIndex
from swath.archive.index.vectors import SimilaritySpace, VectorBlocks, normalize_rows
from swath.archive.query.filters import Filter
from swath.archive.query.searcher import Searcher
from swath.errors import ArchiveError

Rows = Callable[..., pa.Table]
SENSORS = ("rgb_aerial", "sentinel1_grd")


def some_rows(rows: Rows, count: int, first: int = 0, seed: int = 0) -> pa.Table:
    """Rows of two sensors with vectors of their own; another seed gives the same ids other vectors."""
    random = np.random.default_rng((first, seed))
    numbers = range(first, first + count)
    offset = np.array([[3.0 * (i % 2)] * 8 for i in numbers])  # what is constant in a sensor
    vectors = (random.standard_normal((count, 8)) + offset).astype(np.float32)
    return rows(
        count,
        first=first,
        embedding=pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8),
        sensor=[SENSORS[i % 2] for i in numbers],
        gsd=[0.5 if i % 3 else 10.0 for i in numbers],
    )


@pytest.fixture(scope="module")
def indexed(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 chips of two sensors with an index."""
    archive = Archive.create(tmp_path_factory.mktemp("indexed") / "archive", "micro-1", 8)
    archive.upsert(some_rows(rows, 400))
    archive.upsert(some_rows(rows, 200, first=400))
    build_index(archive, cells=8, both=True)
    return Path(archive.path)


@pytest.fixture
def archive(indexed: Path, tmp_path: Path) -> Archive:
    """A copy of it to change."""
    return Archive.open(shutil.copytree(indexed, tmp_path / "archive"))


def answers_of(archive: Archive, k: int = 12, **options: object) -> list[tuple[str, object]]:
    """What a fresh searcher finds for a fixed query."""
    query = np.random.default_rng(5).standard_normal(8)
    found = Searcher(archive).search(query, k, query_sensor=SENSORS[0], **options)
    return [(answer.id, pytest.approx(answer.score, abs=2e-6)) for answer in found]


def exactly(archive: Archive, monkeypatch: pytest.MonkeyPatch, **options: object) -> list[tuple[str, object]]:
    """The same without an index."""
    with monkeypatch.context() as patch:
        patch.setattr("swath.archive.query.searcher.open_index", lambda _: None)
        return answers_of(archive, **options)


def test_the_index_stays_in_step_under_random_changes(
    archive: Archive, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written, replaced, deleted, compacted: every answer is that of an exact search."""
    random = np.random.default_rng(0)
    asked = [
        {"center": True},
        {"center": False},
        {"center": True, "filter": Filter(gsd=(10, 10))},
        {"center": False, "sensor": SENSORS[1], "k": 700},
    ]
    for step in range(10):
        first, count = int(random.integers(0, 800)), int(random.integers(1, 60))
        match step % 7:
            case 0 | 3 | 5:  # some new, some replaced
                archive.upsert(some_rows(rows, count, first=first, seed=step + 1))
            case 1 | 4:
                archive.delete([f"{i:032x}" for i in range(first, first + count)])
            case 2:
                archive.compact()
            case _:
                build_index(archive, cells=8, both=step > 7)
        for options in asked:
            assert answers_of(archive, **options) == exactly(archive, monkeypatch, **options), (step, options)
        held = set(archive.rows(["id"])["id"].to_pylist())
        searcher = Searcher(archive)
        for name in (f"{first:032x}", f"{first + count - 1:032x}"):
            found = searcher.find(name)
            assert (found is not None) == (name in held)
            if found is not None:
                vector = np.array(archive.rows(["embedding"], ids=[name])["embedding"].to_pylist()[0])
                assert np.allclose(searcher.vector(name), vector, rtol=1e-5)
            else:
                with pytest.raises(ArchiveError, match="has no chip"):
                    searcher.vector(name)
        state = index_status(archive)
        assert state.rows == len(held)
        assert 0 <= state.indexed <= state.rows


def test_older_versions_are_searched_with_the_index_of_a_newer_one(
    archive: Archive, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = archive.version
    archive.delete([f"{i:032x}" for i in range(50)])
    archive.upsert(some_rows(rows, 30, first=600))
    build_index(archive, cells=8)
    pinned = archive.at(older)
    assert answers_of(pinned) == exactly(pinned, monkeypatch)
    assert len(answers_of(pinned, k=1000)) == 600


def test_a_compaction_takes_the_index_along(
    archive: Archive, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in range(600, 640, 10):
        archive.upsert(some_rows(rows, 10, first=first))
    archive.upsert(some_rows(rows, 5, seed=7))
    archive.delete([f"{i:032x}" for i in range(100, 110)])
    before = index_status(archive)
    archive.compact(keep=timedelta(0))
    after = index_status(archive)
    assert (before.indexed, before.gone) == (after.indexed, after.gone) == (585, 15)
    assert after.version == archive.version
    index = open_index(archive)
    assert index is not None
    index.verify()
    assert answers_of(archive) == exactly(archive, monkeypatch)


def test_an_index_is_due_when_too_much_has_moved(
    archive: Archive, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "FEWEST_INDEXED", 100)
    assert not index_status(archive).due
    assert build_index_if_due(archive) is None
    archive.upsert(some_rows(rows, 30, first=600))
    archive.delete([f"{i:032x}" for i in range(30)])
    assert not index_status(archive).due  # 60 of 600
    archive.upsert(some_rows(rows, 10, first=700))
    state = index_status(archive)
    assert (state.rows, state.indexed, state.gone, state.due) == (610, 570, 30, True)
    made = build_index_if_due(archive)
    assert made is not None
    assert made.name == f"v{archive.version:08d}"
    assert [folder.name for folder in made.parent.iterdir()] == [made.name]  # older ones are gone
    assert not index_status(archive).due


def test_small_archives_need_no_index(archive: Archive) -> None:
    archive.delete([f"{i:032x}" for i in range(300)])
    assert not index_status(archive).due


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("index.json", "gone"),
        ("index.json", "cut"),
        ("vectors.npy", "cut"),
        ("vectors.npy", "flipped"),
        ("chips.arrow", "flipped"),
        ("centred.faiss", "cut"),
        ("centred.faiss", "flipped"),
        ("row_ids.npy", "gone"),
    ],
)
def test_a_damaged_index_is_passed_over(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    truth = exactly(archive, monkeypatch)
    index = open_index(archive)
    assert index is not None
    path = index.folder / name
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    assert open_index(archive) is None
    assert check_index(archive) is not None
    assert answers_of(archive) == truth
    build_index(archive, cells=8)
    assert check_index(archive) is None
    assert answers_of(archive) == truth


def test_all_bytes_can_be_verified(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_EDGE", 64)
    build_index(archive, cells=8)
    index = open_index(archive)
    assert index is not None
    index.verify()
    path = index.folder / "vectors.npy"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = open_index(archive)  # the ends are right
    assert found is not None
    with pytest.raises(ArchiveError, match=r"vectors\.npy: is damaged"):
        found.verify()


def test_an_index_of_another_archive_is_not_taken(archive: Archive, rows: Rows, tmp_path: Path) -> None:
    other = Archive.create(tmp_path / "other", "micro-1", 8)
    for first in range(0, 30, 10):
        other.upsert(some_rows(rows, 10, first=first))
    shutil.copytree(Path(archive.path) / "search_index", Path(other.path) / "search_index")
    assert open_index(other) is None
    assert "is not of this archive" in (check_index(other) or "")
    assert len(answers_of(other, k=99)) == 30


def test_two_do_not_index_at_once(archive: Archive) -> None:
    with stored._alone(archive.path), pytest.raises(ArchiveError, match=r"process \d+ makes its index"):
        build_index(archive)


def test_indexing_needs_enough_rows(rows: Rows, tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive", "micro-1", 8)
    archive.upsert(rows(5))
    with pytest.raises(ArchiveError, match="5 rows cannot be sorted into 64 cells"):
        build_index(archive, cells=64)
    assert not (tmp_path / "archive" / "search_index").exists() or not open_index(archive)


@pytest.fixture(scope="module")
def clustered() -> SimilaritySpace:
    """12,000 vectors around 60 centers, as embeddings lie."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((60, 16))
    vectors = centers[random.integers(60, size=12_000)] + 0.6 * random.standard_normal((12_000, 16))
    vectors = vectors.astype(np.float32)
    return SimilaritySpace(VectorBlocks([vectors], normalize_rows(vectors)))


@pytest.mark.parametrize("kind", ["flat", "sq8", "pq"])
def test_cells_find_what_exact_search_finds(clustered: SimilaritySpace, kind: str) -> None:
    index = IvfSearchIndex(clustered, build_ivf(clustered, kind, cells=64))
    exact = ExactIndex(clustered)
    random = np.random.default_rng(1)
    for share in (None, 0.7, 0.3):
        hits = asked = 0
        for row in random.integers(12_000, size=40):
            query = clustered.take(np.array([row]))[0] + 0.05 * random.standard_normal(16).astype(np.float32)
            query /= np.linalg.norm(query)
            allowed = None if share is None else random.random(12_000) < share
            scores, found = index.neighbors(query, 10, allowed)
            truth = exact.neighbors(query, 10, allowed)
            hits += len(np.intersect1d(found, truth[1]))
            asked += 10
            assert allowed is None or allowed[found].all()
            assert np.allclose(scores, clustered.vectors.take(found) @ query, atol=1e-6)
        assert hits / asked >= 0.98, (kind, share)


def test_few_allowed_rows_are_all_compared(clustered: SimilaritySpace) -> None:
    index = IvfSearchIndex(clustered, build_ivf(clustered, "sq8", cells=64))
    allowed = np.zeros(12_000, dtype=np.bool_)
    allowed[::7] = True
    query = clustered.take(np.array([3]))[0]
    found, truth = (one.neighbors(query, 50, allowed) for one in (index, ExactIndex(clustered)))
    assert found[1].tolist() == truth[1].tolist()
    nothing = index.neighbors(query, 5, np.zeros(12_000, dtype=np.bool_))
    assert len(nothing[0]) == len(nothing[1]) == 0
