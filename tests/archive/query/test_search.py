"""Exact search: the same neighbors as brute force, filters before ranking, and words for too few answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from swath.archive.archive import Archive
from swath.archive.index.protocol import ExactIndex
from swath.archive.index.vectors import SimilaritySpace, VectorBlocks
from swath.archive.query.filters import Filter
from swath.errors import ArchiveError

Rows = Callable[..., pa.Table]
COUNT = 200


@pytest.fixture(scope="module")
def archive(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """200 chips of two sensors, GSDs 0.3 to 20, half of them with time and place."""
    archive = Archive.create(tmp_path_factory.mktemp("search") / "archive", "micro-1", 8)
    for first in range(0, COUNT, 50):
        numbers = range(first, first + 50)
        archive.upsert(
            rows(
                50,
                first=first,
                sensor=["naip" if i % 4 == 0 else "rgb_aerial" for i in numbers],
                gsd=[0.3 if i % 2 else 20.0 - 1e-8 for i in numbers],
                source=[f"scene_{i // 10}.tif" for i in numbers],
                valid_fraction=[0.5 if i % 5 == 0 else 1.0 for i in numbers],
                cloud_fraction=[i / COUNT if i % 2 else None for i in numbers],
                datetime=[datetime(2020, 1 + i % 12, 1, tzinfo=UTC) if i % 2 else None for i in numbers],
                bbox=[
                    {"xmin": float(i % 90), "ymin": 0.0, "xmax": i % 90 + 1.0, "ymax": 1.0} if i % 2 else None
                    for i in numbers
                ],
            )
        )
    return archive


def cosines(archive: Archive, query: np.ndarray) -> dict[str, float]:
    """The slow, plain truth."""
    table = archive.rows(["id", "embedding"])
    vectors = np.array(table["embedding"].to_pylist())
    scores = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    return dict(zip(table["id"].to_pylist(), scores, strict=True))


@pytest.mark.parametrize("k", [1, 7, COUNT, COUNT + 5])
def test_finds_what_brute_force_finds(archive: Archive, k: int) -> None:
    query = np.random.default_rng(9).standard_normal(8)
    truth = sorted(cosines(archive, query).items(), key=lambda item: -item[1])[:k]
    answers = archive.search(query, k)
    assert [answer.id for answer in answers] == [name for name, _ in truth]
    assert np.allclose([answer.score for answer in answers], [score for _, score in truth], atol=1e-6)
    assert [answer.rank for answer in answers] == list(range(1, len(truth) + 1))
    assert (answers.shortfall is None) == (k <= COUNT)


def exact(vectors: np.ndarray) -> ExactIndex:
    return ExactIndex(SimilaritySpace(VectorBlocks([vectors], np.ones(len(vectors), np.float32))))


@pytest.mark.parametrize("few", [True, False])
def test_index_ranks_allowed_rows_only(few: bool) -> None:
    """Few allowed rows are gathered, many are masked: the same answers on both paths."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((64, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    allowed = np.zeros(64, bool)
    allowed[random.permutation(64)[: 5 if few else 50]] = True
    scores, rows = exact(vectors).neighbors(vectors[0], 10, allowed)
    expected = [i for i in np.argsort(-(vectors @ vectors[0]), kind="stable") if allowed[i]][:10]
    assert rows.tolist() == expected
    assert np.allclose(scores, (vectors @ vectors[0])[expected])


def test_equal_scores_come_in_a_fixed_order() -> None:
    same = np.tile(np.array([[0.6, 0.8]], np.float32), (9, 1))
    assert exact(same).neighbors(same[0], 9, None)[1].tolist() == list(range(9))


@pytest.mark.parametrize(
    ("where", "passes"),
    [
        (Filter(), lambda i: True),
        (Filter(sensors=["naip"]), lambda i: i % 4 == 0),
        (Filter(sensors=["' OR 1=1 --"]), lambda i: False),
        (Filter(gsd=(20, 20)), lambda i: i % 2 == 0),  # 19.99999999 is 20 m
        (Filter(gsd=(0.1, 5)), lambda i: i % 2 == 1),
        (
            Filter(datetime=(datetime(2020, 2, 1, tzinfo=UTC), datetime(2020, 4, 1, tzinfo=UTC))),
            lambda i: i % 2 and 1 <= i % 12 <= 3,
        ),
        (Filter(bbox=(10.5, 0, 12.5, 1)), lambda i: i % 2 and 10 <= i % 90 <= 12),
        (Filter(intersects=(10.5, 0, 12.5, 1)), lambda i: i % 2 and 10 <= i % 90 <= 12),
        (Filter(max_cloud=0.25), lambda i: i % 2 and i <= 50),  # where it is not known, a chip does not pass
        (Filter(max_cloud=1.0), lambda i: i % 2 == 1),
        (Filter(min_valid=0.9), lambda i: i % 5 != 0),
        (Filter(sensors=["rgb_aerial"], gsd=(0.3, 0.3), bbox=(0, 0, 90, 1)), lambda i: i % 2 == 1),
    ],
)
def test_filters(archive: Archive, where: Filter, passes: Callable[[int], bool]) -> None:
    query = np.random.default_rng(3).standard_normal(8)
    expected = {f"{i:032x}" for i in range(COUNT) if passes(i)}
    answers = archive.search(query, COUNT, filter=where)
    assert {answer.id for answer in answers} == expected
    assert answers.candidates == len(expected)
    best = archive.search(query, 3, filter=where)
    assert [answer.id for answer in best] == [answer.id for answer in answers][:3]


