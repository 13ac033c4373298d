"""What a notebook shows: pictures of what is there, a word where it is gone, and nothing that runs."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swath.archive.archive import Archive
from swath.archive.changes.detect import find_changes
from swath.archive.ingest.run import embed_archive
from swath.archive.query.filters import parse_datetime
from swath.archive.show.notebook import SHOWN
from swath.archive.table.rows import rows_from_vectors
from swath.datasets.opening import open_dataset
from swath.models import Model


def pictures_in(html: str) -> list[Image.Image]:
    parts = html.split("data:image/png;base64,")[1:]
    return [Image.open(io.BytesIO(base64.b64decode(part.split("'")[0]))) for part in parts]


@pytest.fixture
def archive(model: Model, pictures: Path, tmp_path: Path) -> Archive:
    dataset = open_dataset(pictures, sensor="rgb_aerial", gsd=1.0, layout="images")
    embed_archive(model, dataset, tmp_path / "archive", workers=0)
    return Archive.open(tmp_path / "archive")


def test_answers_are_pictures(archive: Archive, pictures: Path) -> None:
    first = archive.rows(["id"])["id"][0].as_py()
    answers = archive.search(like=[first], k=5)
    html = answers._repr_html_()
    shown = pictures_in(html)
    assert len(shown) == 5
    assert len(shown[0].convert("RGB").getcolors(1 << 16) or [0] * 99) > 3  # pixels, and no plain tile
    for found in answers:
        assert f"{found.score:.3f}" in html
        assert Path(found.source).name in html
    Path(answers[2].source).unlink()
    assert len(pictures_in(answers._repr_html_())) == 4
    assert answers._repr_html_().count("<div style='width:128px;height:128px") == 1  # an empty tile


def test_names_from_files_do_not_run(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "a", "m-1", 4)
    bad = "<script>alert(1)</script>"
    vectors = np.eye(4, dtype=np.float32)
    archive.append(
        rows_from_vectors(
            "m-1", list("abcd"), vectors, sensor=bad, gsd=1.0, source="x' onload='y", label=[bad] * 4
        )
    )
    for html in (archive._repr_html_(), archive.search(vectors[0], 9)._repr_html_()):
        assert "<script" not in html
        assert " onload='" not in html
    assert "4 of 9 results" in archive.search(vectors[0], 9)._repr_html_()  # fewer than asked for is said


def test_many_answers_are_counted(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "a", "m-1", 4)
    random = np.random.default_rng(0)
    archive.append(
        rows_from_vectors(
            "m-1", [str(i) for i in range(60)], random.standard_normal((60, 4)), sensor="naip", gsd=1
        )
    )
    html = archive.search(np.ones(4), 40)._repr_html_()
    assert f"{40 - SHOWN} more results are not shown" in html


def test_footprints_and_changes(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "a", "m-1", 4)
    assert "<svg" not in archive._repr_html_()  # nothing to draw yet
    random = np.random.default_rng(0)
    for year in (2018, 2020):
        archive.append(
            rows_from_vectors(
                "m-1",
                [f"{year} {i}" for i in range(30)],
                random.standard_normal((30, 4)),
                sensor="naip",
                gsd=1,
                bounds=[[0.1 * i, 50, 0.1 * i + 0.1, 50.1] for i in range(30)],
                time=[datetime(year, 6, 1, tzinfo=UTC)] * 30,
            )
        )
    assert archive._repr_html_().count("<rect") == 60
    html = find_changes(archive, parse_datetime("2018"), parse_datetime("2020"), k=3)._repr_html_()
    assert html.count("2018-06-01") == html.count("2020-06-01") == 3
    assert "30 places are shown at both times" in html
    assert not pictures_in(html)  # its files were never there
