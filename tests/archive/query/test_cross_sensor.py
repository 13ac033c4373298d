"""An archive of several sensors: true means through every change, centering, restriction, and true pairs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swath.archive.archive import Archive
from swath.archive.ingest.run import embed_archive
from swath.archive.query.filters import Filter
from swath.archive.query.image_query import query_by_image
from swath.archive.query.query import query_by_id
from swath.archive.show.contact_sheet import write_contact_sheet
from swath.archive.table import store
from swath.archive.table.sensor_means import sum_by_sensor, update_means
from swath.datasets.opening import open_dataset
from swath.encoders import create_model
from swath.errors import ArchiveError, ContractError
from swath.geo.areas import overlap_fractions
from swath.geo.footprint import footprint_geometry
from swath.models import Contract, Model, load_model, save_model
from swath.sensors.registry import get_sensor

Rows = Callable[..., pa.Table]
S1, S2 = "sentinel1_grd", "sentinel2_l2a"


def truth(archive: Archive) -> dict[str, tuple[int, np.ndarray]]:
    table = archive.rows(["sensor", "embedding"])
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float64).reshape(-1, archive.dimensions)
    sensors = np.array(table["sensor"].to_pylist())
    return {str(s): (int((sensors == s).sum()), vectors[sensors == s].mean(0)) for s in np.unique(sensors)}


def assert_true(archive: Archive, *, stored: bool = True) -> None:
    """The means are those of the rows, and (if so) came from the archive's own table."""
    assert (archive.stored_means() is not None) == stored
    means, expected = archive.sensor_means(), truth(archive)
    assert set(means) == set(expected)
    for name, (count, mean) in expected.items():
        assert means[name].count == count
        assert np.allclose(means[name].mean, mean, atol=1e-9)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / "archive", "micro-1", 8)


def two_sensors(rows: Rows, first: int, count: int = 12, offset: float = 0.0) -> pa.Table:
    """Places `first` .. in both sensors: S2 sees what S1 sees, `offset` up instead of down."""
    random = np.random.default_rng(first)
    own = random.standard_normal((count, 8))
    both = np.stack([own - offset, own + 0.05 * random.standard_normal((count, 8)) + offset], axis=1)
    vectors = pa.array(both.astype(np.float32).reshape(-1))
    squares = [place(first + i) for i in range(count)]
    return rows(
        2 * count,
        first=2 * first,
        embedding=pa.FixedSizeListArray.from_arrays(vectors, 8),
        sensor=[S1, S2] * count,
        geometry=[square[0] for square in squares for _ in range(2)],
        bbox=[square[1] for square in squares for _ in range(2)],
        source=[f"{sensor}_{first + i}.tif" for i in range(count) for sensor in (S1, S2)],
    )


def place(number: int, shift: float = 0.0) -> tuple[bytes, dict[str, float]]:
    west = 10 + 0.01 * number + 0.01 * shift
    return footprint_geometry(
        [(west, 50), (west + 0.01, 50), (west + 0.01, 50.01), (west, 50.01), (west, 50)]
    )


# --- means ------------------------------------------------------------------------------------------------


def test_means_stay_true_under_every_change(archive: Archive, rows: Rows) -> None:
    assert_true(archive)
    archive.upsert(two_sensors(rows, 0))
    assert_true(archive)
    changed_rows = rows(10, first=6, sensor=["naip"] * 10)  # replaces some, and changes their sensor
    archive.upsert(changed_rows)
    assert_true(archive)
    archive.delete([f"{i:032x}" for i in (0, 3, 7, 999)])
    assert_true(archive)
    archive.remember_model("models/x")
    assert_true(archive)
    archive.compact()
    assert_true(archive)
    archive.delete([f"{i:032x}" for i in range(40)])
    assert archive.sensor_means() == {}
    assert_true(archive)
    assert_true(Archive.open(archive.path))


