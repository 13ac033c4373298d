"""`swath evaluate` from the outside: a model, baselines, files written, and errors that help."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from swath.cli.evaluate import app
from swath.encoders import create_model
from swath.errors import SwathError
from swath.models import Contract, save_model

OPTIONS = {"bands": 3, "embed_dim": 24, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noise around a level, 32 px; a table with folds and GSD."""
    folder = tmp_path_factory.mktemp("scenes")
    random = np.random.default_rng(0)
    rows = []
    for name, level in (("dark", 60), ("grey", 120), ("light", 190)):
        (folder / name).mkdir()
        for i in range(30):
            image = np.clip(random.normal(level, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / name / f"{i}.png")
            rows.append([f"{name}/{i}.png", name, 0.5, "val" if i % 3 == 0 else "train"])
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "class", "gsd_m", "fold"], *rows])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save_model(
        tmp_path_factory.mktemp("models") / "tiny",
        encoder_name="vit_micro_patch8",
        encoder_options=OPTIONS,
        encoder=create_model("vit_micro_patch8", **OPTIONS),
        contract=Contract.of("rgb_aerial", gsd_range=(0.4, 2.5)),
        pooling="mean",
        name="tiny-model",
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)

    return call


def failure(result: Result) -> str:
    assert isinstance(result.exception, SwathError), result.output
    return str(result.exception)


def test_knn_scores_model_and_baselines_and_writes_files(
    run: Callable[..., Result], model: Path, scenes: Path, tmp_path: Path
) -> None:
    result = run("knn", model, scenes / "index.csv", "--scales", "8,16,32", "-o", tmp_path / "out", "--k", 7)
    assert result.exit_code == 0, result.output
    for words in (
        "tiny-model",
        "random init",
        "RCF 1024",
        "image statistics",
        "knn-z",
        "33.3%",
        "the best baseline",
    ):
        assert words in result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["knn.csv", "knn.json", "knn.png"]
    data = json.loads((tmp_path / "out" / "knn.json").read_text())
    assert data["model_id"].startswith("tiny-model-")
    assert data["settings"]["k"] == 7
    assert data["settings"]["bank"]["images"] == 60
    assert {(s["query_side"], s["bank_side"]) for s in data["scores"]} == {
        (8, 8), (16, 16), (32, 32), (8, 32), (16, 32),
    }  # fmt: skip


def test_baseline_alone(run: Callable[..., Result], scenes: Path) -> None:
    result = run("knn", "baseline:statistics", scenes, "--no-baselines", "--scales", "32", "--k", 5)
    assert result.exit_code == 0, result.output
    assert "no split of its own" in result.output
    assert "RCF" not in result.output
    assert "100.0" in result.output, "levels are all that differs"


def test_linear(run: Callable[..., Result], model: Path, scenes: Path, tmp_path: Path) -> None:
    result = run(
        "linear", model, scenes / "index.csv", "--no-baselines", "-o", tmp_path, "--pooling", "moments"
    )
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "linear.json").read_text())
    assert data["settings"]["C"] == 0.1
    assert data["settings"]["featurizers"]["tiny-model"]["pooling"] == "moments"
    assert data["scores"][0]["accuracy"] > 0.9


def test_side_below_the_patch_is_refused_with_the_reason(
    run: Callable[..., Result], model: Path, scenes: Path
) -> None:
    result = run("knn", model, scenes / "index.csv", "--no-baselines", "--scales", "4,32", "--k", 5)
    assert result.exit_code == 0, result.output
    assert "scale refused: 4 px is less than one patch of tiny-model (8 px)" in result.output


def test_scale_beyond_training_is_noted(run: Callable[..., Result], model: Path, scenes: Path) -> None:
    result = run(
        "knn", model, scenes / "index.csv", "--no-baselines", "--scales", "32", "--gsd", "30", "--k", 5
    )
    assert "GSD 30 m lie outside the 0.4 to 2.5 m" in result.output


def test_metres_are_needed_unless_relative(run: Callable[..., Result], model: Path, scenes: Path) -> None:
    assert "GSD" in failure(run("knn", model, scenes, "--no-baselines", "--scales", "32"))
    result = run("knn", model, scenes, "--no-baselines", "--scales", "32", "--gsd-mode", "relative", "--k", 5)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["knn", "baseline:rfc", "."], "unknown baseline 'rfc'. Did you mean 'rcf'"),
        (["knn", "nowhere/model", "."], "no such model directory"),
        (["knn", "baseline:rcf", "nowhere"], "no such file or folder"),
        (["knn", "baseline:rcf", ".", "--scales", "16;32"], "--scales are sides in pixels"),
        (["knn", "baseline:rcf", ".", "--pooling", "cls"], "--pooling is for models"),
        (["knn", "baseline:rcf", ".", "--gsd-mode", "feet"], "--gsd-mode is metres or relative"),
    ],
)
def test_mistakes_are_explained(
    run: Callable[..., Result], scenes: Path, arguments: list[str], message: str
) -> None:
    arguments = [str(scenes / "index.csv") if a == "." else a for a in arguments]
    assert message in failure(run(*arguments))


def test_help_teaches(run: Callable[..., Result]) -> None:
    text = " ".join(run("knn", "--help").output.split())
    for words in (
        "k most similar",
        "Example:",
        "--scales",
        "--baselines",
        "--fold-column",
        "--allow-overlap",
    ):
        assert words in text
