"""`swath search ARCHIVE QUERY`: the chips of an archive nearest to an image, or to one of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from swath.archive.query import Query
    from swath.archive.search import Answers, Filter
    from swath.archive.store import Archive
    from swath.imagery.sensors import Sensor
    from swath.models import Model


def command(
    archive: Annotated[str, typer.Argument(help="Archive, made by `swath embed`.")],
    query: Annotated[str, typer.Argument(help="An image file, or the id of a chip (6 characters suffice).")],
    k: Annotated[int, typer.Option("-k", help="How many answers.", min=1)] = 10,
    exclude_self: Annotated[
        bool, typer.Option("--exclude-self", help="Leave out the chip or image file that is asked for.")
    ] = False,
    exclude_pair: Annotated[
        bool,
        typer.Option("--exclude-pair", help="Leave out the query's own place, in any sensor, by footprint."),
    ] = False,
    pair_share: Annotated[
        float | None,
        typer.Option(
            help="How much of the smaller footprint is shared by chips of one place, for --exclude-pair.  "
            "\\[default: 0.5]",
            min=0.0,
            max=1.0,
        ),
    ] = None,
    sensor: Annotated[
        list[str] | None,
        typer.Option(
            "--sensor",
            "--only-sensor",
            help="Only answers of this sensor, such as sentinel2_l2a, or s2 for short; may be given again. "
            "Any sensor may ask.",
        ),
    ] = None,
    query_sensor: Annotated[
        str | None,
        typer.Option(help="What the query image was taken with.  \\[default: found by its bands]"),
    ] = None,
    centre: Annotated[
        bool | None,
        typer.Option(
            "--centre/--no-centre",
            help="Compare vectors less the mean of their own sensor.  \\[default: where the archive holds "
            "several sensors]",
        ),
    ] = None,
    gsd: Annotated[
        float | None, typer.Option(help="Metres per pixel of a query image without georeference.", min=0.0)
    ] = None,
    offset_dn: Annotated[
        float | None,
        typer.Option(
            "--offset-dn",
            help="Added to stored values of a Sentinel-2 query image that does not say its "
            "processing baseline: -1000 from baseline 04.00, 0 before.",
        ),
    ] = None,
    only_gsd: Annotated[
        str | None, typer.Option(help="Only answers of this GSD or range: 10 or 0.3:2.", metavar="LOW:HIGH")
    ] = None,
    only_time: Annotated[
        str | None,
        typer.Option(help="Only answers of this time: 2020-01-01:2020-12-31.", metavar="FIRST:LAST"),
    ] = None,
    only_bbox: Annotated[
        str | None,
        typer.Option(help="Only answers that touch this box, in degrees.", metavar="WEST,SOUTH,EAST,NORTH"),
    ] = None,
    geojson: Annotated[Path | None, typer.Option(help="Write the answers as GeoJSON.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write query and answers as a PNG.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="The archive's model directory, if it has moved since embedding.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where a query image is embedded.")] = "cpu",
) -> None:
    """Find the chips of an archive that look most like an image, or like one of its own chips.

    Scores are cosines: 1 is the same direction. Fewer answers than asked for are said to be so. In an archive
    of several sensors any sensor may ask and any answer; vectors are then compared less their sensor's mean,
    so that chips of the query's own sensor are not first merely for that.
    """
    from swath.archive.exchange import write_geojson
    from swath.archive.store import Archive
    from swath.errors import SwathError

    opened = Archive.open(archive)
    where = _filter(only_gsd, only_time, only_bbox)
    names = opened.searcher().sensor_names(sensor) if sensor else None
    if pair_share is not None and not exclude_pair:
        raise SwathError("--pair-share says how --exclude-pair judges; give both")
    loaded: Model | None = None
    if Path(query).exists():
        from swath.archive.query import query_by_image

        loaded = _model(opened, model, device)
        asked = query_by_image(opened, query, loaded, sensor=query_sensor, gsd=gsd, offset_dn=offset_dn)
    else:
        from swath.archive.query import query_by_id

        if Path(query).suffix or "/" in query:
            raise SwathError(f"{query}: there is no such file")
        for option, value in (("query-sensor", query_sensor), ("gsd", gsd), ("offset-dn", offset_dn)):
            if value is not None:
                raise SwathError(f"--{option} is for query images; chip {query} of the archive has its own")
        asked = query_by_id(opened, query)
    share = (0.5 if pair_share is None else pair_share) if exclude_pair else None
    answers = asked.search(
        opened, k, where=where, sensor=names, centre=centre, exclude_self=exclude_self, exclude_pair=share
    )
    relative = not opened.searcher().in_metres
    _table(answers, relative)
    if geojson is not None:
        write_geojson(geojson, answers, query=_described(asked, opened) | {"centred": answers.centred})
        typer.echo(f"GeoJSON: {geojson}", err=True)
    if picture is not None:
        from swath.archive.contact_sheet import write_contact_sheet

        known = loaded.contract.sensors if loaded is not None else _sensors(opened, model)
        write_contact_sheet(picture, asked, answers, sensors=known, relative=relative)
        typer.echo(f"picture: {picture}", err=True)


def _filter(gsd: str | None, time: str | None, bbox: str | None) -> Filter | None:
    """The --only-... options as one filter."""
    from swath.archive.search import Filter

    if not (gsd or time or bbox):
        return None
    return Filter(
        gsd=_gsd_range(gsd) if gsd else None,
        time=_time_range(time) if time else None,
        bbox=_box(bbox) if bbox else None,
    )


def _gsd_range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        bounds = float(low), float(high or low)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a GSD such as 10 or a range such as 0.3:2") from None
    if not 0 < bounds[0] <= bounds[1]:
        raise typer.BadParameter(f"{text!r}: a range goes from the smaller to the larger GSD")
    return bounds


def _time_range(text: str) -> tuple[datetime, datetime]:
    """FIRST:LAST as two dates (the last day is included) or times; without zone they are UTC."""
    from datetime import UTC, datetime, timedelta

    wrong = (
        f"{text!r} is not a time range such as 2020-01-01:2020-12-31 (or ISO 8601 times, with / between them)"
    )
    parts = text.split("/") if "/" in text else text.split(":")
    if len(parts) != 2:
        raise typer.BadParameter(wrong)
    try:
        first, last = (datetime.fromisoformat(part) for part in parts)
    except ValueError:
        raise typer.BadParameter(wrong) from None
    if len(parts[1]) == len("2020-12-31"):
        last += timedelta(days=1, microseconds=-1)
    first, last = (moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in (first, last))
    if first > last:
        raise typer.BadParameter(f"{text!r}: the first time is later than the last")
    return first, last


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not WEST,SOUTH,EAST,NORTH in degrees") from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise typer.BadParameter(f"{text!r}: longitudes are -180 to 180, latitudes -90 to 90, south first")
    return west, south, east, north


def _model(archive: Archive, given: Path | None, device: str) -> Model:
    """The archive's model: from where it was last seen, or from --model."""
    from swath.errors import ArchiveError
    from swath.models import load_model

    noted = given or archive.model_path
    if noted is None or not Path(noted).exists():
        raise ArchiveError(
            f"{archive.path}: its model {archive.model_id} is not at {noted} any more; say where it is "
            "(--model DIR)"
        )
    return load_model(noted, device=device)


