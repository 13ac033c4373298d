"""`swath changes ARCHIVE --before FIRST:LAST --after FIRST:LAST`: places that changed most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from swath.archive.changes.detect import ChangeResults


def command(
    archive: Annotated[str, typer.Argument(help="Archive, made by `swath embed`.")],
    before: Annotated[
        str, typer.Option(help="The first period: 2018, 2018-03, 2018-03-14 or FIRST:LAST.", metavar="TIME")
    ],
    after: Annotated[str, typer.Option(help="The second period.", metavar="TIME")],
    k: Annotated[int, typer.Option("-k", help="How many places.", min=1)] = 20,
    sensor: Annotated[
        list[str] | None, typer.Option("--sensor", help="Only chips of this sensor; may be given again.")
    ] = None,
    gsd_range: Annotated[
        str | None, typer.Option(help="Only chips of this GSD or range: 10 or 0.3:2.", metavar="LOW:HIGH")
    ] = None,
    bbox: Annotated[
        str | None,
        typer.Option(help="Only chips that touch this box, in degrees.", metavar="WEST,SOUTH,EAST,NORTH"),
    ] = None,
    intersects: Annotated[
        Path | None, typer.Option(help="Only chips that touch the polygons of this GeoJSON file.")
    ] = None,
    geojson: Annotated[Path | None, typer.Option(help="Write the places as GeoJSON.")] = None,
    map_: Annotated[
        Path | None, typer.Option("--heatmap", help="Write scores of all places as a GeoTIFF (COG).")
    ] = None,
    cell_size: Annotated[
        float | None, typer.Option(help="Metres of a cell of --heatmap.  \\[default: half a chip]", min=0.0)
    ] = None,
) -> None:
    """Find the places of an archive that changed most between two dates, by their embeddings.

    A place is shown at both times by one sensor at one scale. Its score says how many standard deviations its
    embedding moved beyond what is usual around it between the same two dates, so that a season does not count
    as change. 0 is usual; above about 4 is worth a look.

    Example: swath changes chips.archive --before 2016 --after 2018 --heatmap change.tif
    """
    from swath.archive.archive import Archive
    from swath.archive.changes.detect import find_changes
    from swath.cli.search.options import parse_filters, period_of
    from swath.errors import SwathError

    if cell_size is not None and map_ is None:
        raise SwathError("--cell-size is the size of a cell of --heatmap; give both")
    found = find_changes(
        Archive.open(archive),
        period_of(before),
        period_of(after),
        k=k,
        filter=parse_filters(gsd=gsd_range, bbox=bbox, area=intersects),
        sensor=sensor,
    )
    _table(found)
    if geojson is not None:
        from swath.archive.changes.detect import write_changes

        write_changes(geojson, found)
        typer.echo(f"GeoJSON: {geojson}", err=True)
    if map_ is not None:
        from swath.archive.changes.heatmap import write_heatmap

        write_heatmap(map_, found, cell=cell_size)
        typer.echo(f"map: {map_}", err=True)


def _table(found: ChangeResults) -> None:
    """The places on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 1000
    table = Table("rank", "score", "distance", "before", "after", "sensor", "place", "id after", box=None)
    for change in found:
        box = change.after.bbox
        assert box is not None
        middle = (box[0] + (box[2] - box[0]) % 360 / 2 + 180) % 360 - 180, (box[1] + box[3]) / 2
        table.add_row(
            str(change.rank),
            f"{change.score:.2f}",
            f"{change.distance:.3f}",
            f"{change.before.datetime:%Y-%m-%d}",
            f"{change.after.datetime:%Y-%m-%d}",
            change.after.sensor,
            f"{middle[0]:.5f}, {middle[1]:.5f}",
            change.after.id[:12],
        )
    console.print(table, highlight=False, markup=False)
    for note in found.notes:
        typer.echo(note, err=True)
