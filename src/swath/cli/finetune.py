"""`swath finetune classify|segment|change|detect RECIPE --model MODEL --data DIR --out RUN`: train a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Train a task on a model: classes of images, classes of pixels, changes between dates, objects.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_Recipe = Annotated[
    Path, typer.Argument(help="Recipe (YAML); configs/finetune_*.yaml are some to begin with.")
]
_Data = Annotated[
    Path, typer.Option("--data", help="Labeled imagery: a folder, a CSV table, or a COCO file.")
]
_Out = Annotated[Path, typer.Option("--out", help="The run's folder: metrics, checkpoints, model, report.")]
_Model = Annotated[
    Path | None,
    typer.Option("--model", help="Directory of the model to begin with; of --set mode=scratch its shape."),
]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, such as mode=frozen. Repeatable."),
]
_Share = Annotated[
    float | None,
    typer.Option("--label-fraction", help="Learn from this share of the labels, drawn evenly over classes."),
]
_Resume = Annotated[
    bool, typer.Option("--resume", help="Only continue; refuse to begin where there is no run.")
]
_Fresh = Annotated[bool, typer.Option("--fresh", help="Remove the run that is in --out, and start over.")]


@app.command()
def classify(
    recipe: _Recipe, data: _Data, out: _Out, model: _Model = None, settings: _Set = None,
    label_fraction: _Share = None, resume: _Resume = False, fresh: _Fresh = False,
) -> None:  # fmt: skip
    """Train classes (or several labels) of whole images.

    Data: one folder a class, or a CSV table with the columns file, class and split.

    [dim]Example:[/dim] swath finetune classify configs/finetune_classify.yaml --model runs/first/model
    --data scenes/ --out runs/scenes --set mode=frozen
    """
    _finetune("classify", recipe, data, out, model, settings, label_fraction, resume, fresh)


@app.command()
def segment(
    recipe: _Recipe, data: _Data, out: _Out, model: _Model = None, settings: _Set = None,
    label_fraction: _Share = None, resume: _Resume = False, fresh: _Fresh = False,
) -> None:  # fmt: skip
    """Train a class for every pixel.

    Data: images/ and masks/ with files of the same name, or a CSV table with the columns image, mask, split.

    [dim]Example:[/dim] swath finetune segment configs/finetune_segment.yaml --model runs/first/model
    --data roads/ --out runs/roads --label-fraction 0.1
    """
    _finetune("segment", recipe, data, out, model, settings, label_fraction, resume, fresh)


@app.command()
def change(
    recipe: _Recipe, data: _Data, out: _Out, model: _Model = None, settings: _Set = None,
    label_fraction: _Share = None, resume: _Resume = False, fresh: _Fresh = False,
) -> None:  # fmt: skip
    """Train what has changed between two dates of one sensor.

    Data: A/, B/ and masks/ with files of the same name; a folder a place with date1.*, date2.* and mask.*;
    or a CSV table with the columns before, after, mask, split.

    [dim]Example:[/dim] swath finetune change configs/finetune_change.yaml --model runs/first/model
    --data pairs/ --out runs/changes --set task.options.head=bit
    """
    _finetune("change", recipe, data, out, model, settings, label_fraction, resume, fresh)


@app.command()
def detect(
    recipe: _Recipe, data: _Data, out: _Out, model: _Model = None, settings: _Set = None,
    label_fraction: _Share = None, resume: _Resume = False, fresh: _Fresh = False,
) -> None:  # fmt: skip
    """Train to find objects, as upright or oriented boxes.

    Data: a COCO file; or a folder in the layout of YOLO, DOTA or PASCAL VOC. Splits are patterns of paths, or
    a field of COCO's images: --set data.split=site --set "data.test=[north, south]".

    [dim]Example:[/dim] swath finetune detect configs/finetune_detect.yaml --model runs/first/model
    --data cars/annotations.json --out runs/cars --set data.val_fraction=0.2
    """
    _finetune("detect", recipe, data, out, model, settings, label_fraction, resume, fresh)


def _finetune(
    task: str,
    recipe: Path,
    data: Path,
    out: Path,
    model: Path | None,
    settings: list[str] | None,
    label_fraction: float | None,
    resume: bool,
    fresh: bool,
) -> None:
    import os

    from swath.errors import RecipeError
    from swath.tasks.finetuning import finetune
    from swath.tasks.recipe import load_finetune_recipe
    from swath.training.signals import TrainingInterrupted

    if resume and fresh:
        raise RecipeError("--resume and --fresh contradict each other: give one of them")
    overrides = [*(settings or [])]
    if label_fraction is not None:
        overrides.append(f"data.label_fraction={label_fraction}")
    resolved = load_finetune_recipe(recipe, overrides, model=model, task=task)
    first = os.environ.get("RANK", "0") == "0"
    start = "resume" if resume else "fresh" if fresh else "auto"
    try:
        finetune(resolved, data, out, start=start, progress=True)  # type: ignore[arg-type]
    except TrainingInterrupted as stop:
        if first:
            typer.echo(str(stop), err=True)
        raise typer.Exit(stop.exit_status) from None
    if first:
        typer.echo(f"model: {out / 'model'}")
        _print_scores(out)


def _print_scores(out: Path) -> None:
    import json

    path = out / "report" / "scores.json"
    if not path.is_file():
        typer.echo("no split to score on: name one with data.test or data.val")
        return
    scores = json.loads(path.read_text(encoding="utf-8"))
    split = scores["protocol"]["split"]
    for name, figure in scores["figures"].items():
        low, high = 100 * figure["low"], 100 * figure["high"]
        typer.echo(f"{split} {name:<18} {100 * figure['value']:5.1f} %  ({low:.1f} to {high:.1f})")
    typer.echo(f"report: {out / 'report' / 'report.html'}")