def test_an_older_version_has_its_own_means(archive: Archive, rows: Rows) -> None:
    archive.upsert(rows(5))
    version = archive.version
    archive.upsert(rows(5, first=5))
    assert_true(archive.at(version), stored=False)


def test_a_writer_that_dies_between_the_two_commits_leaves_no_wrong_means(
    archive: Archive, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.upsert(rows(5))

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_means", die)
        with pytest.raises(KeyboardInterrupt):
            archive.upsert(rows(5, first=5))
    assert archive.count() == 10
    assert_true(archive, stored=False)
    archive.upsert(rows(5, first=10))  # the next write puts it right
    assert_true(archive)


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_lost_means_are_made_again(archive: Archive, rows: Rows, damage: str) -> None:
    archive.upsert(rows(5))
    folder = Path(archive.path) / "sensor_means.lance"
    if damage == "gone":
        shutil.rmtree(folder)
    else:
        for file in folder.rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:20])
    assert_true(Archive.open(archive.path), stored=False)
    again = Archive.open(archive.path)
    again.upsert(rows(5, first=5))
    assert_true(again)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=30), st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_sums_added_and_removed_are_the_sums_of_what_is_left(parts: list[tuple[str, int]], cut: int) -> None:
    def sums(some: list[tuple[str, int]]) -> Any:
        vectors = np.array([[n, n**2 / 7] for _, n in some], dtype=np.float32).reshape(-1)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors), 2)
        return sum_by_sensor(
            [pa.table({"sensor": pa.array([s for s, _ in some], pa.string()), "embedding": column})], 2
        )

    gone, left = parts[:cut], parts[cut:]
    result, expected = update_means(sums(parts), removed=sums(gone)), sums(left)
    assert set(result) == set(expected)
    for name, part in expected.items():
        assert result[name].count == part.count
        assert np.allclose(result[name].total, part.total)


# --- search across sensors --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """40 places in two sensors, whose vectors lie far apart as they are."""
    archive = Archive.create(tmp_path_factory.mktemp("mixed") / "archive", "micro-1", 8)
    archive.upsert(two_sensors(rows, 0, 40, offset=3.0))
    return archive


def test_any_sensor_asks_and_any_answers(mixed: Archive) -> None:
    for number in range(0, 10):
        asked = query_by_id(mixed, f"{2 * number:032x}")
        assert asked.chip.sensor == S1
        answers = asked.search(mixed, 3, sensor="s2")
        assert {answer.sensor for answer in answers} == {S2}
        assert answers[0].id == f"{2 * number + 1:032x}"  # the same place
        assert answers.centered
        assert answers.notes == (f"centered: less the mean of each sensor: {S1} (40 chips), {S2} (40 chips)",)


def test_centering_takes_away_that_a_sensor_finds_itself_first(mixed: Archive) -> None:
    asked = query_by_id(mixed, f"{4:032x}")
    with_it, without = (asked.search(mixed, 11, center=center) for center in (None, False))
    assert with_it.centered
    assert with_it[1].sensor == S2
    assert {answer.sensor for answer in without} == {S1}
    assert not without.centered
    assert "not centered, as requested" in without.notes[0]


def test_centered_search_is_brute_force_on_centered_vectors(mixed: Archive) -> None:
    table = mixed.rows(["id", "sensor", "embedding"])
    vectors = np.array(table["embedding"].to_pylist())
    sensors = np.array(table["sensor"].to_pylist())
    vectors -= np.where(
        (sensors == S1)[:, None], vectors[sensors == S1].mean(0), vectors[sensors == S2].mean(0)
    )
    query = np.random.default_rng(0).standard_normal(8)
    moved = query - mixed.sensor_means()[S2].mean
    scores = vectors @ moved / np.linalg.norm(vectors, axis=1) / np.linalg.norm(moved)
    order = np.argsort(-scores)[:5]
    answers = mixed.search(query, 5, query_sensor=S2)
    assert [answer.id for answer in answers] == [table["id"][int(i)].as_py() for i in order]
    assert np.allclose([answer.score for answer in answers], scores[order], atol=1e-5)


