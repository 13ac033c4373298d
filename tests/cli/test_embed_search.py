"""`swath embed` and `swath search` from the outside, with a saved model and real files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from swath.archive.archive import Archive
from swath.cli import embed
from swath.cli.search import search
from swath.encoders import create_model
from swath.errors import ArchiveError, ContractError, ImageryError, SwathError
from swath.models import Contract, save_model
from swath.sensors.registry import get_sensor

APP = typer.Typer()
APP.command("embed")(embed.command)
APP.command("search")(search.command)


def swath(*words: object, code: int = 0) -> str:
    """Run a command; everything that it prints. User errors are raised, for the console script to catch."""
    result = CliRunner().invoke(APP, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models and a collection of two classes, archived in `archive`."""
    home = tmp_path_factory.mktemp("home")
    for name, sensor in (("model", "rgb_aerial"), ("other", "naip")):
        bands = len(get_sensor(sensor).bands)
        torch.manual_seed(0)
        save_model(
            home / name,
            encoder_name="vit_micro_patch16",
            encoder_options={"bands": bands},
            encoder=create_model("vit_micro_patch16", bands=bands),
            contract=Contract(sensors={sensor: get_sensor(sensor)}),
        )
    random = np.random.default_rng(0)
    for label in ("field", "town"):
        (home / "images" / label).mkdir(parents=True)
        for number in range(5):
            coarse = Image.fromarray(random.integers(0, 255, (4, 4, 3), dtype=np.uint8))
            coarse.resize((32, 32)).save(home / "images" / label / f"{label}_{number}.png")
    swath("embed", home / "model", home / "images", "--to", home / "archive", "--gsd", 0.5, "--workers", 0)
    return home


def test_embed_says_what_it_did(home: Path, tmp_path: Path) -> None:
    words = ("embed", home / "model", home / "images", "--gsd", 0.5, "--workers", 0, "--to", tmp_path / "new")
    first, again = swath(*words), swath(*words)
    assert "10 chips embedded" in first
    assert "10/10" in first
    assert "0 chips embedded" in again
    assert "10 were there already" in again
    archive = Archive.open(tmp_path / "new")
    assert archive.count() == 10
    assert set(archive.rows(["label"])["label"].to_pylist()) == {"field", "town"}


