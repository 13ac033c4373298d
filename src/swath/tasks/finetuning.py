"""Fine-tuning: the training engine with a task as its objective, labels in its batches and a split to watch.

What differs from pretraining stands here: where the encoder comes from and how much of it is trained, what is
looked at along the way (the score on the validation split, whose best weights are kept), and what is written
at the end: a task model, and its scores on the test split.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from swath.datasets.chip import Batch
from swath.encoders.protocol import create_model
from swath.errors import RecipeError
from swath.files import atomic_folder
from swath.models.contract import Contract
from swath.models.directory import load_encoder
from swath.models.model import Model
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.tasks.dense.losses import class_weights
from swath.tasks.lora import add_lora, merge_lora
from swath.tasks.model import TaskModel, build_task, load_task_model, save_task_model
from swath.tasks.protocol import Task, normalize_task_batch, tasks
from swath.tasks.recipe import FinetuneRecipe, load_finetune_recipe
from swath.tasks.scoring import score
from swath.tasks.splits import DataSplits, describe_splits
from swath.training.checkpoint import model_state
from swath.training.engine import Trainer
from swath.training.optim.layer_decay import layer_decay_groups
from swath.training.optim.param_groups import optimizer_for_groups
from swath.training.parallel import World, unsharded_params
from swath.training.pretraining import run_training
from swath.training.run_directory import RunDirectory, Start


def finetune(
    recipe: FinetuneRecipe | str | Path,
    data: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    overrides: Sequence[str] = (),
    start: Start = "auto",
    progress: bool = False,
) -> TaskModel:
    """Train a task on a model by a recipe; other arguments and errors as of `swath.pretrain`.

    Args:
        recipe: A recipe's YAML file, or a recipe from `load_finetune_recipe`.
        data: Labeled imagery: a folder, a CSV table, or a COCO file; which, the task says.
        out: The run's folder; the model directory is ``out/model``, the scores are in ``out/report``.
        model: Directory of the model to begin with, if `recipe` is a file.
        overrides: Keys of the file to change: ``"mode=frozen"`` and the like, values in YAML.
        start: ``auto`` continues what is there, ``resume`` insists on it, ``fresh`` removes an earlier run.
        progress: Show progress on the terminal.
    """
    if not isinstance(recipe, FinetuneRecipe):
        recipe = load_finetune_recipe(recipe, overrides, model=model)
    elif overrides or model is not None:
        raise RecipeError(
            "overrides and model change a recipe file: give its path, or change the recipe itself"
        )
    return load_task_model(run_training(FinetuneTrainer, recipe, data, out, start=start, show=progress))


class FinetuneTrainer(Trainer[FinetuneRecipe]):
    """The engine, with a task."""

    validates_first = False  # the scores of an untrained head mean nothing

    def __init__(
        self, recipe: FinetuneRecipe, data: str | Path, run: RunDirectory, world: World, *, show: bool = False
    ) -> None:
        self.source = None if recipe.model is None else self._source(recipe)
        self.sensor = _sensor(recipe, self.source)
        self.splits = open_splits(recipe, data, self.sensor, self.source)
        self.best = _read_best(run)
        super().__init__(recipe, self.splits.train, run, world, show=show)
        if recipe.mode == "scratch" and recipe.model is not None:
            self.display.print("scratch: the model's architecture, with random weights")
        splits = {"training": self.splits.train, "validation": self.splits.val, "test": self.splits.test}
        self.display.print(
            f"{recipe.task.name}, {recipe.mode}: {describe_splits(splits)} samples; classes: "
            f"{', '.join(self.splits.classes)}"
        )
        for note in [*self.splits.notes, *self._scale_notes()]:
            self.display.print(f"warning: {note}", style="yellow")

    # ---- what the engine asks

    def build_contract(self, gsd_range: tuple[float, float] | None = None) -> Contract:
        """The model's own, for the one sensor; of a run from nothing, as the data are."""
        if self.source is not None:
            return self.source.contract.model_copy(
                update={"sensors": {self.sensor.name: self.sensor}, "gsd_range": gsd_range}
            )
        relative = self.recipe.how_read.gsd == "relative"
        return Contract(
            sensors={self.sensor.name: self.sensor},
            gsd_mode="relative" if relative else "metres",
            gsd_range=gsd_range,
        )

    def build_objective(self) -> Task:
        """The task on its encoder, by the recipe's mode: the same weights for the same recipe."""
        recipe = self.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            options = {**recipe.encoder.options}
            if self.source is None:
                options["bands"] = len(self.sensor.bands)
            try:
                encoder = create_model(recipe.encoder.name, **options)
            except (TypeError, ValueError) as error:
                raise RecipeError(f"encoder.options: {error}") from None
            if self.source is not None and recipe.mode != "scratch":
                encoder.load_state_dict(self.source.encoder.state_dict())
            task = build_task(recipe.task.name, encoder, self._task_config(), self.contract)
            if recipe.mode == "frozen":
                encoder.requires_grad_(False)
            elif recipe.mode == "lora":
                add_lora(encoder, recipe.lora)
        task.frozen = recipe.mode in ("frozen", "lora")
        return task.train()

    def build_optimizer(self) -> torch.optim.Optimizer:
        """With a rate for each layer."""
        task = self.objective
        assert isinstance(task, Task)
        groups = layer_decay_groups(task, task.encoder, self.recipe.optimizer, self.recipe.layer_decay)
        return optimizer_for_groups(groups, self.recipe.optimizer, self.recipe.learning_rate)

    def check_imagery(self, batch: Batch) -> None:
        """Refuse pixels that do not fit the contract, at any date."""
        image, valid = batch["image"], batch.get("valid")
        for one in image.unbind(1) if image.ndim == 5 else [image]:
            self.contract.check(one, batch["sensor"], valid=valid)

    def prepare_batch(self, batch: Batch) -> Batch:
        """On the device, normalized, upright."""
        return normalize_task_batch(self.contract, self._to_device(batch))

    def validate(self) -> dict[str, float]:
        """The scores on the validation split, where there is one; the best weights are kept."""
        if self.splits.val is None:
            return {}
        self.objective.eval()
        with unsharded_params(self.objective), torch.no_grad(), self._autocast():
            scores = score(self.objective, self.contract, self.splits.val, self.device, intervals=False)
        self.objective.train()
        value = scores.figures[scores.main].value
        if value > self.best["score"]:
            self.best = {"score": value, "figure": scores.main, "step": self.step}
            if self.world.first:
                with atomic_folder(self.run.best) as folder:
                    save_file(model_state(self.objective), folder / "model.safetensors")
                    (folder / "best.json").write_text(json.dumps(self.best) + "\n", encoding="utf-8")
        return {f"val/{name}": figure.value for name, figure in scores.figures.items()}

    def should_stop(self) -> bool:
        """Whether the last `patience` looks were no better than the best one."""
        patience = self.recipe.early_stopping_patience
        if patience is None or self.splits.val is None:
            return False
        return self.step - int(self.best["step"]) >= patience * self.config.monitor_every

    def write_model(self, objective: nn.Module, contract: Contract, provenance: dict[str, Any]) -> None:
        """The task model (LoRA merged), then its scores on the test split beside it."""
        recipe, task = self.recipe, objective
        assert isinstance(task, Task)
        if recipe.keep_weights == "best" and self.best["step"]:
            task.load_state_dict(load_file(self.run.best / "model.safetensors"))
            provenance = {**provenance, "selected": self.best}
        merge_lora(task)
        options = {**recipe.encoder.options}
        if self.source is None:
            options["bands"] = len(self.sensor.bands)
        save_task_model(
            self.run.model,
            task,
            contract,
            kind=recipe.task.name,
            encoder_name=recipe.encoder.name,
            encoder_options=options,
            name=recipe.name,
            pooling=None if self.source is None else self.source.pooling,
            provenance=provenance,
        )
        from swath.tasks.report import write_finetune_report

        model = load_task_model(self.run.model, self.device)
        write_finetune_report(self.run, model, self.splits, self.metrics.rows if self.metrics else [], recipe)

    # ---- pieces

    def _scale_notes(self) -> list[str]:
        """A note where the encoder is shown a scale that its pretraining never has."""
        known = None if self.source is None else self.source.contract.gsd_range
        if known is None or self.recipe.mode == "scratch":
            return []
        assert self.source is not None
        (low, high), gsd = known, self.monitor_batch["gsd"]
        if low * 0.9 <= float(gsd.max()) and float(gsd.min()) <= high * 1.1:
            return []
        unit = "m" if self.source.contract.gsd_mode == "metres" else "times the native pixels'"
        how = tasks.get(self.recipe.task.name).task.gsd_option
        return [
            f"training images have a GSD of {float(gsd.min()):.3g} to {float(gsd.max()):.3g} {unit}, and the "
            f"model was pretrained on {low:.3g} to {high:.3g}: {how} brings them nearer"
        ]

    def _task_config(self) -> Any:
        """The recipe's options, with what the data tell: classes, whether labels are several, weights."""
        config = self.recipe.options
        entry = tasks.get(self.recipe.task.name)
        update = {"classes": self.splits.classes, **entry.task.options_from_data(self.splits)}
        stated = getattr(config, "class_weights", None)  # detectors have none
        if stated == "balanced":
            weights = class_weights(torch.from_numpy(self.splits.weights))
            update["class_weights"] = tuple(weights.tolist())
        elif stated is not None and len(stated) != len(self.splits.classes):
            raise RecipeError(
                f"task.options.class_weights: {len(stated)} weights for "
                f"{len(self.splits.classes)} classes ({', '.join(self.splits.classes)})"
            )
        return entry.config.model_validate({**config.model_dump(), **update})

    @staticmethod
    def _source(recipe: FinetuneRecipe) -> Model:
        assert recipe.model is not None
        model = load_encoder(recipe.model.path)
        if model.config["id"] != recipe.model.id:
            raise RecipeError(
                f"{recipe.model.path}: is model {model.config['id']} now, but the run was begun with "
                f"{recipe.model.id}; give that one, or begin anew with --fresh"
            )
        return model


