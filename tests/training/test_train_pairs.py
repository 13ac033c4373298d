"""Training on places that several sensors see: to the end, resumed, and by two processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from safetensors.numpy import load_file

from helpers.processes import environment
from swath.errors import ContractError, ImageryError, RecipeError
from swath.models import load_model
from swath.training.build import build_objective, dataset_sensors, open_training_data
from swath.training.config.recipe import parse_recipe
from swath.training.monitoring.metrics_log import read_metrics
from swath.training.pretraining import pretrain

S1, S2 = "sentinel1_ben", "sentinel2_ben"
RADAR, OPTICAL = ("VH", "VV"), ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A")


HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen places: one field of brightness each, seen in dB and as reflectance."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [f"id,{S1},{S2}"]
    for i in range(16):
        random = np.random.default_rng(i)
        ground = np.kron(random.random((4, 4)), np.ones((6, 6)))
        radar = -18 + 8 * ground + random.normal(0, 0.5, (2, 24, 24))
        optical = 800 + 2500 * ground + random.normal(0, 60, (10, 24, 24))
        place = rasterio.Affine(10, 0, 500_000 + 300 * i, 0, -10, 5_000_000)
        for name, image, bands in ((f"s1_{i}.tif", radar, RADAR), (f"s2_{i}.tif", optical, OPTICAL)):
            dtype = "float32" if bands is RADAR else "uint16"
            with rasterio.open(
                folder / name, "w", driver="GTiff", width=24, height=24, count=len(bands), dtype=dtype,
                crs="EPSG:32633", transform=place,
            ) as file:  # fmt: skip
                file.write(image.astype(dtype))
                file.descriptions = bands
        rows.append(f"place{i},s1_{i}.tif,s2_{i}.tif")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return folder


def recipe_data(**training: Any) -> dict[str, Any]:
    return {
        "name": "pairs",
        "sensor": [S1, S2],
        "data": {"cache": "memory", "offset_dn": 0},
        "encoder": {
            "name": "vit_multi_sensor",
            "options": {"patch_size": 6, "embed_dim": 16, "specific_depth": 1, "common_depth": 1, "heads": 2},
        },
        "objective": {
            "name": "csmae",
            "options": {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
        },
        "contract": {"reference_gsd": 10.0},
        "optimizer": {"lr": 0.003},
        "training": {
            "steps": 8, "batch_size": 8, "warmup_steps": 1, "checkpoint_every": 4, "keep": 9, "log_every": 1,
            "images_every": 4, "monitor_every": 4, "tensorboard": False, "device": "cpu", **training,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "one"
    pretrain(parse_recipe(recipe_data()), pairs, out)
    return out


def losses(run: Path) -> list[float]:
    return [row["loss/total"] for row in read_metrics(run / "metrics.jsonl") if "loss/total" in row]


def test_a_run_learns_and_ends_in_a_model_that_takes_either_sensor(run: Path) -> None:
    assert len(losses(run)) == 8
    assert losses(run)[-1] < losses(run)[0]
    row = read_metrics(run / "metrics.jsonl")[-1]
    assert {f"loss/{a}_from_{b}" for a in (S1, S2) for b in (S1, S2)} | {"loss/mim", "rankme"} <= set(row)
    assert (run / "images" / "step_00000008.png").stat().st_size > 1000
    model = load_model(run / "model")
    assert list(model.contract.sensors) == [S1, S2]
    assert model.contract.gsd_range == pytest.approx((10, 10), rel=1e-3)
    with torch.no_grad():
        radar = model.embed(torch.full((3, 2, 24, 24), -12.0), gsd=10, sensor=S1)
        optical = model.embed(torch.full((1, 10, 24, 24), 0.2), gsd=10, sensor=S2)
    assert (radar.shape, optical.shape) == ((3, 16), (1, 16))
    with pytest.raises(ContractError, match="say which one"):
        model.embed(torch.full((3, 2, 24, 24), -12.0), gsd=10)


def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(run: Path, pairs: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(run, again)
    shutil.rmtree(again / "model")
    shutil.rmtree(again / "checkpoints" / "step_00000008")
    pretrain(parse_recipe(recipe_data()), pairs, again, start="resume")
    assert losses(again) == losses(run)
    ours, theirs = (load_file(path / "model" / "model.safetensors") for path in (again, run))
    assert all(np.array_equal(ours[key], value) for key, value in theirs.items())


def test_two_processes_have_the_losses_of_one(run: Path, pairs: Path, tmp_path: Path) -> None:
    """The contrast too: each rank's negatives are those of all ranks."""
    work = [["two", recipe_data(), "auto"]]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(HELPERS / "two_processes.py"), str(pairs), str(tmp_path), json.dumps(work),
    ]  # fmt: skip
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(run), atol=1e-5, rtol=1e-5)


def test_accumulation_is_refused_where_samples_are_compared(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"gradient_accumulation_steps: csmae compares the samples of a step"
    ):
        pretrain(parse_recipe(recipe_data(gradient_accumulation_steps=2)), pairs, tmp_path / "run")
    data = recipe_data(gradient_accumulation_steps=2, steps=2)
    data["objective"]["options"]["mim_weight"] = 0.0
    pretrain(parse_recipe(data), pairs, tmp_path / "other")


def test_options_without_a_meaning_for_pairs_are_refused(pairs: Path) -> None:
    data = recipe_data()
    data["data"]["stride"] = 3
    with pytest.raises(RecipeError, match=r"data\.stride: has no meaning for pairs"):
        open_training_data(parse_recipe(data), pairs)


def test_a_sensor_that_the_table_lacks_is_named(pairs: Path) -> None:
    data = recipe_data()
    data["sensor"] = [S1, "naip"]
    with pytest.raises(ImageryError, match="naip"):
        open_training_data(parse_recipe(data), pairs)


def test_one_sensor_of_a_list_is_a_list_too(pairs: Path) -> None:
    data = recipe_data()
    data["sensor"] = [S1]
    data["objective"]["options"] |= {"crossmodal": False, "mim_weight": 0.0}
    recipe = parse_recipe(data)
    dataset = open_training_data(recipe, pairs)
    assert list(build_objective(recipe, dataset_sensors(dataset)).encoder.bands) == [S1]
