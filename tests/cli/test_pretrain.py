"""The command with the real method, on files as people have them; the inside is tested in tests/training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import swath
from swath.cli.main import build_app
from swath.errors import ImageryError, RecipeError, SwathError

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "sensor": "rgb_aerial",
    "data": {"gsd": "relative", "size": 32, "resize_mode": "random_crop"},
    "encoder": {"name": "vit_micro_patch8", "options": {"depth": 1, "embed_dim": 16, "heads": 2}},
    "objective": {
        "name": "scale_mae",
        "options": {
            "source_size": 16, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2, "head": "linear",
        },
    },
    "optimizer": {"blr": 0.1},
    "training": {"steps": 4, "batch_size": 4, "workers": 0, "log_every": 1, "tensorboard": False},
}  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(8):
        image = generator.integers(0, 255, (40 + i, 48, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{i}.jpg")
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(build_app(), ["pretrain", *map(str, arguments)])


def test_from_a_folder_of_pictures_to_a_model(images: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run(recipe, "--data", images, "--out", out, "--set", "training.steps=6")
    assert result.exit_code == 0, result.output
    assert f"model: {out / 'model'}" in result.stdout
    assert "batch_size: 4" in result.stderr  # the resolved recipe, defaults and all
    assert "step 6/6" in result.stderr
    model = swath.load_model(out / "model")
    assert model.contract.gsd_mode == "relative"
    low, high = model.contract.gsd_range or (0, 0)
    # The source has half of the crop's pixels: 2 x sqrt(0.2 .. 1.0), a pixel's rounding aside.
    assert 0.85 < low <= high <= 2.0
    pixels = np.zeros((2, 3, 32, 32), dtype=np.uint8)
    assert model.embed(pixels, gsd=1.0).shape == (2, 16)
    again = run(recipe, "--data", images, "--out", out, "--set", "training.steps=6", "--resume")
    assert again.exit_code == 0, again.output


def test_a_broken_picture_is_left_out_and_named(images: Path, recipe: Path, tmp_path: Path) -> None:
    (images / "3.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    result = run(recipe, "--data", images, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "1 files are skipped" in result.stderr
    assert "3.jpg" in (tmp_path / "run" / "skipped.jsonl").read_text()


def test_dry_run_says_what_would_be_done_and_does_nothing(images: Path, recipe: Path, tmp_path: Path) -> None:
    result = run(recipe, "--data", images, "--out", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "samples      8 (0 files left out)" in result.stdout
    assert "a sample     rgb_aerial, 3x32x32, GSD 1 to 1 (relative)" in result.stdout
    assert "view         target: 3x32x32 a sample" in result.stdout
    assert "budget       4 steps; an epoch has 2 steps" in result.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--set", "training.stepps=3"], RecipeError, "training.stepps: unknown key. Did you mean 'steps'?"),
        (["--set", "training.steps=lots"], RecipeError, "training.steps: should be a valid integer"),
        (["--set", "data.gsd=null"], ImageryError, "has no georeference, so its GSD is unknown"),
        (["--set", "sensor=sentinel2_l2a"], ImageryError, "has 3 bands, sensor 'sentinel2_l2a' wants 12"),
        (["--set", "sensor=rgb_areal"], SwathError, "Did you mean 'rgb_aerial'?"),
        (
            ["--set", "encoder.options.depth=deep"],
            RecipeError,
            "encoder.options.depth: should be a valid integer",
        ),
        (
            ["--set", "objective.options.source_size=17"],
            RecipeError,
            "must be a multiple of the encoder's patch",
        ),
        (["--resume", "--fresh"], RecipeError, "contradict each other"),
    ],
)
def test_bad_input_says_where_and_how_to_put_it_right(
    arguments: list[str], error: type[SwathError], message: str, images: Path, recipe: Path, tmp_path: Path
) -> None:
    result = run(recipe, "--data", images, "--out", tmp_path / "run", *arguments)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)


def test_no_images(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run(recipe, "--data", tmp_path / "empty", "--out", tmp_path / "run")
    assert isinstance(result.exception, ImageryError)
    assert f"{tmp_path / 'empty'}: no readable image" in str(result.exception)


def test_help_teaches() -> None:
    said = " ".join(run("--help").output.split())
    for word in ("continues a run", "torchrun", "Exit status", "143", "training.epochs=50"):
        assert word in said
