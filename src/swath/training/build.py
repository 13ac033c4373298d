"""From a recipe to the objects of a run: data, contract, objective."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from swath.datasets.protocol import ImageDataset, PairedDataset
from swath.encoders.protocol import create_model
from swath.errors import RecipeError
from swath.models.contract import Contract
from swath.objectives.protocol import objectives
from swath.sensors.sensor import Sensor
from swath.training.config.recipe import PretrainRecipe

# Of a recipe's `data`, what opening pairs understands; the layouts of one sensor's imagery have the others.
_OF_PAIRS = {"layout", "gsd", "size", "resize_mode", "cache", "split", "offset_dn", "classes", "subset"}

Data = ImageDataset | PairedDataset
Sensors = Sensor | tuple[Sensor, ...]  # a data set's one sensor, or the sensors of its pairs


def open_training_data(recipe: PretrainRecipe, path: str | Path) -> Data:
    """The recipe's view of the imagery at `path`: pairs where it names a list of sensors.

    Raises:
        RecipeError: A key of `data` that pairs do not have.
        ImageryError: Nothing usable at `path`.
    """
    # Imported here: a run on a data set of the caller's needs no geodata library.
    from swath.datasets.opening import open_dataset
    from swath.datasets.pairs.opening import open_pairs

    options = {key: value for key, value in recipe.data.model_dump().items() if value is not None}
    if isinstance(recipe.sensor, str):
        return open_dataset(path, sensor=recipe.sensor, seed=recipe.seed, **options)
    foreign = sorted(set(options) - _OF_PAIRS)
    if foreign:
        raise RecipeError(
            f"data.{foreign[0]}: has no meaning for pairs of sensors, which have "
            f"{', '.join(sorted(_OF_PAIRS))}"
        )
    return open_pairs(path, sensors=recipe.sensor, seed=recipe.seed, **options)


def dataset_sensors(data: Data) -> Sensors:
    """The sensor of a data set, or those of its pairs."""
    return data.sensors if isinstance(data, PairedDataset) else data.sensor


def bands_per_sensor(sensors: Sensors) -> int | dict[str, int]:
    """What an encoder for these sensors is built with."""
    if isinstance(sensors, Sensor):
        return len(sensors.bands)
    return {sensor.name: len(sensor.bands) for sensor in sensors}


def build_contract(
    recipe: PretrainRecipe, sensors: Sensors, gsd_range: tuple[float, float] | None = None
) -> Contract:
    """The contract of the recipe's model; a sensor without statistics is refused."""
    named = (sensors,) if isinstance(sensors, Sensor) else sensors
    return Contract(
        sensors={sensor.name: sensor for sensor in named},
        gsd_mode=recipe.gsd_mode,
        reference_gsd=recipe.contract.reference_gsd,
        reference_size=recipe.contract.reference_size,
        gsd_range=gsd_range,
    )


def build_objective(recipe: PretrainRecipe, sensors: Sensors) -> nn.Module:
    """The objective around its encoder, freshly initialized: the same weights for the same recipe."""
    entry = objectives.get(recipe.objective.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        try:
            encoder = create_model(
                recipe.encoder.name, bands=bands_per_sensor(sensors), **recipe.encoder.options
            )
        except ValueError as error:
            raise RecipeError(f"encoder.options: {error}") from None
        objective = entry.build(encoder, entry.config.model_validate(recipe.objective.options))
    if hasattr(objective, "know_sensors"):
        named = (sensors,) if isinstance(sensors, Sensor) else sensors
        objective.know_sensors(named)  # type: ignore[operator]
    return objective
