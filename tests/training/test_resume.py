"""A run that was killed anywhere and continued is, bit for bit, the run that was never interrupted (CPU)."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import toy_objective as toy
from helpers.processes import started, swath
from helpers.toy_objective import SCALE_MAE
from swath.errors import CheckpointError, RecipeError, TrainingError
from swath.files import sha256
from swath.training import checkpoint
from swath.training.checkpoint import list_checkpoints
from swath.training.config.recipe import PretrainRecipe
from swath.training.engine import Trainer
from swath.training.monitoring.metrics_log import read_metrics
from swath.training.pretraining import pretrain

Make = Callable[..., PretrainRecipe]


def losses(run: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss/total"]) for row in read_metrics(run / "metrics.jsonl")]


def weights(run: Path) -> str:
    return sha256(run / "model" / "model.safetensors")


def wait_for_rows(run: Path, count: int, alive: Callable[[], bool]) -> None:
    metrics = run / "metrics.jsonl"
    while alive():
        if metrics.is_file() and metrics.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("sections", "workers"), [({}, 1), (SCALE_MAE, 0)], ids=["toy, loader process", "scale_mae"]
)
def test_killed_at_random_points(
    sections: dict[str, Any], workers: int, images: Path, recipe: Make, tmp_path: Path
) -> None:
    config = recipe(**sections, training={"steps": 100, "checkpoint_every": 9, "workers": workers})
    pretrain(config, images, tmp_path / "undisturbed")
    chance = random.Random(7)
    run = tmp_path / "killed"
    rows = 0
    for _ in range(3):
        process = started(pretrain, config, images, run)
        wait_for_rows(run, rows + chance.randrange(5, 28), process.is_alive)
        time.sleep(chance.random() * 0.02)  # anywhere in a step, a line or a checkpoint
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended before it was killed; let it take more steps"
        rows = len(read_metrics(run / "metrics.jsonl"))
    assert not (run / "model").exists()
    pretrain(config, images, run)
    assert losses(run) == losses(tmp_path / "undisturbed")
    assert len(losses(run)) == 100
    assert weights(run) == weights(tmp_path / "undisturbed")
    assert not list(run.glob(".*.tmp"))
    assert not list((run / "checkpoints").glob(".*"))


def test_ctrl_c_saves_and_the_run_goes_on_as_if_nothing_had_been(
    images: Path, recipe: Make, tmp_path: Path
) -> None:
    config = recipe(training={"steps": 160, "checkpoint_every": 1000})
    pretrain(config, images, tmp_path / "undisturbed")
    run = tmp_path / "run"
    process = started(pretrain, config, images, run)
    wait_for_rows(run, 10, process.is_alive)
    os.kill(process.pid or 0, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    pretrain(config, images, run)
    assert losses(run) == losses(tmp_path / "undisturbed")
    assert weights(run) == weights(tmp_path / "undisturbed")


def test_sigterm_saves_and_exits_with_143(
    images: Path, recipe_file: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(training={"steps": 100_000, "checkpoint_every": 50_000, "log_every": 5})
    run = tmp_path / "run"
    process = started(swath, "pretrain", path, "--data", images, "--out", run)
    wait_for_rows(run, 2, process.is_alive)
    process.terminate()
    process.join()
    assert process.exitcode == 143
    said = capfd.readouterr().err
    (saved,) = list_checkpoints(run / "checkpoints")
    assert f"saved as {saved}; the same command continues" in said
    assert "Traceback" not in said


def pretrain_with_a_bug(config: PretrainRecipe, images: Path, run: Path) -> None:
    def broken(trainer: Trainer, parts: object) -> None:
        raise ZeroDivisionError("a bug")

    Trainer._train_step = broken  # type: ignore[assignment, method-assign]
    pretrain(config, images, run)


def test_a_bug_ends_a_run_that_has_loader_processes(
    images: Path, recipe: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Its loaders wait for work and ignore SIGTERM, which is all that Python sends before it waits for them.
    process = started(pretrain_with_a_bug, recipe(training={"workers": 1}), images, tmp_path / "run")
    process.join(120)
    assert process.exitcode == 1
    assert "ZeroDivisionError: a bug" in capfd.readouterr().err


def stopped_run(images: Path, config: PretrainRecipe, run: Path) -> None:
    """A run of 12 steps whose model is gone and whose last checkpoint is that of step 8."""
    pretrain(config, images, run)
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "step_00000012")


def test_a_checkpoint_cut_in_half_is_passed_over_with_a_warning(
    images: Path, recipe: Make, tmp_path: Path
) -> None:
    config = recipe(training={"keep": 5})
    whole, run = tmp_path / "whole", tmp_path / "run"
    pretrain(config, images, whole)
    stopped_run(images, config, run)
    broken = run / "checkpoints" / "step_00000008" / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"passed over: .*step_00000008.*does not have its checksum"):
        pretrain(config, images, run)
    assert losses(run) == losses(whole)
    assert weights(run) == weights(whole)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimiser.safetensors", "state.json", "checksums.json"]
)
def test_a_checkpoint_without_one_of_its_files(name: str, images: Path, recipe: Make, tmp_path: Path) -> None:
    config, run = recipe(), tmp_path / "run"
    stopped_run(images, config, run)
    (run / "checkpoints" / "step_00000008" / name).unlink()
    with (
        pytest.warns(UserWarning, match=rf"passed over: .*{name}"),
        pytest.raises(CheckpointError, match=r"none of the 1 checkpoints is valid.*--fresh"),
    ):
        pretrain(config, images, run)


def test_a_metrics_line_cut_by_a_kill_is_dropped(images: Path, recipe: Make, tmp_path: Path) -> None:
    config, whole, run = recipe(), tmp_path / "whole", tmp_path / "run"
    pretrain(config, images, whole)
    stopped_run(images, config, run)
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-20])
    pretrain(config, images, run)
    assert losses(run) == losses(whole)


def test_another_recipe_is_refused_with_what_differs(images: Path, recipe: Make, tmp_path: Path) -> None:
    pretrain(recipe(), images, tmp_path / "run")
    other = recipe(training={"steps": 20}, optimizer={"lr": 0.02})
    with pytest.raises(RecipeError) as caught:
        pretrain(other, images, tmp_path / "run")
    assert "training.steps: 12 in the run, 20 now" in str(caught.value)
    assert "optimizer.lr: 0.01 in the run, 0.02 now" in str(caught.value)
    assert "--fresh" in str(caught.value)
    pretrain(other, images, tmp_path / "run", start="fresh")
    assert len(losses(tmp_path / "run")) == 20


def test_what_does_not_change_a_result_may_change(images: Path, recipe: Make, tmp_path: Path) -> None:
    stopped_run(images, recipe(), tmp_path / "run")
    pretrain(recipe(training={"keep": 3, "log_every": 2}), images, tmp_path / "run", start="resume")


def test_other_data_are_refused(images: Path, recipe: Make, tmp_path: Path) -> None:
    stopped_run(images, recipe(), tmp_path / "run")
    more = toy.write_images(tmp_path / "more", 30)
    with pytest.raises(TrainingError, match=r"started with 24 samples in 24 files, now there are 30 in 30"):
        pretrain(recipe(), more, tmp_path / "run")


def test_nothing_to_resume(images: Path, recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there is no run to resume"):
        pretrain(recipe(), images, tmp_path / "run", start="resume")


def test_a_strangers_folder_is_not_touched(images: Path, recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(TrainingError, match="is not a run's folder"):
        pretrain(recipe(), images, tmp_path / "run")


def test_two_processes_do_not_train_in_one_folder(
    images: Path, recipe: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from swath.training.run_directory import RunDirectory

    with RunDirectory(tmp_path / "run").locked():
        process = started(pretrain, recipe(), images, tmp_path / "run")
        process.join()
    assert process.exitcode == 2
    assert f"process {os.getpid()} is training in this folder" in capfd.readouterr().err


def pretrain_on_a_disk_that_fills(config: PretrainRecipe, images: Path, run: Path) -> None:
    save = checkpoint.save

    def limited(*arguments: Any) -> Path:
        # From step 8 on the system lets no file grow beyond a few kilobytes: the write itself fails.
        if arguments[1].step > 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        return save(*arguments)

    checkpoint.save = limited
    pretrain(config, images, run)


def test_a_full_disk_leaves_the_earlier_checkpoint(
    images: Path, recipe: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config, run = recipe(encoder={"options": {"width": 64}}), tmp_path / "run"
    process = started(pretrain_on_a_disk_that_fills, config, images, run)
    process.join()
    assert process.exitcode == 2
    said = capfd.readouterr().err
    assert "step_00000008: the disk is full" in said
    assert "The checkpoint of step 4 is intact: make room and run the same command again" in said
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_00000004"]
    pretrain(config, images, run)
    assert json.loads((run / "model" / "config.json").read_text())["provenance"]["steps"] == 12


def test_more_than_the_disk_holds_is_not_even_begun(
    images: Path, recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9, 100)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(TrainingError, match=r"the disk is full.*There is no earlier one"):
        pretrain(recipe(), images, tmp_path / "run")
