"""`swath search ARCHIVE QUERY`: the chips of an archive nearest to an image, to its own, or to a place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from swath.archive.archive import Archive
    from swath.archive.query.query import Query
    from swath.archive.query.results import SearchResults
    from swath.models import Model
    from swath.sensors.sensor import Sensor


def command(
    archive: Annotated[str, typer.Argument(help="Archive, made by `swath embed`.")],
    query: Annotated[
        str | None, typer.Argument(help="An image file, or the id of a chip (6 characters suffice).")
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option(help="More like this chip; may be given again.", metavar="ID")
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option(help="Less like this chip; may be given again.", metavar="ID")
    ] = None,
    place: Annotated[
        str | None,
        typer.Option(
            help="More like the chips that show a point, or lie in a box (WEST,SOUTH,EAST,NORTH).",
            metavar="LON,LAT",
        ),
    ] = None,
    area: Annotated[
        Path | None, typer.Option(help="More like the chips that lie in the polygons of this GeoJSON file.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="How examples are combined: rocchio, blend.  \\[default: blend]"),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many answers.", min=1)] = 10,
    exclude_self: Annotated[
        bool, typer.Option("--exclude-self", help="Leave out the chip or image file that is asked for.")
    ] = False,
    exclude_location: Annotated[
        bool,
        typer.Option(
            "--exclude-location", help="Leave out the query's own place, in any sensor, by footprint."
        ),
    ] = False,
    exclude_overlap: Annotated[
        float | None,
        typer.Option(
            help="How much of the smaller footprint is shared by chips of one place, for "
            "--exclude-location.  "
            "\\[default: 0.5]",
            min=0.0,
            max=1.0,
        ),
    ] = None,
    sensor: Annotated[
        list[str] | None,
        typer.Option(
            help="Only results of this sensor, such as sentinel2_l2a, or s2 for short. "
            "Can be given several times.",
        ),
    ] = None,
    query_sensor: Annotated[
        str | None,
        typer.Option(help="What the query image was taken with.  \\[default: found by its bands]"),
    ] = None,
    center: Annotated[
        bool | None,
        typer.Option(
            "--center/--no-center",
            help="Compare vectors less the mean of their own sensor.  \\[default: where the archive holds "
            "several sensors]",
        ),
    ] = None,
    query_gsd: Annotated[
        float | None, typer.Option(help="Metres per pixel of a query image without georeference.", min=0.0)
    ] = None,
    query_offset_dn: Annotated[
        float | None,
        typer.Option(
            "--query-offset-dn",
            help="Added to stored values of a Sentinel-2 query image that does not say its "
            "processing baseline: -1000 from baseline 04.00, 0 before.",
        ),
    ] = None,
    gsd_range: Annotated[
        str | None,
        typer.Option(help="Only answers of this GSD or range: 10 or 0.3:2; else any.", metavar="LOW:HIGH"),
    ] = None,
    datetime: Annotated[
        str | None,
        typer.Option(help="Only answers of this time: 2020, 2020-06, 2020-01-01:2020-12-31.", metavar="TIME"),
    ] = None,
    bbox: Annotated[
        str | None,
        typer.Option(
            help="Only answers that touch this box, in degrees; WEST > EAST crosses the antimeridian.",
            metavar="WEST,SOUTH,EAST,NORTH",
        ),
    ] = None,
    intersects: Annotated[
        Path | None, typer.Option(help="Only answers that touch the polygons of this GeoJSON file.")
    ] = None,
    min_valid: Annotated[
        float | None,
        typer.Option(help="Only answers with at least this share of valid pixels.", min=0.0, max=1.0),
    ] = None,
    max_cloud: Annotated[
        float | None,
        typer.Option(
            help="Only answers with at most this share of cloud, of those of which it is known.",
            min=0.0,
            max=1.0,
        ),
    ] = None,
    diverse: Annotated[
        bool, typer.Option("--diverse", help="Answers that differ: one a field, and less like each other.")
    ] = False,
    group_by_location: Annotated[
        bool, typer.Option("--group-by-location", help="One answer a place, with its other dates and scales.")
    ] = False,
    version: Annotated[
        int | None, typer.Option(help="Search the archive as it was (see `swath archive versions`).")
    ] = None,
    geojson: Annotated[Path | None, typer.Option(help="Write the answers as GeoJSON.")] = None,
    contact_sheet: Annotated[Path | None, typer.Option(help="Write query and answers as a PNG.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="The archive's model directory, if it has moved since embedding.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where a query image is embedded.")] = "cpu",
) -> None:
    """Find the chips of an archive that look most like an image, chips of its own, or a place.

    Scores are cosines: 1 is the same direction. Fewer answers than asked for are said to be so. In an archive
    of several sensors any sensor may ask and any answer; vectors are then compared less their sensor's mean,
    so that chips of the query's own sensor are not first merely for that.

    Examples:

    swath search chips.archive photo.tif --datetime 2021 --diverse

    swath search chips.archive --like 3fa9c1 --like 77be02 --unlike c0ffee

    swath search chips.archive --place 13.40,52.52 --group-by-location --exclude-location
    """
    import re

    from swath.archive.archive import Archive
    from swath.archive.exchange.geojson import write_geojson
    from swath.archive.query.options import SearchOptions
    from swath.cli.search.options import parse_filters
    from swath.errors import SwathError, UnstatedError

    opened = Archive.open(archive, version=version)
    where = parse_filters(
        gsd=gsd_range, time=datetime, bbox=bbox, area=intersects, valid=min_valid, cloud=max_cloud
    )
    names = opened.searcher.sensor_names(sensor) if sensor else None
    if exclude_overlap is not None and not exclude_location:
        raise SwathError("--exclude-overlap says how --exclude-location judges; give both")
    loaded: Model | None = None
    if query is not None and Path(query).exists():
        from swath.archive.query.image_query import load_archive_model, query_by_image

        _alone("an image", like=like, unlike=unlike, place=place, area=area, method=method)
        loaded = load_archive_model(opened, model, device)
        try:
            asked = query_by_image(
                opened, query, loaded, sensor=query_sensor, gsd=query_gsd, offset_dn=query_offset_dn
            )
        except UnstatedError as error:
            raise UnstatedError(re.sub(r"--(gsd|offset-dn)", r"--query-\1", str(error))) from None
    else:
        of_image = {"sensor": query_sensor, "gsd": query_gsd, "offset-dn": query_offset_dn}
        for option, value in of_image.items():
            if value is not None:
                raise SwathError(f"--query-{option} is for query images; chips of the archive have their own")
        asked = _query(opened, query, like or [], unlike or [], place, area, method)
    options = SearchOptions(
        filter=where,
        sensor=names,
        center=center,
        diverse=diverse,
        group_by_location=group_by_location,
        exclude_self=exclude_self,
        exclude_location=exclude_location,
        exclude_overlap=0.5 if exclude_overlap is None else exclude_overlap,
    )
    answers = asked.search(opened, k, options)
    relative = not opened.searcher.in_metres
    _table(answers, relative)
    if geojson is not None:
        write_geojson(geojson, answers, query=_described(asked, opened) | {"centered": answers.centered})
        typer.echo(f"GeoJSON: {geojson}", err=True)
    if contact_sheet is not None:
        from swath.archive.show.contact_sheet import write_contact_sheet

        known = loaded.contract.sensors if loaded is not None else _sensors(opened, model)
        write_contact_sheet(contact_sheet, asked, answers, sensors=known, relative=relative)
        typer.echo(f"contact sheet: {contact_sheet}", err=True)


def _query(
    archive: Archive,
    query: str | None,
    like: list[str],
    unlike: list[str],
    place: str | None,
    area: Path | None,
    method: str | None,
) -> Query:
    """What is asked for of the archive's own chips."""
    from swath.archive.query.query import query_by_area, query_by_examples, query_by_id, query_by_place
    from swath.cli.search.options import area_in, box_of
    from swath.errors import SwathError

    if place is not None and area is not None:
        raise SwathError("--place and --area say both where the query is; give one of them")
    if place is not None or area is not None:
        _alone("a place", query=query, like=like, unlike=unlike, method=method)
        if area is not None:
            return query_by_area(archive, area_in(area))
        assert place is not None
        if place.count(",") == 3:
            return query_by_area(archive, box_of(place))
        try:
            longitude, latitude = (float(part) for part in place.split(","))
        except ValueError:
            raise typer.BadParameter(f"{place!r} is not LON,LAT or WEST,SOUTH,EAST,NORTH") from None
        return query_by_place(archive, longitude, latitude)
    if query is None and not like and not unlike:
        raise SwathError("say what to search for: an image file, the id of a chip, --like, --place or --area")
    if query is not None:
        if Path(query).suffix or "/" in query:
            raise SwathError(f"{query}: there is no such file")
        if not like and not unlike:
            _alone("one chip", method=method)
            return query_by_id(archive, query)
        like = [query, *like]
    return query_by_examples(archive, like, unlike, method=method)  # type: ignore[arg-type]


