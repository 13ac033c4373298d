"""Recipes: everything that decides a run's result, typed, checked before anything is loaded, and stored.

A recipe is a YAML file. Keys are refused when unknown (with a suggestion), values when of the wrong type;
messages give the dotted path and the file. `--set training.epochs=50` overrides single values. Encoders and
objectives are *registered names*, never Python paths: reading a recipe executes nothing.

Exactly one key of each of these groups is given; an override of one replaces the others of its group:

- budget: ``training.steps``, ``training.epochs`` or ``training.cpu_minutes``
- learning rate: ``optimiser.lr``, or ``optimiser.blr``, which is for 256 samples a step
- warm-up: ``training.warmup_steps``, ``training.warmup_epochs`` or ``training.warmup_fraction``
"""

from __future__ import annotations

import hashlib
import inspect
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter, ValidationError, model_validator

from swath.encoders.pooling import Pooling
from swath.encoders.protocol import encoders
from swath.errors import RecipeError, SwathError, suggest
from swath.objectives.protocol import objectives
from swath.yaml_io import read_yaml, write_yaml, yaml_value

GROUPS = (
    ("training.steps", "training.epochs", "training.cpu_minutes"),
    ("optimiser.lr", "optimiser.blr"),
    ("training.warmup_steps", "training.warmup_epochs", "training.warmup_fraction"),
)

# Changing these while a run is under way changes neither its weights nor its losses.
FREE_KEYS = frozenset({
    "description", "training.workers", "training.checkpoint_every", "training.keep", "training.log_every",
    "training.pictures_every", "training.monitor_every", "training.monitor_images", "training.tensorboard",
    "model.path",
})  # fmt: skip


class RecipeSection(BaseModel):
    """A part of a recipe. Strict: "50" is not a number; extra keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(RecipeSection):
    """How the folder given by ``--data`` is read; what is left out is `open_dataset`'s default.

    Attributes:
        layout: ``auto`` looks at what is there; or chips, class_folder, csv, hdf5, images; for a list
            of sensors pairs, bigearthnet, sen12ms, ssl4eo, sen1floods11.
        gsd: Metres per pixel, ``relative`` (1.0 at native resolution), or a column of the CSV table;
            left out: from each file's georeference.
        size: Pixels (side, or height and width) that whole images are brought to by `fit`.
        fit: centre_crop, random_crop or resize.
        cache: ``memory`` decodes every image once, at the start.
        max_pixels: Largest whole image accepted.
        root: Folder that a CSV table's file names are relative to.
        file: Column of file names.
        label: Column of class names; of HDF5, the data set of class indices.
        group: Of HDF5, the data set or group of the images, where there are others.
        fold: Keep the rows with this value in the column ``fold``.
        where: Keep the rows with these values: ``{scale: "0"}``.
        sampling: Chips on a ``grid`` or at ``random``.
        chip_size: Side of a chip in native pixels.
        chip_metres: Side of a chip on the ground, instead of `chip_size`.
        stride: Step of the grid in pixels.
        chips_per_epoch: Chips of an epoch of random sampling.
        min_valid: Least share of valid pixels in a chip.
        align: Whether random chips start on the files' block boundaries.
        pattern: Take only scenes whose path below the folder matches, such as ``*/s2.tif``.
        classes: Class folders in the order of their indices; left out: all, sorted.
        subset: ``ben14k`` of BigEarthNet.
        offset_dn: Added to stored values before scaling, for Sentinel-2 files that do not say their
            processing baseline: -1000 from baseline 04.00, 0 before.
    """

    layout: Literal[
        "auto", "chips", "class_folder", "csv", "hdf5", "images",
        "pairs", "bigearthnet", "sen12ms", "ssl4eo", "sen1floods11",
    ] = "auto"  # fmt: skip
    gsd: float | str | None = None
    size: int | Annotated[tuple[int, int], Strict(False)] | None = None
    fit: Literal["centre_crop", "random_crop", "resize"] | None = None
    cache: Literal["none", "memory"] | None = None
    max_pixels: int | None = None
    root: str | None = None
    file: str | None = None
    label: str | None = None
    group: str | None = None
    fold: str | None = None
    where: dict[str, str | list[str]] | None = None
    sampling: Literal["grid", "random"] | None = None
    chip_size: int | None = Field(default=None, gt=0)
    chip_metres: float | None = Field(default=None, gt=0)
    stride: int | None = Field(default=None, gt=0)
    chips_per_epoch: int | None = Field(default=None, gt=0)
    min_valid: float | None = Field(default=None, ge=0, le=1)
    align: bool | None = None
    pattern: str | None = None
    classes: list[str] | None = None
    subset: str | None = None
    offset_dn: float | None = None


class ComponentConfig(RecipeSection):
    """A registered name and its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class ContractConfig(RecipeSection):
    """What the model will promise beside its sensor.

    Attributes:
        gsd_mode: ``metres`` or ``relative``; left out: relative if ``data.gsd`` is, else metres.
        reference_gsd: Positions are scaled by gsd / reference_gsd.
        reference_size: Relative mode: side in pixels at which an image's GSD counts as 1.
    """

    gsd_mode: Literal["metres", "relative"] | None = None
    reference_gsd: float = Field(default=1.0, gt=0)
    reference_size: int | None = Field(default=None, gt=0)


