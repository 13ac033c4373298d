from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import swath
from helpers import toy_objective as toy
from swath.errors import RecipeError, TrainingError
from swath.training.config.recipe import PretrainRecipe
from swath.training.monitoring.metrics_log import read_metrics
from swath.training.pretraining import pretrain

Make = Callable[..., PretrainRecipe]


def losses(run: Path) -> list[float]:
    return [row["loss/total"] for row in read_metrics(run / "metrics.jsonl") if "loss/total" in row]


def test_a_run_learns_and_ends_in_a_model_directory(images: Path, recipe: Make, tmp_path: Path) -> None:
    returned = pretrain(recipe(training={"steps": 40}), images, tmp_path / "run")
    series = losses(tmp_path / "run")
    assert len(series) == 40
    assert series[-1] < 0.5 * series[0]
    model = swath.load_model(tmp_path / "run" / "model")
    assert returned.id == model.id
    assert model.contract.gsd_range == pytest.approx((0.5, 0.5))
    image = torch.randint(0, 255, (2, 3, 16, 16), dtype=torch.uint8)
    assert model.embed(image, gsd=0.5).shape == (2, 16)
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["name"] == "toy"
    assert config["provenance"]["recipe"]["training"]["steps"] == 40
    assert config["provenance"]["images"] == 40 * 8


def test_what_a_run_leaves(images: Path, recipe: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(
        recipe(training={"images_every": 6, "monitor_every": 6, "tensorboard": True, "keep": 2}),
        images,
        run,
    )
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_00000008", "step_00000012"]
    assert sorted(path.name for path in (run / "images").iterdir()) == [
        "step_00000006.png", "step_00000012.png",
    ]  # fmt: skip
    assert Image.open(run / "images" / "step_00000012.png").width > 16
    assert list((run / "tensorboard").glob("events*"))
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(13))
    assert rows[0].keys() == {"step", "feature_std", "rankme"}  # the untrained encoder
    assert {"loss/total", "loss/plain", "lr", "grad_norm", "images_per_second", "data_wait_fraction"} <= rows[
        3
    ].keys()
    assert rows[6]["rankme"] >= 1
    with (run / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["loss/total"]) for row in table[1:]] == losses(run)


def test_accumulation_equals_a_large_batch(images: Path, recipe: Make, tmp_path: Path) -> None:
    for parts in (1, 4):
        pretrain(recipe(training={"gradient_accumulation_steps": parts}), images, tmp_path / str(parts))
    np.testing.assert_allclose(losses(tmp_path / "1"), losses(tmp_path / "4"), rtol=1e-5)


def test_loader_workers_change_nothing(images: Path, recipe: Make, tmp_path: Path) -> None:
    for workers in (0, 2):
        training = {"workers": workers, "steps": 8}
        pretrain(recipe(training=training, data={"cache": "none"}), images, tmp_path / str(workers))
    pretrain(recipe(training={"steps": 8}), images, tmp_path / "cached")
    assert losses(tmp_path / "0") == losses(tmp_path / "2") == losses(tmp_path / "cached")


def test_bf16_trains(images: Path, recipe: Make, tmp_path: Path) -> None:
    pretrain(recipe(training={"precision": "bf16", "steps": 20}), images, tmp_path / "run")
    series = losses(tmp_path / "run")
    assert series[-1] < series[0]


def test_fp16_is_refused_without_a_gpu(images: Path, recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fp16 needs a GPU; use bf16 or fp32"):
        pretrain(recipe(training={"precision": "fp16", "device": "cpu"}), images, tmp_path / "run")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_fp16_trains_on_a_gpu(images: Path, recipe: Make, tmp_path: Path) -> None:
    pretrain(recipe(training={"precision": "fp16", "steps": 20}), images, tmp_path / "run")
    series = losses(tmp_path / "run")
    assert series[-1] < series[0]


def test_clipping_bounds_the_step_but_reports_the_true_norm(
    images: Path, recipe: Make, tmp_path: Path
) -> None:
    free, clipped = tmp_path / "free", tmp_path / "clipped"
    pretrain(recipe(training={"steps": 1}), images, free)
    pretrain(recipe(training={"steps": 1, "clip": 1e-3}), images, clipped)
    norms = [read_metrics(run / "metrics.jsonl")[0]["grad_norm"] for run in (free, clipped)]
    assert norms[0] == norms[1] > 1e-3


def test_cpu_minutes_end_a_run_and_anneal_the_rate(images: Path, recipe: Make, tmp_path: Path) -> None:
    training = {"steps": None, "warmup_steps": None, "cpu_minutes": 0.02}
    pretrain(recipe(training=training), images, tmp_path / "run")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["cpu_seconds"] == pytest.approx(1.2, abs=0.5)
    assert rows[-1]["lr"] < 0.1 * max(row["lr"] for row in rows)
    # finished is finished: the same command does nothing more
    pretrain(recipe(training=training), images, tmp_path / "run")
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == len(rows)


def test_a_loss_that_is_not_finite_stops_the_run_with_a_diagnosis(
    images: Path, recipe: Make, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingError) as caught:
        pretrain(recipe(objective={"options": {"explode_at": 6}}), images, run)
    message = str(caught.value)
    assert "step 7: total and plain and grad_norm are not finite" in message
    assert "lr 0.00" in message
    assert "samples: " in message
    assert "no single sample does it: lower optimizer.lr" in message
    assert str(run / "checkpoints" / "step_00000004") in message
    assert (run / "checkpoints" / "step_00000004" / "model.safetensors").is_file()
    assert len(losses(run)) == 6


def test_the_diagnosis_names_the_sample_that_is_to_blame(images: Path, recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"sample 5 \(.*\.png\): its loss is not finite by itself"):
        pretrain(recipe(objective={"options": {"poison": 5}}), images, tmp_path / "run")


def test_a_file_that_breaks_while_training_is_passed_over_and_reported(recipe: Make, tmp_path: Path) -> None:
    images = toy.write_images(tmp_path / "images")
    config = recipe(data={"cache": "none"}, training={"workers": 0, "steps": 6})
    from swath.training.build import open_training_data

    dataset = open_training_data(config, images)
    victim = Path(dataset.paths[3])
    victim.write_bytes(victim.read_bytes()[:200])
    pretrain(config, dataset, tmp_path / "run")
    reported = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [entry["path"] for entry in reported] == [str(victim)]
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "run"))


def test_fewer_samples_than_a_batch(images: Path, recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"training.batch_size: 64 is more than the 24 samples.*at most 24"):
        pretrain(recipe(training={"batch_size": 64}), images, tmp_path / "run")


def test_the_callers_random_state_and_settings_are_left_alone(
    images: Path, recipe: Make, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    pretrain(recipe(training={"steps": 2}), images, tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
