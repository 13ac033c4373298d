"""Locks: one at a time, nothing is written to the file, a link is refused, and a killed holder lets go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swath.errors import TrainingError
from swath.locks import exclusive_lock

HOLD = """
import os, sys, time
from pathlib import Path
from swath.errors import SwathError
from swath.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), SwathError, "is here"):
    if os.fork() == 0:  # as a loader worker, which may outlive a killed parent by some seconds
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_by_one_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "{a}.lock"
    with (
        exclusive_lock(path, TrainingError, "is here"),
        pytest.raises(TrainingError, match=f"^{tmp_path}: process {os.getpid()} is here$"),
        exclusive_lock(path, TrainingError, "is here"),
    ):
        pass
    assert path.read_bytes() == b""
    with exclusive_lock(path, TrainingError, "is here"):
        pass


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(KeyError), exclusive_lock(path, TrainingError, "is here"):
        raise KeyError
    with exclusive_lock(path, TrainingError, "is here"):
        pass


def test_a_file_that_is_there_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text("4711")  # versions before 0.2 wrote a process number
    with exclusive_lock(path, TrainingError, "is here"):
        pass
    assert path.read_text() == "4711"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_refused(tmp_path: Path, there: bool) -> None:
    precious, path = tmp_path / "precious", tmp_path / ".lock"
    if there:
        precious.write_text("data")
    path.symlink_to(precious)
    with (
        pytest.raises(TrainingError, match="symbolic link"),
        exclusive_lock(path, TrainingError, "is here"),
    ):
        pass
    assert precious.exists() == there
    assert not there or precious.read_text() == "data"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(TrainingError, match=r"file/\.lock: cannot be locked"),
        exclusive_lock(tmp_path / "file" / ".lock", TrainingError, "is here"),
    ):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_killed_holder_lets_go_though_its_child_lives(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(TrainingError, match=f"process {holder.pid} is here"),
            exclusive_lock(path, TrainingError, "is here"),
        ):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        began = time.monotonic()
        with exclusive_lock(path, TrainingError, "is here", timeout=30):
            assert time.monotonic() - began < 20  # its child sleeps for a minute
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
