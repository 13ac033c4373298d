"""Examples of classified images."""

from __future__ import annotations

from typing import Any

import torch

from swath.reporting.html import figure
from swath.reporting.rgb import to_rgb
from swath.tasks.examples import short_path, side_by_side, worst_and_best
from swath.tasks.model import TaskModel
from swath.tasks.scores import TaskScores


def class_examples(model: TaskModel, dataset: Any, scores: TaskScores) -> str:
    """HTML of the images with the worst and the best scores."""
    examples = worst_and_best(dataset, scores, lambda number: _example(model, dataset, number))
    return f"<h2>Where it does best, and worst</h2>{examples}"


def _example(model: TaskModel, split: Any, number: int) -> str:
    """An image with its labels and the three most probable classes."""
    batch = split.get_batch([number])
    with torch.inference_mode():
        said = model.predict_batch(batch)[0].cpu()
    truth = batch["label"][0]
    names = model.classes
    true = [names[int(truth)]] if truth.ndim == 0 else [names[int(k)] for k in truth.nonzero()[:, 0]]
    first = ", ".join(
        f"{names[int(k)]} {100 * float(said[k]):.0f}%" for k in said.argsort(descending=True)[:3]
    )
    caption = f"{short_path(split.paths[number])}: {' and '.join(true) or 'no label'}; said: {first}"
    return figure(side_by_side([to_rgb(batch, split.sensor)]), caption)
