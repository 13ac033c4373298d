"""Examples of maps: image, labels, prediction and errors side by side."""

from __future__ import annotations

from html import escape
from typing import Any

import torch

from swath.reporting.html import figure
from swath.reporting.rgb import to_rgb
from swath.tasks.dense.colors import class_color, colorize_mask
from swath.tasks.dense.scoring import predict_image
from swath.tasks.examples import short_path, side_by_side, worst_and_best
from swath.tasks.model import TaskModel
from swath.tasks.scores import TaskScores


def map_examples(model: TaskModel, dataset: Any, scores: TaskScores) -> str:
    """HTML of the images with the worst and the best scores, below the colors of the classes."""
    legend = "".join(
        f'<li><i style="background:rgb{class_color(k)}"></i>{escape(name)}</li>'
        for k, name in enumerate(model.classes)
    )
    examples = worst_and_best(dataset, scores, lambda number: _example(model, dataset, number))
    return f'<h2>Where it does best, and worst</h2><ul class="key">{legend}</ul>{examples}'


def _example(model: TaskModel, split: Any, number: int) -> str:
    """Image (or both dates), ground truth, prediction, and where they differ, side by side."""
    with torch.inference_mode():
        batch, said = predict_image(model.task, model.contract, split, number, model.device)
    answer, mask = said.argmax(1), batch["mask"]
    image = batch["image"]
    dates = image.unbind(1) if image.ndim == 5 else [image]
    images = [to_rgb({**batch, "image": one}, split.sensor) for one in dates]
    wrong = (answer != mask) & (mask != 255) & batch["valid"]
    shown = images[-1].copy()
    shown[wrong[0].numpy()] = (213, 94, 0)
    maps = [colorize_mask(x)[0].permute(1, 2, 0).numpy() for x in (mask, answer)]
    joined = side_by_side([*images, *maps, shown])
    share = 100 * float(wrong.sum()) / max(1, int(((mask != 255) & batch["valid"]).sum()))
    names = ["before", "after"] if len(dates) == 2 else ["image"]
    shown_as = ", ".join([*names, "truth", "prediction", "errors"])
    caption = f"{short_path(split.paths[number])}: {shown_as} ({share:.1f}% of pixels)"
    return figure(joined, caption)
