"""Answers that differ: one a field, less like each other, or one a place with its dates and scales."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from swath.archive.archive import Archive
from swath.archive.query.diversity import maximal_marginal_relevance
from swath.archive.query.filters import Filter
from swath.geo.footprint import footprint_geometry

Rows = Callable[..., pa.Table]
PLACES, DATES = 10, 4


@pytest.fixture(scope="module")
def archive(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """10 places 5 degrees apart, each at 4 dates, and a finer chip in the first; vectors of a place alike."""
    archive = Archive.create(tmp_path_factory.mktemp("variety") / "archive", "micro-1", 8)
    random = np.random.default_rng(0)
    base = random.standard_normal((PLACES, 8)) + 2
    numbers = np.arange(PLACES * DATES + 1) % PLACES
    vectors = (base[numbers] + 0.05 * random.standard_normal((len(numbers), 8))).astype(np.float32)
    places = []
    for i, place in enumerate(numbers):
        west, side = 5.0 * place, 1.0 if i < PLACES * DATES else 0.25
        ring = [(west, 0.0), (west + side, 0.0), (west + side, side), (west, side)]
        places.append(footprint_geometry(ring))
    archive.upsert(
        rows(
            len(numbers),
            embedding=pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8),
            geometry=[geometry for geometry, _ in places],
            bbox=[box for _, box in places],
            datetime=[datetime(2020 + i // PLACES % DATES, 6, 1, tzinfo=UTC) for i in range(len(numbers))],
            gsd=[10.0] * PLACES * DATES + [2.5],
        )
    )
    return archive


def test_one_answer_a_place_with_its_dates_and_scales(archive: Archive) -> None:
    vector = archive.searcher.vector(f"{0:032x}")
    answers = archive.search(vector, PLACES, group_by_location=True)
    wests = [answer.bbox[0] for answer in answers]
    assert sorted(wests) == [5.0 * i for i in range(PLACES)]
    assert [answer.rank for answer in answers] == list(range(1, PLACES + 1))
    assert [answer.score for answer in answers] == sorted((a.score for a in answers), reverse=True)
    first = answers[0]
    assert first.bbox[0] == 0
    assert len(first.others) == DATES  # three other dates, and the finer chip within it
    assert {other.gsd for other in first.others} == {10.0, 2.5}
    for answer in answers:
        chips = [answer, *answer.others]
        assert {chip.bbox[0] for chip in chips} == {answer.bbox[0]}
        assert {chip.datetime.year for chip in chips} == {2020, 2021, 2022, 2023}
    plain = archive.search(vector, PLACES)
    assert len({answer.bbox[0] for answer in plain}) < PLACES


def test_fewer_places_than_asked_for_are_said(archive: Archive) -> None:
    vector = archive.searcher.vector(f"{0:032x}")
    answers = archive.search(vector, 30, group_by_location=True)
    assert len(answers) == PLACES
    assert "10 of 30 results" in (answers.shortfall or "")
    assert "same places or fields" in (answers.shortfall or "")
    few = archive.search(vector, 3, diverse=True, filter=Filter(gsd=(2, 3)))
    assert (len(few), few.candidates) == (1, 1)
    nothing = archive.search(vector, 3, diverse=True, filter=Filter(sensors=["naip"]))
    assert (len(nothing), nothing.candidates) == (0, 0)


def test_no_two_answers_of_one_field(archive: Archive) -> None:
    vector = archive.searcher.vector(f"{0:032x}")
    answers = archive.search(vector, 6, diverse=True)
    assert answers[0].bbox[0] == 0
    assert len({answer.bbox[0] for answer in answers}) == 6
    both = archive.search(vector, 6, diverse=True, group_by_location=True)
    assert [answer.id for answer in both] == [answer.id for answer in answers]
    assert len(both[0].others) == DATES


def test_neighboring_windows_of_a_file_without_place_are_one_field(
    rows: Rows, tmp_path_factory: pytest.TempPathFactory
) -> None:
    archive = Archive.create(tmp_path_factory.mktemp("variety") / "archive", "micro-1", 8)
    windows = [{"column": 64 * i, "row": 0, "width": 64, "height": 64} for i in range(6)]
    archive.upsert(rows(6, source=["a.tif"] * 6, window=windows))
    found = archive.search(np.ones(8), 6, diverse=True)
    columns = sorted(answer.window.column for answer in found)
    assert all(b - a >= 96 for a, b in pairwise(columns))
    assert 2 <= len(found) <= 3
    assert len(archive.search(np.ones(8), 6, group_by_location=True)) == 6


def test_relevance_is_weighed_against_likeness() -> None:
    vectors = np.array([[1, 0], [0.999, 0.04], [0.5, -0.866], [0, 1]], np.float32)
    scores = np.array([0.9, 0.89, 0.75, 0.1], np.float32)
    assert maximal_marginal_relevance(scores, vectors, 2) == [
        0,
        2,
    ]  # not its twin, and not what answers badly
    assert maximal_marginal_relevance(scores[:0], vectors[:0], 3) == []
    assert sorted(maximal_marginal_relevance(scores, vectors, 9)) == [0, 1, 2, 3]
