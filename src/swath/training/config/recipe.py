"""Recipes: everything that decides a run's result, typed, checked before anything is loaded, and stored.

A recipe is a YAML file. Keys are refused when unknown (with a suggestion), values when of the wrong type;
messages give the dotted path and the file. `--set training.epochs=50` overrides single values. Encoders and
objectives are *registered names*, never Python paths: reading a recipe executes nothing.

Exactly one key of each of these groups is given; an override of one replaces the others of its group:

- budget: ``training.steps``, ``training.epochs`` or ``training.cpu_minutes``
- learning rate: ``optimizer.lr``, or ``optimizer.blr``, which is for 256 samples a step
- warm-up: ``training.warmup_steps``, ``training.warmup_epochs`` or ``training.warmup_fraction``
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from swath.encoders.pooling import Pooling
from swath.errors import RecipeError
from swath.objectives.protocol import objectives
from swath.renames import current_names, stored_names
from swath.training.config.errors import (
    _encoder_problems,
    _listed,
    _objective_problems,
    format_validation_error,
)
from swath.training.config.overrides import FREE_KEYS, _override, flatten
from swath.training.config.sections import (
    ComponentConfig,
    ContractConfig,
    DataConfig,
    OptimizerConfig,
    RecipeSection,
    TrainingConfig,
)
from swath.yaml_io import read_yaml, write_yaml


class BaseRecipe(RecipeSection):
    """What every run of the engine is made by, whatever it trains.

    Attributes:
        name: Of the model that comes out.
        description: For people.
        seed: Of all randomness: weights, order, crops, masks.
    """

    name: str = Field(pattern=r"^[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?$")
    description: str = ""
    seed: int = 0
    encoder: ComponentConfig
    optimizer: OptimizerConfig
    training: TrainingConfig

    @property
    def kind(self) -> str:
        """Of its keys in `swath.renames`."""
        return "recipe"

    @property
    def objective_name(self) -> str:
        """Name of the objective or task."""
        raise NotImplementedError

    @property
    def cached(self) -> bool:
        """Whether the data are in memory, so that there is nothing to wait for."""
        raise NotImplementedError

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str = "recipe", *, kind: str = "recipe") -> Self:
        """Check a recipe given as plain data; `where` names it in messages.

        Raises:
            RecipeError: Every problem, with file, dotted path and suggestion.
        """
        try:
            return cls.model_validate(current_names(data, kind, where))
        except ValueError as error:
            if not isinstance(error, ValidationError):
                raise RecipeError(f"{where}: {error}") from None
            raise RecipeError(format_validation_error(error, cls, where)) from None

    @property
    def learning_rate(self) -> float:
        """Peak learning rate of a step of `training.batch_size` samples."""
        if self.optimizer.lr is not None:
            return self.optimizer.lr
        assert self.optimizer.blr is not None
        return self.optimizer.blr * self.training.batch_size / 256

    def to_dict(self) -> dict[str, Any]:
        """As plain data with all defaults filled in; `PretrainRecipe.model_validate` takes it back."""
        return self.model_dump(mode="json")

    def hash(self) -> str:
        """Short hash of everything in it; the same for equal recipes, and under old and new names of keys."""
        stored = stored_names(self.to_dict(), self.kind)
        return hashlib.sha256(repr(sorted(flatten(stored).items())).encode()).hexdigest()[:12]

    def write(self, path: str | Path) -> None:
        """Write as YAML, atomically."""
        write_yaml(path, self.to_dict())


class PretrainRecipe(BaseRecipe):
    """A whole pretraining but for its data folder; see the module for the rules, each section for its keys.

    Attributes:
        sensor: A registered sensor's name, or the path of a sensor's YAML file; or a list of these, for
            imagery of places that several sensors see (`swath.datasets.pairs.dataset`).
        pooling: How the model that comes out makes one embedding of its features: mean, mean_std or cls; left
            out: as the encoder does.
    """

    sensor: str | Annotated[list[str], Field(min_length=1)]
    data: DataConfig = DataConfig()
    objective: ComponentConfig
    pooling: Pooling | None = None
    contract: ContractConfig = ContractConfig()

    @property
    def objective_name(self) -> str:  # noqa: D102
        return self.objective.name

    @property
    def cached(self) -> bool:  # noqa: D102
        return self.data.cache == "memory"

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str = "recipe", *, kind: str = "recipe") -> Self:
        """As of `BaseRecipe`; names and options of encoder and objective are checked too, and filled in."""
        recipe = super().parse(data, where, kind=kind)
        problems = [
            *_encoder_problems(recipe.encoder),
            *_objective_problems(recipe.objective),
            *_contract_problems(recipe),
        ]
        if problems:
            raise RecipeError(_listed(where, problems))
        # With the objective's defaults filled in: a stored recipe tells everything, whatever changes later.
        config = objectives.get(recipe.objective.name).config.model_validate(recipe.objective.options)
        objective = recipe.objective.model_copy(update={"options": config.model_dump(mode="json")})
        return recipe.model_copy(update={"objective": objective})

    @property
    def gsd_mode(self) -> Literal["metres", "relative"]:
        """The contract's mode, as stated or as ``data.gsd`` implies."""
        implied: Literal["metres", "relative"] = "relative" if self.data.gsd == "relative" else "metres"
        return self.contract.gsd_mode or implied


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> PretrainRecipe:
    """Read, override and check a recipe.

    Args:
        path: The YAML file. A sensor given as a path is looked for beside it, too.
        overrides: ``"training.epochs=50"`` and the like, values in YAML.

    Raises:
        RecipeError: Every problem, with file, dotted path and suggestion.
    """
    data = read_recipe(path, overrides)
    sensor = data.get("sensor")
    if isinstance(sensor, list):
        data["sensor"] = [_beside(one, path) for one in sensor]
    else:
        data["sensor"] = _beside(sensor, path)
    if data["sensor"] is None:
        del data["sensor"]  # reported as missing below
    return parse_recipe(data, where=str(path))