def test_embed_lists_failures_and_exits_with_1(home: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    good = (home / "images" / "town" / "town_0.png").read_bytes()
    (tmp_path / "images" / "good.png").write_bytes(good)
    (tmp_path / "images" / "empty.png").write_bytes(b"")
    (tmp_path / "images" / "cut.png").write_bytes(good[: len(good) // 2])
    to = tmp_path / "archive"
    text = swath("embed", home / "model", tmp_path / "images", "--to", to, "--gsd", 1, "--workers", 0, code=1)
    assert "1 chips embedded" in text
    assert "2 could not be used" in text
    assert "empty.png" in text
    assert "cut.png" in text
    assert "exit status 1" in text


def test_search_by_image(home: Path, tmp_path: Path) -> None:
    asked = home / "images" / "town" / "town_3.png"
    text = swath(
        "search", home / "archive", asked, "-k", 4, "--query-gsd", 0.5,
        "--geojson", tmp_path / "a.geojson", "--contact-sheet", tmp_path / "a.png",
    )  # fmt: skip
    lines = [line.split() for line in text.splitlines() if re.match(r" +\d", line)]
    assert [line[0] for line in lines] == ["1", "2", "3", "4"]
    assert lines[0][1] == "1.0000"
    assert str(asked) in text
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert [feature["id"][:12] for feature in features] == [line[2] for line in lines]
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.width > 600


def test_search_by_id_needs_no_model(home: Path) -> None:
    name = Archive.open(home / "archive").rows(["id"])["id"][4].as_py()
    text = swath("search", home / "archive", name[:8], "-k", 3, "--exclude-self")
    assert name[:12] not in text
    assert len([line for line in text.splitlines() if re.match(r" +\d", line)]) == 3


def test_search_filters_and_says_when_answers_are_few(home: Path) -> None:
    name = Archive.open(home / "archive").rows(["id"])["id"][0].as_py()
    words = ("search", home / "archive", name)
    assert "10 of 50 results: the archive holds only 10 chips" in swath(*words, "-k", 50)
    for option, value in (
        ("--gsd-range", "1:20"),
        ("--datetime", "2020-01-01:2020-12-31"),
        ("--bbox", "170,-10,-170,10"),
    ):
        assert "0 of 10 results: 0 of 10 chips pass" in swath(*words, option, value)
    assert swath(*words, "--gsd-range", "0.5").count("rgb_aerial") == 10


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--gsd-range", "fine"),
        ("--gsd-range", "3:1"),
        ("--datetime", "yesterday"),
        ("--datetime", "2021-01-01:2020-01-01"),
        ("--bbox", "1,2,3"),
        ("--bbox", "0,50,10,40"),
        ("--bbox", "0,0,400,10"),
        ("-k", "0"),
    ],
)
def test_malformed_options_are_refused(home: Path, option: str, value: str) -> None:
    text = swath("search", home / "archive", "abcdef", option, value, code=2)
    assert "Invalid value" in text


def test_user_errors(home: Path, tmp_path: Path) -> None:
    picture = home / "images" / "town" / "town_0.png"
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.txt").write_text("no image, this")
    model, images, archive = home / "model", home / "images", home / "archive"
    to = ("--to", tmp_path / "archive")
    for words, error, message in (
        (("embed", model, tmp_path / "empty", *to), ImageryError, "no readable image"),
        (("embed", model, tmp_path / "nowhere", *to), ImageryError, "no such file or folder"),
        (("embed", model, images, *to), ImageryError, "--gsd"),
        (("embed", model, images, *to, "--sensor", "naip", "--gsd", 1), ContractError, "naip"),
        (
            ("embed", model, images, *to, "--gsd", 1, "--layout", "images", "--stride", 8),
            ImageryError,
            "stride",
        ),
        (("embed", tmp_path / "nowhere", images, *to), SwathError, "no such model"),
        (("embed", home / "other", images, "--to", archive), ArchiveError, "was embedded with model"),
        (("search", tmp_path / "nowhere", picture), ArchiveError, "no archive there"),
        (("search", archive, tmp_path / "gone.png"), SwathError, "no such file"),
        (("search", archive, "0123456789"), ArchiveError, "nor the beginning of a chip id"),
        (("search", archive, tmp_path / "words.txt", "--query-gsd", 1), ImageryError, "words.txt"),
        (("search", archive, picture), ImageryError, "--query-gsd"),
        (("search", archive, picture, "--query-gsd", 1, "--query-sensor", "naip"), ContractError, "naip"),
        (
            ("search", archive, picture, "--query-gsd", 0.5, "--sensor", "naip"),
            ArchiveError,
            "no chip of sensor 'naip'",
        ),
        (
            ("search", archive, picture, "--query-gsd", 0.5, "--exclude-location"),
            ArchiveError,
            "has no footprint",
        ),
        (("search", archive, picture, "--query-gsd", 0.5, "--exclude-overlap", 0.3), SwathError, "give both"),
        (("search", archive, picture, "--query-gsd", 1, "--model", home / "other"), ArchiveError, "not with"),
    ):
        with pytest.raises(error, match=message):
            swath(*words)


def test_a_model_that_has_moved(home: Path, tmp_path: Path) -> None:
    picture = home / "images" / "town" / "town_0.png"
    (home / "model").rename(tmp_path / "moved")
    try:
        with pytest.raises(
            ArchiveError, match=r"is not at .*model any more; say where it is \(--model DIR\)"
        ):
            swath("search", home / "archive", picture, "--query-gsd", 0.5)
        text = swath("search", home / "archive", picture, "--query-gsd", 0.5, "--model", tmp_path / "moved")
        assert "1.0000" in text
    finally:
        (tmp_path / "moved").rename(home / "model")
