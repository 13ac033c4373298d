"""`swath datasets`: labeled data sets known by name, and how to have them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Labeled data sets known by name: what they are, where they are had, and fetching them.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(help="Any of the names that people use.", metavar="NAME")]
RootOption = Annotated[Path | None, typer.Option(help="Folder of data sets to look in.", metavar="DIR")]


@app.command("list")
def list_sets(data_root: RootOption = None) -> None:
    """List all sets that are known, and with --data-root which of them are there."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from swath.datasets.benchmarks.catalog import get_benchmark, list_benchmarks

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("name", "title", "images", "classes", "px", "GSD m"):
        table.add_column(
            column, justify="right" if column in ("images", "classes", "px", "GSD m") else "left"
        )
    if data_root is not None:
        table.add_column(f"in {data_root}", overflow="fold")
    for name in list_benchmarks():
        known = get_benchmark(name)
        row = [
            name,
            known.title,
            f"{known.images:,}",
            str(len(known.classes)),
            str(known.image_size),
            _gsd(known),
        ]
        table.add_row(*row, *([_where(known, data_root)] if data_root is not None else []))
    Console().print(table)


@app.command("show")
def show(name: NameArgument, data_root: RootOption = None) -> None:
    """Say everything that is known of a set.

    Example: swath datasets show resisc45
    """
    from rich.console import Console

    from swath.cli.evaluate.run import escape_markup
    from swath.datasets.benchmarks.catalog import get_benchmark

    console = Console()
    known = get_benchmark(name)
    facts = [
        ("also called", ", ".join(known.aliases) or "-"),
        ("images", f"{known.images:,} of {known.image_size} px, {len(known.classes)} classes"),
        ("GSD", _gsd(known) + " m" if _gsd(known) != "?" else "unknown"),
        ("sensor", known.sensor),
        ("classes", ", ".join(known.classes) + (f" ({known.classes_note})" if known.classes_note else "")),
        ("split", known.split.note.strip()),
        ("folders", ", ".join(known.folders)),
        ("license", known.license),
        ("cite", known.paper),
        *(("page", f"{source.url} ({source.title})") for source in known.references),
        *(("archive", _archive(archive)) for archive in known.downloads),
    ]
    console.print(f"[bold]{escape_markup(known.title)}[/bold] ({known.name})")
    console.print(escape_markup(known.description.strip()), highlight=False)
    for label, text in facts:
        console.print(f"[dim]{label}:[/dim] {escape_markup(text)}", highlight=False, soft_wrap=True)
    if data_root is not None:
        found = known.find(data_root)
        console.print(f"[dim]here:[/dim] {escape_markup(str(found.folder))}", highlight=False)
        for note in found.notes:
            console.print(f"[yellow]note:[/yellow] {escape_markup(note)}", highlight=False)
    else:
        console.print(escape_markup(known.how_to_get("DIR")), highlight=False)


@app.command("fetch")
def fetch(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of data sets.", metavar="DIR")],
    url: Annotated[
        str | None,
        typer.Option(help="Address (http, https) or file of its archive, instead of the one that is known."),
    ] = None,
    keep_archive: Annotated[
        bool, typer.Option("--keep-archive", help="Leave the archive in DIR/downloads.")
    ] = False,
) -> None:
    """Download a set, verify it, and unpack it to DIR/NAME.

    A download that was cut or killed goes on where it stopped. Published checksums are verified; where there
    is none, that of the first download is written down and held against later ones. Mind the license.

    Example: swath datasets fetch eurosat --out data
    """
    from rich.console import Console

    from swath.cli.evaluate.run import escape_markup
    from swath.datasets.benchmarks.catalog import get_benchmark
    from swath.datasets.benchmarks.fetch import fetch_benchmark

    console = Console()
    known = get_benchmark(name)
    with _bytes_bar(Console(stderr=True)) as watch:
        arrived = fetch_benchmark(known, out, url=url, keep_archive=keep_archive, watch=watch)
    if arrived.download is None:
        console.print(f"{known.title} was there already", highlight=False)
    else:
        resumed = (
            f", {arrived.download.resumed:,} bytes of an earlier attempt" if arrived.download.resumed else ""
        )
        console.print(f"verified: {escape_markup(arrived.download.checked)}{resumed}", highlight=False)
    for note in arrived.local.notes:
        console.print(f"[yellow]note:[/yellow] {escape_markup(note)}", highlight=False)
    console.print(f"{known.title} lies in {escape_markup(str(arrived.local.folder))}", highlight=False)
    console.print(
        f"license: {escape_markup(known.license)}; cite: {escape_markup(known.paper)}", highlight=False
    )
    console.print(
        f"use it: swath evaluate knn MODEL {known.name} --data-root {escape_markup(str(out))}",
        highlight=False,
    )


def _gsd(known: Any) -> str:
    if known.gsd is not None:
        return f"{known.gsd:g}"
    return f"{known.gsd_range[0]:g}-{known.gsd_range[1]:g}" if known.gsd_range else "?"


def _where(known: Any, data_root: Path) -> str:
    from swath.errors import ImageryError

    try:
        found = known.find(data_root)
    except ImageryError:
        return "-"
    part = f" ({len(found.folders)} classes only)" if found.notes else ""
    return f"{found.folder.relative_to(data_root) if found.folder != data_root else '.'}{part}".replace(
        "[", "\\["
    )


def _archive(archive: Any) -> str:
    sums = [f"{kind} {value}" for kind, value in (("md5", archive.md5), ("sha256", archive.sha256)) if value]
    known = f"{', '.join(sums)} as in {archive.checksum_source}" if sums else "no checksum is published"
    return f"{archive.name}, {archive.url or 'to be downloaded by hand'}; {known}"


def _bytes_bar(console: Any) -> Any:
    """A context that gives, for each step, a callback of bytes: bar, amount, speed, time left."""
    from collections.abc import Callable
    from contextlib import contextmanager

    from rich import progress as rich

    @contextmanager
    def bar() -> Any:
        columns = (
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.DownloadColumn(),
            rich.TransferSpeedColumn(),
            rich.TimeRemainingColumn(),
        )
        with rich.Progress(*columns, console=console, transient=True) as progress:

            def watch(what: str) -> Callable[[int, int | None], None]:
                task = progress.add_task(what, total=None)
                return lambda done, total: progress.update(task, completed=done, total=total)

            yield watch

    return bar()
