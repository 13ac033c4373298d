"""The verbs of `swath evaluate` that look for ways to fool oneself: leaks, geometry, robustness."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from swath.cli.evaluate.options import EvalOptions, with_eval_options

# Leaks are a finding of these commands, and no reason to stop.
_LEAKS_ARE_FINDINGS = ("gsds", "average_seeds", "allow_overlap")
_UNUSED_BY_LEAKAGE = (
    *_LEAKS_ARE_FINDINGS, "models", "image_sizes", "baselines", "pooling", "bands", "cache", "no_cache",
)  # fmt: skip

OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for JSON (and a plot).")]
SideOption = Annotated[
    int | None,
    typer.Option(help="Side in pixels that images are area-resized to.  \\[default: native]", min=8),
]


@with_eval_options(
    without=_UNUSED_BY_LEAKAGE, models=["baseline:statistics"], baselines=False, allow_overlap=True
)
def leakage(
    options: EvalOptions,
    out: OutOption = None,
    model: Annotated[
        str | None,
        typer.Option(help="Also search by this model's features; what it finds is verified on the pixels."),
    ] = None,
) -> None:
    """Search a split for queries that the bank knows already.

    Equal files; copies that were re-encoded, brightened, turned or mirrored; images that share ground, also
    at another scale; overlapping footprints. Every suspicion is verified on the pixels.

    Example: swath evaluate leakage scenes/index.csv -o looks
    """
    from rich.console import Console

    from swath.cli.evaluate.run import escape_markup, open_eval_inputs, progress_bar
    from swath.evaluation.audit.leakage import find_leaks
    from swath.evaluation.features.extract import extract_features
    from swath.evaluation.protocols.setup import native_image_size
    from swath.evaluation.report.tables import command_line
    from swath.files import write_json

    console, progress = Console(), Console(stderr=True)
    if model is not None:
        options = replace(options, models=[model])
    opened = open_eval_inputs(options, progress)
    split, models, batch_size = opened.split, opened.own, options.batch_size
    features = None
    if model is not None:
        image_size = native_image_size(models[:1], split)
        parts = (split.train, split.test)
        made = [extract_features(models[:1], part, image_size, batch_size=batch_size) for part in parts]
        features = tuple(one.features[models[0].name, image_size[0]] for one in made)
    with progress_bar(progress, len(split.train.indices) + len(split.test.indices)) as advance:
        found = find_leaks(split, features=features, batch_size=batch_size, progress=advance)  # type: ignore[arg-type]
    console.print(escape_markup(found.sentence), highlight=False)
    for leak in found.leaks[:20]:
        line = f"{leak.query}  <-  {leak.partner}  ({leak.reason}: {leak.detail})"
        console.print(escape_markup(line), highlight=False, soft_wrap=True)
    if len(found.leaks) > 20:
        console.print(f"... and {len(found.leaks) - 20:,} more; --out keeps all of them")
    if out is not None:
        origin = {"split_hash": split.hash, "command": command_line()}
        write_json(out / "leakage.json", {**origin, **opened.about, **found.to_dict()})
        console.print(f"wrote {escape_markup(str(out / 'leakage.json'))}", highlight=False)


@with_eval_options(without=_LEAKS_ARE_FINDINGS, allow_overlap=True)
def embedding(
    options: EvalOptions,
    out: OutOption = None,
) -> None:
    """Measure the shape of the embedding: how many directions are in use, and how evenly.

    RankMe, effective rank, intrinsic dimension, alignment and uniformity of the bank's features, a row a
    scale, with a warning where a space has collapsed. None of these is a score.

    Example: swath evaluate embedding runs/first/model scenes/index.csv -o looks
    """
    from rich.console import Console
    from rich.table import Table

    from swath.cli.evaluate.run import escape_markup, feature_cache, numbers, open_eval_inputs, progress_bar
    from swath.evaluation.audit.geometry import evaluate_embedding_stats
    from swath.evaluation.report.tables import command_line

    console, progress = Console(), Console(stderr=True)
    sizes = numbers(options.image_sizes, "--image-sizes are pixels", "16,32,64")
    opened = open_eval_inputs(options, progress)
    split = opened.split
    with progress_bar(progress, len(split.train.indices)) as advance:
        report = evaluate_embedding_stats(
            opened.extractors, split.train, image_sizes=sizes, batch_size=options.batch_size,
            progress=advance, cache=feature_cache(options.cache, options.no_cache),
        )  # fmt: skip
    table = Table(title="geometry of the bank's features", title_justify="left", box=None, pad_edge=False)
    for name in ("features", "px", "D", "RankMe", "eff. rank", "TwoNN", "uniform", "class", "scale", "dead"):
        table.add_column(name, justify="left" if name == "features" else "right")
    for row in report.rows:
        table.add_row(
            row.features, str(row.image_size), str(row.dimensions), f"{row.rankme:.1f}",
            f"{row.effective_rank:.1f}",
            _text(row.intrinsic, 1), f"{row.uniformity:.2f}", _text(row.class_alignment, 2),
            _text(row.scale_alignment, 3), str(row.dead),
        )  # fmt: skip
    console.print(table)
    for note in report.notes:
        console.print(f"[yellow]note:[/yellow] {escape_markup(note)}", highlight=False)
    if out is not None:
        path = report.write(out, **opened.about, split_hash=split.hash, command=command_line())
        console.print(f"wrote {escape_markup(str(path))}", highlight=False)


@with_eval_options(without=(*_LEAKS_ARE_FINDINGS, "image_sizes"), allow_overlap=True)
def robustness(
    options: EvalOptions,
    out: OutOption = None,
    corruptions: Annotated[
        str | None,
        typer.Option(
            help="haze, noise, speckle, stripes, missing-bands, blur, holes, rotation; several with commas "
            "between.  \\[default: all that make sense for the sensor]"
        ),
    ] = None,
    image_size: SideOption = None,
    max_images: Annotated[
        int | None, typer.Option(help="Queries to look at; every strength is a pass over them.", min=10)
    ] = 500,
    k: Annotated[int, typer.Option("--k", "-k", help="Neighbors that vote.", min=1)] = 20,
    standardize: Annotated[
        bool, typer.Option("--standardize", help="Standardize features by the train split.")
    ] = False,
) -> None:
    """Score queries that were made worse, against the strength of it.

    Strengths are physical (optical depth, looks, pixels, degrees) or shares of the band's spread; what makes
    no sense for a sensor is refused. The bank stays clean.

    Example: swath evaluate robustness runs/first/model scenes/index.csv --corruptions haze,blur -o looks
    """
    from rich.console import Console
    from rich.table import Table

    from swath.cli.evaluate.run import escape_markup, feature_cache, open_eval_inputs, progress_bar
    from swath.evaluation.audit.robustness import evaluate_robustness
    from swath.evaluation.report.tables import command_line

    console, progress = Console(), Console(stderr=True)
    requested = [name.strip() for name in corruptions.split(",")] if corruptions else None
    opened = open_eval_inputs(options, progress)
    split = opened.split
    total = len(split.train.indices) + min(max_images or len(split.test.indices), len(split.test.indices))
    with progress_bar(progress, total) as advance:
        report = evaluate_robustness(
            opened.extractors, split, corruptions=requested, image_size=image_size, k=k,
            standardize=standardize, max_images=max_images, batch_size=options.batch_size, progress=advance,
            cache=feature_cache(options.cache, options.no_cache),
        )  # fmt: skip
    for kind in report.corruptions:
        measure = report.protocol["corruptions"][kind]["measure"]
        console.print(f"{kind} ({measure}): top-1, %", style="bold", highlight=False)
        table = Table(box=None, pad_edge=False)
        table.add_column("features")
        for score in report.curve(report.names[0], kind):
            table.add_column("clean" if score.strength == 0 else f"{score.strength:.3g}", justify="right")
        for name in report.names:
            table.add_row(name, *(f"{100 * score.accuracy:.1f}" for score in report.curve(name, kind)))
        console.print(table)
    for note in report.notes:
        console.print(f"[yellow]note:[/yellow] {escape_markup(note)}", highlight=False)
    console.print(escape_markup(report.sentence()), highlight=False)
    if out is not None:
        for path in report.write(out, **opened.about, command=command_line()):
            console.print(f"wrote {escape_markup(str(path))}", highlight=False)


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