@pytest.mark.parametrize("where", [Filter(min_valid=1.5), Filter(max_cloud=-0.1), Filter(gsd=(5, 1))])
def test_filters_that_make_no_sense(archive: Archive, where: Filter) -> None:
    with pytest.raises(ArchiveError, match=r"0 to 1|from the smaller to the larger"):
        archive.search(np.ones(8), filter=where)


def test_an_area_is_looked_at_once(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next click in a drawn area is answered from memory; another area, or a commit, is not."""
    looked = []
    from swath.archive.query import filters

    known = filters.footprints_intersecting
    monkeypatch.setattr(
        filters, "footprints_intersecting", lambda *a, **b: looked.append(1) or known(*a, **b)
    )
    for number in range(3):
        for _ in range(2):
            archive.search(np.ones(8), filter=Filter(intersects=(20 + number, 0, 30, 1)))
    assert len(looked) == 3


def test_too_few_answers_are_said(archive: Archive, tmp_path: Path) -> None:
    query = np.ones(8)
    some = archive.search(query, 99, filter=Filter(sensors=["naip"]))
    assert some.shortfall == "50 of 99 results: 50 of 200 chips pass the filters and exclusions"
    assert archive.search(query, 999).shortfall == "200 of 999 results: the archive holds only 200 chips"
    empty = Archive.create(tmp_path / "empty", "micro-1", 8).search(query, 5)
    assert (len(empty), empty.shortfall) == (0, "0 of 5 results: the archive is empty")


def test_exclusions(archive: Archive) -> None:
    searcher = archive.searcher
    name = f"{17:032x}"
    vector = searcher.vector(name)
    assert searcher.search(vector, 1)[0].id == name
    assert name not in {answer.id for answer in searcher.search(vector, COUNT, exclude_ids=[name])}
    others = searcher.search(vector, COUNT, exclude_sources=["scene_1.tif"])
    assert {answer.source for answer in others} == {f"scene_{i}.tif" for i in range(20)} - {"scene_1.tif"}


def test_chips_are_found_by_the_beginning_of_their_id(rows: Rows, tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive", "micro-1", 8)
    archive.upsert(rows(3, id=["abcdef1" + "0" * 25, "abcdef2" + "0" * 25, "123456" + "0" * 26]))
    searcher = archive.searcher
    found = searcher.find("123456")
    assert found is not None
    assert found.id == "123456" + "0" * 26
    assert searcher.find("12345") is None  # too short to be meant
    assert searcher.find("fedcba") is None
    with pytest.raises(ArchiveError, match=r"'abcdef' begins 2 ids"):
        searcher.find("abcdef")
    with pytest.raises(ArchiveError, match="has no chip 123456"):
        searcher.vector("123456")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (np.ones(7), "embeddings of 8 numbers, the query has shape"),
        (np.zeros(8), "zero or not finite"),
        (np.full(8, np.nan), "zero or not finite"),
    ],
)
def test_vectors_without_direction_are_refused(archive: Archive, query: np.ndarray, words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        archive.search(query)


@pytest.mark.parametrize(
    ("k", "words"), [(0, "k is 0"), (-3, "k is -3"), (1_000_000, "k is 1,000,000; .* export")]
)
def test_k_out_of_range_is_refused(archive: Archive, k: int, words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        archive.search(np.ones(8), k)


def test_a_search_sees_the_last_commit(rows: Rows, tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive", "micro-1", 8)
    archive.upsert(rows(4))
    searcher = archive.searcher
    assert len(searcher.search(np.ones(8), 10)) == 4
    kept = searcher.snapshot()
    assert searcher.snapshot() is kept  # nothing is read again while nothing changes
    Archive.open(archive.path).upsert(rows(3, first=4))
    assert len(searcher.search(np.ones(8), 10)) == 7
    archive.delete([f"{0:032x}"])
    assert len(searcher.search(np.ones(8), 10)) == 6


def test_a_zero_vector_in_the_archive_scores_zero(rows: Rows, tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive", "micro-1", 8)
    zero = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(8, np.float32)), 8)
    archive.upsert(rows(1, embedding=zero))
    assert archive.search(np.ones(8))[0].score == 0


def test_answers_show_themselves(archive: Archive) -> None:
    html = archive.search(np.ones(8), 3)._repr_html_()
    assert html.count("background:#e4e2dc") == 3  # their files are not there: empty tiles
    assert "scene_" in html
