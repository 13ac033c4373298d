"""The training loop, meant to be read: what happens in which order, and nothing else.

Rules that the loop keeps, each with a test:

- Everything random is a function of (seed, epoch, sample) or (seed, step): no generator state to save.
- A step of B samples gives the same result on any number of ranks and accumulated parts (to rounding).
- A run killed anywhere and continued gives the same bits as one that was never interrupted, on a CPU with
  the same number of threads. (Budgets in CPU minutes excepted: there the machine's pace decides.)
- A number that is not finite stops the run before a checkpoint can hold it.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from swath._version import __version__
from swath.datasets.chip import Batch
from swath.datasets.collation import map_tensors, split_by_sensor
from swath.errors import RecipeError, TrainingError
from swath.files import write_json
from swath.keyed_random import permutation
from swath.models.contract import Contract
from swath.training import checkpoint as checkpoints
from swath.training.budget import Budget
from swath.training.build import (
    Data,
    dataset_sensors,
)
from swath.training.config.recipe import BaseRecipe
from swath.training.loading import BatchLoader, default_workers
from swath.training.monitoring.async_metrics import _AsyncMetrics
from swath.training.monitoring.collapse import collapse_warning, embed_monitor_batch, feature_std, rankme
from swath.training.monitoring.divergence import diagnose
from swath.training.monitoring.image_grid import write_image_grid
from swath.training.monitoring.metrics_log import MetricsLogger
from swath.training.monitoring.progress import Display
from swath.training.optim.param_groups import build_optimizer, gradient_norm
from swath.training.optim.schedules import set_learning_rate
from swath.training.parallel import (
    StopConsensus,
    World,
    broadcast_object,
    is_sharded,
    mean_over_ranks,
    no_gradient_sync,
    sync_batch_norm,
    unsharded_params,
    wrap_parallel,
)
from swath.training.precision import _PRECISION
from swath.training.run_directory import RunDirectory, fingerprint
from swath.training.signals import StopRequest, TrainingInterrupted, catch_stop_signals

R = TypeVar("R", bound=BaseRecipe)
_SHOWN = 8  # samples of an image of reconstructions


class Trainer(Generic[R]):
    """All that a run consists of, and the loop over it.

    What is particular to pretraining stands in the methods from `open` to `write_model`; fine-tuning
    (`swath.tasks.finetuning`) says these in its own way and shares the rest.
    """

    validates_first = True  # also before the first step

    def __init__(
        self,
        recipe: R,
        dataset: Data,
        run: RunDirectory,
        world: World,
        *,
        show: bool = False,
    ) -> None:
        config = recipe.training
        self.recipe, self.config, self.run, self.world = recipe, config, run, world
        self.device = world.device
        self.dataset = dataset
        self.fingerprint = fingerprint(self.dataset)
        self.sensors = dataset_sensors(self.dataset)
        self.contract = self.build_contract()
        workers = config.workers
        if workers is None:
            workers = default_workers(recipe.cached, by_cpu_time=config.cpu_minutes is not None)
        self.batches = BatchLoader(
            self.dataset,
            seed=recipe.seed,
            batch_size=config.batch_size,
            rank=world.rank,
            ranks=world.size,
            accumulate=config.gradient_accumulation_steps,
            workers=workers,
            pin=self.device.type == "cuda",
        )
        self.monitor_batch = self._monitor_batch()
        # Pixels in another unit than the sensor's are cheaper to notice now than after a week.
        self.check_imagery(self.monitor_batch)
        if config.cpu_minutes is not None and world.size > 1:
            raise TrainingError(
                "a budget in cpu_minutes is for one process; use steps or epochs under torchrun"
            )
        if config.precision == "fp16" and self.device.type != "cuda":
            raise TrainingError("training.precision: fp16 needs a GPU; use bf16 or fp32 on this machine")
        if config.precision == "fp16" and world.size > 1 and config.parallel == "fsdp":
            raise TrainingError(
                "training.precision: fp16 does not go with fsdp, whose ranks may overflow apart; use bf16"
            )

        self.objective = self.build_objective().to(self.device)
        if config.gradient_accumulation_steps > 1 and getattr(self.objective, "compares_samples", False):
            raise RecipeError(
                f"training.gradient_accumulation_steps: {recipe.objective_name} compares the samples of a "
                "step with each other, so a step cannot be split. Use more processes or a smaller batch_size"
            )
        if hasattr(self.objective, "prepare"):
            # Before a checkpoint is restored: it replaces whatever was fitted here.
            self.objective.prepare(self.prepare_batch(self.monitor_batch))  # type: ignore[operator]
        self.objective.train()
        # The untrained encoder, to compare with; looked at before it is sharded.
        older = checkpoints.list_checkpoints(run.checkpoints)
        begins = self.validates_first and config.monitor_every and not older
        self.untrained = {"step": 0, **self.validate()} if begins else None
        sync_batch_norm(self.objective, world, config.sync_batch_norm)
        if config.compile:
            self.objective.compile()
        self.module = wrap_parallel(self.objective, world, config.parallel, config.find_unused_parameters)
        self.optimizer = self.build_optimizer()
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")

        self.step = 0
        self.elapsed = 0.0
        self.gsd_range = torch.tensor([math.inf, 0.0], device=self.device)  # smallest, largest seen
        spent = self._restore()
        self.budget = Budget(config, self.batches.steps_per_epoch, spent)
        self.display = Display(recipe.name, self.budget.steps, active=show and world.first)
        self.metrics = MetricsLogger(run, self.step, config.tensorboard) if world.first else None
        self.skipped: set[str] = set()

    # ---- the loop

    def train(self) -> Path:
        """Run until the budget is spent; returns the model directory."""
        if self.world.first:
            self._write_info()
        with self.display, catch_stop_signals() as stop:
            self._announce()
            if not (self.budget.finished(self.step) or self.should_stop()):
                self._loop(stop)
        if self.metrics is not None:
            self.metrics.close()
        return self._finish()

    def _loop(self, stop: StopRequest) -> None:
        config, budget = self.config, self.budget
        consensus = StopConsensus(self.world, stop)
        if self.untrained:
            self._write(self.untrained)
        self._clock = (time.perf_counter(), self.step, self.batches.wait_seconds)
        began = time.perf_counter() - self.elapsed
        unread: _AsyncMetrics | None = None  # of the last step, where reading it would keep a GPU waiting
        for parts in self.batches.stream(self.step + 1):
            self.step += 1
            reading = self._train_step(parts)
            self._note_skipped(parts)
            self.elapsed = time.perf_counter() - began
            last = budget.finished(self.step)
            stopping = consensus.should_stop()
            self.display.step(self.step, 1.0 if last else budget.progress(self.step))

            save = last or stopping or self.step % config.checkpoint_every == 0
            log = last or self.step % config.log_every == 0
            validate = config.monitor_every and (last or self.step % config.monitor_every == 0)
            draw = config.images_every and (last or self.step % config.images_every == 0)
            if unread is not None:
                self._check(unread)
            unread = reading if self.device.type == "cuda" else None
            if unread is not None and (save or log or validate or draw):
                self._check(unread)
                unread = None
            if log or validate:
                self._log(reading, last=last, validate=bool(validate))
            if validate and self.should_stop():
                last = save = True
            if draw:
                self._write_images()
            if save:
                saved = self._save()
            if last:
                break
            if stopping:
                consensus.close()
                raise TrainingInterrupted(stop.signal or 15, saved, self.step)
        consensus.close()

    def _train_step(self, parts: list[Batch]) -> _AsyncMetrics:
        """One optimizer step on this rank's share of a batch, in parts."""
        rate = self.recipe.learning_rate * self.budget.rate(self.step, self.recipe.optimizer.min_lr_ratio)
        set_learning_rate(self.optimizer, rate)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(parts):
            # For objectives that draw from torch's generator: its state follows from the step.
            torch.manual_seed(hash((self.recipe.seed, self.step, self.world.rank, number)))
            views = self.objective.views(self.prepare_batch(batch))  # type: ignore[operator]
            self._note_gsd(views)
            with no_gradient_sync(self.module, wait=number < len(parts) - 1):
                with self._autocast():
                    losses = self.module(views)
                self.scaler.scale(losses["total"] / len(parts)).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() / len(parts)
        self.scaler.unscale_(self.optimizer)
        norm = gradient_norm(self.parameters, self.config.max_grad_norm)
        means = mean_over_ranks(torch.stack(list(sums.values())), self.world)
        reading = _AsyncMetrics(self.step, list(sums), torch.cat([means, norm.reshape(1).to(means)]), rate)
        if self.device.type == "cpu":
            self._check(reading)  # before the step: the weights stay good, and can be asked what went wrong
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.after_step(self.step, self.budget.total_steps(self.step))  # type: ignore[operator]
        return reading

    def _check(self, reading: _AsyncMetrics) -> None:
        """Stop if a loss or the gradient is not finite."""
        values = reading.values()
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad == ["grad_norm"] and self.scaler.is_enabled() and self.scaler.get_scale() >= 1e-3:
            return  # fp16: the scaler has skipped the step and halves its scale; well until that vanishes
        if bad:
            older = checkpoints.list_checkpoints(self.run.checkpoints)
            raise TrainingError(
                diagnose(
                    step=reading.step,
                    values=values,
                    rate=reading.rate,
                    indices=[i for part in self.batches.parts(reading.step) for i in part],
                    batches=self.batches,
                    objective=self.objective,
                    ready=self.prepare_batch,
                    checkpoint=older[-1] if older else None,
                )
            )

    # ---- what is seen and kept

    def _log(self, reading: _AsyncMetrics, *, last: bool, validate: bool) -> None:
        now, before = time.perf_counter(), self._clock
        self._clock = (now, self.step, self.batches.wait_seconds)
        seconds = max(now - before[0], 1e-9)
        row: dict[str, float | int] = {
            "step": self.step,
            "epoch": self.batches.epoch_of(self.step),
            "images": self.step * self.config.batch_size,
            **{
                key if key == "grad_norm" else f"loss/{key}": value for key, value in reading.values().items()
            },
            "lr": reading.rate,
            "images_per_second": (self.step - before[1]) * self.config.batch_size / seconds,
            "data_wait_fraction": (self.batches.wait_seconds - before[2]) / seconds,
            "elapsed": self.elapsed,
            "cpu_seconds": self.budget.spent,
        }
        if self.scaler.is_enabled():
            row["loss_scale"] = self.scaler.get_scale()
        if validate:
            row |= self.validate()
        self._write(row)
        self.display.log(row, last=last)
        warning = collapse_warning(self.metrics.rows) if validate and self.metrics is not None else None
        if warning:
            self.display.print(f"warning: step {self.step}: {warning}", style="yellow")

    def _write(self, row: Mapping[str, float | int]) -> None:
        if self.metrics is not None:
            self.metrics.write(row)

    def _write_images(self) -> None:
        """Reconstructions of the same samples each time, in eval mode and without a gradient."""
        few = map_tensors(self.monitor_batch, lambda x: x[:_SHOWN])
        self.objective.eval()
        with torch.no_grad(), unsharded_params(self.objective), self._autocast():
            views = self.objective.views(self.prepare_batch(few))  # type: ignore[operator]
            images = self.objective.images(views)  # type: ignore[operator]
        self.objective.train()
        if images and self.world.first:
            try:
                write_image_grid(self.run.images / f"step_{self.step:08d}.png", images, self.sensors)
            except OSError as error:
                raise TrainingError(
                    f"{self.run.images}: cannot be written ({error.strerror or error}). The checkpoints "
                    "are intact: make room and run the same command again"
                ) from error

    def _save(self) -> Path:
        """Write a checkpoint (all ranks take part, rank 0 writes)."""
        low, high = self.gsd_range.tolist()
        state = {
            "recipe": self.recipe.hash(),
            "data": self.fingerprint,
            "scaler": self.scaler.state_dict(),
            "cpu_seconds": self.budget.spent,
            "elapsed": self.elapsed,
            "gsd_range": [low, high] if high else None,
            "threads": torch.get_num_threads(),
            "processes": self.world.size,
            "swath": __version__,
            "torch": torch.__version__,
        }
        saved = self.run.checkpoints / f"step_{self.step:08d}"
        if self.world.first or is_sharded(self.objective):  # shards are gathered by all together
            model = checkpoints.model_state(self.objective)
            optimizer = checkpoints.optimizer_state(self.optimizer)
        if self.world.first:
            whole = checkpoints.TrainingCheckpoint(self.step, model, optimizer, state)
            saved = checkpoints.save(self.run.checkpoints, whole, self.config.keep_checkpoints)
        broadcast_object(None, self.world)  # nobody goes on, or leaves, before it is on the disk
        return saved

    def _restore(self) -> float:
        """Continue from the newest valid checkpoint, if any; returns the CPU seconds spent before."""
        found = checkpoints.load_newest(self.run.checkpoints)
        if found is None:
            return 0.0
        if found.state["data"] != self.fingerprint:
            was = found.state["data"]
            raise TrainingError(
                f"{self.run.root}: the data have changed: this run started with {was['samples']} samples in "
                f"{was['files']} files, now there are {self.fingerprint['samples']} in "
                f"{self.fingerprint['files']} (or their names differ). Give the same "
                "data, or start over with --fresh"
            )
        checkpoints.load_model_state(self.objective, found.model)
        checkpoints.load_optimizer_state(self.optimizer, found.optimizer)
        self.scaler.load_state_dict(found.state["scaler"])
        self.step, self.elapsed = found.step, found.state["elapsed"]
        if found.state["gsd_range"]:
            self.gsd_range = torch.tensor(found.state["gsd_range"], device=self.device)
        return float(found.state["cpu_seconds"])

    def _finish(self) -> Path:
        """The model directory, from a whole copy of the objective in main memory."""
        state = checkpoints.model_state(self.objective)
        if self.world.first and not (self.run.model / "config.json").is_file():
            objective = self.build_objective()
            checkpoints.load_model_state(objective, state)
            low, high = self.gsd_range.tolist()
            contract = self.build_contract((low, high) if high else None)
            last = self.metrics.rows[-1] if self.metrics is not None and self.metrics.rows else {}
            self.write_model(objective, contract, self._provenance(last))
        broadcast_object(None, self.world)
        return self.run.model

    # ---- what is particular to pretraining

    def build_contract(self, gsd_range: tuple[float, float] | None = None) -> Contract:
        """What the model may be given."""
        raise NotImplementedError

    def build_objective(self) -> nn.Module:
        """What is trained, as it is before the first step."""
        raise NotImplementedError

    def write_model(self, objective: nn.Module, contract: Contract, provenance: dict[str, Any]) -> None:
        """Write the model directory of an objective with its final weights."""
        raise NotImplementedError

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Over whatever of the objective is trained."""
        return build_optimizer(self.objective, self.recipe.optimizer, self.recipe.learning_rate)

    def check_imagery(self, batch: Batch) -> None:
        """Refuse pixels that do not fit the contract."""
        for one in split_by_sensor(batch).values():
            self.contract.check(one["image"], one["sensor"], valid=one.get("valid"))

    def prepare_batch(self, batch: Batch) -> Batch:
        """A batch from the loader, moved to the device and normalized."""
        return self.contract.normalize(self._to_device(batch))

    def validate(self) -> dict[str, float]:
        """Measures taken every `monitor_every` steps: of collapse, unless a subclass has others."""
        with unsharded_params(self.objective), self._autocast():
            batch = self.prepare_batch(self.monitor_batch)
            encoder: nn.Module = self.objective.encoder  # type: ignore[assignment]
            features = [embed_monitor_batch(encoder, one) for one in split_by_sensor(batch).values()]
        # Of several sensors the one that is worst off: a collapse of one is a collapse.
        return {"feature_std": min(map(feature_std, features)), "rankme": min(map(rankme, features))}

    def should_stop(self) -> bool:
        """Whether training ends after a validation although there is budget left."""
        return False

    # ---- small things

    def _provenance(self, last: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "swath": __version__,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else platform.machine(),
            "processes": self.world.size,
            "data": self.fingerprint,
            "steps": self.step,
            "images": self.step * self.config.batch_size,
            "cpu_seconds": round(self.budget.spent, 1),
            "seconds": round(self.elapsed, 1),
            "losses": {key.removeprefix("loss/"): v for key, v in last.items() if key.startswith("loss/")},
            "recipe": self.recipe.to_dict(),
        }

    def _write_info(self) -> None:
        info = {"swath": __version__, "data": self.fingerprint, "recipe": self.recipe.hash()}
        if self.dataset.problems:
            self._append_skipped(self.dataset.problems)
        write_json(self.run.info, info)

    def _announce(self) -> None:
        size = sum(p.numel() for p in self.objective.parameters())
        encoder = sum(p.numel() for p in cast(nn.Module, self.objective.encoder).parameters())
        budget = (
            f"{self.budget.steps} steps" if self.budget.steps else f"{self.config.cpu_minutes:g} CPU minutes"
        )
        self.display.print(
            f"{self.recipe.name}: {len(self.dataset)} samples, {budget} in batches of "
            f"{self.config.batch_size}, "
            f"{self.recipe.encoder.name} with {encoder / 1e6:.1f} M parameters "
            f"({size / 1e6:.1f} M with the objective), {self.world.size} x "
            f"{self.device.type}, {self.config.precision}"
        )
        if self.dataset.problems:
            path, reason = self.dataset.problems[0]
            self.display.print(
                f"{len(self.dataset.problems)} files are skipped (see {self.run.skipped}), for example: "
                f"{reason if path in reason else f'{path}: {reason}'}",
                style="yellow",
            )
        if self.step:
            self.display.print(f"continuing after step {self.step}")

    def _note_skipped(self, parts: list[Batch]) -> None:
        """Files that could not be read while training: reported once each, and the run goes on."""
        fresh = [
            problem
            for batch in parts
            for problem in batch.get("problems", [])
            if problem[0] not in self.skipped
        ]
        if fresh:
            self.skipped |= {path for path, _ in fresh}
            self._append_skipped(fresh)
            path, reason = fresh[0]
            self.display.print(
                f"skipped: {reason if path in reason else f'{path}: {reason}'}", style="yellow"
            )

    def _append_skipped(self, problems: list[tuple[str, str]]) -> None:
        with self.run.skipped.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"path": path, "problem": reason}) + "\n" for path, reason in problems)

    def _note_gsd(self, views: Mapping[str, Any]) -> None:
        """Keep the range of what the encoder was shown, for the contract.

        By convention it is `views["gsd"]`: a tensor, or one a sensor.
        """
        found = views.get("gsd")
        for gsd in found.values() if isinstance(found, Mapping) else [found]:
            if not isinstance(gsd, Tensor):
                continue
            gsd = gsd.detach().float() * self.contract.reference_gsd
            self.gsd_range = torch.stack(
                [torch.minimum(self.gsd_range[0], gsd.min()), torch.maximum(self.gsd_range[1], gsd.max())]
            )

    def _monitor_batch(self) -> Batch:
        """The fixed samples of the monitors and of the written images: the same in every part of a run."""
        count = min(len(self.dataset), self.config.monitor_images)
        order = permutation(self.recipe.seed, -1, len(self.dataset))
        return self.batches.fetch(0, order[:count].tolist())

    def _to_device(self, batch: Batch) -> Batch:
        return map_tensors(batch, lambda x: x.to(self.device, non_blocking=True))

    def _autocast(self) -> Any:
        dtype = _PRECISION[self.config.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)