def _sensors(archive: Archive, given: Path | None) -> dict[str, Sensor]:
    """The sensors that the archive's model carries, for the picture; none where the model is gone."""
    from swath.errors import SwathError

    try:
        return dict(_model(archive, given, "cpu").contract.sensors)
    except SwathError:
        return {}


def _table(answers: Answers, relative: bool) -> None:
    """The answers on the terminal; in a pipe the lines are as long as they need to be."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 1000
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, justify in (
        ("rank", "right"),
        ("score", "right"),
        ("id", "left"),
        ("sensor", "left"),
        ("gsd", "right"),
        ("date", "left"),
        ("label", "left"),
        ("source", "left"),
    ):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for found in answers:
        window = found.window
        table.add_row(
            str(found.rank),
            f"{found.score:.4f}",
            found.id[:12],
            found.sensor,
            f"{found.gsd:.3g}x" if relative else f"{found.gsd:.3g} m",
            f"{found.datetime:%Y-%m-%d}" if found.datetime else "",
            found.label or "",
            f"{found.source} @{window.column},{window.row} {window.width}x{window.height}",
        )
    if len(answers):
        console.print(table, highlight=False, markup=False)
    for note in answers.notes:
        typer.echo(note, err=True)
    if answers.shortfall:
        typer.echo(answers.shortfall, err=True)


def _described(query: Query, archive: Archive) -> dict[str, object]:
    """What was asked, for the GeoJSON file."""
    return {
        "text": query.text,
        "id": query.chip.id or None,
        "sensor": query.chip.sensor,
        "gsd": query.chip.gsd,
        "archive": archive.path,
        "model": archive.model_id,
    }
