"""`swath evaluate`: how good are a model's features, beside baselines that cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Score a model's frozen features on labelled images, with intervals and baselines.",
    no_args_is_help=True,
)

ModelArgument = Annotated[
    str,
    typer.Argument(help="Model directory, or baseline:NAME (statistics, histogram, pixels, rcf, rcf-plain)."),
]
DataArgument = Annotated[
    Path,
    typer.Argument(
        help="Class folders, a folder with train/ and val/ class folders, or a CSV (file, class, fold)."
    ),
]
SensorOption = Annotated[
    str | None, typer.Option(help="Sensor of the images; default the model's, if it knows one only.")
]
GsdOption = Annotated[
    str | None,
    typer.Option(help="Metres per pixel, 'relative', or a column of the CSV; default what the files say."),
]
ScalesOption = Annotated[str | None, typer.Option(help="Image sides in pixels, such as 16,32,64,128.")]
BaselinesOption = Annotated[
    bool,
    typer.Option("--baselines/--no-baselines", help="Score the baselines and a random initialisation too."),
]
PoolingOption = Annotated[
    str | None, typer.Option(help="mean, moments or cls instead of the model's own.")
]
BankOption = Annotated[str, typer.Option(help="Fold or folder of the labelled bank.")]
QueriesOption = Annotated[
    str | None, typer.Option(help="Fold or folder of the queries; default val or test.")
]
SizeOption = Annotated[
    int | None, typer.Option(help="Bring images of different sizes to this side first.", min=8)
]
SeedOption = Annotated[int, typer.Option(help="Of the split, where the data has none.")]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for JSON, CSV and plot.")]


@app.command("knn")
def knn(
    model: ModelArgument,
    data: DataArgument,
    scales: ScalesOption = None,
    sensor: SensorOption = None,
    gsd: GsdOption = None,
    baselines: BaselinesOption = True,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric/--symmetric-only", help="Also: queries reduced, bank at full scale.")
    ] = True,
    k: Annotated[int, typer.Option(help="Neighbours that vote.", min=1)] = 20,
    temperature: Annotated[float, typer.Option(help="Of the vote.", min=1e-3)] = 0.07,
    pooling: PoolingOption = None,
    bank: BankOption = "train",
    queries: QueriesOption = None,
    size: SizeOption = None,
    seed: SeedOption = 0,
    out: OutOption = None,
) -> None:
    """k-nearest-neighbour accuracy over image scales (k = 20, T = 0.07, cosine).

    Example: swath evaluate knn runs/first/model rsscn7/index.csv --scales 16,32,64,128 -o scores
    """
    from swath.evaluation.protocols import evaluate_knn

    _run(
        evaluate_knn, model, data, scales, sensor, gsd, baselines, pooling, bank, queries, size, seed, out,
        asymmetric=asymmetric, k=k, temperature=temperature,
    )  # fmt: skip


@app.command("linear")
def linear(
    model: ModelArgument,
    data: DataArgument,
    scales: ScalesOption = None,
    sensor: SensorOption = None,
    gsd: GsdOption = None,
    baselines: BaselinesOption = True,
    c: Annotated[float, typer.Option(help="Inverse strength of the L2 penalty.", min=1e-8)] = 0.1,
    pooling: PoolingOption = None,
    bank: BankOption = "train",
    queries: QueriesOption = None,
    size: SizeOption = None,
    seed: SeedOption = 0,
    out: OutOption = None,
) -> None:
    """Linear-probe accuracy: logistic regression on standardised features, at the native scale unless told.

    Example: swath evaluate linear runs/first/model rsscn7/index.csv --scales 128
    """
    from swath.evaluation.protocols import evaluate_linear

    _run(
        evaluate_linear,
        model,
        data,
        scales,
        sensor,
        gsd,
        baselines,
        pooling,
        bank,
        queries,
        size,
        seed,
        out,
        c=c,
    )


def _run(
    evaluate: Any,
    model: str,
    data: Path,
    scales: str | None,
    sensor: str | None,
    gsd: str | None,
    baselines: bool,
    pooling: str | None,
    bank: str,
    queries: str | None,
    size: int | None,
    seed: int,
    out: Path | None,
    **options: Any,
) -> None:
    """Load, score, print, write: the same for every protocol."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from swath.evaluation.baselines import BASELINES, make_baseline, random_init
    from swath.evaluation.features import Featurizer, ModelFeaturizer
    from swath.evaluation.report import score_table, write_report
    from swath.evaluation.splits import split_parts

    console = Console()
    featurizers: list[Featurizer] = []
    known: Any = sensor
    about: dict[str, Any] = {"model": model, "data": str(data)}
    if model.startswith("baseline:"):
        featurizers.append(make_baseline(model.removeprefix("baseline:")))
        known = known or "rgb_aerial"
        extra: list[Any] = []
    else:
        from swath.models import load_model

        loaded = load_model(model)
        featurizers.append(ModelFeaturizer(loaded, pooling=pooling))
        known = loaded.contract.sensor(sensor)
        about["model_id"] = loaded.id
        extra = [random_init(loaded)]
        for featurizer in extra:
            featurizer.pooling = pooling
    if baselines:
        present = {f.name for f in featurizers}
        featurizers += [
            f for f in [*extra, *(make() for make in BASELINES.values())] if f.name not in present
        ]
    stated: Any = float(gsd) if gsd is not None and _is_number(gsd) else gsd
    first, second, notes = split_parts(
        data, sensor=known, gsd=stated, bank=bank, queries=queries, seed=seed, size=size
    )
    sides = [int(s) for s in scales.split(",")] if scales else None
    columns = (TextColumn("features"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("features", total=len(first.indices) + len(second.indices))
        evaluation = evaluate(
            featurizers, first, second, sides=sides, notes=notes,
            progress=lambda done, total: bar.update(task, completed=done), **options,
        )  # fmt: skip
    console.print(score_table(evaluation))
    for note in evaluation.notes:
        console.print(f"note: {note}", style="yellow", highlight=False)
    p = evaluation.protocol
    console.print(
        f"bank {p['bank']}, queries {p['queries']}, split {p['split_hash']}, chance {100 * p['chance']:.1f}%"
    )
    if out is not None:
        for path in write_report(evaluation, out, **about):
            console.print(f"wrote {path}", highlight=False)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
