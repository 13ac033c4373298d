"""From a recipe to the objects of a run: data, contract, objective."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from swath.encoders.protocol import create_model
from swath.errors import RecipeError
from swath.imagery.datasets import open_dataset
from swath.imagery.samples import ImageDataset
from swath.imagery.sensors import Sensor
from swath.models.contract import Contract
from swath.objectives.protocol import objectives
from swath.training.recipe import Recipe


def open_data(recipe: Recipe, path: str | Path) -> ImageDataset:
    """The recipe's view of the imagery at `path`."""
    options = {key: value for key, value in recipe.data.model_dump().items() if value is not None}
    return open_dataset(path, sensor=recipe.sensor, seed=recipe.seed, **options)


def build_contract(recipe: Recipe, sensor: Sensor, gsd_range: tuple[float, float] | None = None) -> Contract:
    """The contract of the recipe's model; a sensor without statistics is refused."""
    return Contract(
        sensors={sensor.name: sensor},
        gsd_mode=recipe.gsd_mode,
        reference_gsd=recipe.contract.reference_gsd,
        reference_size=recipe.contract.reference_size,
        gsd_range=gsd_range,
    )


def build_objective(recipe: Recipe, sensor: Sensor) -> nn.Module:
    """The objective around its encoder, freshly initialised: the same weights for the same recipe."""
    entry = objectives.get(recipe.objective.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        try:
            encoder = create_model(recipe.encoder.name, bands=len(sensor.bands), **recipe.encoder.options)
        except ValueError as error:
            raise RecipeError(f"encoder.options: {error}") from None
        return entry.build(encoder, entry.config.model_validate(recipe.objective.options))