_BETAS: dict[str, tuple[float, ...]] = {"adamw": (0.9, 0.95), "adan": (0.98, 0.92, 0.99)}


class OptimizerConfig(RecipeSection):
    """The optimiser; its schedule is `TrainingConfig.schedule`.

    Attributes:
        name: ``adamw`` (Loshchilov and Hutter 2019), or ``adan`` (Xie et al. 2022), CMID's.
        lr: Peak learning rate, or
        blr: the same for a batch of 256; the rate used is blr x batch_size / 256.
        final_lr: Share of the peak that the cosine ends at.
        betas: Decay rates: AdamW's two moments (0.9, 0.95 where not given), or Adan's gradient, change of
            gradient and second moment (0.98, 0.92, 0.99).
        eps: Added to the root of the second moment.
        weight_decay: Applied to matrices and kernels; never to biases, norms and other 1-D parameters.
        decay_tokens: Whether learned tokens (class, mask) decay too, as in MAE and Scale-MAE.
        decay_all: Whether everything that is trained decays, biases and norms too, as in CSMAE's runs.
    """

    name: Literal["adamw", "adan"] = "adamw"
    lr: float | None = Field(default=None, gt=0)
    blr: float | None = Field(default=None, gt=0)
    final_lr: float = Field(default=0.0, ge=0, le=1)
    betas: Annotated[tuple[float, ...], Strict(False)] | None = None
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    decay_tokens: bool = True
    decay_all: bool = False

    @model_validator(mode="before")
    @classmethod
    def _usual_betas(cls, data: Any) -> Any:
        """Put numbers for the default that depends on the optimiser, so that a stored recipe shows them."""
        if isinstance(data, Mapping) and data.get("betas") is None:
            data = {**data, "betas": _BETAS.get(data.get("name", "adamw"), _BETAS["adamw"])}
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _one_of(self, ("lr", "blr"))
        assert self.betas is not None
        if len(self.betas) != len(_BETAS[self.name]):
            raise ValueError(f"{self.name} has {len(_BETAS[self.name])} betas, not {list(self.betas)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas lie in [0, 1), not {list(self.betas)}")
        return self


