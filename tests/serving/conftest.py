"""One small archive and one real server for all tests that do not need their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from helpers import served as served
from swath.models import Model
from swath.serving.client import Client


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served.make_model(tmp_path_factory.mktemp("served_model") / "micro")


@pytest.fixture(scope="session")
def served_model(model_folder: Path) -> Model:
    return served.load(model_folder)


@pytest.fixture(scope="session")
def archive_folder(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    served.make_archive(folder, served_model)
    return folder / "archive"


@pytest.fixture(scope="session")
def address(archive_folder: Path, model_folder: Path) -> Iterator[str]:
    with served.server(archive_folder, "--model", str(model_folder)) as (url, _):
        yield url


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client
