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

from swath.cli.evaluate.frozen import app
from swath.encoders import create_model
from swath.errors import SwathError
from swath.models import Contract, save_model

OPTIONS = {"bands": 3, "embed_dim": 24, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noise around a level, 32 px; a table with splits and GSD."""
    folder = tmp_path_factory.mktemp("scenes")
    random = np.random.default_rng(0)
    rows = []
    for name, level in (("dark", 60), ("gray", 120), ("light", 190)):
        (folder / name).mkdir()
        for i in range(30):
            image = np.clip(random.normal(level, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / name / f"{i}.png")
            rows.append([f"{name}/{i}.png", name, 0.5, "val" if i % 3 == 0 else "train"])
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "class", "gsd_m", "split"], *rows])
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
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "120")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)

    return call


def failure(result: Result) -> str:
    assert isinstance(result.exception, SwathError), result.output
    return str(result.exception)


def test_knn_scores_model_and_baselines_and_writes_files(
    run: Callable[..., Result], model: Path, scenes: Path, tmp_path: Path
) -> None:
    result = run(
        "knn", model, scenes / "index.csv", "--image-sizes", "8,16,32", "-o", tmp_path / "out", "--k", 7
    )
    assert result.exit_code == 0, result.output
    for words in (
        "tiny-model",
        "random init",
        "RCF 1024",
        "image statistics",
        "knn-standardized",
        "33.3%",
        "the best baseline",
    ):
        assert words in result.output
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["knn.csv", "knn.json", "knn.png", "knn_predictions.npz", "knn_reliability.png"]
    data = json.loads((tmp_path / "out" / "knn.json").read_text())
    assert data["model_id"].startswith("tiny-model-")
    assert data["settings"]["k"] == 7
    assert data["settings"]["train"]["images"] == 60
    assert {(s["test_image_size"], s["train_image_size"]) for s in data["scores"]} == {
        (8, 8), (16, 16), (32, 32), (8, 32), (16, 32),
    }  # fmt: skip


def test_baseline_alone(run: Callable[..., Result], scenes: Path) -> None:
    result = run("knn", "baseline:statistics", scenes, "--no-baselines", "--image-sizes", "32", "--k", 5)
    assert result.exit_code == 0, result.output
    assert "no split of its own" in result.output
    assert "RCF" not in result.output
    assert "100.0" in result.output, "levels are all that differs"


def test_linear(run: Callable[..., Result], model: Path, scenes: Path, tmp_path: Path) -> None:
    result = run(
        "linear", model, scenes / "index.csv", "--no-baselines", "-o", tmp_path, "--pooling", "mean_std"
    )
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "linear.json").read_text())
    assert data["scores"][0]["C"] in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
    assert data["scores"][0]["validation_images"] == 12, "a fifth of the bank"
    assert data["settings"]["feature_extractors"]["tiny-model"]["pooling"] == "mean_std"
    assert data["scores"][0]["accuracy"] > 0.9


def test_fewshot(run: Callable[..., Result], model: Path, scenes: Path, tmp_path: Path) -> None:
    result = run(
        "fewshot", model, scenes / "index.csv", "--no-baselines", "--shots", "1,5,40", "--repeats", 3,
        "--classifier", "centroid", "-o", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "shots refused: 40, because class dark has 20 images" in result.output
    data = json.loads((tmp_path / "out" / "fewshot.json").read_text())
    assert [score["shots"] for score in data["scores"]] == [1, 5]
    assert (tmp_path / "out" / "fewshot.png").is_file()


def test_second_run_finds_the_features(
    run: Callable[..., Result], model: Path, scenes: Path, tmp_path: Path
) -> None:
    arguments = [
        model,
        scenes / "index.csv",
        "--no-baselines",
        "--image-sizes",
        "16",
        "--cache",
        tmp_path / "c",
    ]
    first = run("knn", *arguments, "--k", 5)
    second = run("linear", *arguments, "--c", 1)
    assert "rows were in" not in first.output
    assert "features: 90 of 90 rows were in" in " ".join(second.output.split())
    assert "rows were in" not in run("knn", *arguments[:-2], "--no-cache", "--k", 5).output


def test_two_models_are_compared_in_pairs_and_seeds_summed_up(
    run: Callable[..., Result], model: Path, scenes: Path, tmp_path: Path
) -> None:
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_model(
            tmp_path / f"seed_{seed}" / "model",
            encoder_name="vit_micro_patch8",
            encoder_options=OPTIONS,
            encoder=create_model("vit_micro_patch8", **OPTIONS),
            contract=Contract.of("rgb_aerial", gsd_range=(0.4, 2.5)),
            name="tiny-model",
        )
    seeds = sorted(tmp_path.glob("seed_*/model"))
    result = run(
        "knn", *seeds, scenes / "index.csv", "--average-seeds", "--no-baselines", "--image-sizes", "16,32",
        "--k", 5,
        "--symmetric-only", "-o", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for words in ("paired differences", "seed_1", "seed_2", "2 seeds", "mean of scales"):
        assert words in result.output
    data = json.loads((tmp_path / "out" / "knn.json").read_text())
    means = [found for found in data["seed_summary"] if found["classifier"] == "knn"]
    assert [found["test_image_size"] for found in means] == [16, 32, None]
    single = [s["value"] for s in data["scores"] if (s["classifier"], s["test_image_size"]) == ("knn", 16)]
    assert means[0]["mean"] == pytest.approx(np.mean(single), abs=1e-5)
    assert means[0]["low"] <= means[0]["mean"] <= means[0]["high"]
    assert data["comparisons"][0]["p"] is not None
    beside = run("knn", f"ours={model}", "rcf", scenes / "index.csv", "--no-baselines", "--image-sizes", "16")
    assert "ours" in beside.output, beside.output
    assert "paired differences" in beside.output


def test_models_of_different_encoders_each_have_their_untrained_self_beside_them(
    run: Callable[..., Result], model: Path, scenes: Path, tmp_path: Path
) -> None:
    deeper = {**OPTIONS, "depth": 2}
    for name in ("other", "twin"):
        torch.manual_seed(3)
        save_model(
            tmp_path / name,
            encoder_name="vit_micro_patch8",
            encoder_options=deeper,
            encoder=create_model("vit_micro_patch8", **deeper),
            contract=Contract.of("rgb_aerial", gsd_range=(0.4, 2.5)),
            pooling="mean",
            name=name,
        )
    result = run(
        "knn", f"one={model}", f"two={tmp_path / 'other'}", f"three={tmp_path / 'twin'}",
        scenes / "index.csv", "--image-sizes", "16", "-k", 5, "-o", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "out" / "knn.json").read_text())
    untrained = {name for name in data["settings"]["feature_extractors"] if "untrained" in name}
    assert untrained == {"one, untrained", "two, untrained"}, "two and three share an encoder"


def test_poolings_beside_each_other(run: Callable[..., Result], model: Path, scenes: Path) -> None:
    result = run(
        "knn", model, scenes / "index.csv", "--no-baselines", "--image-sizes", "16",
        "--pooling", "cls,mean,mean_std",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for pooling in ("cls", "mean", "mean_std"):
        assert f"tiny-model, {pooling}" in result.output


def test_scales_by_ground_sample_distance(
    run: Callable[..., Result], model: Path, scenes: Path, tmp_path: Path
) -> None:
    result = run(
        "knn", model, scenes / "index.csv", "--no-baselines", "--gsds", "0.5,1,2", "--k", 5, "-o", tmp_path
    )
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "knn.json").read_text())["settings"]["image_sizes"] == [8, 16, 32]
    finer = run("knn", model, scenes / "index.csv", "--no-baselines", "--gsds", "0.1")
    assert "a GSD of 0.1 m is finer than the images, which have 0.5 m" in failure(finer)
    unknown = run("knn", "rcf", scenes, "--no-baselines", "--gsds", "1")
    assert "images whose GSD is known" in failure(unknown)


def test_protocol_of_scale_mae(run: Callable[..., Result], model: Path, scenes: Path, tmp_path: Path) -> None:
    result = run(
        "knn", model, scenes / "index.csv", "--no-baselines", "--protocol", "scale_mae", "--image-sizes",
        "16,32",
        "-o", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "knn.json").read_text())
    assert data["protocol"] == "scale_mae"
    settings = data["settings"]["feature_extractors"]["tiny-model"]
    assert settings["pooling"] == "cls"
    assert settings["gsd"] == "224 / side"
    assert settings["statistics"] == "of the bank"
    assert {(s["classifier"], s["test_image_size"], s["train_image_size"]) for s in data["scores"]} == {
        ("knn", 16, 16), ("knn", 32, 32),
    }  # fmt: skip


def test_side_below_the_patch_is_refused_with_the_reason(
    run: Callable[..., Result], model: Path, scenes: Path
) -> None:
    result = run("knn", model, scenes / "index.csv", "--no-baselines", "--image-sizes", "4,32", "--k", 5)
    assert result.exit_code == 0, result.output
    assert "scale refused: 4 px is less than one patch of tiny-model (8 px)" in result.output


def test_scale_beyond_training_is_noted(run: Callable[..., Result], model: Path, scenes: Path) -> None:
    result = run(
        "knn", model, scenes / "index.csv", "--no-baselines", "--image-sizes", "32", "--gsd", "30", "--k", 5
    )
    assert "GSD 30 m lie outside the 0.4 to 2.5 m" in result.output


def test_metres_are_needed_unless_relative(run: Callable[..., Result], model: Path, scenes: Path) -> None:
    assert "GSD" in failure(run("knn", model, scenes, "--no-baselines", "--image-sizes", "32"))
    result = run(
        "knn", model, scenes, "--no-baselines", "--image-sizes", "32", "--gsd-mode", "relative", "--k", 5
    )
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["knn", "baseline:rfc", "."], "unknown baseline 'rfc'. Did you mean 'rcf'"),
        (["knn", "nowhere/model", "."], "no such model directory"),
        (["knn", "baseline:rcf", "nowhere"], "no such file or folder"),
        (["knn", "baseline:rcf", ".", "--image-sizes", "16;32"], "--image-sizes are pixels"),
        (["knn", "baseline:rcf", ".", "--pooling", "cls"], "--pooling is for models"),
        (["knn", "rcf", ".", "--image-sizes", "16", "--gsds", "1"], "give one of them"),
        (["knn", "rcf", ".", "--cache", "c", "--no-cache"], "give one of them"),
        (["knn", "rcf", ".", "--average-seeds"], "two seeds or more"),
        (["knn", "rcf", ".", "--protocol", "mae"], "--protocol knows scale_mae"),
        (["knn", "rcf", ".", "--protocol", "scale_mae", "--k", "5"], "fixes --k"),
        (["knn", "rcf", ".", "--protocol", "scale_mae"], "is for models of Swath"),
        (["knn", "rcf", ".", "--gsds", "x"], "--gsds are metres"),
        (["fewshot", "rcf", ".", "--shots", "0"], "--shots are labeled images"),
        (["fewshot", "rcf", ".", "--classifier", "svm"], "linear and centroid"),
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
        "--image-sizes",
        "--baselines",
        "--split-column",
        "--allow-overlap",
    ):
        assert words in text
