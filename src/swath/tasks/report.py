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

from swath.evaluation.measures.intervals import Estimate
from swath.files import atomic_path, write_json
from swath.reporting.charts import Line, line_chart
from swath.reporting.html import SafeHtml, figure, table, write_html
from swath.tasks.model import TaskModel
from swath.tasks.recipe import FinetuneRecipe
from swath.tasks.scores import TaskScores
from swath.tasks.scoring import score_model
from swath.tasks.splits import DataSplits, describe_splits
from swath.training.run_directory import RunDirectory

_CURVES = 60  # points of a curve


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
    every = score_model(model, split, recipe.test_scales if model.task.tested_at_scales else (1.0,))
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
        "label_fraction": recipe.data.get("label_fraction", 1.0),
        "seed": recipe.seed,
        "model": model.id,
        "from": None if recipe.model is None or recipe.mode == "scratch" else recipe.model.id,
        **model.task.score_settings(split),
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
        "<h2>Training</h2>" + _curves(rows, scores.main),
        *model.task.report_sections(model, split, scores),
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
