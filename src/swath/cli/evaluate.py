"""`swath evaluate`: how good are a model's features, beside baselines that cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from swath.cli import retrieval

app = typer.Typer(
    help="Score a model's frozen features on labelled images, with intervals and baselines beside them.\n\n"
    "A score without its protocol says little, and without baselines nothing. So every run states both, and "
    "writes files that say how to make the figures again.",
    no_args_is_help=True,
)

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="Model directory, or baseline:NAME: statistics, histogram, pixels, rcf-plain, rcf.",
        metavar="MODEL",
    ),
]
DataArgument = Annotated[
    Path,
    typer.Argument(
        help="Labelled images: class folders (split by seed), a folder with train/ and val/ (or test/) class "
        "folders, or a CSV table with columns file, class and fold.",
        metavar="DATA",
    ),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for the figures: JSON, CSV and a plot.")
]
ScalesOption = Annotated[
    str | None,
    typer.Option(
        help="Sides in pixels that images are area-resized to, such as 16,32,64,128.  \\[default: 12.5, 25, "
        "50 and 100% of the images; linear: 100%]"
    ),
]
BaselinesOption = Annotated[
    bool,
    typer.Option(
        "--baselines/--no-baselines",
        help="Also score image statistics, histogram, pixels, random convolutional features (RCF) and the "
        "model's own encoder untrained. A model that RCF beats has not earned its training.",
    ),
]
PoolingOption = Annotated[
    str | None, typer.Option(help="mean, moments or cls.  \\[default: the model's own]")
]
SensorOption = Annotated[
    str | None,
    typer.Option(
        help="What the images were taken with, where the model knows several sensors.  \\[default for "
        "baselines: rgb_aerial]"
    ),
]
GsdOption = Annotated[
    str | None,
    typer.Option(
        help="Metres per pixel, or a column of the CSV table.  \\[default: the column gsd_m, or the files' "
        "georeference]"
    ),
]
GsdModeOption = Annotated[
    str | None,
    typer.Option(
        help="Tell the model scale in metres, or relative to the images' native side, whatever it was "
        "trained on: to measure which helps.  \\[default: the model's own mode]"
    ),
]
LabelOption = Annotated[
    str | None, typer.Option(help="CSV: column of the classes.  \\[default: class or label]")
]
FoldOption = Annotated[str | None, typer.Option(help="CSV: column of the split.  \\[default: fold or split]")]
BankOption = Annotated[str, typer.Option(help="Fold or folder that is learned from.")]
QueriesOption = Annotated[
    str | None, typer.Option(help="Fold or folder that is classified.  \\[default: val or test]")
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        help="CSV: column that images of the same ground share; they must not stand on both sides.  "
        "\\[default: overlap_group]"
    ),
]
OverlapOption = Annotated[
    bool, typer.Option("--allow-overlap", help="Score a split that does so all the same, with a note.")
]
SizeOption = Annotated[
    int | None, typer.Option(help="Images of different sizes: bring all to this side first.", min=8)
]
OffsetOption = Annotated[
    float | None,
    typer.Option(
        "--offset-dn",
        help="Added to stored values before scaling, for Sentinel-2 files that do not say their processing "
        "baseline: -1000 from baseline 04.00, 0 before.",
    ),
]
SeedOption = Annotated[int, typer.Option(help="Of the split, where the data has none of its own.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, ...  \\[default: cuda if there is one]")]
BatchOption = Annotated[int, typer.Option(help="Images a forward pass.", min=1)]


@app.command("knn")
def knn(
    model: ModelArgument,
    data: DataArgument,
    out: OutOption = None,
    scales: ScalesOption = None,
    asymmetric: Annotated[
        bool,
        typer.Option(
            "--asymmetric/--symmetric-only", help="Also: queries reduced, bank at the largest scale."
        ),
    ] = True,
    baselines: BaselinesOption = True,
    k: Annotated[int, typer.Option("--k", "-k", help="Neighbours that vote.", min=1)] = 20,
    temperature: Annotated[
        float, typer.Option(help="A vote weighs exp(cosine / temperature).", min=1e-3)
    ] = 0.07,
    pooling: PoolingOption = None,
    sensor: SensorOption = None,
    gsd: GsdOption = None,
    gsd_mode: GsdModeOption = None,
    label_column: LabelOption = None,
    fold_column: FoldOption = None,
    bank: BankOption = "train",
    queries: QueriesOption = None,
    group_column: GroupOption = None,
    allow_overlap: OverlapOption = False,
    size: SizeOption = None,
    offset_dn: OffsetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    batch_size: BatchOption = 64,
) -> None:
    """Classify by the nearest neighbours, at several image scales.

    Every image of the queries is classified by a vote of its k most similar images of the bank. Nothing is
    trained, so the score speaks of the features alone. Scale-MAE's protocol (k = 20, T = 0.07, cosine, area
    resize) with all that it leaves open stated; "knn-z" is the same on features standardised by the bank.

    Example: swath evaluate knn runs/first/model scenes/index.csv --scales 16,32,64,128 -o scores
    """
    from swath.evaluation.protocols import evaluate_knn

    _run(evaluate_knn, locals(), asymmetric=asymmetric, k=k, temperature=temperature)


@app.command("linear")
def linear(
    model: ModelArgument,
    data: DataArgument,
    out: OutOption = None,
    scales: ScalesOption = None,
    baselines: BaselinesOption = True,
    c: Annotated[
        float,
        typer.Option("--c", help="Inverse strength of the L2 penalty. Fix it beforehand.", min=1e-8),
    ] = 0.1,
    pooling: PoolingOption = None,
    sensor: SensorOption = None,
    gsd: GsdOption = None,
    gsd_mode: GsdModeOption = None,
    label_column: LabelOption = None,
    fold_column: FoldOption = None,
    bank: BankOption = "train",
    queries: QueriesOption = None,
    group_column: GroupOption = None,
    allow_overlap: OverlapOption = False,
    size: SizeOption = None,
    offset_dn: OffsetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    batch_size: BatchOption = 64,
) -> None:
    """Classify by logistic regression on the features (linear probe).

    A convex problem solved to the end: no learning rate, no epochs, no luck. Features are standardised by the
    bank's statistics.

    Example: swath evaluate linear runs/first/model scenes/index.csv --scales 128 -o scores
    """
    from swath.evaluation.protocols import evaluate_linear

    _run(evaluate_linear, locals(), c=c)


app.command("retrieval")(retrieval.command)


def _run(evaluate: Any, given: dict[str, Any], **options: Any) -> None:
    """Load, score, print, write: the same for every protocol."""
    from rich.console import Console

    from swath.errors import SwathError
    from swath.evaluation.report import score_tables, verdict, write_report
    from swath.evaluation.splits import open_split

    console, progress = Console(), Console(stderr=True)
    gsd_mode = given["gsd_mode"]
    if gsd_mode not in (None, "metres", "relative"):
        raise SwathError(f"--gsd-mode is metres or relative, not {gsd_mode!r}")
    featurizers, sensor, mode, about = _featurizers(given)
    with progress.status(f"looking through {given['data']}"):
        split = open_split(
            given["data"],
            sensor=sensor,
            gsd=_gsd(given["gsd"], mode, given["data"]),
            bank=given["bank"],
            queries=given["queries"],
            label_column=given["label_column"],
            fold_column=given["fold_column"],
            group_column=given["group_column"],
            allow_overlap=given["allow_overlap"],
            seed=given["seed"],
            size=given["size"],
            fit="resize" if given["size"] else None,
            offset_dn=given["offset_dn"],
        )
    with _bar(progress, len(split.bank.indices) + len(split.queries.indices)) as advance:
        evaluation = evaluate(
            featurizers, split, sides=_scales(given["scales"]), batch_size=given["batch_size"],
            progress=advance, **options,
        )  # fmt: skip
    for table in score_tables(evaluation):
        console.print(table)
    p = evaluation.protocol
    console.print(
        f"bank: {p['bank']['images']:,} images ({p['bank']['name']}); queries: {p['queries']['images']:,} "
        f"({p['queries']['name']}); always the most frequent class: {100 * p['chance']:.1f}%",
        highlight=False,
    )
    for note in evaluation.notes:
        console.print(f"[yellow]note:[/yellow] {_plain(note)}", highlight=False)
    sentence = verdict(evaluation)
    if sentence:
        console.print(_plain(sentence), highlight=False)
    if given["out"] is not None:
        for path in write_report(evaluation, given["out"], **about):
            console.print(f"wrote {_plain(str(path))}", highlight=False)


def _featurizers(given: dict[str, Any]) -> tuple[list[Any], Any, str | None, dict[str, Any]]:
    """What is scored, the sensor that the data is opened with, how scale is told, facts for the report."""
    import torch

    from swath.errors import SwathError
    from swath.evaluation.baselines import all_baselines, make_baseline, random_init
    from swath.evaluation.features import ModelFeaturizer

    name, mode = given["model"], given["gsd_mode"]
    about: dict[str, Any] = {"model": name, "data": str(given["data"])}
    found: list[Any]
    extra: list[Any] = []
    if name.startswith("baseline:"):
        for option in ("pooling", "gsd_mode"):
            if given[option] is not None:
                raise SwathError(f"--{option.replace('_', '-')} is for models; a baseline has none")
        found, sensor = [make_baseline(name.removeprefix("baseline:"))], given["sensor"] or "rgb_aerial"
    else:
        from swath.models import load_model

        device = given["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
        model = load_model(name, device=device)
        sensor = model.contract.sensor(given["sensor"])
        options = {"pooling": given["pooling"], "gsd_mode": mode}
        found = [ModelFeaturizer(model, **options)]
        mode = mode or model.contract.gsd_mode
        about["model_id"] = model.id
        if given["baselines"]:
            extra = [random_init(model, **options)]
    if given["baselines"]:
        extra += all_baselines()
    present = {f.name for f in found}
    return found + [f for f in extra if f.name not in present], sensor, mode, about


def _gsd(stated: str | None, mode: str | None, data: Path) -> Any:
    """What the data set is opened with: scale in metres where it is used and known."""
    if mode == "relative":
        return "relative"
    if stated is None:
        # Baselines do not look at scale; only a table's own column costs nothing to take along.
        return "relative" if mode is None and data.suffix.lower() != ".csv" else None
    try:
        return float(stated)
    except ValueError:
        return stated


def _scales(text: str | None) -> list[int] | None:
    from swath.errors import SwathError

    if text is None:
        return None
    try:
        sides = [int(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if not sides or min(sides) < 1:
        raise SwathError(f"--scales are sides in pixels with commas between, such as 16,32,64, not {text!r}")
    return sides


def _bar(console: Any, total: int) -> Any:
    """A context manager that gives a progress callback: images done, time left."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def bar() -> Any:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("features", total=total)

            def advance(done: int, _: int) -> None:
                progress.update(task, completed=done)
                if done == total:
                    progress.update(task, description="scores")

            yield advance

    return bar()


def _plain(text: str) -> str:
    """Square brackets of paths and intervals are no markup."""
    return text.replace("[", "\\[")
