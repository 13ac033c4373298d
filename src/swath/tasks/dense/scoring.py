"""Scores of maps of classes: every image is predicted in tiles, and all its pixels are counted.

Legend: K classes, H x W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from swath.datasets.chip import Batch
from swath.datasets.collation import map_tensors
from swath.errors import ImageryError
from swath.models.contract import Contract
from swath.tasks.dense.losses import IGNORE
from swath.tasks.dense.tiled_inference import predict_tiled, rescale_batch
from swath.tasks.protocol import Task, normalize_task_batch
from swath.tasks.scores import TaskScores, confusion_matrix, score_segmentation
from swath.tasks.scoring import list_unreadable, require_readable


def score_maps(
    task: Task, contract: Contract, dataset: Any, device: torch.device, scale: float, *, main: str
) -> TaskScores:
    """Scores by the confusion matrix over all labeled pixels, one matrix per image."""
    classes = task.config.classes
    tables, numbers, unreadable = [], [], []
    for number in range(len(dataset)):
        try:
            batch, said = predict_image(task, contract, dataset, number, device, scale=scale)
        except ImageryError as error:
            unreadable.append(str(error))
            continue
        mask = batch["mask"].masked_fill(~batch["valid"], IGNORE)
        tables.append(confusion_matrix(mask.numpy(), said.argmax(1).numpy(), len(classes)))
        numbers.append(number)
    require_readable(numbers, unreadable)
    return list_unreadable(score_segmentation(np.stack(tables), classes, main=main), numbers, unreadable)


def predict_image(
    task: Task, contract: Contract, dataset: Any, number: int, device: torch.device, *, scale: float = 1.0
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
    said = predict_tiled(task, rescale_batch(ready, scale * dataset.zoom), dataset.tile)
    size = batch["image"].shape[-2:]
    if said.shape[-2:] != size:
        said = nn.functional.interpolate(said, size=size, mode="bilinear", align_corners=False)
    return batch, said.cpu()
