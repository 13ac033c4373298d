"""Recipes of fine-tuning: as those of pretraining, with a task in place of the objective.

The encoder, its sensor and how it counts scale come from the model that is fine-tuned; a recipe names them
only to train from scratch without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, field_validator

from swath.errors import RecipeError, SwathError
from swath.models.directory import read_config
from swath.tasks.lora import LoRAConfig
from swath.tasks.protocol import tasks
from swath.training.config.errors import format_validation_error
from swath.training.config.recipe import BaseRecipe, read_recipe
from swath.training.config.sections import ComponentConfig, RecipeSection

Mode = Literal["frozen", "lora", "full", "scratch"]


class ModelSource(RecipeSection):
    """The model that is fine-tuned, as a stored recipe remembers it.

    Attributes:
        path: Its directory.
        id: Its id: a run does not go on with another one.
    """

    path: str
    id: str


class FinetuneRecipe(BaseRecipe):
    """A whole fine-tuning but for its data folder.

    Attributes:
        task: Name of a registered task (classify, segment, change, detect, ...), and its options.
        mode: What is trained. ``frozen``: the head alone. ``lora``: the head, and low-rank changes of the
            encoder, which are merged when the model is saved. ``full``: everything, with `layer_decay`.
            ``scratch``: everything, from random weights.
        data: How the data are read: the options of the task's `data_config`.
        model: Filled in from ``--model``.
        encoder: Filled in from the model; without one (``scratch``) named here.
        sensor: Which of the model's sensors the images are of, where it knows several; without a model any.
        layer_decay: Each layer of the encoder learns by this factor slower than the next one.
        lora: Options of the mode ``lora``.
        keep_weights: Which weights are kept at the end: the ``best`` on the validation split, looked at every
            ``training.monitor_every`` steps, or the ``last``.
        test_scales: Pixels and boxes: shares of the images' sides at which the test split is scored at the
            end. The first is 1, the images as they are.
        early_stopping_patience: Looks without a better score after which training ends; left out: never.
    """

    task: ComponentConfig
    mode: Mode = "full"
    data: dict[str, Any] = Field(default_factory=dict)
    model: ModelSource | None = None
    encoder: ComponentConfig
    sensor: str | None = None
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    lora: LoRAConfig = LoRAConfig()
    keep_weights: Literal["best", "last"] = "best"
    test_scales: list[Annotated[float, Field(gt=0)]] = Field(default_factory=lambda: [1.0, 0.75, 0.5])
    early_stopping_patience: int | None = Field(default=None, gt=0)

    @field_validator("test_scales")
    @classmethod
    def _whole_first(cls, scales: list[float]) -> list[float]:
        if not scales or scales[0] != 1 or len(set(scales)) < len(scales):
            raise ValueError(f"scales begin with 1 and name each share once, not {scales}")
        return scales

    @property
    def objective_name(self) -> str:
        """Name of the task."""
        return self.task.name

    @property
    def cached(self) -> bool:
        """Whether the data are in memory."""
        return bool(self.data.get("cache") == "memory")

    @property
    def options(self) -> Any:
        """The task's typed options, without classes."""
        return tasks.get(self.task.name).config.model_validate(self.task.options)

    @property
    def how_read(self) -> Any:
        """The data's typed options."""
        return tasks.get(self.task.name).task.data_config.model_validate(self.data)

    @property
    def kind(self) -> str:
        """Of its keys in `swath.renames`: tasks have names of their own."""
        return _kind(self.model_dump(include={"task"}))

    @classmethod
    def parse(cls, data: Any, where: str = "recipe", *, kind: str = "") -> Self:
        """As of `BaseRecipe`; options of the task and its data are checked too, and defaults filled in.

        Raises:
            RecipeError: Every problem, with file, dotted path and suggestion.
        """
        recipe = super().parse(data, where, kind=_kind(data))
        try:
            entry = tasks.get(recipe.task.name)
        except SwathError as error:
            raise RecipeError(f"{where}: task.name: {error}") from None
        if recipe.mode != "scratch" and recipe.model is None:
            raise RecipeError(f"{where}: mode {recipe.mode} needs a model to begin with: give --model")
        if recipe.layer_decay != 1 and recipe.mode in ("frozen", "lora"):
            raise RecipeError(
                f"{where}: layer_decay has no meaning in mode {recipe.mode}, where the layers are frozen"
            )
        options = _checked(entry.config, recipe.task.options, f"{where}: task.options")
        read = _checked(entry.task.data_config, recipe.data, f"{where}: data")
        return recipe.model_copy(
            update={"task": recipe.task.model_copy(update={"options": options}), "data": read}
        )


def load_finetune_recipe(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    model: str | Path | None = None,
    task: str | None = None,
) -> FinetuneRecipe:
    """Read, override and check a recipe.

    Args:
        path: The YAML file.
        overrides: ``"training.epochs=50"`` and the like.
        model: Directory of the model that is fine-tuned (of ``scratch``: whose architecture is taken).
        task: The task that the recipe has to be for.

    Raises:
        RecipeError: Every problem, with file, dotted path and suggestion.
        CheckpointError: `model` is no model directory.
    """
    data = read_recipe(path, overrides, _kind)
    if model is None and "encoder" not in data:
        raise RecipeError(
            f"{path}: what is fine-tuned? Give --model DIR; or, to train from random weights without one, "
            "--set mode=scratch --set encoder.name=vit_small_patch16 --set sensor=rgb_aerial"
        )
    said = data.get("task", {}).get("name") if isinstance(data.get("task"), dict) else None
    if task is not None and said is not None and said != task:
        raise RecipeError(f"{path}: is a recipe of the task {said!r}: use `swath finetune {said}`")
    if "model" in data:
        raise RecipeError(f"{path}: model: is given on the command line, with --model")
    if model is not None:
        if "encoder" in data:
            raise RecipeError(f"{path}: encoder: comes from the model that --model names; leave it out")
        config = read_config(model)
        data["model"] = {"path": str(model), "id": config["id"]}
        data["encoder"] = {"name": config["encoder"]["name"], "options": dict(config["encoder"]["options"])}
    return FinetuneRecipe.parse(data, where=str(path))


def _checked(model: type[BaseModel], options: dict[str, Any], where: str) -> dict[str, Any]:
    """Options with defaults filled in, as plain data."""
    try:
        return model.model_validate(options).model_dump(mode="json")
    except ValidationError as error:
        raise RecipeError(format_validation_error(error, model, where)) from None


def _kind(data: Any) -> str:
    """Of a recipe's keys in `swath.renames`."""
    task = data.get("task")
    return f"finetune/{task.get('name') if isinstance(task, dict) else ''}"
