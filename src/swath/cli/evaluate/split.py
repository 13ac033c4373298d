"""`swath evaluate make-split`: divide labeled images by blocks of ground, by groups, or at random."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def command(
    data: Annotated[
        Path, typer.Argument(help="Labeled images: class folders or a CSV table.", metavar="DATA")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table to write.")] = Path("split.csv"),
    strategy: Annotated[str, typer.Option(help="What is kept together: random, group or block.")] = "random",
    fractions: Annotated[
        str, typer.Option(help="Splits and their shares of every class.", metavar="NAME=SHARE,...")
    ] = "train=0.8,val=0.2",
    group_column: Annotated[
        str | None, typer.Option("--group-column", help="By group: column of the scene, city or sequence.")
    ] = None,
    block_metres: Annotated[
        float, typer.Option(help="By block: its side in metres on the ground.", min=1)
    ] = 1000.0,
    buffer_metres: Annotated[
        float,
        typer.Option(help="By block: metres that images of different splits are apart at least.", min=0),
    ] = 0.0,
    coordinates: Annotated[
        str | None,
        typer.Option(
            help="By block: columns of longitude and latitude, such as lon,lat.  \\[default: the files' "
            "georeference]"
        ),
    ] = None,
    sensor: Annotated[str, typer.Option(help="What the images were taken with.")] = "rgb_aerial",
    label: Annotated[
        str | None,
        typer.Option("--label-column", help="CSV: column of the classes.  \\[default: class or label]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order in which units are dealt out.")] = 0,
) -> None:
    """Divide labeled images into splits that do not leak, as a table that the other verbs read.

    Neighboring images resemble each other: a random split asks for places that the bank nearly holds. Blocks
    and groups stay whole; every split gets its share of every class as nearly as whole units allow.

    Example: swath evaluate make-split scenes/index.csv --strategy group --group-column city --out split.csv
    """
    from rich.console import Console
    from rich.table import Table

    from swath.cli.evaluate.run import escape_markup
    from swath.datasets.opening import open_dataset
    from swath.errors import SwathError
    from swath.evaluation.data.make_split import make_split

    console = Console()
    columns = tuple(part.strip() for part in coordinates.split(",")) if coordinates else None
    if columns is not None and len(columns) != 2:
        raise SwathError(
            f"--coordinates are two columns with a comma between, such as lon,lat, not {coordinates!r}"
        )
    options: Any = {} if data.suffix.lower() != ".csv" else {"label_column": label or _label(data)}
    dataset = open_dataset(data, sensor=sensor, gsd="relative", **options)
    made = make_split(
        dataset,
        strategy=strategy,  # type: ignore[arg-type]  # others are refused, with those that there are
        fractions=_shares(fractions),
        group_column=group_column,
        block_metres=block_metres,
        buffer_metres=buffer_metres,
        coordinates=columns,
        seed=seed,
    )
    counts = made.counts()
    classes = sorted({name for split in counts.values() for name in split})
    console.print(made.origin, style="bold", highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for split in counts:
        table.add_column(split, justify="right")
    for name in classes:
        table.add_row(name, *(f"{counts[split][name]:,}" for split in counts))
    table.add_row("all", *(f"{counts[split].total():,}" for split in counts), style="bold")
    console.print(table)
    for note in made.notes:
        console.print(f"[yellow]note:[/yellow] {escape_markup(note)}", highlight=False)
    console.print(f"wrote {escape_markup(str(made.write(out)))}", highlight=False)


def _shares(text: str) -> dict[str, float]:
    from swath.errors import SwathError

    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, fraction = part.partition("=")
        try:
            found[name.strip()] = float(fraction)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise SwathError(f"--shares are splits and their shares, such as train=0.8,val=0.2, not {text!r}")
    return found


def _label(path: Path) -> str | None:
    """``class`` or ``label``, whichever the table has."""
    from swath.datasets.csv_table import read_csv

    header, _ = read_csv(path)
    return next((name for name in ("class", "label") if name in header), None)
