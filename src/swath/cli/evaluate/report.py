"""`swath evaluate report`: everything about some models on one data set, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swath.cli.evaluate.options import EvalOptions, with_eval_options


# Leaks are a finding of the page, and no reason to stop.
@with_eval_options(without=("gsds", "average_seeds", "allow_overlap"), allow_overlap=True)
def command(
    options: EvalOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for page and figures.")] = Path("report"),
    title: Annotated[str, typer.Option(help="Of the page.  \\[default: the data's folder]")] = "",
    k: Annotated[int, typer.Option("--k", "-k", help="Neighbors that vote.", min=1)] = 20,
    fewshot: Annotated[
        bool, typer.Option("--fewshot/--no-fewshot", help="Curves over the number of labeled images.")
    ] = True,
    robustness: Annotated[
        bool, typer.Option("--robustness/--no-robustness", help="Score queries that were made worse.")
    ] = True,
    corruptions: Annotated[
        str | None,
        typer.Option(
            help="How queries are made worse, such as haze,blur.  \\[default: all that make sense for the "
            "sensor]"
        ),
    ] = None,
    max_images: Annotated[int, typer.Option(help="Queries that are made worse, at most.", min=10)] = 400,
    images: Annotated[
        bool,
        typer.Option(
            "--images/--no-images",
            help="Show leaks and neighbors as pictures; without, the page can be passed on where the "
            "imagery cannot.",
        ),
    ] = True,
) -> None:
    """Write one HTML page about models on a data set, with the figures beside it as JSON and CSV.

    Scores with intervals and baselines, scale curves, few-shot curves, leaks and the scores without them,
    confusions, calibration, robustness, geometry, retrieved neighbors as pictures and a map of the
    embedding. The page needs nothing from elsewhere; every figure says how it is made again.

    Example: swath evaluate report runs/first/model runs/second/model scenes/index.csv -o report
    """
    from rich.console import Console

    from swath.cli.evaluate.run import escape_markup, feature_cache, numbers, open_eval_inputs, progress_bar
    from swath.evaluation.report.data import collect_report_data
    from swath.evaluation.report.page import summary_sentences
    from swath.evaluation.report.write import write_html_report

    console, progress = Console(), Console(stderr=True)
    requested = [name.strip() for name in corruptions.split(",")] if corruptions else None
    sizes = numbers(options.image_sizes, "--image-sizes are pixels", "16,32,64")
    opened = open_eval_inputs(options, progress)
    split = opened.split
    with progress_bar(progress, len(split.train.indices) + len(split.test.indices)) as advance:
        report_data = collect_report_data(
            opened.own, opened.baselines, split, title=title, image_sizes=sizes, k=k, fewshot=fewshot,
            robustness=robustness, corruptions=requested, robust_limit=max_images, images=images,
            cache=feature_cache(options.cache, options.no_cache), batch_size=options.batch_size,
            progress=advance,
        )  # fmt: skip
    for sentence in [*summary_sentences(report_data), report_data.leakage.sentence]:
        console.print(escape_markup(sentence), highlight=False)
    for path in write_html_report(report_data, out, **opened.about):
        console.print(f"wrote {escape_markup(str(path))}", highlight=False)
