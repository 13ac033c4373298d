"""Pretraining by a recipe, from data to a model directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from swath.cpu.allocator import retain_freed_memory
from swath.errors import RecipeError
from swath.models.contract import Contract
from swath.models.directory import SavedObjective, load_encoder, save_model
from swath.models.model import Model
from swath.training.build import (
    Data,
    bands_per_sensor,
    build_contract,
    build_objective,
    open_training_data,
)
from swath.training.config.recipe import PretrainRecipe, load_recipe
from swath.training.engine import R, Trainer
from swath.training.parallel import (
    World,
    broadcast_object,
    init_distributed,
)
from swath.training.precision import _numerics
from swath.training.run_directory import RunDirectory, Start


class Pretrainer(Trainer[PretrainRecipe]):
    """Trains an objective on unlabeled imagery."""

    def __init__(
        self,
        recipe: PretrainRecipe,
        data: str | Path | Data,
        run: RunDirectory,
        world: World,
        *,
        show: bool = False,
    ) -> None:
        dataset = open_training_data(recipe, data) if isinstance(data, str | Path) else data
        super().__init__(recipe, dataset, run, world, show=show)

    def build_contract(self, gsd_range: tuple[float, float] | None = None) -> Contract:
        """What the model may be shown."""
        return build_contract(self.recipe, self.sensors, gsd_range)

    def build_objective(self) -> nn.Module:
        """What is trained, as it is before the first step."""
        return build_objective(self.recipe, self.sensors)

    def write_model(self, objective: nn.Module, contract: Contract, provenance: dict[str, Any]) -> None:
        """The model directory, of an objective with its final weights."""
        recipe = self.recipe
        prefix = "encoder."
        save_model(
            self.run.model,
            name=recipe.name,
            encoder_name=recipe.encoder.name,
            encoder_options={"bands": bands_per_sensor(self.sensors), **recipe.encoder.options},
            encoder=objective.encoder,  # type: ignore[arg-type]
            contract=contract,
            pooling=recipe.pooling,
            objective=SavedObjective(
                recipe.objective.name,
                recipe.objective.options,
                {key: value for key, value in objective.state_dict().items() if not key.startswith(prefix)},
            ),
            provenance=provenance,
        )


def pretrain(
    recipe: PretrainRecipe | str | Path,
    data: str | Path | Data,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    start: Start = "auto",
    progress: bool = False,
) -> Model:
    """Train a model without labels by a recipe; under torchrun, together with the other processes.

    Args:
        recipe: A recipe's YAML file, or a recipe from `load_recipe`.
        data: Imagery as `open_dataset` takes it, or a data set.
        out: The run's folder (see `swath.training.run_directory`); the model directory is ``out/model``.
        overrides: Keys of the file to change: ``"training.epochs=50"`` and the like, values in YAML.
        start: ``auto`` continues what is there, ``resume`` insists on it, ``fresh`` removes an earlier run.
        progress: Show progress on the terminal.

    Raises:
        RecipeError: Recipe and data, or recipe and run, do not fit.
        ImageryError: The data cannot be used.
        TrainingError: Numbers not finite, disk full, folder in use.
        TrainingInterrupted: SIGTERM or SIGINT came; the run is saved.
    """
    if not isinstance(recipe, PretrainRecipe):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        raise RecipeError("overrides change a recipe file: give its path, or change the recipe itself")
    return load_encoder(run_training(Pretrainer, recipe, data, out, start=start, show=progress))


def run_training(
    trainer: Callable[..., Trainer[R]],
    recipe: R,
    data: str | Path | Data,
    out: str | Path,
    *,
    start: Start = "auto",
    show: bool = False,
) -> Path:
    """What every kind of training does around its loop; returns the model directory, ``out/model``.

    Arguments and errors as of `pretrain`.
    """
    retain_freed_memory()
    with init_distributed(recipe.training.device) as world, _numerics(recipe, world.device):
        run = RunDirectory(out)
        with run.locked() if world.first else nullcontext():
            if world.first:
                run.prepare(recipe, start)
            broadcast_object(None, world)  # the others wait until the folder is ready
            return trainer(recipe, data, run, world, show=show).train()
