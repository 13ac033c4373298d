"""`swath evaluate retrieval` from the outside: pairs on disk, a model of two sensors, files, bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from helpers.pairs_on_disk import OPTIONS, S1, S2, write_pairs
from swath.cli.evaluate.frozen import app
from swath.encoders import create_model
from swath.errors import SwathError
from swath.models import Contract, save_model


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save_model(
        tmp_path_factory.mktemp("models") / "two",
        encoder_name="vit",
        encoder_options=OPTIONS,
        encoder=create_model("vit", **OPTIONS),
        contract=Contract.of(S1, S2, gsd_range=(10, 10)),
        name="two-sensors",
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *words: CliRunner().invoke(app, ["retrieval", *(str(word) for word in words)])


def failure(result: Result) -> str:
    assert isinstance(result.exception, SwathError), result.output
    return str(result.exception)


def test_scores_every_direction_and_writes_files(
    run: Callable[..., Result], model: Path, table: Path, tmp_path: Path
) -> None:
    result = run(
        model, table, "--query-split", "val", "--gallery-split", "test", "-k", 3, "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, (result.output, result.exception)
    for words in (
        "S1 → S2", "S2 → all", "not the IR F1@k", "random init", "image statistics", "RCF", "chance",
        "not comparable", "Modality gap", "12 queries (val), archive of 12 places",
    ):  # fmt: skip
        assert words in result.output
    report = json.loads((tmp_path / "out" / "retrieval.json").read_text())
    assert report["protocol"] == "swath.retrieval/1"
    assert report["model_id"].startswith("two-sensors-")
    chance = [row for row in report["scores"] if row["features"] == "chance"]
    assert chance[0]["f1"] == pytest.approx(0.5)
    assert {row["features"] for row in report["scores"]} >= {"two-sensors", "random init", "RCF"}
    with (tmp_path / "out" / "retrieval.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(report["scores"]) == 6 + 4 * 2 * 6
    assert all(row["split_hash"] == report["split_hash"] for row in rows)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "retrieval.json", "retrieval.csv", "retrieval_classes.csv", "retrieval.md", "retrieval_latent.png",
        *(f"retrieval_{a}_to_{b}.png" for a in ("S1", "S2") for b in ("S1", "S2")),
    }  # fmt: skip
    with Image.open(tmp_path / "out" / "retrieval_S1_to_S2.png") as sheet:
        assert sheet.height > 500
        assert sheet.info["protocol"] == "swath.retrieval/1"
    text = (tmp_path / "out" / "retrieval.md").read_text()
    assert "![retrieval_latent](retrieval_latent.png)" in text
    assert "| sea | 6 | 6 |" in text


def test_leave_one_group_out_and_no_pictures(
    run: Callable[..., Result], model: Path, table: Path, tmp_path: Path
) -> None:
    result = run(
        model, table, "--query-split", "all", "--gallery-split", "all", "-k", 5, "--no-baselines",
        "--per-class", "--no-images", "-o", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    assert "24 queries (all)" in result.output
    assert "without their own groups" in result.output
    assert "answers of the class" in result.output
    assert not list(tmp_path.glob("*.png"))


def test_a_baseline_alone(run: Callable[..., Result], table: Path) -> None:
    result = run("baseline:rcf", table, "--sensors", f"{S1},{S2}", "-k", 2, "--no-baselines")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "RCF" in result.output
    assert "image statistics" not in result.output


def test_bad_input(run: Callable[..., Result], model: Path, table: Path, tmp_path: Path) -> None:
    without = {
        "no labels": {"class": None},
        "no splits": {"split": None},
        "no groups": {"split": None, "group": None},
    }
    tables = {name: write_pairs(tmp_path / name, 8, **columns) for name, columns in without.items()}
    one = write_pairs(tmp_path / "one sensor", 8, **{S1: None})
    leak = write_pairs(tmp_path / "leak", 8, group="one")
    for words, message in (
        ((model, table, "-k", 13), "k = 13 answers cannot be had of an archive of 12 places"),
        ((model, table, "--query-split", "valid"), "no place is of split 'valid'"),
        ((model, table, "--sensors", f"{S1},landsat89_l2"), "not trained on sensor 'landsat89_l2'"),
        ((model, table, "--sensors", S1), f"only {S1} is named; retrieval across sensors needs two"),
        ((model, one), S1),
        ((model, tables["no labels"]), "have no labels"),
        ((model, tables["no splits"], "--query-split", "val"), "there are no splits"),
        ((model, tables["no groups"]), "neither splits nor groups"),
        ((model, leak), "--allow-overlap"),
        (("baseline:rcf", table), "--sensors A,B"),
        (("baseline:rfc", table, "--sensors", f"{S1},{S2}"), "Did you mean 'rcf'"),
        ((model, tmp_path / "nowhere.csv"), "no such file"),
    ):
        assert message in failure(run(*words)), words
    assert run(model, leak, "--allow-overlap", "-k", 2, "--no-baselines").exit_code == 0


def test_a_model_of_one_sensor(run: Callable[..., Result], table: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "bands": 2}
    path = save_model(
        tmp_path / "one",
        encoder_name="vit",
        encoder_options=options,
        encoder=create_model("vit", **options),
        contract=Contract.of(S1),
    )
    assert f"this model knows {S1} only" in failure(run(path, table))


def test_help_teaches(run: Callable[..., Result]) -> None:
    text = " ".join(run("--help").output.split())
    for words in (
        "Search by example",
        "harmonic mean",
        "not the F1@k",
        "Example:",
        "--gallery-split",
        "--allow-overlap",
    ):
        assert words in text