def open_splits(recipe: FinetuneRecipe, path: str | Path, sensor: Sensor, source: Model | None) -> DataSplits:
    """The recipe's view of the labeled data at `path`; raises as `Task.open_data`"""
    read, options = recipe.how_read, recipe.options
    if source is not None:
        relative = source.contract.gsd_mode == "relative"
        if read.gsd is None and relative:
            read = read.model_copy(update={"gsd": "relative"})
        elif (read.gsd == "relative") != relative:
            said = "relative to the native resolution" if relative else "metres"
            raise RecipeError(f"data.gsd: is {read.gsd!r}, but the model counts scale in {said}")
    task = tasks.get(recipe.task.name).task
    return task.open_data(read, path, sensor, options=options, seed=recipe.seed)


def _sensor(recipe: FinetuneRecipe, source: Model | None) -> Sensor:
    if source is not None:
        return source.contract.sensor(recipe.sensor)
    if recipe.sensor is None:
        raise RecipeError("sensor: missing; a run from scratch without a model has to name one")
    return get_sensor(recipe.sensor)


def _read_best(run: RunDirectory) -> dict[str, Any]:
    """What is known of the best weights so far: those on the disk, which a continued run starts from.

    They may be of a later step than the checkpoint: the run then comes to them again, and finds them equal.
    """
    try:
        found: dict[str, Any] = json.loads((run.best / "best.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"score": -1.0, "step": 0}
    return found
