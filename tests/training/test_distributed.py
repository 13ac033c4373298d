"""Two real processes under torchrun, talking over gloo, against one: same losses on the same global batch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from helpers import toy_objective as toy
from helpers.processes import environment
from helpers.toy_objective import SCALE_MAE
from swath.encoders import create_model
from swath.errors import RecipeError
from swath.training.build import open_training_data
from swath.training.config.recipe import parse_recipe
from swath.training.loading import BatchLoader
from swath.training.monitoring.metrics_log import read_metrics
from swath.training.parallel import World, sync_batch_norm
from swath.training.pretraining import pretrain

MONITORED = {"steps": 10, "monitor_every": 5, "images_every": 5, "clip": 0.5}

CMID: dict[str, Any] = {
    "encoder": {"name": "vit_micro_patch8", "options": {"depth": 1, "embed_dim": 16, "heads": 2}},
    "objective": {
        "name": "cmid",
        "options": {
            "view_size": 16,
            "mask_block": 8,
            "hidden_dim": 16,
            "out_dim": 8,
            "queue_size": 50,
            "prototypes": 8,
            "bottleneck_dim": 4,
            "matches": 2,
        },
    },
}

UNIFIED: dict[str, Any] = {
    "encoder": CMID["encoder"],
    "objective": {
        "name": "unified",
        "options": {
            "source_size": 16,
            "mask_ratio": 0.5,
            "decoder_dim": 16,
            "decoder_depth": 1,
            "decoder_heads": 2,
            "head": "linear",
            "local_weight": 1.0,
            "hidden_dim": 16,
            "out_dim": 8,
            "queue_size": 50,
            "prototypes": 8,
            "bottleneck_dim": 4,
            "matches": 2,
        },
    },
}


def recipes() -> dict[str, dict[str, Any]]:
    made = {
        "toy": toy.recipe_data(training=MONITORED),
        "scale_mae": toy.recipe_data(**SCALE_MAE, training=MONITORED),
        "cmid": toy.recipe_data(**CMID, training=MONITORED),
        "unified": toy.recipe_data(**UNIFIED, training=MONITORED),
    }
    return {
        f"{name}-{mode}": {**data, "training": {**data["training"], **options}}
        for name, data in made.items()
        for mode, options in {
            "ddp": {"parallel": "ddp"},
            "ddp-accumulated": {"parallel": "ddp", "gradient_accumulation_steps": 2},
            "fsdp": {"parallel": "fsdp"},
        }.items()
        # They compare samples, so have no parts; and one of them is enough to shard.
        if mode not in {"cmid": ["ddp-accumulated"], "unified": ["ddp-accumulated", "fsdp"]}.get(name, [])
    }


@pytest.fixture(scope="module")
def runs(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every recipe trained by two processes, and once, under `one-...`, by this one."""
    out = tmp_path_factory.mktemp("runs")
    pretrain(parse_recipe(recipes()["toy-ddp"]), images, out / "one-toy")
    pretrain(parse_recipe(recipes()["scale_mae-ddp"]), images, out / "one-scale_mae")
    pretrain(parse_recipe(recipes()["cmid-ddp"]), images, out / "one-cmid")
    pretrain(parse_recipe(recipes()["unified-ddp"]), images, out / "one-unified")
    half = recipes()["toy-fsdp"]
    half["training"] = {**half["training"], "checkpoint_every": 5, "keep": 9}
    stopped = {**recipes()["toy-ddp"], "objective": {"name": "toy_objective", "options": {"stop_at": 4}}}
    work = [[name, data, "auto"] for name, data in recipes().items()]
    work += [["resumed", half, "auto"], ["stopped", stopped, "auto"], ["stopped", stopped, "resume"]]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(Path(toy.__file__).with_name("two_processes.py")), str(images), str(out), json.dumps(work),
    ]  # fmt: skip
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    (out / "said.txt").write_text(done.stdout)
    return out


def losses(run: Path) -> list[float]:
    return [row["loss/total"] for row in read_metrics(run / "metrics.jsonl") if "loss/total" in row]


@pytest.mark.parametrize("name", sorted(recipes()))
def test_two_processes_have_the_losses_of_one(name: str, runs: Path) -> None:
    one = runs / f"one-{name.split('-')[0]}"
    assert len(losses(runs / name)) == 10
    np.testing.assert_allclose(losses(runs / name), losses(one), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(recipes()))
