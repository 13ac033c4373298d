"""SIGKILL at random moments of appending, replacing, deleting and compacting; readers beside a writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from swath.archive.archive import Archive

ROUNDS = 24


@pytest.mark.skipif(sys.platform == "win32", reason="forks and signals")
def test_killed_at_random_nothing_acknowledged_is_lost_and_nothing_is_doubled(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "helpers" / "killed_writers.py"
    finished = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(ROUNDS)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    rounds = [json.loads(line) for line in finished.stdout.splitlines()]
    assert len(rounds) == ROUNDS
    for one in rounds:
        assert one["rows"] == one["distinct"], f"a row is there twice: {one}"
        assert one["as_acknowledged"] or one["with_the_last"], f"lost, or half of a change: {one}"
        assert one["means"], f"sums by sensor that are not true: {one}"
    # The rounds have really met what they are about.
    assert len({one["killed_in"] for one in rounds} - {None}) >= 3
    assert {"append", "upsert", "replace", "delete", "compact"} <= set(rounds[-1]["done"])


def test_a_reader_of_a_young_version_is_not_disturbed_by_compacting(
    tmp_path: Path, rows: Callable[..., pa.Table]
) -> None:
    archive = Archive.create(tmp_path / "archive", "micro-1", 8)
    for first in range(8):
        archive.upsert(rows(5, first=5 * first))
    reader = Archive.open(archive.path)
    old = archive.at(archive.version - 2)
    stream = reader.batches(["id", "embedding"])
    archive.delete(rows(5)["id"].to_pylist())
    done = archive.compact(keep=timedelta(days=1))
    assert done.files_before in (7, 8)  # a file whose rows are all deleted may go at once
    assert (done.files, done.versions_removed) == (1, 0)
    assert sum(batch.num_rows for batch in stream) in (35, 40)  # one version, whole
    assert old.rows().num_rows == 30
    assert reader.count() == 35
    gone = archive.compact(keep=timedelta(0))
    assert gone.versions_removed >= 10
    assert len(archive.versions()) <= 2
    assert archive.count() == 35
