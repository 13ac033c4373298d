"""Search by several examples, by place and by area."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from swath.archive.archive import Archive
from swath.archive.index.vectors import normalize_rows
from swath.archive.query.options import SearchOptions
from swath.archive.query.query import query_by_area, query_by_examples, query_by_place
from swath.archive.query.relevance_feedback import FeedbackExample, RelevanceFeedback, query_vector
from swath.errors import ArchiveError
from swath.geo.footprint import footprint_geometry

Rows = Callable[..., pa.Table]
METHODS = ("rocchio", "blend")


def name(number: int) -> str:
    return f"{number:032x}"


def square(west: float, south: float, side: float = 1.0) -> tuple[bytes, dict[str, float]]:
    east, north = west + side, south + side
    return footprint_geometry([(west, south), (east, south), (east, north), (west, north)])


@pytest.fixture(scope="module")
def archive(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """120 chips on a grid of 12 x 10 degrees from (-6, 0); in classes of 3 neighbors by vector."""
    archive = Archive.create(tmp_path_factory.mktemp("examples") / "archive", "micro-1", 8)
    random = np.random.default_rng(0)
    centers = random.standard_normal((40, 8))
    vectors = (centers[np.arange(120) // 3] + 0.2 * random.standard_normal((120, 8))).astype(np.float32)
    places = [square(i % 12 - 6.0, i // 12 * 1.0) for i in range(120)]
    archive.upsert(
        rows(
            120,
            embedding=pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8),
            geometry=[geometry for geometry, _ in places],
            bbox=[box for _, box in places],
        )
    )
    return archive


@pytest.fixture(scope="module")
def overlapping() -> tuple[np.ndarray, np.ndarray]:
    """Vectors of a class and of others that differ along one weak axis, beside a strong one all share."""
    random = np.random.default_rng(1)
    vectors = random.standard_normal((600, 12)).astype(np.float32)
    vectors[:, 0] *= 6  # what varies most says nothing about the class
    vectors[:100, 1] += 2
    normalize_rows(vectors)
    return vectors, np.arange(600) < 100


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_more_of_the_class_than_chance(
    overlapping: tuple[np.ndarray, np.ndarray], method: str
) -> None:
    vectors, of_class = overlapping
    requested = query_vector(vectors[:5], vectors[200:205], vectors[::3], method)
    assert np.linalg.norm(requested) == pytest.approx(1, abs=1e-5)
    first = np.argsort(-(vectors[5:] @ requested))[:40]
    assert of_class[5:][first].mean() > 0.3  # chance is 0.16


def test_the_learned_direction_ignores_what_the_whole_archive_varies_by(
    overlapping: tuple[np.ndarray, np.ndarray],
) -> None:
    vectors, of_class = overlapping
    shares = {}
    for method in METHODS:
        requested = query_vector(vectors[:4], vectors[:0], vectors[::2], method)
        shares[method] = of_class[4:][np.argsort(-(vectors[4:] @ requested))[:50]].mean()
    assert shares["blend"] > shares["rocchio"]


def test_the_default_is_rocchio_for_one_and_the_blend_for_several(archive: Archive) -> None:
    assert query_by_examples(archive, [name(0)]).method == "rocchio"
    assert query_by_examples(archive, [name(0), name(1)]).method == "blend"
    assert query_by_examples(archive, [name(0)], [name(9)]).method == "blend"


def test_a_blend_of_one_chip_is_that_chip(rows: Rows, tmp_path: Path) -> None:
    """Nothing varies in an archive of one: no division by nothing."""
    archive = Archive.create(tmp_path / "one", "micro-1", 8)
    archive.upsert(rows(1))
    found = query_by_examples(archive, [name(0)], method="blend").search(archive, 3)
    assert [answer.id for answer in found] == [name(0)]
    assert found[0].score == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_liked_moves_away(archive: Archive, method: str) -> None:
    like, unlike = [name(0), name(30)], [name(31)]
    with_, without = (
        query_by_examples(archive, like, avoided, method=method).search(archive, 120)
        for avoided in (unlike, [])
    )
    assert name(31) not in {answer.id for answer in with_}  # never answers itself
    ranks = [{answer.id: answer.rank for answer in found}[name(32)] for found in (with_, without)]
    assert ranks[0] > ranks[1]  # its neighbor falls
    assert {answer.id for answer in without} >= set(like)  # examples answer, unless they are left out
    left = query_by_examples(archive, like, method=method).search(archive, 120, exclude_self=True)
    assert not {answer.id for answer in left} & set(like)


def test_one_example_is_that_chip(archive: Archive) -> None:
    one = archive.search(like=[name(7)], k=5)
    same = archive.search(archive.searcher.vector(name(7)), 5)
    assert [(a.id, a.score) for a in one] == [(a.id, pytest.approx(a.score, abs=1e-6)) for a in same]


def test_examples_that_make_no_sense_are_refused(archive: Archive) -> None:
    with pytest.raises(ArchiveError, match="both an example to search for and one to avoid"):
        query_by_examples(archive, [name(1)], [name(1)])
    with pytest.raises(ArchiveError, match="at least one chip"):
        query_by_examples(archive, [], [name(1)])
    with pytest.raises(ArchiveError, match="nor the beginning of a chip id"):
        query_by_examples(archive, ["no such chip"])
    with pytest.raises(ArchiveError, match="at least one example"):
        RelevanceFeedback([])
    with pytest.raises(ArchiveError, match="not by 'magic'"):
        RelevanceFeedback([FeedbackExample(np.ones(8, np.float32))], method="magic")
    vector = np.eye(8, dtype=np.float32)[:1]
    with pytest.raises(ArchiveError, match="cancel each other"):
        query_vector(vector, 2 * vector, None, "rocchio")
    for given in ({}, {"like": [name(1)], "place": (0, 0)}, {"place": (0, 0), "area": (0, 0, 1, 1)}):
        with pytest.raises(ArchiveError, match="give exactly one of"):
            archive.search(**given)
    with pytest.raises(ArchiveError, match="give either a vector or"):
        archive.search(np.ones(8), like=[name(1)])


def test_a_place_asks_with_the_chips_that_show_it(archive: Archive) -> None:
    query = query_by_place(archive, -5.5, 0.5)
    assert [chip.id for chip in query.chips] == [name(0)]
    corner = query_by_place(archive, -5.0, 1.0)
    assert {chip.id for chip in corner.chips} == {name(i) for i in (0, 1, 12, 13)}
    assert np.allclose(corner.vector, np.mean([e.vector for e in corner.like], axis=0))
    answers = archive.search(place=(-5.5, 0.5), k=3, exclude_self=True)
    assert {answer.id for answer in answers} >= {name(1), name(2)}
    with pytest.raises(ArchiveError, match=r"no chip shows 20\.00000, 0\.50000; .* is 1,612\.\d km away"):
        query_by_place(archive, 20, 0.5)
    with pytest.raises(ArchiveError, match="longitude and a latitude"):
        query_by_place(archive, 0, 91)


def test_an_area_asks_with_the_chips_in_it(archive: Archive) -> None:
    assert {chip.id for chip in query_by_area(archive, (-6, 0, -4, 1)).chips} == {name(0), name(1)}
    triangle = {"type": "Polygon", "coordinates": [[[-6, 0], [-3, 0], [-6, 3], [-6, 0]]]}
    inside = {chip.id for chip in query_by_area(archive, triangle).chips}
    assert inside == {name(i) for i in (0, 1, 2, 12, 13, 24)}  # the halves of 2, 13 and 24 count
    assert [chip.id for chip in query_by_area(archive, (-5.6, 0.4, -5.5, 0.5)).chips] == [name(0)]  # smaller
    with pytest.raises(ArchiveError, match="no chip shows the area within"):
        query_by_area(archive, (50, 50, 51, 51))


def test_an_image_without_its_model_says_where_to_give_it(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="say where it is"):
        archive.search(image=tmp_path / "photo.png")


def test_options_are_given_by_name_or_as_one_object(archive: Archive) -> None:
    first = name(0)
    options = SearchOptions(exclude_self=True)
    by_name = archive.search(like=[first], k=3, exclude_self=True)
    assert archive.search(like=[first], k=3, options=options).items == by_name.items
    assert archive.search(like=[first], k=3, options=options, exclude_self=False)[0].id == first
    with pytest.raises(TypeError, match="unexpected keyword argument 'divers'"):
        archive.search(like=[first], divers=True)
    with pytest.raises(ArchiveError, match="do not apply to a vector"):
        archive.search(archive.searcher.vector(first), exclude_self=True)
