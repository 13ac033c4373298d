"""Plain Sentinel-2 GeoTIFFs that do not say their processing baseline, through all that reads them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from swath.archive.archive import Archive
from swath.cli import embed
from swath.cli.evaluate import frozen as evaluate
from swath.cli.search import search
from swath.datasets.chips import ChipGrid
from swath.encoders import create_model
from swath.errors import ImageryError
from swath.models import Contract, save_model
from swath.sensors.registry import get_sensor
from swath.training.build import open_training_data
from swath.training.config.recipe import load_recipe

APP = typer.Typer()
APP.command("embed")(embed.command)
APP.command("search")(search.command)
APP.add_typer(evaluate.app, name="evaluate")

NAMES = tuple(band.name for band in get_sensor("sentinel2_l2a").bands)
RECIPE = """
name: plain_sentinel2
sensor: sentinel2_l2a
data: {chip_size: 32, pattern: '*/s2_*.tif', offset_dn: -1000}
encoder: {name: vit_micro_patch16}
objective: {name: scale_mae}
optimizer: {lr: 1.0e-3}
training: {steps: 1, batch_size: 2}
"""


def swath(*words: object) -> str:
    result = CliRunner().invoke(APP, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def write_scene(path: Path, level: int, seed: int) -> None:
    import rasterio
    from rasterio.transform import from_origin

    values = level + np.random.default_rng(seed).integers(1000, 1400, (12, 32, 32)).astype(np.uint16)
    profile = {"driver": "GTiff", "count": 12, "height": 32, "width": 32, "dtype": "uint16"}
    place = {"crs": "EPSG:32633", "transform": from_origin(500000 + 320 * seed, 5000000, 10, 10)}
    with rasterio.open(path, "w", **profile, **place) as file:
        file.write(values)
        file.descriptions = NAMES


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    sensor = get_sensor("sentinel2_l2a")
    torch.manual_seed(0)
    save_model(
        home / "model",
        encoder_name="vit_micro_patch16",
        encoder_options={"bands": 12},
        encoder=create_model("vit_micro_patch16", bands=12),
        contract=Contract(sensors={sensor.name: sensor}),
    )
    rows = []
    for number in range(20):
        label, split = ("field", "town")[number % 2], "train" if number < 14 else "val"
        (home / "scenes" / label).mkdir(parents=True, exist_ok=True)
        name = f"{label}/s2_{number}.tif"
        write_scene(home / "scenes" / name, 0 if label == "field" else 2500, number)
        rows.append([name, label, split])
    (home / "scenes" / "field" / "mask.tif").write_bytes(b"not wanted")
    with (home / "scenes" / "index.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "class", "split"], *rows])
    return home


def test_recipe_states_offset_and_pattern(home: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    recipe = load_recipe(tmp_path / "r.yaml")
    data = open_training_data(recipe, home / "scenes")
    assert isinstance(data, ChipGrid)
    assert len(data) == 20
    assert not data.problems  # the pattern keeps the mask out
    assert float(data[0]["image"].min()) == pytest.approx(0.0, abs=0.005)
    unsaid = load_recipe(tmp_path / "r.yaml", ["data.offset_dn=null"])
    with pytest.raises(ImageryError, match=r"--offset-dn; data\.offset_dn in a recipe"):
        open_training_data(unsaid, home / "scenes")


def test_recipe_states_the_classes_and_their_order(home: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    settings = ["data.layout=class_folder", "data.chip_size=null", "data.pattern=null"]
    data = open_training_data(
        load_recipe(tmp_path / "r.yaml", [*settings, "data.classes=[town, field]"]), home / "scenes"
    )
    assert data.classes == ["town", "field"]
    assert data.labels is not None
    assert data.labels[0] == 0
    assert "town" in data.paths[0]


def test_embed_search_and_evaluate_take_the_offset(home: Path) -> None:
    model, archive, query = home / "model", home / "archive", home / "scenes" / "town" / "s2_1.tif"
    chips = ["--chip-size", 32, "--pattern", "*/s2_*.tif", "--workers", 0]
    with pytest.raises(ImageryError, match="nothing says which Sentinel-2"):
        swath("embed", model, home / "scenes", "--to", archive, *chips)
    text = swath("embed", model, home / "scenes", "--to", archive, *chips, "--offset-dn", -1000)
    assert "20 chips embedded" in text
    with pytest.raises(ImageryError, match="nothing says which Sentinel-2"):
        swath("search", archive, query)
    text = swath("search", archive, query, "-k", 1, "--query-offset-dn", -1000)
    assert "1.0000" in text
    assert "s2_1.tif" in text

    words = [model, home / "scenes" / "index.csv", "--no-baselines", "--image-sizes", "32"]
    with pytest.raises(ImageryError, match="nothing says which Sentinel-2"):
        swath("evaluate", "linear", *words)
    assert "100.0" in swath("evaluate", "linear", *words, "--offset-dn", -1000)


@pytest.mark.parametrize("layout", ["chips", "images"])
def test_another_offset_is_embedded_anew(home: Path, tmp_path: Path, layout: str) -> None:
    words = ["embed", home / "model", home / "scenes" / "town", "--to", tmp_path / "a", "--layout", layout]
    words += ["--chip-size", 32, "--workers", 0] if layout == "chips" else ["--workers", 0]
    assert "10 chips embedded" in swath(*words, "--offset-dn", 0)
    before = Archive.open(tmp_path / "a").rows(["embedding"]).column("embedding").to_pylist()
    assert "\n0 chips embedded" in swath(*words, "--offset-dn", 0)
    assert "10 chips embedded" in swath(*words, "--offset-dn", -1000)
    archive = Archive.open(tmp_path / "a")
    assert archive.count() == 10
    assert archive.rows(["embedding"]).column("embedding").to_pylist() != before
