"""Shared fixtures: where the real imagery and the reference tensors are, or a skip that says so."""

from __future__ import annotations

import os
from pathlib import Path

# One thread a process: the suite runs one process a core, and threads that wait for one another by spinning
# would fight for the same cores. Set before anything imports torch; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # after the variable that it must not be too late for

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT / default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set {variable} to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real imagery (environment variable SWATH_DATA_DIR)."""
    return _folder("SWATH_DATA_DIR", "../shared/data")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Folder of reference tensors (environment variable SWATH_PARITY_DIR)."""
    return _folder("SWATH_PARITY_DIR", "../shared/parity")
