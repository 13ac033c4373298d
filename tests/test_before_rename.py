"""What Swath 0.1 stored opens under today's names and gives the same numbers.

`tests/data/before_rename` holds it: models, recipes, interrupted runs, tables and an archive, made by its
`make.py` on the tree before the renaming.
"""

from __future__ import annotations

import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

import swath
from swath.archive.archive import Archive
from swath.archive.ingest import chip_ids
from swath.archive.ingest.run import embed_archive
from swath.catalog.catalog import Catalog
from swath.cli.main import build_app
from swath.datasets.opening import open_dataset
from swath.datasets.pairs.csv_table import read_pair_csv
from swath.tasks.model import load_task_model
from swath.training.monitoring.metrics_log import read_metrics

HERE = Path(__file__).parent / "data" / "before_rename"
EXPECTED = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
EMBEDDED_FROM = "/data/before_rename"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of old files, unpacked; relative paths in them start here."""
    with tarfile.open(HERE / "before_rename.tar.gz") as file:
        file.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Path("before_rename")
    torch.set_num_threads(threads)


def command(*arguments: object) -> str:
    result = CliRunner().invoke(build_app(), [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def close(values: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(
        values.double().flatten()[:12], torch.tensor(expected).double(), rtol=1e-5, atol=1e-6
    )


def test_a_model_embeds_as_before(old: Path) -> None:
    images = torch.arange(2 * 3 * 16 * 16, dtype=torch.float32).reshape(2, 3, 16, 16) % 251
    close(swath.load_model(old / "model").embed(images, gsd=0.5), EXPECTED["model"])


@pytest.mark.parametrize("task", ["classify", "segment", "change", "detect"])
def test_a_task_model_predicts_as_before(old: Path, task: str) -> None:
    size = 64 if task == "detect" else 16
    image = torch.arange(3 * size * size, dtype=torch.float32).reshape(1, 3, size, size) % 251
    if task == "change":
        image = torch.stack([image[0], image[0].flip(-1)])[None]
    result: Any = load_task_model(old / f"{task}_model").predict(image, gsd=0.5)
    close(result[0]["scores"] if task == "detect" else result, EXPECTED[task])


def losses(run: Path, steps: dict[str, float]) -> dict[str, float]:
    rows = read_metrics(run / "metrics.jsonl")
    return {
        str(row["step"]): row["loss/total"]
        for row in rows
        if str(row["step"]) in steps and "loss/total" in row
    }


def test_an_interrupted_pretraining_run_resumes_to_the_same_losses(old: Path) -> None:
    run = old / "pretraining"
    (run / "problems.jsonl").write_text('{"path": "gone.png", "problem": "gone"}\n')
    (run / "pictures").mkdir(exist_ok=True)
    (run / "pictures" / "step_00000001.png").touch()
    command("pretrain", old / "pretrain.yaml", "--data", old / "images" / "index.csv", "--out", run)
    assert losses(run, EXPECTED["pretraining"]) == pytest.approx(EXPECTED["pretraining"], rel=1e-5)
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "lr" in row]
    assert all("data_wait_fraction" in row and "data_wait" not in row for row in rows)
    assert (run / "images" / "step_00000001.png").is_file()
    assert "gone" in (run / "skipped.jsonl").read_text()
    assert not any((run / name).exists() for name in ("pictures", "problems.jsonl"))


def test_an_interrupted_finetuning_run_resumes_to_the_same_losses(old: Path) -> None:
    run = old / "finetuning"
    data, model = old / "classify_data", old / "model"
    command(
        "finetune", "classify", old / "finetune_classify.yaml", "--model", model, "--data", data, "--out", run
    )
    assert losses(run, EXPECTED["finetuning"]) == pytest.approx(EXPECTED["finetuning"], rel=1e-5)


def test_embedding_again_adds_and_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, here = chip_ids.chip_id, str(old.absolute())
    monkeypatch.setattr(
        chip_ids, "chip_id", lambda source, *rest: usual(source.replace(here, EMBEDDED_FROM), *rest)
    )
    model = swath.load_model(old / "model")
    scenes = open_dataset(old / "scenes", sensor="rgb_aerial", layout="chips", chip_size=16, offset_dn=0)
    whole = open_dataset(
        old / "images", sensor="rgb_aerial", layout="images", size=16, resize_mode="center_crop", gsd=0.5
    )
    for dataset in (scenes, whole):
        report = embed_archive(model, dataset, str(old / "archive"))
        assert (report.embedded, report.removed, report.failures) == (0, 0, [])
    archive = Archive.open(old / "archive")
    assert sorted(archive.rows(["id"])["id"].to_pylist()) == EXPECTED["archive"]["ids"]
    found = archive.search(like=EXPECTED["archive"]["ids"][:1], k=5)
    assert [one.id for one in found] == [id for id, _ in EXPECTED["archive"]["search"]]
    assert [one.score for one in found] == pytest.approx(
        [s for _, s in EXPECTED["archive"]["search"]], rel=1e-5
    )


def test_tables_and_recipes_open(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(Catalog.read(old / "catalogue.parquet").entries) == 2
        table = read_pair_csv(old / "pairs.csv", [swath.get_sensor("rgb_aerial"), swath.get_sensor("naip")])
    assert len(table.records) == 2


def test_a_suite_of_old_keys_runs(old: Path) -> None:
    command("evaluate", "suite", old / "suite.yaml", "-o", old / "suite")
    assert (old / "suite" / "suite.html").exists()


def test_old_recipes_are_recipes_of_today(old: Path) -> None:
    for path in old.glob("*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)
