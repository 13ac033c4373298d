"""`swath inspect`: what is in an archive, the statistics of its bands, and the pairs of two archives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def command(
    path: Annotated[
        list[Path],
        typer.Argument(help="Folder, STAC file (.json) or one image; with --pair two, or catalogs."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="GeoParquet file to write; opens in geopandas, DuckDB and QGIS. Default: catalog.parquet, "
            "with --pair pairs.parquet.",
            show_default=False,
        ),
    ] = None,
    sensor: Annotated[
        list[str] | None,
        typer.Option(
            help="What the images were taken with: a built-in name or your YAML. Others become problems. "
            "With --pair twice, in the order of A and B.",
            show_default=False,
        ),
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(
            help="Take only files whose path below PATH matches, such as '*/s2.tif'. With --pair twice.",
            show_default=False,
        ),
    ] = None,
    pair: Annotated[
        bool, typer.Option("--pair", help="Join A and B: places that both sensors see, on one grid.")
    ] = False,
    grid: Annotated[
        str | None,
        typer.Option(
            help="With --pair: the grid that pairs are read on: one of the two sensors, whose images then "
            "stay as they are, or metres per pixel (UTM). Default: the second sensor's."
        ),
    ] = None,
    max_days: Annotated[
        str,
        typer.Option(help="With --pair: most days between the two acquisitions, or 'any'."),
    ] = "7",
    min_overlap: Annotated[
        float,
        typer.Option(help="With --pair: least share of the smaller image that the other has to cover."),
    ] = 0.5,
    chip_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --pair: cut the common ground into chips of so many pixels of the grid."
        ),
    ] = None,
    all_partners: Annotated[
        bool,
        typer.Option("--all-partners", help="With --pair: keep all partners, not only the nearest in time."),
    ] = False,
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
    """Read all headers below PATH once, write them as a catalog (GeoParquet), and say what is there.

    Files that cannot be used are rows with the reason. With [bold]--statistics[/bold] pixels are read too.

    With [bold]--pair A B[/bold] two archives are joined by footprint and time to a table of pairs, which
    training and evaluation read; what could not be paired is listed with the reason.

    Examples:

      swath inspect archive/

      swath inspect archive/ --sensor sentinel2_l2a --statistics my_region.yaml

      swath inspect flights/ --statistics drone.yaml --bands red,green,blue,nir --unit uint8

      swath inspect --pair s1/ s2/ --sensor sentinel1_grd --sensor sentinel2_l2a --max-days 3 --chip-size 120

      swath inspect --pair s1/ aerial/ --sensor sentinel1_grd --sensor rgb_aerial --grid 3 --max-days any
    """
    from rich.console import Console

    from swath.errors import ImageryError

    console = Console()
    if pair:
        refused = (("--statistics", statistics), ("--bands", bands), ("--unit", unit), ("--name", name))
        for option, value in (
            *refused,
            ("--offset-dn", offset_dn),
            ("--windows-per-scene", windows_per_scene),
        ):
            if value is not None:
                raise ImageryError(f"{option} means nothing with --pair")
        _pair(
            console, path, out or Path("pairs.parquet"), sensor or [], pattern or [], grid, max_days,
            min_overlap, chip_size, all_partners, workers,
        )  # fmt: skip
        return
    for option, given in (
        ("--grid", grid),
        ("--chip-size", chip_size),
        ("--all-partners", all_partners or None),
    ):
        if given is not None:
            raise ImageryError(f"{option} means nothing without --pair")
    if len(path) > 1:
        raise ImageryError("one PATH is wanted, or two with --pair")
    if len(sensor or []) > 1 or len(pattern or []) > 1:
        raise ImageryError("--sensor and --pattern are given once, or twice with --pair")
    _inspect(
        console, path[0], out or Path("catalog.parquet"), sensor[0] if sensor else None,
        pattern[0] if pattern else None, statistics, bands, unit, scale, name, offset_dn, windows_per_scene,
        workers,
    )  # fmt: skip


def _inspect(
    console: Any,
    path: Path,
    out: Path,
    sensor: str | None,
    pattern: str | None,
    statistics: Path | None,
    bands: str | None,
    unit: str | None,
    scale: float,
    name: str | None,
    offset_dn: float | None,
    windows_per_scene: int | None,
    workers: int | None,
) -> None:
    """The catalog of one archive, and its statistics."""
    import re

    from rich.markup import escape

    from swath.catalog.catalog import build_catalog, check_scenes
    from swath.errors import ImageryError
    from swath.sensors.registry import get_sensor

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
        catalog = build_catalog(
            path,
            sensor=wanted,
            pattern=pattern,
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    unstated = [] if wanted is None else check_scenes(catalog, wanted, offset_dn=offset_dn, workers=workers)
    catalog.write(out)
    _print_summary(console, catalog, out)
    if unstated:
        console.print(
            f"[yellow]{len(unstated)} of these lack a statement[/yellow], and are left out until it is made: "
            f"{escape(unstated[0][1])}",
            highlight=False,
            soft_wrap=True,
        )
    if not catalog.scenes:
        raise typer.Exit(1)
    if statistics is not None and wanted is not None:
        _statistics(console, catalog, wanted, statistics, name, offset_dn, windows_per_scene, workers)


def _pair(
    console: Any,
    paths: list[Path],
    out: Path,
    sensors: list[str],
    patterns: list[str],
    grid: str | None,
    max_days: str,
    min_overlap: float,
    chip_size: int | None,
    all_partners: bool,
    workers: int | None,
) -> None:
    """Join two archives, write the table and the report, print both in short."""
    from rich.markup import escape

    from swath.datasets.pairs.join import join_catalogs
    from swath.datasets.pairs.parquet import write_pairs
    from swath.errors import ImageryError
    from swath.sensors.registry import get_sensor

    if len(paths) != 2:
        raise ImageryError(
            "--pair wants two paths, A and B (twice the same one if a folder holds both sensors)"
        )
    if len(sensors) != 2:
        raise ImageryError("--pair wants --sensor twice: of A, then of B")
    if len(patterns) not in (0, 2):
        raise ImageryError(
            "--pair wants --pattern twice (of A, then of B; '*' takes everything) or not at all"
        )
    first, second = (get_sensor(name) for name in sensors)
    with _progress(console) as bar:
        task = bar.add_task("joining", total=None)
        found = join_catalogs(
            paths[0],
            paths[1],
            sensors=(first, second),
            grid=_grid(grid, second.name),
            max_days=_days(max_days),
            min_overlap=min_overlap,
            chip_size=chip_size,
            all_partners=all_partners,
            patterns=(patterns[0], patterns[1]) if patterns else (None, None),
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    report = write_pairs(found, out)
    sizes = {(pair.grid.width, pair.grid.height) for pair in found.pairs}
    low, high = (f"{w} x {h}" for w, h in (min(sizes), max(sizes)))
    gaps = sorted(pair.days for pair in found.pairs if pair.days is not None)
    apart = f", {gaps[len(gaps) // 2]:.1f} days apart in the middle, {gaps[-1]:.1f} at most" if gaps else ""
    console.print(
        f"[bold]{len(found.pairs)}[/bold] pairs of {first.name} and {second.name}, "
        f"{low if low == high else f'{low} to {high}'} pixels of {found.pairs[0].grid.gsd:.3g} m{apart}: "
        f"[bold]{escape(str(out))}[/bold]",
        highlight=False,
        soft_wrap=True,
    )
    if found.unpaired:
        kinds: dict[tuple[str, str], list[str]] = {}
        for name, path, reason in found.unpaired:
            kinds.setdefault((name, reason.replace(path, "").lstrip(": ")), []).append(path)
        console.print(
            f"\n[yellow]{len(found.unpaired)} images are in no pair[/yellow] ({escape(str(report))}):"
        )
        for (name, reason), there in list(kinds.items())[:8]:
            more = f" [dim](and {len(there) - 1} more)[/dim]" if len(there) > 1 else ""
            console.print(
                f"  {name}: {escape(there[0])}{more}: {escape(reason)}", highlight=False, soft_wrap=True
            )
        if len(kinds) > 8:
            console.print(f"  ... and {len(kinds) - 8} other reasons")
    ending = "" if chip_size or len(sizes) == 1 else " Sizes differ: open it with size=, or cut --chip-size."
    console.print(
        f"\nUse it as the data of a recipe with sensor: \\[{first.name}, {second.name}].{ending}",
        highlight=False,
        soft_wrap=True,
    )


def _grid(text: str | None, default: str) -> str | float:
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        return text


def _days(text: str) -> float | None:
    from swath.errors import ImageryError

    if text == "any":
        return None
    try:
        max_days = float(text)
    except ValueError:
        max_days = -1.0
    if not max_days >= 0:
        raise ImageryError(f"--max-days {text}: a number of days, or 'any'")
    return max_days


def _sensor_for_statistics(
    sensor: str | None, bands: str | None, unit: str | None, scale: float, name: str | None
) -> Any:
    """The sensor to take statistics of: a known one, or a new one from band names and unit."""
    from swath.errors import ImageryError
    from swath.sensors.registry import get_sensor, list_sensors
    from swath.sensors.sensor import UNITS, Sensor

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


def _print_summary(console: Any, catalog: Any, out: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    scenes, problems = len(catalog.scenes), catalog.problems
    table = Table(box=None, header_style="bold", title_justify="left")
    for column in ("scenes", "sensor", "bands", "GSD", "CRS", "pixels", "dates"):
        table.add_column(column, justify="right" if column in ("scenes", "GSD") else "left", overflow="fold")
    for row in catalog.summary():
        table.add_row(*(escape(text) for text in row))
    console.print(table)
    if any(entry.sensor is None and entry.problem is None for entry in catalog.entries):
        console.print(
            "\n[dim]sensor ?: the files do not say; name it with --sensor where you use them.[/dim]"
        )
    if any(scene.gsd is None for scene in catalog.scenes):
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
    catalog: Any,
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

    from swath.catalog.band_statistics import (
        PERCENTILES,
        compute_band_statistics,
        write_sensor_with_statistics,
    )

    with _progress(console) as bar:
        task = bar.add_task("pixels", total=len(catalog.scenes))
        found = compute_band_statistics(
            catalog.scenes,
            sensor,
            offset_dn=offset_dn,
            windows_per_scene=windows_per_scene,
            workers=workers or os.cpu_count() or 1,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    written = write_sensor_with_statistics(found, target, name or sensor.name)
    table = Table(box=None, header_style="bold")
    table.add_column("band")
    for column in ("mean", "std", "min", *(f"p{fraction:g}" for fraction in PERCENTILES), "max"):
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
        f"\n{found.pixels:,} valid pixels ({found.valid_fraction:.1%} of those read) of {found.scenes} "
        "scenes, "
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
