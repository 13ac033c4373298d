"""A model that does a task: imagery in its sensor's unit in, probabilities of classes or boxes out.

It lives in a model directory like any other (`swath.models.directory`): the encoder's weights are
``model.safetensors``, so that `load_encoder` opens the fine-tuned encoder alone; what the task has trained
beside it (its head) is ``objective.safetensors``, and ``objective`` in ``config.json`` names the task
with its options and classes.

Legend: N images, C bands, K classes, H x W pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.collation import map_tensors
from swath.errors import CheckpointError, ContractError, SwathError
from swath.models.contract import Contract
from swath.models.directory import SavedObjective, load_encoder, load_objective, model_loaders, save_model
from swath.models.model import Model
from swath.renames import stored_names
from swath.sensors.sensor import Sensor
from swath.tasks.protocol import Task, load_own_state, normalize_task_batch, tasks


class TaskModel(Model):
    """An encoder with a head, its contract and its classes; also a `Model`, which gives embeddings.

    Attributes:
        task: The network.
        kind: Registered name of the task: classify, segment, detect, change, ...
        classes: Names, in the order of the probabilities.
        dates: Images that are looked at together: 1, or 2 for changes.
        dense: Whether probabilities are of pixels.
        boxes: Whether it finds objects: `predict` gives a list of `Detections`.
        multilabel: Whether classes do not exclude each other; probabilities then do not add up to 1.
    """

    def __init__(self, task: Task, contract: Contract, *, kind: str, **options: Any) -> None:
        super().__init__(task.encoder, contract, **options)
        self.task = task
        self.kind = kind
        self.classes = list(task.config.classes)
        self.dates = task.dates
        self.dense, self.boxes = task.output == "map", task.output == "boxes"
        self.multilabel = bool(getattr(task.config, "multilabel", False))
        self.output = "detections" if self.boxes else "probabilities"
        self.eval()

    @property
    def encoder_model(self) -> Model:
        """The fine-tuned encoder alone, under the id that archives and reports know it by."""
        return Model(
            self.encoder,
            self.contract,
            name=self.name,
            fingerprint=self.config.get("id", "unsaved").rpartition("-")[2],
            pooling=self.pooling,
            config=self.config,
        )

    @torch.inference_mode()
    def predict(
        self,
        images: Any,
        gsd: Any = None,
        sensor: str | Sensor | None = None,
        valid: Any = None,
        *,
        bands: Sequence[str] | None = None,
        batch_size: int = 16,
    ) -> Any:
        """Probabilities, float32 on the CPU: [N, K] of images, or [N, K, H, W] of pixels.

        Args:
            images: Array or tensor [N, C, H, W], in the sensor's unit, bands in its order. For two dates
                [N, 2, C, H, W], before and after. One image may come without its first dimension.
            gsd: Metres per pixel (in relative mode: how much coarser than the reference), one number or one
                an image.
            sensor: What the images were taken with; may be left out.
            valid: [N, H, W] bool, False for nodata (at any date). What is said of such pixels means nothing.
            bands: Names of the images' bands in their order, to be compared with the sensor's.
            batch_size: Images at a time.

        Returns:
            Probabilities; of detectors a list of `Detections`, one an image: `boxes` [M, 4] (left, top,
            right, bottom) or `obb` [M, 5], `scores` [M] and `labels` [M], by falling score, in pixels of the
            image. Images are looked at in one piece; larger ones go through
            `swath.tasks.detection.tiled_inference`.

        Raises:
            ContractError: The imagery does not fit the contract; the message says how to put it right.
        """
        batch = self.batch(images, gsd, sensor, valid, bands=bands)
        count = len(batch["image"])
        parts = [self.predict_batch(_rows(batch, i, i + batch_size)) for i in range(0, count, batch_size)]
        if parts and isinstance(parts[0], list):
            return [{key: value.cpu() for key, value in found.items()} for part in parts for found in part]
        return torch.cat([part.float().cpu() for part in parts]) if parts else torch.empty(0)

    def predict_batch(self, batch: Batch) -> Any:
        """As `predict`, on the model's device, of a batch as data sets collate it.

        Does not look at values: for loops that have checked their imagery (`batch` does) once.
        """
        on_device = map_tensors(batch, lambda x: x.to(self.device, non_blocking=True))
        return self.task.predict(normalize_task_batch(self.contract, on_device))

    def infer(self, image: Tensor, gsd: Tensor, sensor: str) -> Tensor:
        """Probabilities, as `predict`, of normalized images: what an exported model computes."""
        said: Tensor = self.task.predict({"image": image, "gsd": gsd, "sensor": sensor})
        return said

    def batch(
        self,
        images: Any,
        gsd: Any = None,
        sensor: str | Sensor | None = None,
        valid: Any = None,
        *,
        bands: Sequence[str] | None = None,
    ) -> Batch:
        """Imagery as a batch for `predict_batch`, checked against the contract. Arguments as of `predict`."""
        image = torch.as_tensor(images)
        if self.dates == 1:
            return self._batch(image, gsd, sensor, valid, bands)
        if image.ndim == 4:
            image = image.unsqueeze(0)
        if image.ndim != 5 or image.shape[1] != self.dates:
            raise ContractError(
                f"this model compares {self.dates} dates: images are [N, {self.dates}, bands, height, "
                f"width], not {list(image.shape)}"
            )
        if valid is not None:
            valid = torch.as_tensor(valid, dtype=torch.bool)
            valid = valid.unsqueeze(0) if valid.ndim == 2 else valid
            valid = valid.repeat_interleave(self.dates, dim=0)
        own = self.contract.gsd(gsd, len(image), image.shape[-1])
        flat = self._batch(image.flatten(0, 1), own.repeat_interleave(self.dates), sensor, valid, bands)
        flat["image"] = flat["image"].reshape(-1, self.dates, *image.shape[2:])
        flat["gsd"] = flat["gsd"][:: self.dates]
        if "valid" in flat:
            flat["valid"] = flat["valid"][:: self.dates]
        return flat


def save_task_model(
    path: str | Path,
    task: Task,
    contract: Contract,
    *,
    kind: str,
    encoder_name: str,
    encoder_options: Mapping[str, Any],
    name: str,
    pooling: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write a task and its encoder as a model directory; arguments and errors as of `save_model`."""
    return save_model(
        path,
        name=name,
        encoder_name=encoder_name,
        encoder_options=encoder_options,
        encoder=task.encoder,
        contract=contract,
        pooling=pooling,
        objective=SavedObjective(kind, task.config.model_dump(mode="json"), task.own_state()),
        provenance=provenance,
    )


