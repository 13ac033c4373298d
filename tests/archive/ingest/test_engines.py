"""The same rows whatever spreads the work: one process, two under torchrun, a Ray cluster on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from swath.archive.archive import Archive
from swath.archive.ingest.run import EmbedReport, embed_archive
from swath.datasets.opening import open_dataset
from swath.errors import ArchiveError
from swath.models import Model, save_model


def rows_of(path: Path) -> pa.Table:
    return Archive.open(path).rows().sort_by("id")


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    assert found.drop("embedding").equals(expected.drop("embedding"))
    vectors = [np.stack(table["embedding"].to_numpy()) for table in (found, expected)]
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-6 * np.abs(vectors[1]).max()


@pytest.fixture
def collection(scenes: Path) -> Path:
    """Scenes with a corner of nodata, and one file that is broken."""
    (scenes / "broken.tif").write_bytes(b"II*\x00 and no more")
    return scenes


@pytest.fixture
def alone(model: Model, collection: Path, tmp_path: Path) -> tuple[pa.Table, EmbedReport]:
    """What one process makes of it."""
    dataset = open_dataset(collection, sensor="rgb_aerial", chip_size=32)
    report = embed_archive(model, dataset, tmp_path / "alone", batch_size=4, workers=0)
    assert (report.embedded, report.screened, len(report.failures)) == (22, 2, 1)
    return rows_of(tmp_path / "alone"), report


def test_two_processes_under_torchrun(
    model: Model, collection: Path, tmp_path: Path, alone: tuple[pa.Table, EmbedReport]
) -> None:
    directory = save_model(
        tmp_path / "model",
        encoder_name="vit_micro_patch16",
        encoder_options={"bands": 3},
        encoder=model.encoder,
        contract=model.contract,
    )
    archive = tmp_path / "two"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m",
        "swath.cli.main", "embed", str(directory), str(collection), "--to", str(archive), "--chip-size", "32",
        "--batch-size", "4", "--workers", "0", "--device", "cpu",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    for time, words in (("first", "22 chips embedded"), ("second", "0 chips embedded")):
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=240, env=environment, check=False
        )
        assert run.stderr.count(words) == 1, (time, run.stderr)  # one report, of both
        assert "1 could not be used" in run.stderr
    assert Archive.open(archive).model_path == str(directory)
    found = rows_of(archive)
    # Saved anew, the model has another name.
    assert_same(found.drop("model_id"), alone[0].drop("model_id"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster of two CPUs on this machine."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else its workers starve where others compute as well
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
        yield
        ray.shutdown()


def test_a_ray_cluster(
    model: Model, collection: Path, tmp_path: Path, alone: tuple[pa.Table, EmbedReport], cluster: None
) -> None:
    expected, report = alone
    dataset = open_dataset(collection, sensor="rgb_aerial", chip_size=32)
    seen: list[tuple[int, int]] = []

    def run() -> EmbedReport:
        return embed_archive(
            model, dataset, tmp_path / "ray", batch_size=4, workers=1, engine="ray",
            progress=lambda *now: seen.append(now),
        )  # fmt: skip

    found = run()
    assert (found.embedded, found.screened, found.failures) == (22, 2, report.failures)
    assert seen[-1] == (24, 24)
    assert_same(rows_of(tmp_path / "ray"), expected)
    for scene in collection.glob("scene_*.tif"):  # touched only: the vectors stay what they are
        os.utime(scene, (1, 1))
    dataset = open_dataset(collection, sensor="rgb_aerial", chip_size=32)
    again = run()
    assert (again.embedded, again.refreshed, again.present) == (0, 22, 0)
    assert_same(rows_of(tmp_path / "ray").drop("fingerprint"), expected.drop("fingerprint"))


def test_an_engine_that_does_not_exist(model: Model, collection: Path, tmp_path: Path) -> None:
    dataset = open_dataset(collection, sensor="rgb_aerial", chip_size=32)
    with pytest.raises(ArchiveError, match="must be 'local' or 'ray'"):
        embed_archive(model, dataset, tmp_path / "none", engine="spark")  # type: ignore[arg-type]
