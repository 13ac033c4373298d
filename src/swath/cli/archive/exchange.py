"""`swath archive export` and `swath archive import`: an archive for other tools, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class ExchangeFormat(StrEnum):
    """What an archive is written as."""

    geoparquet = "geoparquet"
    stac = "stac"
    geojson = "geojson"


def export(
    archive: Annotated[str, typer.Argument(help="Folder or object-store URL of the archive.")],
    out: Annotated[Path, typer.Argument(help="File to write; for stac a folder.")],
    to: Annotated[ExchangeFormat, typer.Option(help="What to write.")] = ExchangeFormat.geoparquet,
    version: Annotated[int | None, typer.Option(help="The archive as it was at this version.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="stac: the model directory, if it has moved since embedding."),
    ] = None,
) -> None:
    """Write an archive for other tools.

    geoparquet: one file with vectors, footprints and all else, for geopandas, DuckDB and QGIS; `swath archive
    import` reads it back exactly.

    stac: a folder with that file as asset of a STAC Item, its Collection with the embedding extension, and
    the model as a STAC Item.

    geojson: footprints with sensor, time, GSD and source, without vectors: for a look on a map.

    Examples:

      swath archive export chips.archive chips.parquet

      swath archive export chips.archive catalog --to stac

      swath archive export chips.archive chips.geojson --to geojson
    """
    from swath.archive.archive import Archive
    from swath.errors import ArchiveError

    if model is not None and to is not ExchangeFormat.stac:
        raise ArchiveError(f"--model is for --to stac, which describes the model; to {to.value} leave it out")
    opened = Archive.open(archive, version=version)
    with _progress("writing") as advance:
        if to is ExchangeFormat.stac:
            written = opened.to_stac(out, model=model, progress=advance)
        else:
            write = opened.to_geoparquet if to is ExchangeFormat.geoparquet else opened.to_geojson
            written = write(out, progress=advance)
    typer.echo(f"{written:,} chips written to {out}", err=True)


def import_(
    file: Annotated[Path, typer.Argument(help="GeoParquet that `swath archive export` wrote.")],
    to: Annotated[str, typer.Option(help="Archive to import into; made if it is not there.")],
) -> None:
    """Read an exported archive back, or add it to another archive of the same model.

    A new archive gets all chips or, if anything is wrong, none. In one that has chips, those with the same id
    are replaced. A file that DuckDB or geopandas has filtered and written again is taken too.

    Example: swath archive import chips.parquet --to copy.archive
    """
    from swath.archive.exchange.geoparquet import read_geoparquet

    with _progress("reading") as advance:
        rows, new = read_geoparquet(file, to, progress=advance)
    typer.echo(f"{rows:,} chips read into {to}, {new:,} of them new", err=True)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left; yields advance(done, total)."""
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn(what),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