def load_task_model(path: str | Path, device: str | torch.device = "cpu") -> TaskModel:
    """The task model in a directory, its checksums verified, in evaluation mode.

    Args:
        path: A model directory that `swath finetune` wrote.
        device: Where its weights go.

    Raises:
        CheckpointError: Not the directory of a task model, incomplete or damaged; with the fix.
    """
    model, saved = load_encoder(path), load_objective(path)
    if saved is None or saved.name not in tasks:
        trained = "" if saved is None else f" (it was trained by {saved.name})"
        raise CheckpointError(
            f"{path}: has an encoder and no task{trained}. `swath finetune` makes a task model of it; tasks "
            f"are {', '.join(tasks.names())}."
        )
    try:
        config = tasks.get(saved.name).config.model_validate(dict(saved.options))
        task = build_task(saved.name, model.encoder, config, model.contract)
        load_own_state(task, saved.weights)
    except (ValidationError, SwathError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: its head cannot be built: {str(error).splitlines()[-1].strip()}. The directory was put "
            "together from two models, or is of another version of Swath."
        ) from None
    stored = {"name": saved.name, "options": stored_names(saved.options, f"options/{saved.name}")}
    both = [model.config["files"], model.config["objective"] | stored, model.id]
    fingerprint = hashlib.sha256(json.dumps(both, sort_keys=True).encode()).hexdigest()
    return TaskModel(
        task,
        model.contract,
        kind=saved.name,
        name=model.name,
        fingerprint=fingerprint,
        pooling=model.pooling,
        config=model.config,
    ).to(device)


model_loaders.register("task")(load_task_model)


def build_task(kind: str, encoder: torch.nn.Module, config: Any, contract: Contract) -> Task:
    """The task `kind` on an encoder; its head is freshly initialized from torch's generator as it stands."""
    with torch.random.fork_rng(devices=[]):
        return tasks.get(kind).build(encoder, config, contract)


def _rows(batch: Batch, start: int, stop: int) -> Any:
    return {k: v[start:stop] if isinstance(v, Tensor) else v for k, v in batch.items()}