def _alone(what: str, **others: object) -> None:
    """Refuse options that would be ignored."""
    from swath.errors import SwathError

    given = [f"--{name}" if name != "query" else "a query" for name, value in others.items() if value]
    if given:
        raise SwathError(f"{what} is asked for alone, without {' and '.join(given)}")


def _sensors(archive: Archive, given: Path | None) -> dict[str, Sensor]:
    """The sensors that the archive's model carries, for the picture; none where the model is gone."""
    from swath.archive.query.image_query import load_archive_model
    from swath.errors import SwathError

    try:
        return dict(load_archive_model(archive, given).contract.sensors)
    except SwathError:
        return {}


def _table(answers: SearchResults, relative: bool) -> None:
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
        for other in found.others:
            date = f"{other.datetime:%Y-%m-%d}" if other.datetime else ""
            size = f"{other.gsd:.3g}x" if relative else f"{other.gsd:.3g} m"
            table.add_row("", f"{other.score:.4f}", other.id[:12], other.sensor, size, date, "", "same place")
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
        "ids": [chip.id for chip in query.chips if chip.id],
        "unlike": [chip.id for chip in query.avoided],
        "sensor": query.chip.sensor,
        "gsd": query.chip.gsd,
        "archive": archive.path,
        "model": archive.model_id,
    }
