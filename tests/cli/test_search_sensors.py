"""`swath embed` and `swath search` with two sensors in one archive, from the outside."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from helpers.pairs_on_disk import OPTIONS, S1, S2, write_pairs
from swath.archive.archive import Archive
from swath.cli import embed
from swath.cli.search import search
from swath.encoders import create_model
from swath.errors import ContractError, SwathError
from swath.models import Contract, save_model

APP = typer.Typer()
APP.command("embed")(embed.command)
APP.command("search")(search.command)


def swath(*words: object) -> str:
    result = CliRunner().invoke(APP, [str(word) for word in words])
    if result.exception is not None:
        raise result.exception
    return result.output


def answered(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r" +\d", line)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two sensors, 12 pairs in one folder a sensor, and the archive of both."""
    home = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    save_model(
        home / "model",
        encoder_name="vit",
        encoder_options=OPTIONS,
        encoder=create_model("vit", **OPTIONS),
        contract=Contract.of(S1, S2),
    )
    write_pairs(home / "pairs", 12)
    for name in (S1, S2):
        (home / name).mkdir()
        for i in range(12):
            (home / "pairs" / f"{name}_{i}.tif").rename(home / name / f"{name}_{i}.tif")
        swath(
            "embed", home / "model", home / name, "--to", home / "archive", "--sensor", name,
            "--layout", "images", "--workers", 0,
        )  # fmt: skip
    return home


def test_two_runs_make_one_mixed_archive(home: Path) -> None:
    archive = Archive.open(home / "archive")
    assert archive.summary().sensors == {S1: 12, S2: 12}
    means = archive.stored_means()
    assert means is not None
    assert {name: part.count for name, part in means.items()} == {S1: 12, S2: 12}


def test_radar_asks_and_optics_answer_without_the_own_place(home: Path, tmp_path: Path) -> None:
    text = swath(
        "search", home / "archive", home / S1 / f"{S1}_3.tif", "--sensor", "s2", "--exclude-location",
        "-k", 20,
        "--geojson", tmp_path / "a.geojson", "--contact-sheet", tmp_path / "a.png",
    )  # fmt: skip
    lines = answered(text)
    assert len(lines) == 11
    assert all(S2 in line for line in lines)
    assert f"{S2}_3.tif" not in text
    assert f"centered: less the mean of each sensor: {S1} (12 chips), {S2} (12 chips)" in text
    report = json.loads((tmp_path / "a.geojson").read_text())
    assert report["query"]["sensor"] == S1
    assert report["query"]["centered"] is True
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_without_centering_it_is_said(home: Path) -> None:
    text = swath("search", home / "archive", home / S2 / f"{S2}_0.tif", "--no-center", "-k", 3)
    assert "not centered, as requested" in text
    assert S2 in answered(text)[0]


def test_errors_with_their_fix(home: Path, tmp_path: Path) -> None:
    archive = home / "archive"
    name = archive_id(archive)
    (tmp_path / "empty").mkdir()
    for words, error, message in (
        (("search", archive, name, "--sensor", "s3"), SwathError, "no chip of sensor 's3'"),
        (("search", archive, name, "--query-sensor", S1), SwathError, "--query-sensor is for query images"),
        (
            ("search", archive, home / S1 / f"{S1}_0.tif", "--query-sensor", "naip"),
            ContractError,
            "not trained on sensor 'naip'",
        ),
        (
            ("embed", home / "model", home / S1, "--to", tmp_path / "new"),
            ContractError,
            r"knows the sensors sentinel1_grd, sentinel2_l2a; say which .* \(--sensor sentinel1_grd\)",
        ),
    ):
        with pytest.raises(error, match=message):
            swath(*words)


def archive_id(path: Path) -> str:
    name: str = Archive.open(path).rows(["id"])["id"][0].as_py()
    return name
