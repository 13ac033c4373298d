"""Scores of a task model on a whole data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from swath.datasets.chip import Batch
from swath.datasets.collate import map_tensors
from swath.errors import ImageryError
from swath.models.contract import Contract
from swath.tasks.dense.losses import IGNORE
from swath.tasks.dense.tiled_inference import predict_tiled, rescale_batch
from swath.tasks.detection.scoring import score_boxes
from swath.tasks.detection.task import DetectionTask
from swath.tasks.model import TaskModel
from swath.tasks.protocol import Task, normalize_task_batch
from swath.tasks.scores import (
    TaskScores,
    confusion_matrix,
    score_classification,
    score_multilabel_classification,
    score_segmentation,
)

_AT_A_TIME = 32  # images that are classified together


def score(
    task: nn.Module,
    contract: Contract,
    dataset: Any,
    device: torch.device,
    *,
    share: float = 1.0,
    intervals: bool = True,
) -> TaskScores:
    """Scores of a task on all images of a split; pixels by the global confusion, boxes by their matches.

    Args:
        task: In evaluation mode.
        contract: Of its images.
        dataset: A split.
        device: Where the task is.
        share: Of pixels and boxes: images are reduced to this share of their sides before they are looked at
            (the GSD follows), and what is said is enlarged again: the truth keeps its size.
        intervals: Of boxes, where they cost time: whether figures get their intervals.

    Raises:
        ImageryError: No image of the split can be read. Single ones are left out, and listed in the protocol.
    """
    assert isinstance(task, Task)
    if isinstance(task, DetectionTask):
        return score_boxes(task, contract, dataset, device, share=share, resamples=500 if intervals else 0)
    classes = task.config.classes
    if task.dense:
        return _score_maps(task, contract, dataset, device, share)
    said_all, labels, numbers, unreadable = [], [], [], []
    for start in range(0, len(dataset), _AT_A_TIME):
        batch = dataset.get_batch(list(range(start, min(start + _AT_A_TIME, len(dataset)))))
        if len(batch["index"]) < min(_AT_A_TIME, len(dataset) - start):
            unreadable += [reason for _, reason in batch.get("problems", ())]
        if not len(batch["index"]):
            continue
        ready = normalize_task_batch(contract, map_tensors(batch, lambda x: x.to(device)))
        said_all.append(task.predict(ready).float().cpu())
        labels.append(batch["label"])
        numbers += batch["index"].tolist()
    _some(numbers, unreadable)
    probabilities, truth = torch.cat(said_all).double().numpy(), torch.cat(labels).numpy()
    scores = (score_classification if truth.ndim == 1 else score_multilabel_classification)(
        probabilities, truth, classes
    )
    return _without(scores, numbers, unreadable)


def _score_maps(
    task: Task, contract: Contract, dataset: Any, device: torch.device, share: float
) -> TaskScores:
    """Of tasks that speak of pixels: a confusion an image, of all its pixels that count."""
    classes = task.config.classes
    tables, numbers, unreadable = [], [], []
    for number in range(len(dataset)):
        try:
            batch, said = predict_image(task, contract, dataset, number, device, share=share)
        except ImageryError as error:
            unreadable.append(str(error))
            continue
        mask = batch["mask"].masked_fill(~batch["valid"], IGNORE)
        tables.append(confusion_matrix(mask.numpy(), said.argmax(1).numpy(), len(classes)))
        numbers.append(number)
    _some(numbers, unreadable)
    main = "f1" if task.dates == 2 and len(classes) == 2 else "miou"
    return _without(score_segmentation(np.stack(tables), classes, main=main), numbers, unreadable)


def _some(numbers: Sequence[int], unreadable: Sequence[str]) -> None:
    if not numbers:
        raise ImageryError(f"no image of the split can be read; the first: {unreadable[0]}")


def _without(scores: TaskScores, numbers: Sequence[int], unreadable: Sequence[str]) -> TaskScores:
    """Scores that say which images they are without, if any."""
    if unreadable:
        scores.protocol |= {"unreadable": list(unreadable), "images_scored": list(numbers)}
    return scores


def predict_image(
    task: Task, contract: Contract, dataset: Any, number: int, device: torch.device, *, share: float = 1.0
) -> tuple[Batch, Any]:
    """Image `number` of a split as a batch of one, and the probabilities [1, K, H, W] of its pixels.

    It is looked at as `swath predict` would: in tiles of the training crops' side, and at the scale nearest
    to its own that training has shown.

    Raises:
        ImageryError: It cannot be read.
    """
    batch = dataset.get_batch([number])
    if "problems" in batch:
        raise ImageryError(batch["problems"][0][1])
    ready = normalize_task_batch(contract, map_tensors(batch, lambda x: x.to(device)))
    said = predict_tiled(task, rescale_batch(ready, share * dataset.zoom), dataset.tile)
    size = batch["image"].shape[-2:]
    if said.shape[-2:] != size:
        said = nn.functional.interpolate(said, size=size, mode="bilinear", align_corners=False)
    return batch, said.cpu()


def score_model(model: TaskModel, dataset: Any, shares: Sequence[float] = (1.0,)) -> dict[float, TaskScores]:
    """Scores of a task model on a split, at each share of the images' sides."""
    with torch.inference_mode():
        return {
            share: score(model.task, model.contract, dataset, model.device, share=share) for share in shares
        }
