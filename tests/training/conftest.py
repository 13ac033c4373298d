"""A toy method that registers from outside, its data and its recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers import toy_objective as toy
from swath.training.config.recipe import PretrainRecipe, parse_recipe


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def recipe() -> Callable[..., PretrainRecipe]:
    """Build a toy recipe with some keys replaced."""
    return lambda **sections: parse_recipe(toy.recipe_data(**sections))


@pytest.fixture
def recipe_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a toy recipe with some keys replaced."""

    def write(**sections: Any) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(toy.recipe_data(**sections)), encoding="utf-8")
        return path

    return write
