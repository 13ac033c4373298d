from __future__ import annotations

from pathlib import Path

import pytest

from helpers.eval_scenes import split_of, write_scenes
from swath.evaluation.data.splits import TrainTestSplit


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CSV of four easy classes, 12 bank images and 5 queries each, 32 px at 0.5 m."""
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def split(table: Path) -> TrainTestSplit:
    return split_of(table, cache="memory")
