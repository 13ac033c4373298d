"""Scores of a task model on a whole data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from swath.errors import ImageryError
from swath.models.contract import Contract
from swath.tasks.model import TaskModel
from swath.tasks.protocol import Task
from swath.tasks.scores import TaskScores


def score(
    task: nn.Module,
    contract: Contract,
    dataset: Any,
    device: torch.device,
    *,
    scale: float = 1.0,
    intervals: bool = True,
) -> TaskScores:
    """Scores of a task on all images of a split, as `Task.score`.

    Args:
        task: In evaluation mode.
        contract: Of its images.
        dataset: A split.
        device: Where the task is.
        scale: Of pixels and boxes: images are reduced to this share of their sides before they are looked at
            (the GSD follows), and what is said is enlarged again: the truth keeps its size.
        intervals: Of boxes, where they cost time: whether figures get their intervals.

    Raises:
        ImageryError: No image of the split can be read. Single ones are left out, and listed in the protocol.
    """
    assert isinstance(task, Task)
    return task.score(dataset, contract, device, scale=scale, intervals=intervals)


def score_model(model: TaskModel, dataset: Any, scales: Sequence[float] = (1.0,)) -> dict[float, TaskScores]:
    """Scores of a task model on a split, at each share of the images' sides."""
    with torch.inference_mode():
        return {
            share: score(model.task, model.contract, dataset, model.device, scale=share) for share in scales
        }


def require_readable(numbers: Sequence[int], unreadable: Sequence[str]) -> None:
    """Raise ImageryError if no image was read; `unreadable` says why."""
    if not numbers:
        raise ImageryError(f"no image of the split can be read; the first: {unreadable[0]}")


def list_unreadable(scores: TaskScores, numbers: Sequence[int], unreadable: Sequence[str]) -> TaskScores:
    """The scores with the unreadable images listed in their protocol."""
    if unreadable:
        scores.protocol |= {"unreadable": list(unreadable), "images_scored": list(numbers)}
    return scores
