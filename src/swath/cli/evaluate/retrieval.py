"""`swath evaluate retrieval`: who finds whom, inside each sensor and across sensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from swath.cli.parsing import offset_option


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="Model directory of a model that knows two sensors or more; or baseline:statistics, "
            "baseline:rcf.",
            metavar="MODEL",
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            help="Pairs with labels: a table pairs.csv (or its folder), or a folder of a layout that "
            "`swath.datasets.pairs.opening.open_pairs` knows.",
            metavar="DATA",
        ),
    ],
    query_split: Annotated[
        str | None, typer.Option(help="Split that asks, or `all`.  \\[default: val]", metavar="SPLIT")
    ] = None,
    gallery_split: Annotated[
        str | None,
        typer.Option(
            help="Split to search in, or `all`. The same as --query-split: each query searches all groups "
            "but its own.  \\[default: test]",
            metavar="SPLIT",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="Answers a query.", min=1)] = 10,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for JSON, CSV, Markdown and pictures."),
    ] = None,
    sensors: Annotated[
        str | None,
        typer.Option(
            help="Which sensors, with commas between.  \\[default: all that the model knows]", metavar="NAMES"
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines/--no-baselines",
            help="Also score image statistics, random convolutional features (RCF) and the model's own "
            "encoder untrained. Chance is always there.",
        ),
    ] = True,
    pooling: Annotated[
        str | None, typer.Option(help="mean, mean_std or cls.  \\[default: the model's own]")
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option(help="Metres per pixel of images without georeference.  \\[default: measured]", min=0.0),
    ] = None,
    offset_dn: Annotated[float | None, offset_option()] = None,
    layout: Annotated[str, typer.Option(help="How DATA is laid out; auto finds out.")] = "auto",
    size: Annotated[
        int | None,
        typer.Option(help="Pixels of the side that the first sensor's images are cropped to.", min=8),
    ] = None,
    allow_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-overlap",
            help="Score splits that share scenes (or whose scenes are unknown) all the same, with a note.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the split by group, where the data has no splits.")] = 0,
    per_class: Annotated[bool, typer.Option("--per-class", help="Print the rows by class too.")] = False,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="With --out: draw queries and latent space.")
    ] = True,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...  \\[default: cuda if there is one]")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a forward pass.", min=1)] = 64,
) -> None:
    """Search by example inside each sensor and from one to another.

    Places that several sensors see are embedded once a sensor; every query of one sensor searches the
    archive of every sensor, and the archive of all together. F1@k is CSMAE's: the harmonic mean of label
    precision and label recall, each averaged over the k answers and the queries. It is not the F1@k of
    information retrieval. Everything is scored as it is and centered (less each sensor's mean over the
    archive), beside chance and baselines, with the modality gap.

    Example: swath evaluate retrieval runs/csmae/model pairs.csv --query-split val --gallery-split test -k 10
    """
    from rich.console import Console

    from swath.cli.evaluate.run import escape_markup, progress_bar
    from swath.datasets.pairs.opening import open_pairs
    from swath.evaluation.retrieval.protocol import evaluate_retrieval
    from swath.evaluation.retrieval.report import retrieval_summary, retrieval_tables, write_retrieval
    from swath.evaluation.retrieval.splits import split_retrieval

    console, progress = Console(), Console(stderr=True)
    requested = [name.strip() for name in sensors.split(",")] if sensors else None
    candidates, chosen, relative, about = _candidates(model, requested, baselines, pooling, device)
    with progress.status(f"looking through {data}"):
        pairs = open_pairs(
            data,
            sensors=chosen,
            layout=layout,  # type: ignore[arg-type]  # open_pairs refuses others, with a suggestion
            size=size,
            gsd="relative" if relative and gsd is None else gsd,
            offset_dn=_offsets(chosen, offset_dn),
        )
        split = split_retrieval(
            pairs,
            query_split=query_split,
            gallery_split=gallery_split,
            allow_overlap=allow_overlap,
            seed=seed,
        )
    places = len(set(split.queries.tolist()) | set(split.gallery.tolist()))
    with progress_bar(progress, places * len(pairs.sensors)) as advance:
        evaluation = evaluate_retrieval(candidates, split, k=k, batch_size=batch_size, progress=advance)
    for table in retrieval_tables(evaluation, per_class=per_class):
        console.print(table)
    protocol = evaluation.protocol
    console.print(
        f"{protocol['queries']['places']:,} queries ({protocol['queries']['name']}), archive of "
        f"{protocol['gallery']['places']:,} places ({protocol['gallery']['name']}). "
        f"{escape_markup(protocol['f1'])}.",
        highlight=False,
    )
    for problem in pairs.problems[:3]:
        console.print(f"[yellow]left out:[/yellow] {escape_markup(': '.join(problem))}", highlight=False)
    if len(pairs.problems) > 3:
        console.print(f"... and {len(pairs.problems) - 3:,} more places left out", highlight=False)
    for note in evaluation.notes:
        console.print(f"[yellow]note:[/yellow] {escape_markup(note)}", highlight=False)
    for sentence in retrieval_summary(evaluation):
        console.print(escape_markup(sentence), highlight=False)
    if out is not None:
        about |= {"data": str(data), "places_left_out": len(pairs.problems)}
        for path in write_retrieval(evaluation, out, images=images, **about):
            console.print(f"wrote {escape_markup(str(path))}", highlight=False)


def _offsets(sensors: list[Any], offset_dn: float | None) -> dict[str, float] | None:
    """The offset for those sensors that can have one: the radar of a pair has none."""
    if offset_dn is None:
        return None
    return {sensor.name: offset_dn for sensor in sensors if sensor.name.startswith("sentinel2")}


def _candidates(
    name: str, sensors: list[str] | None, baselines: bool, pooling: str | None, device: str | None
) -> tuple[list[Any], list[Any], bool, dict[str, Any]]:
    """What is scored, the sensors to open, whether GSD is relative, facts for the report."""
    import torch

    from swath.errors import ContractError, SwathError, suggest
    from swath.evaluation.retrieval.features import retrieval_baselines, retrieval_model
    from swath.sensors.registry import get_sensor

    if name.startswith("baseline:"):
        if pooling is not None:
            raise SwathError("--pooling is for models; a baseline has none")
        if not sensors:
            raise SwathError("baselines know no sensors by themselves: name them, --sensors A,B")
        opened = [get_sensor(sensor) for sensor in sensors]
        made = retrieval_baselines([sensor.name for sensor in opened])
        by_name = {"statistics": made[0], "rcf": made[1]}
        requested = name.removeprefix("baseline:")
        if requested not in by_name:
            raise SwathError(
                f"unknown baseline {requested!r} for retrieval.{suggest(requested, list(by_name))}"
            )
        others = [candidate for candidate in made if candidate is not by_name[requested]]
        # Baselines do not look at scale.
        return [by_name[requested], *(others if baselines else [])], opened, True, {"model": name}

    from swath.models import load_encoder

    model = load_encoder(name, device=device or ("cuda" if torch.cuda.is_available() else "cpu"))
    known = model.contract.sensors
    chosen = sensors or list(known)
    own = [model.contract.sensor(sensor) for sensor in chosen]
    if len(set(chosen)) < 2:
        what = f"this model knows {', '.join(known)} only" if len(known) < 2 else f"only {chosen[0]} is named"
        raise ContractError(
            f"{what}; retrieval across sensors needs two. Use a model of several sensors (method csmae) with "
            "all of them in --sensors, or `swath evaluate knn` for one sensor."
        )
    found = [retrieval_model(model, chosen, pooling=pooling)]
    if baselines:
        found += retrieval_baselines(chosen, model, pooling=pooling)
    relative = model.contract.gsd_mode == "relative"
    return found, own, relative, {"model": name, "model_id": model.id}
