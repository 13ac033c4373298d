"""`swath archive`: look at an archive, delete from it, keep it small, hand it on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from swath.cli.archive import exchange as archive_exchange

app = typer.Typer(
    help="Look at an archive, delete from it, keep it small, hand it on. `swath embed` fills it, "
    "`swath search` asks.",
    no_args_is_help=True,
)

_ARCHIVE = typer.Argument(help="Folder or object-store URL of the archive.")


@app.command()
def info(
    archive: Annotated[str, _ARCHIVE],
    version: Annotated[int | None, typer.Option(help="As it was at this version.")] = None,
) -> None:
    """What an archive holds: chips, model, sensors, scales, times, place.

    Example: swath archive info chips.archive
    """
    from rich.console import Console
    from rich.table import Table

    from swath.archive.archive import Archive

    opened = Archive.open(archive, version=version)
    table = Table.grid(padding=(0, 2))
    words = opened.describe() | {
        "data files": f"{opened.files():,}",
        "model last at": opened.model_path or "?",
    }
    for name, value in words.items():
        table.add_row(name, value)
    Console(highlight=False).print(table)


@app.command()
def versions(archive: Annotated[str, _ARCHIVE]) -> None:
    """The states that can still be opened, oldest first; every change makes one.

    `swath search --version N` and `swath archive info --version N` look at an old one. `swath archive
    compact` removes those that are old.
    """
    from rich.console import Console
    from rich.table import Table

    from swath.archive.archive import Archive

    table = Table("version", "written", "chips", box=None, header_style="bold")
    for one in Archive.open(archive).versions():
        table.add_row(str(one.number), f"{one.time:%Y-%m-%d %H:%M:%S}", f"{one.rows:,}")
    Console(highlight=False).print(table)


@app.command()
def delete(
    archive: Annotated[str, _ARCHIVE],
    id: Annotated[list[str] | None, typer.Option(help="Chip with this id; may be repeated.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Chips of files whose path matches, such as '*/2019/*.tif' or one whole path."),
    ] = None,
    sensor: Annotated[str | None, typer.Option(help="Chips of this sensor.")] = None,
    before: Annotated[
        datetime | None, typer.Option(help="Chips taken before this time (UTC), such as 2019-01-01.")
    ] = None,
    cloudier_than: Annotated[
        float | None, typer.Option(help="Chips with a larger share of cloud than this.", min=0.0, max=1.0)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete chips that meet all of the conditions; imagery is not touched.

    The version before stays and can be opened until `swath archive compact` removes it. The next `swath
    embed` of the same imagery brings the chips back.

    Examples: swath archive delete chips.archive --source '*/2019/*' --sensor sentinel2_l2a
    """
    from swath.archive.archive import Archive
    from swath.archive.table.delete_where import DeleteCondition, matching_ids
    from swath.errors import ArchiveError

    opened = Archive.open(archive)
    requested = DeleteCondition(
        ids=id, source=source, sensor=sensor, before=before, cloudier_than=cloudier_than
    )
    doomed = matching_ids(opened, requested)
    if not doomed:
        raise ArchiveError(f"{archive}: no chip meets the conditions; nothing was deleted")
    if not yes:
        typer.confirm(
            f"delete {len(doomed):,} of {opened.count():,} chips from {archive}?", abort=True, err=True
        )
    kept = opened.version
    gone = opened.delete(doomed)
    typer.echo(
        f"{gone:,} chips deleted, {opened.count():,} are left; version {kept} still has them", err=True
    )


@app.command()
def compact(
    archive: Annotated[str, _ARCHIVE],
    keep_days: Annotated[
        float, typer.Option(help="Versions younger than this stay; a reader may have one open.", min=0.0)
    ] = 7.0,
) -> None:
    """Merge the small files that many commits leave, and remove old versions.

    Readers of versions that stay are not disturbed. `swath embed` does the same by itself, with the same 7
    days, when an archive has many files.

    Example: swath archive compact chips.archive --keep-days 30
    """
    from datetime import timedelta

    from swath.archive.archive import Archive

    done = Archive.open(archive).compact(keep=timedelta(days=keep_days))
    typer.echo(
        f"{done.files_before:,} data files are now {done.files:,}; "
        f"{done.versions_removed:,} old versions removed",
        err=True,
    )


@app.command()
def index(
    archive: Annotated[str, _ARCHIVE],
    kind: Annotated[
        str, typer.Option(help="sq8: a byte a number; flat: the vectors again; pq: a byte four numbers.")
    ] = "sq8",
    both: Annotated[
        bool,
        typer.Option("--both", help="For centered and plain comparison, not only the one that search takes."),
    ] = False,
    if_due: Annotated[
        bool, typer.Option("--if-due", help="Only if there is none, or a tenth of the chips came or went.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Make none; compare all bytes of the one there is.")
    ] = False,
) -> None:
    """Make the search index, which keeps searches quick beyond some 50,000 chips.

    It lies in the archive's folder and stays true by itself: chips that came since are compared one by one,
    chips that went are left out, and `swath archive compact` takes it along. Searches and writers go on
    meanwhile. How many cells a search looks into is measured, for a recall of 0.99.

    Example: swath archive index chips.archive
    """
    from swath.archive.archive import Archive
    from swath.archive.index.files import build_index, check_index, index_status, open_index
    from swath.errors import ArchiveError

    opened = Archive.open(archive)
    if verify:
        problem = check_index(opened)
        found = open_index(opened)
        if problem or found is None:
            raise ArchiveError(problem or f"{archive}: has no search index; `swath archive index` makes one")
        found.verify()
        typer.echo(f"{found.folder}: every byte is as it was written", err=True)
        return
    if if_due and not index_status(opened).due:
        typer.echo("no index is due", err=True)
        return
    made = build_index(opened, kind=kind, both=both, log=lambda text: typer.echo(text, err=True))  # type: ignore[arg-type]
    size = sum(path.stat().st_size for path in made.iterdir())
    typer.echo(f"{made} ({size / 1e6:,.0f} MB)", err=True)


app.command("export")(archive_exchange.export)
app.command("import")(archive_exchange.import_)