class TrainingConfig(RecipeSection):
    """The budget, the size of a step, and what is watched.

    Attributes:
        steps: Budget as optimiser steps, or
        epochs: as passes over the data, or
        cpu_minutes: as CPU time of the process; the schedule then follows the share spent. How far such a
            run gets depends on the machine, so it resumes where it was but is not bit-reproducible.
        batch_size: Samples of one optimiser step, over all ranks and accumulated parts together.
        accumulate: In how many parts a rank computes its share of a step; same result, less memory.
        warmup_steps: Steps of linear warm-up, or
        warmup_epochs: epochs of it, or
        warmup_fraction: share of the budget (5 % where none is given).
        schedule: ``cosine``: linear warm-up and half a cosine over the share of the budget spent;
            ``cosine_bolts``: the same in whole steps from rate 0, as lightning-bolts counts them (CSMAE);
            ``cosine_scaled``: a cosine over the whole run, scaled down while it warms up (CMID).
        clip: Largest gradient norm; none: not clipped (it is measured all the same).
        precision: fp32; bf16 (autocast); fp16 (autocast and loss scaling, GPU only).
        device: ``auto`` takes a GPU if there is one.
        compile: Let torch.compile compile the objective: slow to start, faster after.
        parallel: Under torchrun: ``ddp`` replicates the weights, ``fsdp`` shards them (FSDP2).
        sync_batch_norm: Under torchrun, BatchNorm takes its statistics over the samples of all processes
            rather than of each one. ``auto``: where that is possible, which is on GPUs; true insists on it.
            Everything that has BatchNorm follows, a teacher too. (PyTorch's SyncBatchNorm runs on GPUs only.)
        find_unused: DDP looks for parameters that a step does not use; for objectives that have such.
        deterministic: Only deterministic kernels, so that a resumed run is bit-identical. Default: on a CPU
            yes, on a GPU no (slower there).
        workers: Loader processes; 0 loads in the training process. Default: 0 if the data are cached in
            memory or the budget is CPU time, else one less than the CPUs, at most 8.
        checkpoint_every: Steps between checkpoints.
        keep: Checkpoints kept.
        log_every: Steps between lines of metrics.
        pictures_every: Steps between pictures of reconstructions; 0: none.
        monitor_every: Steps between looks for collapse (feature std, RankMe); 0: none.
        monitor_images: Images of the fixed batch that is looked at.
        tensorboard: Whether to write TensorBoard files too.
    """

    steps: int | None = Field(default=None, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    cpu_minutes: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=64, gt=0)
    accumulate: int = Field(default=1, gt=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_epochs: float | None = Field(default=None, ge=0)
    warmup_fraction: float | None = Field(default=None, ge=0, lt=1)
    schedule: Literal["cosine", "cosine_bolts", "cosine_scaled"] = "cosine"
    clip: float | None = Field(default=None, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    sync_batch_norm: bool | Literal["auto"] = "auto"
    find_unused: bool = False
    deterministic: bool | None = None
    workers: int | None = Field(default=None, ge=0)
    checkpoint_every: int = Field(default=500, gt=0)
    keep: int = Field(default=2, gt=0)
    log_every: int = Field(default=10, gt=0)
    pictures_every: int = Field(default=500, ge=0)
    monitor_every: int = Field(default=500, ge=0)
    monitor_images: int = Field(default=128, ge=4)
    tensorboard: bool = True

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _one_of(self, ("steps", "epochs", "cpu_minutes"))
        _one_of(self, ("warmup_steps", "warmup_epochs", "warmup_fraction"), none=True)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided into accumulate={self.accumulate} parts"
            )
        if self.cpu_minutes is not None:
            if self.warmup_steps is not None or self.warmup_epochs is not None:
                raise ValueError(
                    "with a budget in cpu_minutes the number of steps is not known; use warmup_fraction"
                )
            if self.schedule != "cosine":
                raise ValueError(
                    f"schedule {self.schedule} counts steps; with a budget in cpu_minutes use cosine"
                )
            if self.workers:
                raise ValueError("with a budget in cpu_minutes set workers to 0: theirs would not be counted")
        return self


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
    optimiser: OptimizerConfig
    training: TrainingConfig

    @property
    def trains(self) -> str:
        """Name of the objective or task."""
        raise NotImplementedError

    @property
    def cached(self) -> bool:
        """Whether the data are in memory, so that there is nothing to wait for."""
        raise NotImplementedError

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str = "recipe") -> Self:
        """Check a recipe given as plain data; `where` names it in messages.

        Raises:
            RecipeError: Every problem, with file, dotted path and suggestion.
        """
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise RecipeError(format_validation_error(error, cls, where)) from None

    @property
    def learning_rate(self) -> float:
        """Peak learning rate of a step of `training.batch_size` samples."""
        if self.optimiser.lr is not None:
            return self.optimiser.lr
        assert self.optimiser.blr is not None
        return self.optimiser.blr * self.training.batch_size / 256

    def to_dict(self) -> dict[str, Any]:
        """As plain data with all defaults filled in; `PretrainRecipe.model_validate` takes it back."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """Short hash of everything in it; the same for equal recipes."""
        return hashlib.sha256(repr(sorted(flatten(self.to_dict()).items())).encode()).hexdigest()[:12]

    def write(self, path: str | Path) -> None:
        """Write as YAML, atomically."""
        write_yaml(path, self.to_dict())


class PretrainRecipe(BaseRecipe):
    """A whole pretraining but for its data folder; see the module for the rules, each section for its keys.

    Attributes:
        sensor: A registered sensor's name, or the path of a sensor's YAML file; or a list of these, for
            imagery of places that several sensors see (`swath.datasets.pairs.dataset`).
        pooling: How the model that comes out makes one embedding of its features: mean, moments or cls; left
            out: as the encoder does.
    """

    sensor: str | Annotated[list[str], Field(min_length=1)]
    data: DataConfig = DataConfig()
    objective: ComponentConfig
    pooling: Pooling | None = None
    contract: ContractConfig = ContractConfig()

    @property
    def trains(self) -> str:  # noqa: D102
        return self.objective.name

    @property
    def cached(self) -> bool:  # noqa: D102
        return self.data.cache == "memory"

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str = "recipe") -> Self:
        """As of `BaseRecipe`; names and options of encoder and objective are checked too, and filled in."""
        recipe = super().parse(data, where)
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


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe's data with overrides applied, not checked yet; arguments and errors as of `load_recipe`."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with keys such as `encoder` and `training`")
    for override in overrides:
        _override(data, override)
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


def diff_recipes(old: BaseRecipe, new: BaseRecipe) -> list[str]:
    """What of `new` is not as in `old`, one line a key, leaving out the `FREE_KEYS`."""
    before, after = flatten(old.to_dict()), flatten(new.to_dict())
    return [
        f"{key}: {before.get(key)!r} in the run, {after.get(key)!r} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in FREE_KEYS
    ]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


# ------------------------------------------------------------------------------------------------ checks


def _one_of(section: BaseModel, names: tuple[str, ...], none: bool = False) -> None:
    given = [name for name in names if getattr(section, name) is not None]
    if len(given) > 1 or (not given and not none):
        found = f"{' and '.join(given)} are given" if given else "none is"
        raise ValueError(f"give {'at most' if none else 'exactly'} one of {', '.join(names)} ({found})")


def _override(data: dict[str, Any], text: str) -> None:
    """Apply one ``a.b=value`` to nested `data` in place."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise RecipeError(f"--set {text}: write it as key=value, such as training.epochs=50")
    for group in GROUPS:
        for other in group if key in group else ():
            section, _, name = other.partition(".")
            if isinstance(data.get(section), dict):
                data[section].pop(name, None)
    *parents, last = key.split(".")
    place = data
    for done, part in enumerate(parents):
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise RecipeError(f"--set {text}: {'.'.join(parents[: done + 1])} is a value, not a section")
    place[last] = yaml_value(value, f"--set {text}")