def test_two_processes_end_with_the_weights_and_monitors_of_one(name: str, runs: Path) -> None:
    one = runs / f"one-{name.split('-')[0]}"
    ours = load_file(runs / name / "model" / "model.safetensors")
    for key, value in load_file(one / "model" / "model.safetensors").items():
        mine = ours[key]
        if key.endswith("qkv.bias"):
            # A bias of keys changes no attention: its gradient is rounding, which Adam makes large.
            mine, value = (np.concatenate(np.split(x, 3)[::2]) for x in (mine, value))
        np.testing.assert_allclose(mine, value, atol=1e-4, err_msg=key)
    looks = [
        [row["rankme"] for row in read_metrics(run / "metrics.jsonl") if "rankme" in row]
        for run in (runs / name, one)
    ]
    np.testing.assert_allclose(looks[0], looks[1], rtol=1e-3)
    assert (runs / name / "images" / "step_00000010.png").is_file()


def test_a_sharded_run_continues_on_one_process(images: Path, runs: Path) -> None:
    run = runs / "resumed"
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "step_00000010")
    data = recipes()["toy-fsdp"]
    pretrain(parse_recipe(data), images, run, start="resume")
    np.testing.assert_allclose(losses(run), losses(runs / "one-toy"), atol=1e-5, rtol=1e-5)


def test_a_signal_to_one_process_stops_all_after_the_same_step(runs: Path) -> None:
    said = (runs / "said.txt").read_text()
    steps = {line.split()[-1] for line in said.splitlines() if line.startswith("stopped: rank")}
    assert said.count("stopped: rank") == 2
    assert len(steps) == 1
    assert 4 <= int(steps.pop()) <= 6
    # and the run, continued by both, is the one that was never stopped
    np.testing.assert_allclose(losses(runs / "stopped"), losses(runs / "one-toy"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("parts", [1, 2])
def test_ranks_and_parts_share_the_same_global_batches(ranks: int, parts: int, images: Path) -> None:
    dataset = open_training_data(parse_recipe(toy.RECIPE), images)
    seen: dict[int, list[int]] = {}
    for rank in range(ranks):
        batches = BatchLoader(dataset, seed=3, batch_size=8, rank=rank, ranks=ranks, accumulate=parts)
        for step in range(1, 7):
            seen.setdefault(step, []).extend(i for part in batches.parts(step) for i in part)
    whole = BatchLoader(dataset, seed=3, batch_size=8)
    assert seen == {step: whole.indices(step).tolist() for step in range(1, 7)}
    assert sorted(seen[1] + seen[2] + seen[3]) == list(range(24))  # an epoch is every sample once
    assert seen[1] != seen[4]


def test_a_batch_that_cannot_be_divided_is_refused(images: Path) -> None:
    dataset = open_training_data(parse_recipe(toy.RECIPE), images)
    with pytest.raises(RecipeError, match=r"batch_size: 8 cannot be divided among 3 processes x 1"):
        BatchLoader(dataset, seed=0, batch_size=8, ranks=3)


@pytest.mark.parametrize("name", ["resnet_nano", "regnety"])
def test_batch_norm_is_synchronized_on_gpus(name: str) -> None:
    options = {"architecture": "regnety_002"} if name == "regnety" else {}
    encoder = create_model("cnn" if options else name, bands=3, **options)
    weights = dict(encoder.named_parameters())
    shapes = {key: value.shape for key, value in encoder.state_dict().items()}
    sync_batch_norm(encoder, World(0, 1, torch.device("cuda")), "auto")
    sync_batch_norm(encoder, World(0, 2, torch.device("cuda")), False)
    sync_batch_norm(encoder, World(0, 2, torch.device("cpu")), "auto")
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in encoder.modules())
    image, gsd = torch.randn(1, 3, 32, 32), torch.ones(1)
    before = encoder.eval()(image, gsd).pooled
    sync_batch_norm(encoder, World(0, 2, torch.device("cuda")), "auto")
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert all(value is weights[key] for key, value in encoder.named_parameters())
    assert {key: value.shape for key, value in encoder.state_dict().items()} == shapes
    assert torch.equal(encoder(image, gsd).pooled, before)  # activations within timm's norms are kept


def test_synchronized_batch_norm_needs_gpus() -> None:
    with pytest.raises(RecipeError, match="needs GPUs and these 2 processes run on a CPU"):
        sync_batch_norm(create_model("resnet_nano"), World(0, 2, torch.device("cpu")), True)
    sync_batch_norm(create_model("vit_nano_patch8"), World(0, 2, torch.device("cpu")), True)  # has none