def test_what_was_not_centered_says_why(mixed: Archive, archive: Archive, rows: Rows) -> None:
    vector = np.ones(8)
    assert "the query's sensor is unknown" in mixed.search(vector).notes[0]
    assert "holds no chip of the query's sensor naip" in mixed.search(vector, query_sensor="naip").notes[0]
    with pytest.raises(
        ArchiveError, match="cannot center: the archive holds no chip of the query's sensor naip"
    ):
        mixed.search(vector, query_sensor="naip", center=True)
    archive.upsert(two_sensors(rows, 0, 4))
    few = archive.search(vector, query_sensor=S1)
    assert not few.centered
    assert "fewer than 10 chips of a sensor" in few.notes[0]
    assert archive.search(vector, query_sensor=S1, center=True).centered
    archive.delete([f"{2 * i + 1:032x}" for i in range(4)])  # one sensor is left: nothing to say
    assert archive.search(vector, query_sensor=S1).notes == ()


def test_names_of_sensors_may_be_short(mixed: Archive) -> None:
    searcher = mixed.searcher
    assert searcher.sensor_names("s1") == [S1]
    assert searcher.sensor_names(["S2", "sentinel1"]) == [S2, S1]
    with pytest.raises(ArchiveError, match="begins the sensors sentinel1_grd, sentinel2_l2a"):
        searcher.sensor_names("sentinel")
    with pytest.raises(
        ArchiveError, match=r"no chip of sensor 'sentinel1_gdr'. Did you mean 'sentinel1_grd'"
    ):
        searcher.sensor_names("sentinel1_gdr")
    both = mixed.search(np.ones(8), 80, sensor=S1, filter=Filter(sensors=[S2]), query_sensor=S1)
    assert len(both) == 0  # both must pass


def test_the_true_pair_is_left_out_on_request(mixed: Archive) -> None:
    asked = query_by_id(mixed, f"{6:032x}")
    found = {answer.id for answer in asked.search(mixed, 80, exclude_location=True)}
    assert {f"{6:032x}", f"{7:032x}"} & found == set()
    assert len(found) == 78  # neighbors that only touch may answer
    geometry, _ = place(3, shift=0.4)  # 60% of place 3, 40% of place 4
    for share, left in ((0.7, 80), (0.5, 78), (0.3, 76)):
        answers = mixed.search(np.ones(8), 80, exclude_footprint=geometry, exclude_overlap=share)
        assert len(answers) == left
    with pytest.raises(ArchiveError, match="above 0 and at most 1"):
        mixed.search(np.ones(8), exclude_footprint=geometry, exclude_overlap=0)


def test_chips_without_footprint_cannot_be_judged(archive: Archive, rows: Rows) -> None:
    archive.upsert(two_sensors(rows, 0, 3))
    archive.upsert(rows(2, first=100))
    answers = archive.search(np.ones(8), 10, exclude_footprint=place(0)[0])
    assert len(answers) == 6
    assert any(note.startswith("2 chips have no footprint") for note in answers.notes)
    with pytest.raises(ArchiveError, match="has no footprint, so chips of its location"):
        query_by_id(archive, f"{100:032x}").search(archive, exclude_location=True)


def test_overlap_across_the_antimeridian() -> None:
    def strip(west: float) -> tuple[bytes, list[float]]:
        wkb, box = footprint_geometry([(west, 0), (west + 2, 0), (west + 2, 1), (west, 1), (west, 0)])
        return wkb, list(box.values())

    (own, _), (same, a), (half, b), (far, c) = strip(179), strip(179), strip(180), strip(10)
    shares = overlap_fractions([same, half, far, None], np.array([a, b, c, [np.nan] * 4]), own)
    assert np.allclose(shares, [1, 0.5, 0, 0])