def _listed(where: str, problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return f"{where}: {problems[0]}"
    return f"{where}: {len(problems)} problems:\n" + "\n".join(f"  {problem}" for problem in problems)


def format_validation_error(
    error: ValidationError, model: type[BaseModel], where: str, prefix: str = ""
) -> str:
    """The problems of a validation, a line each, with the place `where`."""
    return _listed(where, _problems(error, model, prefix))


def _problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """A line for each of pydantic's problems: ``training.epocs: unknown key. Did you mean 'epochs'?``."""
    lines: dict[str, str] = {}  # by place: a union reports each of its members
    for problem in error.errors(include_url=False):
        parent = model
        parts: list[str] = []
        for part in problem["loc"]:
            if isinstance(part, str) and part in parent.model_fields:
                annotation = parent.model_fields[part].annotation
                if (
                    isinstance(annotation, type)
                    and issubclass(annotation, BaseModel)
                    and part != problem["loc"][-1]
                ):
                    parent = annotation
            elif isinstance(part, str) and problem["type"] != "extra_forbidden":
                continue  # the name of a union's member, not a key
            parts.append(f"[{part}]" if isinstance(part, int) else f".{part}")
        place = (prefix + "".join(parts).removeprefix(".")).removesuffix(".")
        shown = problem["input"]
        if problem["type"] == "extra_forbidden":
            said = f"unknown key.{suggest(str(problem['loc'][-1]), list(parent.model_fields))}"
        elif problem["type"] == "missing":
            said = "missing; add it"
        elif problem["type"] == "value_error":
            said = problem["msg"].removeprefix("Value error, ")
        else:
            message = problem["msg"].removeprefix("Input should be ")
            if problem["type"] in ("model_type", "dict_type"):
                message = "a section with keys of its own"
            elif problem["type"] == "string_pattern_mismatch":
                message = "letters, digits, _, . and -, from a letter to a letter or digit"
            said = f"should be {message}, but is {shown!r:.60} ({_kind(shown)})"
        if (
            place in lines
            and " or " not in lines[place]
            and "should be" in said
            and "should be" in lines[place]
        ):
            first = lines[place].split("should be ", 1)[1].split(", but is")[0]
            said = said.replace("should be ", f"should be {first} or ", 1)
        lines[place] = said
    return [f"{place}: {said}" if place else said for place, said in lines.items()]


def _kind(value: Any) -> str:
    names = {
        str: "text",
        bool: "true/false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a section",
    }
    return names.get(type(value), "nothing" if value is None else type(value).__name__)


def _registered(place: str, name: str, registry: Any) -> str | None:
    try:
        registry.get(name)
    except SwathError as error:
        hint = " Recipes name registered things only, never Python paths." if set(name) & set(".:/") else ""
        return f"{place}: {error}{hint}"
    return None


def _encoder_problems(choice: ComponentConfig) -> list[str]:
    """Options against the signature of the registered constructor, names and types."""
    unknown = _registered("encoder.name", choice.name, encoders)
    if unknown:
        return [unknown]
    build = encoders.get(choice.name)
    parameters = inspect.signature(build).parameters
    target: Any = getattr(build, "func", build)
    target = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [name for name in parameters if name != "bands"]
    problems = []
    for key, value in choice.options.items():
        place = f"encoder.options.{key}"
        if key == "bands":
            problems.append(f"{place}: follows from the sensor; leave it out")
        elif key not in parameters:
            if not open_ended:
                problems.append(f"{place}: unknown option of {choice.name}.{suggest(key, known)}")
        elif key in hints:
            try:
                TypeAdapter(hints[key]).validate_python(value, strict=True)
            except ValidationError as error:
                reason = error.errors(include_url=False)[0]["msg"].removeprefix("Input should be ")
                problems.append(f"{place}: should be {reason}, but is {value!r:.60} ({_kind(value)})")
    return problems


def _objective_problems(choice: ComponentConfig) -> list[str]:
    """Options against the objective's own config class."""
    unknown = _registered("objective.name", choice.name, objectives)
    if unknown:
        return [unknown]
    config = objectives.get(choice.name).config
    try:
        config.model_validate(choice.options)
    except ValidationError as error:
        return _problems(error, config, "objective.options.")
    return []


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
