"""The picture of a search: every chip is on it, also of files that have gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from swath.archive.archive import Archive
from swath.archive.ingest.run import embed_archive
from swath.archive.query.image_query import query_by_image
from swath.archive.query.query import Query
from swath.archive.show.contact_sheet import write_contact_sheet
from swath.archive.show.thumbnails import stretch_by_sensor
from swath.datasets.opening import open_dataset
from swath.models import Model


@pytest.fixture
def asked(model: Model, pictures: Path, tmp_path: Path) -> tuple[Archive, Query]:
    dataset = open_dataset(pictures, sensor="rgb_aerial", gsd=1.0, layout="images")
    embed_archive(model, dataset, tmp_path / "archive", workers=0)
    archive = Archive.open(tmp_path / "archive")
    return archive, query_by_image(archive, pictures / "000.png", model, gsd=1.0)


@pytest.mark.parametrize("k", [1, 2, 4, 10, 12])
def test_sheets_of_any_number(asked: tuple[Archive, Query], tmp_path: Path, k: int) -> None:
    archive, query = asked
    write_contact_sheet(tmp_path / "sheet.png", query, query.search(archive, k))
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    columns = k if k <= 3 else min(6, -(-k // 2))
    assert pixels.shape[1] > 192 * (columns + 1)
    # The query and the answers bring their colors: few pixels are paper.
    assert (np.abs(pixels - pixels[0, 0]).max(axis=2) > 12).mean() > 0.4


def test_files_that_have_gone_become_empty_tiles(
    asked: tuple[Archive, Query], pictures: Path, tmp_path: Path
) -> None:
    archive, query = asked
    answers = query.search(archive, 12)
    for path in pictures.iterdir():
        path.unlink()
    write_contact_sheet(tmp_path / "sheet.png", query, answers)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(1 << 20) or []) < 2_000  # letters and plain tiles only


def test_no_answer_at_all(asked: tuple[Archive, Query], tmp_path: Path) -> None:
    from swath.archive.query.filters import Filter

    archive, query = asked
    write_contact_sheet(tmp_path / "s.png", query, query.search(archive, 5, filter=Filter(sensors=["none"])))
    assert (tmp_path / "s.png").stat().st_size > 1000


def chip(sensor: str) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(sensor=sensor)


def test_chips_of_a_sensor_are_stretched_together() -> None:
    """The darker of two chips stays the darker one; another sensor does not matter; nodata is clear."""
    valid = np.ones((8, 8), bool)
    valid[0, 0] = False
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    dark, bright, other = ramp.repeat(3, 0), ramp.repeat(3, 0) + 3, ramp.repeat(3, 0) * 1e4
    chips = [chip("a"), chip("a"), chip("b"), chip("b")]
    shown = stretch_by_sensor(
        chips, [(dark, valid, False), (bright, valid, False), (other, valid, False), "gone"]
    )
    assert shown[3] == "gone"
    first, second, third = (np.asarray(picture) for picture in shown[:3])
    assert first[..., :3].mean() < 60
    assert second[..., :3].mean() > 190
    assert 110 < third[..., :3].mean() < 145
    assert first[0, 0, 3] == 0
    assert first[1:, :, 3].min() == 255


def test_eight_bit_colors_keep_their_hue() -> None:
    pixels = np.zeros((3, 8, 8), np.float32)
    pixels[0] = np.linspace(20, 80, 64).reshape(8, 8)
    pixels[1] = pixels[0] / 2
    shown = np.asarray(stretch_by_sensor([chip("a")], [(pixels, np.ones((8, 8), bool), True)])[0]).astype(int)
    bright = shown[-1, -2]
    assert bright[0] > 200
    assert abs(bright[1] * 2 - bright[0]) < 6
    assert bright[2] == 0
