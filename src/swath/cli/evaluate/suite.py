"""`swath evaluate suite`: several models on several sets, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def command(
    suite: Annotated[
        str,
        typer.Argument(
            help="A suite's YAML file, or a ready one: table1 (the eight sets of Scale-MAE's Table 1).",
            metavar="SUITE",
        ),
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to score, as for `swath evaluate knn`; NAME=MODEL gives it a name in the tables.",
            metavar="MODELS...",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the reports; what is finished there is kept.")
    ] = Path("suite"),
    data_root: Annotated[Path | None, typer.Option(help="Folder of data sets.", metavar="DIR")] = None,
    pooling: Annotated[
        str | None, typer.Option(help="Of the models named here: mean, mean_std or cls.")
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            help="Three bands that models of timm see as red, green and blue, where sets have more."
        ),
    ] = None,
    html_reports: Annotated[
        bool,
        typer.Option(
            "--html-reports",
            help="Also an HTML page a set: leaks, robustness, neighbors as pictures. Takes several times as "
            "long.",
        ),
    ] = False,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Whether those pages show images of the data.")
    ] = True,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for features.  \\[default: the user's cache folder]", metavar="DIR"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...  \\[default: cuda if there is one]")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a forward pass.", min=1)] = 64,
) -> None:
    """Score several models on several sets by the same protocols.

    Writes one folder of reports a set, and a summary of all (JSON, CSV, Markdown). Sets that are not there
    are listed as absent, with where they can be had. Run again, it does what is left to do.

    Example: swath evaluate suite table1 runs/first/model timm:resnet50@pretrained --data-root data -o table1
    """
    from rich.console import Console

    from swath.cli.evaluate.run import escape_markup, progress_bar
    from swath.evaluation.features.cache import FeatureCache
    from swath.evaluation.suites.config import get_suite
    from swath.evaluation.suites.results import SuiteResult
    from swath.evaluation.suites.run import run_suite
    from swath.evaluation.suites.tables import suite_notes, suite_summary, suite_tables
    from swath.evaluation.suites.write import write_suite_report

    console, progress = Console(), Console(stderr=True)

    def done(result: SuiteResult) -> None:
        one = result.datasets[-1]
        what = "kept from before" if one.again else one.status
        progress.print(
            f"{len(result.datasets)} of {len(result.suite.datasets)} {escape_markup(one.title)}: {what}",
            highlight=False,
        )
        write_suite_report(result, out)

    result = run_suite(
        get_suite(suite),
        [_model(text, pooling, bands) for text in models or []],
        out=out,
        data_root=data_root,
        device=device,
        batch_size=batch_size,
        cache=FeatureCache(cache),
        html_reports=html_reports,
        images=images,
        watch=lambda what, total: progress_bar(progress, total),
        after_set=done,
    )
    for table in suite_tables(result):
        console.print(table)
    for sentence in suite_summary(result):
        console.print(escape_markup(sentence), highlight=False)
    for remark in suite_notes(result):
        console.print(f"[yellow]note:[/yellow] {escape_markup(remark)}", highlight=False)
    for path in write_suite_report(result, out):
        console.print(f"wrote {escape_markup(str(path))}", highlight=False)
    if not any(one.status == "done" for one in result.datasets):
        from swath.errors import SwathError

        raise SwathError("not one set could be scored; see the notes above")


def _model(text: str, pooling: str | None, bands: str | None) -> Any:
    """``NAME=MODEL``, or a model alone. Options go to those that they have a meaning for."""
    from swath.evaluation.suites.config import SuiteModel

    name, equals, model = text.partition("=")
    if not equals or Path(text).exists():
        name, model = "", text
    timm = model.startswith("timm:")
    own = Path(model).exists() or model.startswith("random:")
    return SuiteModel(
        model=model,
        name=name or None,
        pooling=pooling if own else None,
        bands=tuple(band.strip() for band in bands.split(",")) if bands and timm else None,
    )
