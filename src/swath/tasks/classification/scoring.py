"""Scores of classes of whole images."""

from __future__ import annotations

from typing import Any

import torch

from swath.datasets.collation import map_tensors
from swath.models.contract import Contract
from swath.tasks.protocol import Task, normalize_task_batch
from swath.tasks.scores import TaskScores, score_classification, score_multilabel_classification
from swath.tasks.scoring import list_unreadable, require_readable

_AT_A_TIME = 32  # images per forward pass


def score_images(task: Task, contract: Contract, dataset: Any, device: torch.device) -> TaskScores:
    """Scores on all images of a split."""
    classes = task.config.classes
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
    require_readable(numbers, unreadable)
    probabilities, truth = torch.cat(said_all).double().numpy(), torch.cat(labels).numpy()
    scores = (score_classification if truth.ndim == 1 else score_multilabel_classification)(
        probabilities, truth, classes
    )
    return list_unreadable(scores, numbers, unreadable)