# --- from imagery -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 places on one UTM grid, in s1/ and s2/, with band names."""
    import rasterio
    from rasterio.transform import from_origin

    home = tmp_path_factory.mktemp("both")
    random = np.random.default_rng(0)
    for name, folder in ((S1, home / "s1"), (S2, home / "s2")):
        folder.mkdir()
        for i in range(12):
            bands = get_sensor(name).band_names
            pixels = random.normal(-15 if name == S1 else 1500, 3, (len(bands), 16, 16))
            with rasterio.open(
                folder / f"{i:02}.tif", "w", driver="GTiff", width=16, height=16, count=len(bands),
                dtype="float32" if name == S1 else "uint16", crs="EPSG:32633",
                transform=from_origin(500_000 + 160 * i, 5_000_000, 10, 10),
            ) as file:  # fmt: skip
                file.write(pixels.astype(file.dtypes[0]))
                file.descriptions = bands
                if name == S2:
                    file.update_tags(PROCESSING_BASELINE="02.10")
    return home


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Model:
    torch.manual_seed(0)
    options = {"bands": {S1: 2, S2: 12}, "patch_size": 8, "embed_dim": 24, "depth": 1, "heads": 2}
    return load_model(
        save_model(
            tmp_path_factory.mktemp("models") / "two",
            encoder_name="vit",
            encoder_options=options,
            encoder=create_model("vit", **options),
            contract=Contract.of(S1, S2),
        )
    )


@pytest.fixture(scope="module")
def embedded(both: Path, two: Model, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    path = tmp_path_factory.mktemp("embedded") / "archive"
    for folder, name in (("s1", S1), ("s2", S2)):
        dataset = open_dataset(both / folder, sensor=get_sensor(name), layout="images")
        assert embed_archive(two, dataset, path, workers=0).embedded == 12
    return Archive.open(path)


def test_runs_of_two_sensors_go_into_one_archive(embedded: Archive) -> None:
    assert embedded.summary().sensors == {S1: 12, S2: 12}
    assert embedded.summary().placed == 24
    assert_true(embedded)


def test_an_image_asks_by_the_bands_that_it_has(embedded: Archive, both: Path, two: Model) -> None:
    asked = query_by_image(embedded, both / "s1" / "03.tif", two)
    assert asked.chip.sensor == S1
    assert asked.chip.geometry is not None
    first = asked.search(embedded, 1, sensor=S1)[0]
    assert (Path(first.source).name, first.sensor) == ("03.tif", S1)
    assert first.score == pytest.approx(1, abs=1e-4)
    across = asked.search(embedded, 12, sensor=S2, exclude_location=True)
    assert len(across) == 11
    assert "03.tif" not in {Path(answer.source).name for answer in across}


def test_radar_is_drawn_in_color_beside_optics(
    embedded: Archive, both: Path, two: Model, tmp_path: Path
) -> None:
    from PIL import Image

    asked = query_by_image(embedded, both / "s1" / "03.tif", two)
    write_contact_sheet(tmp_path / "sheet.png", asked, asked.search(embedded, 3, sensor=S2))
    with Image.open(tmp_path / "sheet.png") as sheet:
        query = np.asarray(sheet)[90:200, 45:200].astype(int)
    assert np.ptp(query, axis=2).max() > 100  # not gray


def test_an_image_of_a_sensor_that_the_model_does_not_know(
    embedded: Archive, two: Model, tmp_path: Path, both: Path
) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "photo.png")
    with pytest.raises(
        ContractError, match=r"is of no sensor that the model knows: it has 3 bands .* VV, VH"
    ):
        query_by_image(embedded, tmp_path / "photo.png", two, gsd=10)
    with pytest.raises(ContractError, match="not trained on sensor 'rgb_aerial'"):
        query_by_image(embedded, tmp_path / "photo.png", two, gsd=10, sensor="rgb_aerial")
    with pytest.raises(ArchiveError, match="is a folder of band files; say which sensor"):
        query_by_image(embedded, both / "s1", two)
