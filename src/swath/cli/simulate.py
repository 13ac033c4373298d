"""`swath simulate`: labeled scenes drawn by code, as files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class SimulationKind(StrEnum):
    """What is simulated."""

    PAIRS = "pairs"
    CHANGE = "change"
    AERIAL = "aerial"


def command(
    out: Annotated[Path, typer.Argument(help="Folder to write; it appears when all of it is there.")],
    kind: Annotated[
        SimulationKind,
        typer.Option(
            help="pairs: places seen by several sensors, with labels, masks, boxes. change: the same at two "
            "dates, with change masks. aerial: RGB scenes of one class each, at mixed GSDs."
        ),
    ] = SimulationKind.PAIRS,
    count: Annotated[
        int | None,
        typer.Option("--count", "-n", "--pairs", min=1, help="How many places.  \\[default: 100]"),
    ] = None,
    splits: Annotated[
        list[str] | None,
        typer.Option(
            "--split", metavar="NAME=COUNT", help="Instead of --count: so many places of a split. Repeatable."
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Side of the (first sensor's) images in pixels.")] = 120,
    gsd: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRES",
            help="Metres per pixel; NAME=METRES, once a sensor, where they differ. All sensors see the same "
            "ground. For --kind aerial a range: 0.5:2.  \\[default: 10]",
        ),
    ] = None,
    sensors: Annotated[
        list[str] | None,
        typer.Option(
            "--sensor",
            help="Once a sensor: built-in name or YAML; optical ones by their wavelengths, radars by VV, VH, "
            "cameras in uint8.  \\[default: sentinel1_ben, sentinel2_ben]",
        ),
    ] = None,
    cloud: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Opacity of thin cloud over optical sensors.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Names the series of places.")] = 0,
    start_index: Annotated[
        int, typer.Option(min=0, help="Place of the series to begin with; other ranges are other places.")
    ] = 0,
) -> None:
    """Draw landscapes (fields, woods, water, towns) and what sensors see of them, with labels.

    Everything follows from seed and place: the same command writes the same pixels. The ground is laid out
    in metres, so the same place can be had at any GSD. Sensors share land cover and relief; light, haze,
    crops' state, moisture, wind and speckle are drawn for each of them. All of it is [bold]simulated[/bold],
    says so in its tags, and lies at Null Island: good for tests and experiments, never for claims.

    Examples:

      swath simulate pairs/ --count 500

      swath simulate pairs/ --split train=4000 --split archive=2000 --split query=500 --seed 1

      swath simulate mixed/ --sensor sentinel1_grd --sensor naip --gsd sentinel1_grd=10 --gsd naip=3

      swath simulate change/ --kind change --count 200

      swath simulate aerial/ --kind aerial --split train=800 --split val=200 --gsd 0.5:2
    """
    from rich.console import Console

    from swath.errors import ImageryError

    console = Console()
    wanted = _folds(splits, count)
    total = sum(wanted.values())
    if kind is SimulationKind.AERIAL:
        for option, given in (("--sensor", sensors), ("--cloud", cloud), ("--start-index", start_index)):
            if given:
                raise ImageryError(f"{option} means nothing with --kind aerial")
    elif kind is SimulationKind.CHANGE and cloud:
        raise ImageryError("--cloud means nothing with --kind change")
    with _progress(console) as bar:
        task = bar.add_task("places", total=total)
        shown: dict[str, Any] = {"progress": lambda done, _: bar.update(task, completed=done)}
        if kind is SimulationKind.AERIAL:
            from swath.simulated.aerial import write_simulated

            write_simulated(out, seed=seed, splits=wanted, size=size, gsd=_range(gsd), **shown)
            table = "index.csv"
        else:
            from swath.simulated.sensing import SENSORS
            from swath.simulated.writing import write_simulated_change, write_simulated_pairs

            shown |= {"seed": seed, "splits": wanted, "size": size, "gsd": _gsd(gsd), "first": start_index,
                      "sensors": sensors or SENSORS}  # fmt: skip
            if kind is SimulationKind.CHANGE:
                write_simulated_change(out, **shown)
                table = "change.csv"
            else:
                write_simulated_pairs(out, **shown, cloud=cloud)
                table = "pairs.csv"
    parts = ", ".join(f"{number:,} {name}" for name, number in wanted.items())
    console.print(f"[bold]{total:,}[/bold] simulated places ({parts}): [bold]{out / table}[/bold]",
                  highlight=False, soft_wrap=True)  # fmt: skip


def _folds(splits: list[str] | None, count: int | None) -> dict[str, int]:
    """Split name -> number of places."""
    from swath.errors import ImageryError

    if not splits:
        return {"all": count or 100}
    if count is not None:
        raise ImageryError("--count and --split both say how many places there are; give one of them")
    found: dict[str, int] = {}
    for text in splits:
        name, _, number = text.partition("=")
        if not name or not number.isdigit() or int(number) < 1 or name in found:
            raise ImageryError(
                f"--split {text}: write NAME=COUNT, each name once, such as --split train=4000"
            )
        found[name] = int(number)
    return found


def _gsd(given: list[str] | None) -> float | dict[str, float]:
    """One number for all sensors, or one a sensor."""
    from swath.errors import ImageryError

    if not given:
        return 10.0
    try:
        if len(given) == 1 and "=" not in given[0]:
            return float(given[0])
        pairs = [text.split("=") for text in given]
        return {name: float(number) for name, number in pairs}
    except ValueError:
        raise ImageryError(
            f"--gsd {' '.join(given)}: write metres per pixel (--gsd 10), or NAME=METRES for every sensor"
        ) from None


def _range(given: list[str] | None) -> tuple[float, float]:
    """Lowest and highest GSD."""
    from swath.errors import ImageryError

    if not given:
        return 0.5, 2.0
    try:
        low, high = (
            float(part) for part in (given[0] if ":" in given[0] else f"{given[0]}:{given[0]}").split(":")
        )
    except ValueError:
        low, high = 0.0, 0.0
    if len(given) > 1 or not 0 < low <= high:
        raise ImageryError(f"--gsd {' '.join(given)}: with --kind aerial write a range such as 0.5:2")
    return low, high


def _progress(console: Any) -> Any:
    """A live line with count and time left; nothing of it stays behind."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
