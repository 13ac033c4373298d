"""What a fine-tuning run ends with: scores as JSON and CSV, and one page for people.

::

    RUN/report/
      scores.json    figures with intervals, per class, confusion, at each scale
      classes.csv    the table of classes
      report.html    curves, confusion (of boxes: precision over recall), classes, examples with overlays, and
                     where the model does worst
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from swath.evaluation.measures.intervals import Estimate
from swath.files import atomic_path, write_json
from swath.reporting.charts import Line, line_chart
from swath.reporting.html import SafeHtml, figure, jpeg, table, write_html
from swath.reporting.rgb import to_rgb
from swath.tasks.dense.colors import class_color, colorize_mask
from swath.tasks.detection.report import detection_gallery, precision_curves
from swath.tasks.model import TaskModel
from swath.tasks.recipe import FinetuneRecipe
from swath.tasks.scores import TaskScores
from swath.tasks.scoring import predict_image, score_model
from swath.tasks.splits import DataSplits, describe_splits
from swath.training.run_directory import RunDirectory

_SHOWN, _LARGEST = 4, 384  # examples of each kind, and their largest side in pixels
_CURVES = 60  # points of a curve
Array = NDArray[Any]


def write_finetune_report(
    run: RunDirectory,
    model: TaskModel,
    splits: DataSplits,
    rows: Sequence[Mapping[str, Any]],
    recipe: FinetuneRecipe,
) -> TaskScores | None:
    """Score a model on the test split (or on the validation split where there is none) and write the report.

    Args:
        run: Where to: its folder ``report``.
        model: The finished model.
        splits: Of the data.
        rows: The run's metrics.
        recipe: Of the run.

    Returns:
        The scores, or None where there is nothing to score on.
    """
    split, name = (splits.test, "test") if splits.test is not None else (splits.val, "validation")
    if split is None:
        return None
    every = score_model(model, split, recipe.test_scales if model.dense or model.boxes else (1.0,))
    scores = every[1.0]
    warning = ""
    if splits.test is None:
        chosen = " chose the weights and" if recipe.keep_weights == "best" else ""
        warning = f"There is no test split: these are the images that{chosen} were watched in training."
    scores.protocol = {
        "task": recipe.task.name,
        "mode": recipe.mode,
        "split": name,
        "warning": warning,
        "images": {"train": len(splits.train), "scored": len(scores.images)},
        "labels_share": recipe.data.get("labels_share", 1.0),
        "seed": recipe.seed,
        "model": model.id,
        "from": None if recipe.model is None or recipe.mode == "scratch" else recipe.model.id,
        **(_of_pixels(split) if model.dense else {}),
        **scores.protocol,
    }
    run.report.mkdir(parents=True, exist_ok=True)
    data = scores.to_dict()
    data["scales"] = {f"{share:g}": one.to_dict()["figures"] for share, one in every.items()}
    write_json(run.report / "scores.json", data)
    _write_classes(run, scores)
    parts = [
        f"<h1>{escape(recipe.name)}</h1>",
        f"<p>{escape(recipe.task.name)}, {recipe.mode}; {len(split)} {name} images. "
        f"{escape(describe_splits({'train': splits.train, 'validation': splits.val, 'test': splits.test}))} "
        "samples.</p>",
        f'<div class="warning"><p>{escape(warning)}</p></div>' if warning else "",
        "".join(f'<p class="quiet">{escape(note)}</p>' for note in [*splits.notes, *_said(scores, split)]),
        _figures(every),
        "<h2>Classes</h2>" + _classes(scores),
        _confusion(scores, model.classes),
        precision_curves(scores) if model.boxes else "",
        "<h2>Training</h2>" + _curves(rows, scores.main),
        detection_gallery(model, split, scores)
        if model.boxes
        else "<h2>Where it does best, and worst</h2>" + _gallery(model, split, scores),
    ]
    write_html(run.report / "report.html", recipe.name, parts)
    return scores


# ---------------------------------------------------------------------------------------------------- tables


def _write_classes(run: RunDirectory, scores: TaskScores) -> None:
    header: list[str] = []
    rows = []
    for row in scores.per_class:
        flat: dict[str, Any] = {}
        for key, value in row.items():
            if isinstance(value, Estimate):
                flat |= {key: value.value, f"{key}_low": value.low, f"{key}_high": value.high}
            else:
                flat[key] = value
        rows.append(flat)
        header = list(flat)
    with (
        atomic_path(run.report / "classes.csv") as path,
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)


def _of_pixels(split: Any) -> dict[str, Any]:
    """How maps were scored."""
    return {
        "pixels": "global confusion over all images; intervals draw whole images",
        "tile": split.tile,
        "zoom": split.zoom,
    }


def _said(scores: TaskScores, split: Any) -> list[str]:
    """What there is to know of the images that were scored."""
    said = []
    lost = scores.protocol.get("unreadable", [])
    if lost:
        said.append(f"{len(lost)} images could not be read and are not scored: {'; '.join(lost[:3])}")
    zoom = getattr(split, "zoom", 1.0)
    if zoom != 1:
        said.append(
            f"Images are seen at {zoom:g} of their size: the scale nearest to their own that was trained on."
        )
    return said


def _figures(every: Mapping[float, TaskScores]) -> str:
    names = list(every[1.0].figures)
    rows = [
        [f"{share:.0%} of the side", *(str(one.figures[name]) for name in names)]
        for share, one in every.items()
    ]
    caption = "%, with 95% intervals over images"
    if len(every) > 1:
        caption += "; images reduced to a share of their side, answers enlarged again, the truth as it is"
    return table(["images", *names], rows, numbers_from=1, caption=caption)


def _classes(scores: TaskScores) -> str:
    header = list(scores.per_class[0])
    rows = [[_cell(value) for value in row.values()] for row in scores.per_class]
    return table(header, rows, numbers_from=1, caption="%, with 95% intervals over images")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{100 * value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _confusion(scores: TaskScores, classes: Sequence[str]) -> str:
    if scores.confusion is None:
        return ""
    rows: list[list[Any]] = []
    for k, (name, line) in enumerate(zip(classes, scores.confusion, strict=True)):
        share = line / max(line.sum(), 1)
        cells = []
        for other, part in enumerate(share):
            hue = "0,114,178" if other == k else "213,94,0"
            cells.append(
                SafeHtml(f'<span style="background:rgba({hue},{0.65 * part:.2f})">{100 * part:.1f}</span>')
            )
        rows.append([name, *cells])
    return table(
        ["", *classes],
        rows,
        numbers_from=1,
        caption="Confusion: a row a true class, a column what was said; %",
    )


def _curves(rows: Sequence[Mapping[str, Any]], main: str) -> str:
    drawn = []
    for key, title, factor in (
        ("loss/total", "training loss", 1.0),
        (f"val/{main}", f"validation {main}, %", 100.0),
    ):
        points = [(row["step"], factor * row[key]) for row in rows if row.get(key) is not None]
        if len(points) < 2:
            continue
        points = points[:: max(1, len(points) // _CURVES)]
        steps, values = [p[0] for p in points], [p[1] for p in points]
        marks = max(1, len(steps) // 5)
        # The last step is often close behind a marked one, whose label would lie under its own.
        crowded = len(steps) > 2 and steps[-1] - steps[-2] < 0.06 * steps[-1]
        marked = [i for i in range(0, len(steps), marks) if not (crowded and i == len(steps) - 2)]
        ticks = [str(s) if i in marked else "" for i, s in enumerate(steps)]
        line = Line(title, values, strong=True)
        drawn.append(
            line_chart([line], ticks, title=title, x_label="step", positions=[s / steps[-1] for s in steps])
        )
    return (
        figure(SafeHtml(f'<div class="panels">{"".join(drawn)}</div>'), "How training went") if drawn else ""
    )


# -------------------------------------------------------------------------------------------------- examples


def _gallery(model: TaskModel, split: Any, scores: TaskScores) -> str:
    """The worst images first, then some of the best."""
    numbers = np.array(scores.protocol.get("images_scored", range(len(split))))
    order = numbers[np.argsort(np.nan_to_num(scores.images, nan=2.0), kind="stable")]
    worst = order[:_SHOWN].tolist()
    best = [i for i in order[::-1][:_SHOWN].tolist() if i not in worst]
    show = _dense_example if model.dense else _class_example
    parts = []
    for title, chosen in (("Worst", worst), ("Best", best)):
        tiles = "".join(show(model, split, int(i)) for i in chosen)
        parts.append(f"<h3>{title}</h3>{tiles}" if chosen else "")
    legend = ""
    if model.dense:
        legend = "".join(
            f'<li><i style="background:rgb{class_color(k)}"></i>{escape(name)}</li>'
            for k, name in enumerate(model.classes)
        )
        legend = f'<ul class="key">{legend}</ul>'
    return legend + "".join(parts)


def _dense_example(model: TaskModel, split: Any, number: int) -> str:
    """Image (or both dates), truth, answer, and where they differ, side by side."""
    with torch.inference_mode():
        batch, said = predict_image(model.task, model.contract, split, number, model.device)
    answer, mask = said.argmax(1), batch["mask"]
    image = batch["image"]
    dates = image.unbind(1) if image.ndim == 5 else [image]
    pictures = [to_rgb({**batch, "image": one}, split.sensor) for one in dates]
    wrong = (answer != mask) & (mask != 255) & batch["valid"]
    shown = pictures[-1].copy()
    shown[wrong[0].numpy()] = (213, 94, 0)
    maps = [colorize_mask(x)[0].permute(1, 2, 0).numpy() for x in (mask, answer)]
    joined = _beside([*pictures, *maps, shown])
    share = 100 * float(wrong.sum()) / max(1, int(((mask != 255) & batch["valid"]).sum()))
    names = ["before", "after"] if len(dates) == 2 else ["image"]
    caption = (
        f"{_short(split.paths[number])}: {', '.join(names)}, truth, answer, errors ({share:.1f}% of pixels)"
    )
    return figure(joined, caption)


def _class_example(model: TaskModel, split: Any, number: int) -> str:
    """An image with its truth and the three likeliest classes."""
    batch = split.get_batch([number])
    with torch.inference_mode():
        said = model.predict_batch(batch)[0].cpu()
    truth = batch["label"][0]
    names = model.classes
    true = [names[int(truth)]] if truth.ndim == 0 else [names[int(k)] for k in truth.nonzero()[:, 0]]
    first = ", ".join(
        f"{names[int(k)]} {100 * float(said[k]):.0f}%" for k in said.argsort(descending=True)[:3]
    )
    caption = f"{_short(split.paths[number])}: {' and '.join(true) or 'no label'}; said: {first}"
    return figure(_beside([to_rgb(batch, split.sensor)]), caption)


def _beside(pictures: Sequence[Array]) -> bytes:
    from PIL import Image

    gap = np.full((pictures[0].shape[0], 4, 3), 255, dtype=np.uint8)
    strip = np.concatenate([x for picture in pictures for x in (picture, gap)][:-1], axis=1)
    drawn = Image.fromarray(strip)
    scale = min(1.0, _LARGEST / pictures[0].shape[0])
    size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
    return jpeg(drawn.resize(size, Image.Resampling.LANCZOS) if scale < 1 else drawn, quality=82)


def _short(path: str) -> str:
    return "/".join(path.split("/")[-2:])
