"""`swath predict MODEL SCENES --out DIR`: apply a task model to whole scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swath.cli.parsing import number_or_name, offset_option

if TYPE_CHECKING:
    from rich.console import Console

    from swath.prediction.run import PredictReport

_LISTED = 20  # failures and notes printed; the rest is counted


def command(
    model: Annotated[Path, typer.Argument(help="Directory of a task model, as `swath finetune` writes it.")],
    scenes: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Image files, folders of them, STAC files, or CSV tables with the column scene (of two "
            "dates: before and after), and optionally gsd and name.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = ...,  # type: ignore[assignment]
    before: Annotated[
        Path | None, typer.Option("--before", help="Two dates: the first one, instead of SCENES.")
    ] = None,
    after: Annotated[Path | None, typer.Option("--after", help="Two dates: the second one.")] = None,
    coregister: Annotated[
        bool, typer.Option("--coregister", help="Bring the second date onto the grid of the first.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Maps: write the probability of each class, too.")
    ] = False,
    polygons: Annotated[
        list[str] | None,
        typer.Option("--polygons", metavar="CLASS", help="Maps: outline this class; or all. Repeatable."),
    ] = None,
    min_area: Annotated[int, typer.Option(help="Polygons: least number of pixels.", min=1)] = 1,
    min_score: Annotated[float, typer.Option(help="Objects: least score.", min=0.0, max=1.0)] = 0.3,
    min_valid: Annotated[
        float, typer.Option(help="Classes of tiles: least share of valid pixels.", min=0.0, max=1.0)
    ] = 0.5,
    gsd: Annotated[str | None, typer.Option(help="Metres per pixel of images without georeference.")] = None,
    target_gsd: Annotated[
        str,
        typer.Option(
            "--target-gsd",
            help="Metres per pixel at which scenes are looked at. auto: as they are if the model was trained "
            "on that, else resampled to the nearest GSD that it was; native: as they are.",
        ),
    ] = "auto",
    tile: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels of what the model sees at once.  \\[default: as it was trained]", min=1
        ),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            help="Share of a tile that neighbors have in common, 0 to 0.5.  "
            "\\[default: 0.25; 0 for classes of tiles]",
        ),
    ] = None,
    offset_dn: Annotated[float | None, offset_option()] = None,
    batch_size: Annotated[int, typer.Option(help="Tiles a forward pass.", min=1)] = 8,
    read_window: Annotated[
        int | None,
        typer.Option(help="Pixels of width that are read at a time; changes no result.", min=1),
    ] = None,
    workers: Annotated[int, typer.Option(help="Threads that read ahead.", min=0)] = 2,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...  \\[default: cuda if there is one]")
    ] = None,
) -> None:
    """Apply a fine-tuned model to whole scenes of any size.

    Segmentation and change: NAME_classes.tif, a Cloud-Optimized GeoTIFF with colors and class names.
    Classification: NAME_windows.gpkg and .parquet, a row a tile. Detection: NAME_objects.gpkg and .parquet.
    All in the CRS of the scene; no data stays no data; without georeference in pixel coordinates.

    Run it again after it was stopped, or with new scenes: what is done is skipped, what was begun goes on.
    Exit status: 0 if every scene was done, 1 if some could not be (they are listed, and in predictions.json),
    2 on an error.

    [dim]Examples:[/dim]

    swath predict runs/roads/model scenes/ --out maps/ --polygons road

    swath predict runs/changes/model --before 2019.tif --after 2024.tif --coregister --out changes/
    """
    import torch

    from swath.prediction import PredictionOptions, predict_scenes
    from swath.prediction.tile_loop import RuntimeOptions
    from swath.tasks.model import load_task_model

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_task_model(model, device=device)
    options = PredictionOptions(
        tile=tile,
        overlap=overlap,
        gsd=number_or_name(gsd),
        target_gsd=number_or_name(target_gsd) or "auto",
        coregister=coregister,
        offset_dn=offset_dn,
        probabilities=probabilities,
        polygons=tuple(polygons or ()),
        min_area=min_area,
        min_valid=min_valid,
        min_score=min_score,
    )
    pace = RuntimeOptions(batch_size=batch_size, read_window=read_window, workers=workers)
    given = _scenes(scenes or [], before, after, loaded.dates)
    from rich.console import Console

    console = Console(stderr=True)
    try:
        with _progress(console) as advance:
            report = predict_scenes(loaded, given, out, options, runtime=pace, progress=advance)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command continues", err=True)
        raise typer.Exit(130) from None
    _say(console, report)
    if report.failures:
        raise typer.Exit(1)


def _scenes(scenes: list[Path], before: Path | None, after: Path | None, dates: int) -> list[Any]:
    """Paths, or the one pair."""
    from swath.errors import ContractError
    from swath.prediction.inputs import scene_pair

    if before is None and after is None:
        if not scenes:
            raise ContractError("nothing to predict: give SCENES, or --before and --after for a pair")
        return list(scenes)
    if before is None or after is None:
        raise ContractError("--before and --after belong together: give both")
    if scenes:
        raise ContractError("SCENES and --before/--after contradict each other: give one of them")
    if dates != 2:
        raise ContractError("--before and --after: this model looks at one date; give SCENES")
    return [scene_pair(before, after)]


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Any], None]]:
    """A bar with rate and time left."""
    from rich import progress as bars
    from rich.markup import escape

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with bars.Progress(*columns, console=console, speed_estimate_period=120) as bar:
        task = bar.add_task("looking through scenes", total=None, rate="")

        def advance(now: Any) -> None:
            seconds = bar.tasks[0].elapsed or 0.0
            rate = f"{now.done / seconds:,.1f} tiles/s" if now.done and seconds > 0 else ""
            name = escape(Path(now.scene).name[-40:])
            bar.update(task, completed=now.done, total=now.total, rate=rate, description=name)

        yield advance


def _say(console: Console, report: PredictReport) -> None:
    """What was done, what there is to know, what failed and why."""
    from collections import Counter

    from rich.markup import escape

    done, present = report.count("done"), report.count("present")
    there = f", {present:,} were there already" if present else ""
    console.print(
        f"[bold]{done:,}[/] scenes done{there}; {escape(str(report.path))}", highlight=False, soft_wrap=True
    )
    if len(report.scenes) == 1:
        for kind, file in report.scenes[0].files.items():
            console.print(
                f"  {kind}: {escape(str(report.path.parent / file))}", highlight=False, soft_wrap=True
            )
    notes = Counter(note for scene in report.scenes for note in scene.notes)
    for note, count in notes.most_common(_LISTED):
        scenes = "" if len(report.scenes) == 1 else f"{count:,} of {len(report.scenes):,}: "
        console.print(f"note: {scenes}{escape(note)}", highlight=False, soft_wrap=True)
    if not report.failures:
        return
    console.print(f"[bold red]{len(report.failures):,} could not be used:[/]", highlight=False)
    for scene, reason in report.failures[:_LISTED]:
        text = reason if scene in reason else f"{scene}: {reason}"
        console.print(f"  {escape(text)}", highlight=False, soft_wrap=True)
    if len(report.failures) > _LISTED:
        console.print(f"  ... and {len(report.failures) - _LISTED:,} more", highlight=False)
    console.print("exit status 1, because of these", highlight=False)
