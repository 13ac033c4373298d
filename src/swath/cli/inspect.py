"""`swath inspect`: what is in an archive, and the statistics of its bands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def command(
    path: Annotated[Path, typer.Argument(help="Folder, STAC file (.json) or one image.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="GeoParquet file to write; opens in geopandas, DuckDB and QGIS."),
    ] = Path("catalogue.parquet"),
    sensor: Annotated[
        str | None,
        typer.Option(
            help="What the images were taken with: a built-in name or your YAML. Others become problems."
        ),
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Take only files whose path below PATH matches, such as '*/s2.tif'.")
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            help="Also read the pixels, and write the sensor with the bands' mean and std to this YAML."
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            help="With --statistics and no --sensor: names of the bands, in order: red,green,blue,nir."
        ),
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="With --bands: their unit: uint8, DN, reflectance, dB, linear, ...")
    ] = None,
    scale: Annotated[
        float, typer.Option(help="With --bands: value in the unit = stored value x scale.")
    ] = 1.0,
    name: Annotated[
        str | None,
        typer.Option(help="With --statistics: name of the sensor; default: --sensor's, or the YAML's."),
    ] = None,
    offset_dn: Annotated[
        float | None,
        typer.Option(help="Added to stored values: -1000 for Sentinel-2 from baseline 04.00, else 0."),
    ] = None,
    windows_per_scene: Annotated[
        int | None,
        typer.Option(min=1, help="Statistics from so many windows of each scene; default: all of it."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Files read at the same time; default: the number of CPUs.")
    ] = None,
) -> None:
    """Read all headers below PATH once, write them as a catalogue (GeoParquet), and say what is there.

    Files that cannot be used are rows with the reason. With [bold]--statistics[/bold] pixels are read too.

    Examples:

      swath inspect archive/

      swath inspect archive/ --sensor sentinel2_l2a --statistics my_region.yaml

      swath inspect flights/ --statistics drone.yaml --bands red,green,blue,nir --unit uint8
    """
    import re

    from rich.console import Console

    from swath.errors import ImageryError
    from swath.imagery.catalogue import build_catalogue
    from swath.imagery.sensors import get_sensor

    console = Console()
    if statistics is None:
        for option, value in (("--bands", bands), ("--unit", unit), ("--name", name)):
            if value is not None:
                raise ImageryError(f"{option} means nothing without --statistics OUT.yaml")
        if windows_per_scene is not None:
            raise ImageryError("--windows-per-scene means nothing without --statistics OUT.yaml")
        wanted = None if sensor is None else get_sensor(sensor)
    else:
        name = name or (re.sub(r"\W+", "_", statistics.stem.lower()).strip("_") if sensor is None else None)
        wanted = _sensor_for_statistics(sensor, bands, unit, scale, name)

    with _progress(console) as bar:
        task = bar.add_task("headers", total=None)
        catalogue = build_catalogue(
            path,
            sensor=wanted,
            pattern=pattern,
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    catalogue.write(out)
    _print_summary(console, catalogue, out)
    if statistics is not None and wanted is not None:
        _statistics(console, catalogue, wanted, statistics, name, offset_dn, windows_per_scene, workers)


def _sensor_for_statistics(
    sensor: str | None, bands: str | None, unit: str | None, scale: float, name: str | None
) -> Any:
    """The sensor to take statistics of: a known one, or a new one from band names and unit."""
    from swath.errors import ImageryError
    from swath.imagery.sensors import UNITS, Sensor, get_sensor, list_sensors

    if sensor is not None:
        if bands is not None or unit is not None or scale != 1.0:
            raise ImageryError("--bands, --unit and --scale describe a new sensor; --sensor has them already")
        return get_sensor(sensor)
    if bands is None or unit is None:
        raise ImageryError(
            "--statistics needs to know what the bands are. Say --sensor with one of "
            f"{', '.join(list_sensors())} or your own YAML; or describe a new one: --bands red,green,blue "
            f"--unit with one of {', '.join(UNITS)}"
        )
    entries = [{"name": band.strip(), "unit": unit, "scale": scale} for band in bands.split(",")]
    return Sensor.from_dict({"name": name, "bands": entries}, where="--bands, --unit and --name")


def _print_summary(console: Any, catalogue: Any, out: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    scenes, problems = len(catalogue.scenes), catalogue.problems
    table = Table(box=None, header_style="bold", title_justify="left")
    for column in ("scenes", "sensor", "bands", "GSD", "CRS", "pixels"):
        table.add_column(column, justify="right" if column in ("scenes", "GSD") else "left")
    for row in catalogue.summary():
        table.add_row(*(escape(text) for text in row))
    console.print(table)
    if any(entry.sensor is None and entry.problem is None for entry in catalogue.entries):
        console.print(
            "\n[dim]sensor ?: the files do not say; name it with --sensor where you use them.[/dim]"
        )
    if any(scene.gsd is None for scene in catalogue.scenes):
        console.print(
            "[dim]GSD unknown: no georeference; give --gsd METRES or --gsd relative where you use them.[/dim]"
        )
    if problems:
        count = "1 file" if len(problems) == 1 else f"{len(problems)} files"
        console.print(f"\n[yellow]{count} cannot be used[/yellow] (column `problem`):")
        alike: dict[str, list[str]] = {}  # the same trouble in many files is told once
        for problem_path, reason in problems:
            alike.setdefault(reason.replace(problem_path, ""), []).append(reason)
        for reasons in list(alike.values())[:8]:
            more = f" [dim](and {len(reasons) - 1} more like it)[/dim]" if len(reasons) > 1 else ""
            console.print(f"  {escape(reasons[0])}{more}", highlight=False, soft_wrap=True)
        if len(alike) > 8:
            console.print(f"  ... and {len(alike) - 8} other kinds of problem")
    console.print(
        f"\n[bold]{scenes}[/bold] scenes, {len(problems)} problems: [bold]{escape(str(out))}[/bold]",
        highlight=False,
        soft_wrap=True,
    )


def _statistics(
    console: Any,
    catalogue: Any,
    sensor: Any,
    target: Path,
    name: str | None,
    offset_dn: float | None,
    windows_per_scene: int | None,
    workers: int | None,
) -> None:
    """Read the pixels, print the table, write the YAML."""
    import os

    from rich.markup import escape
    from rich.table import Table

    from swath.imagery.statistics import PERCENTILES, estimate_statistics, write_statistics

    with _progress(console) as bar:
        task = bar.add_task("pixels", total=len(catalogue.scenes))
        found = estimate_statistics(
            catalogue.scenes,
            sensor,
            offset_dn=offset_dn,
            windows_per_scene=windows_per_scene,
            workers=workers or os.cpu_count() or 1,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    written = write_statistics(found, target, name or sensor.name)
    table = Table(box=None, header_style="bold")
    table.add_column("band")
    for column in ("mean", "std", "min", *(f"p{share:g}" for share in PERCENTILES), "max"):
        table.add_column(column, justify="right")
    rows = zip(written.bands, found.low, found.percentiles, found.high, strict=True)
    for band, low, percentiles, high in rows:
        numbers = (band.mean, band.std, low, *percentiles, high)
        table.add_row(escape(band.name), *(f"{number:.3g}" for number in numbers))
    console.print()
    console.print(table)
    for _, reason in found.problems:
        console.print(f"  [yellow]not read:[/yellow] {escape(reason)}", highlight=False, soft_wrap=True)
    console.print(
        f"\n{found.pixels:,} valid pixels ({found.valid_share:.1%} of those read) of {found.scenes} scenes, "
        f"unit {escape(written.unit)}: [bold]{escape(str(target))}[/bold]. Use it as --sensor "
        f"{escape(str(target))}",
        highlight=False,
        soft_wrap=True,
    )


def _progress(console: Any) -> Any:
    """A live line with count, speed and time left; nothing of it stays behind."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
