"""Asking by image or by chip: the image becomes a chip exactly as the archive's did."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from swath.archive.archive import Archive
from swath.archive.ingest.run import embed_archive
from swath.archive.query.image_query import query_by_image
from swath.archive.query.query import query_by_id
from swath.datasets.opening import open_dataset
from swath.errors import ArchiveError, ContractError, ImageryError
from swath.geo.grid import PixelWindow
from swath.models import Contract, Model


def embedded(model: Model, data: Path, path: Path, **options: Any) -> Archive:
    dataset = open_dataset(data, sensor="rgb_aerial", **options)
    embed_archive(model, dataset, path, workers=0, min_valid=0.0)
    return Archive.open(path)


@pytest.fixture
def archive(model: Model, pictures: Path, tmp_path: Path) -> Archive:
    return embedded(model, pictures, tmp_path / "archive", gsd=1.0, layout="images")


@pytest.mark.parametrize(
    "options",
    [{}, {"size": 16, "resize_mode": "center_crop"}, {"size": 64, "resize_mode": "resize"}],
    ids=["as they are", "cropped", "enlarged"],
)
def test_an_archived_image_finds_itself(
    model: Model, pictures: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    archive = embedded(model, pictures, tmp_path / "archive", gsd=2.0, layout="images", **options)
    copy = shutil.copy(pictures / "003.png", tmp_path / "copy.png")
    query = query_by_image(archive, copy, model, gsd=2.0)
    answers = query.search(archive, 3)
    assert Path(answers[0].source).name == "003.png"
    assert answers[0].score == pytest.approx(1, abs=1e-5)
    assert answers[1].score < 0.9999
    assert answers[0].gsd == query.chip.gsd


def test_a_scene_is_asked_by_its_middle(model: Model, scenes: Path, tmp_path: Path) -> None:
    archive = embedded(model, scenes, tmp_path / "archive", chip_size=32, stride=16)
    query = query_by_image(archive, scenes / "scene_1.tif", model)
    assert query.chip.window == PixelWindow(48, 32, 32, 32)
    assert query.chip.datetime is not None
    best = query.search(archive, 1)[0]
    assert (Path(best.source).name, best.window) == ("scene_1.tif", query.chip.window)
    assert best.score == pytest.approx(1, abs=1e-5)


def test_chips_of_equal_ground_are_cut_alike(model: Model, scenes: Path, tmp_path: Path) -> None:
    archive = embedded(model, scenes, tmp_path / "archive", chip_size=32, chip_metres=640.0, stride=8)
    query = query_by_image(archive, scenes / "scene_0.tif", model)
    assert query.chip.window.width == 64
    assert query.chip.gsd == pytest.approx(20, rel=1e-3)
    assert query.search(archive, 1)[0].score == pytest.approx(1, abs=1e-4)


def test_exclude_self(model: Model, archive: Archive, pictures: Path) -> None:
    asked = pictures / "005.png"
    by_image = query_by_image(archive, asked, model, gsd=1.0)
    assert by_image.search(archive, 1)[0].source == str(asked)
    others = by_image.search(archive, 20, exclude_self=True)
    assert str(asked) not in {answer.source for answer in others}
    assert others.shortfall == "11 of 20 results: 11 of 12 chips pass the filters and exclusions"
    name = by_image.search(archive, 1)[0].id
    by_id = query_by_id(archive, name[:10])
    assert by_id.chip.id == name
    assert by_id.search(archive, 1)[0].id == name
    assert [answer.id for answer in by_id.search(archive, 11, exclude_self=True)] == [
        answer.id for answer in others
    ]


def test_an_unknown_id(archive: Archive) -> None:
    with pytest.raises(ArchiveError, match="neither an image file nor"):
        query_by_id(archive, "0123456789abcdef")


def test_missing_gsd_says_how_to_give_it(model: Model, archive: Archive, pictures: Path) -> None:
    with pytest.raises(ImageryError, match=r"000\.png.*--gsd"):
        query_by_image(archive, pictures / "000.png", model)


def test_a_query_that_is_no_image(model: Model, archive: Archive, tmp_path: Path) -> None:
    for name, content in (
        ("notes.txt", b"just words, and quite a few of them"),
        ("empty.png", b""),
        ("poser.png", b"MZ\x90\x00" + b"\0" * 100),
        ("vector.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("virtual.vrt", b"<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageryError, match=name):
            query_by_image(archive, tmp_path / name, model, gsd=1.0)


def test_a_truncated_query(model: Model, archive: Archive, pictures: Path, tmp_path: Path) -> None:
    whole = (pictures / "000.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageryError, match=r"cut\.png"):
        query_by_image(archive, tmp_path / "cut.png", model, gsd=1.0)


def test_a_query_of_nothing_but_nodata(model: Model, archive: Archive, tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    with pytest.raises(ImageryError, match="valid"):
        query_by_image(archive, tmp_path / "clear.png", model, gsd=1.0)


def test_a_query_smaller_than_the_chips(model: Model, scenes: Path, pictures: Path, tmp_path: Path) -> None:
    archive = embedded(model, scenes, tmp_path / "archive", chip_size=64)
    with pytest.raises(ImageryError, match="32 x 32 pixels are fewer than a chip of 64 x 64"):
        query_by_image(archive, pictures / "000.png", model, gsd=10.0)


def test_a_sensor_that_the_model_does_not_know(model: Model, archive: Archive, pictures: Path) -> None:
    with pytest.raises(ContractError, match="naip"):
        query_by_image(archive, pictures / "000.png", model, sensor="naip", gsd=1.0)


def test_another_model_is_refused(model: Model, archive: Archive, pictures: Path) -> None:
    other = Model(model.encoder, model.contract, name="other", fingerprint="2" * 12)
    with pytest.raises(ArchiveError, match=f"embedded with model {model.id}, not with other-222222222222"):
        query_by_image(archive, pictures / "000.png", other, gsd=1.0)


def test_an_image_that_may_be_of_two_sensors_asks_which(
    model: Model, archive: Archive, pictures: Path, rows: Any
) -> None:
    own = model.contract.sensors["rgb_aerial"]
    twin = own.model_copy(update={"name": "rgb_drone"})
    knows_two = Model(model.encoder, Contract(sensors={"rgb_aerial": own, "rgb_drone": twin}))
    knows_two.id = model.id
    asked = query_by_image(archive, pictures / "000.png", knows_two, gsd=1.0)
    assert asked.chip.sensor == "rgb_aerial"  # the only one of the two in the archive
    archive.upsert(rows(1, dimensions=archive.dimensions, sensor=["rgb_drone"], model_id=[model.id]))
    with pytest.raises(ArchiveError, match=r"may be of rgb_aerial or rgb_drone .*--query-sensor rgb_aerial"):
        query_by_image(archive, pictures / "000.png", knows_two, gsd=1.0)
    asked = query_by_image(archive, pictures / "000.png", knows_two, sensor="rgb_aerial", gsd=1.0)
    assert asked.chip.sensor == "rgb_aerial"
    # A model of one sensor has nothing to ask.
    assert query_by_image(archive, pictures / "000.png", model, gsd=1.0).chip.sensor == "rgb_aerial"


def test_an_empty_archive(model: Model, pictures: Path, tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive", model.id, model.embed_dim)
    with pytest.raises(ArchiveError, match="is empty"):
        query_by_image(archive, pictures / "000.png", model, gsd=1.0)


def test_relative_scale_is_taken_over(model: Model, pictures: Path, tmp_path: Path) -> None:
    """The query of a relative archive needs no GSD, and gets its own as the archive's chips did."""
    for by_width, expected in ((True, 7.0), (False, 1.0)):
        contract = Contract(
            sensors=model.contract.sensors, gsd_mode="relative", reference_size=224 if by_width else None
        )
        relative = Model(model.encoder, contract, name="relative", fingerprint="3" * 12)
        path = tmp_path / f"archive_{by_width}"
        dataset = open_dataset(pictures, sensor="rgb_aerial", gsd="relative", layout="images")
        embed_archive(relative, dataset, path, workers=0, gsd_by_width=by_width)
        archive = Archive.open(path)
        assert not archive.searcher.in_metres
        query = query_by_image(archive, pictures / "002.png", relative)
        assert query.chip.gsd == expected
        assert query.search(archive, 1)[0].score == pytest.approx(1, abs=1e-5)


def test_vectors_are_the_models_own(model: Model, archive: Archive, pictures: Path) -> None:
    query = query_by_image(archive, pictures / "000.png", model, gsd=1.0)
    pixels = np.asarray(Image.open(pictures / "000.png")).transpose(2, 0, 1)
    assert np.allclose(query.vector, model.embed(pixels.copy(), gsd=1.0)[0], atol=1e-5)