def read_recipe(
    path: str | Path, overrides: Sequence[str] = (), kind_of: Callable[[Any], str] = lambda _: "recipe"
) -> dict[str, Any]:
    """A recipe's data with overrides applied, not checked yet; arguments and errors as of `load_recipe`."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with keys such as `encoder` and `training`")
    try:
        kind = kind_of(data)
        data = current_names(data, kind, str(path))
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from None
    for override in overrides:
        _override(data, override, kind)
    return data


def _beside(sensor: Any, path: str | Path) -> Any:
    """A sensor's YAML file given by a path relative to the recipe, where that is the one that exists."""
    if isinstance(sensor, str) and sensor.endswith((".yaml", ".yml")) and not Path(sensor).is_file():
        beside = Path(path).parent / sensor
        return str(beside) if beside.is_file() else sensor
    return sensor


def parse_recipe(data: Mapping[str, Any], where: str = "recipe") -> PretrainRecipe:
    """Check a recipe given as plain data; `where` names it in messages. Raises as `load_recipe`."""
    return PretrainRecipe.parse(data, where)


# ------------------------------------------------------------------------------------------------ checks


def _contract_problems(recipe: PretrainRecipe) -> list[str]:
    contract = recipe.contract
    if contract.gsd_mode is not None and (contract.gsd_mode == "relative") != (recipe.data.gsd == "relative"):
        return [
            f"contract.gsd_mode: is {contract.gsd_mode}, but data.gsd is {recipe.data.gsd!r}; a model in "
            "relative mode is trained on `data: {gsd: relative}`, one in metres on real GSDs"
        ]
    if contract.reference_size is not None and recipe.gsd_mode != "relative":
        return ["contract.reference_size: has a meaning in relative mode only; leave it out"]
    return []


def diff_recipes(old: BaseRecipe, new: BaseRecipe) -> list[str]:
    """What of `new` is not as in `old`, one line a key, leaving out the `FREE_KEYS`."""
    before, after = flatten(old.to_dict()), flatten(new.to_dict())
    return [
        f"{key}: {before.get(key)!r} in the run, {after.get(key)!r} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in FREE_KEYS
    ]
