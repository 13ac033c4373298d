"""From what was asked to what the archive's search answers, and back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from swath.archive.query.filters import Filter
from swath.archive.query.query import Query, query_by_area, query_by_examples, query_by_place
from swath.archive.query.relevance_feedback import DEFAULT
from swath.serving.http.errors import ApiError
from swath.serving.http.schemas import (
    ChangeCollection,
    ChipRecord,
    Feature,
    Filters,
    ImageSearchOptions,
    QueryEcho,
    ScoredChip,
    SearchOptions,
    SearchRequest,
    SearchResponse,
)
from swath.serving.settings import ServerSettings
from swath.serving.workers.archive_handle import ArchiveHandle, chip_fields, chip_of, chip_record

if TYPE_CHECKING:
    from swath.archive.archive import Archive
    from swath.archive.changes.detect import Period


def search_by_example(handle: ArchiveHandle, request: SearchRequest) -> SearchResponse:
    """Search by chips, a place or an area; the chips that are asked for do not answer."""
    check_count(handle.settings, request.k)
    with handle.archive() as archive:
        if request.place is not None:
            query = query_by_place(archive, *request.place)
        elif request.area is not None:
            query = query_by_area(archive, request.area.geojson())
        else:
            query = _by_examples(archive, request.like, request.unlike)
        return _answered(handle, archive, query, request)


def search_by_image(handle: ArchiveHandle, image: Query, options: ImageSearchOptions) -> SearchResponse:
    """Search by an image that has been read and embedded, and perhaps by further examples."""
    with handle.archive() as archive:
        query = image
        if options.like:
            more = _by_examples(archive, options.like)
            query = replace(
                query, like=[*query.like, *more.like], chips=[*query.chips, *more.chips], method=DEFAULT
            )
        if options.unlike:
            less = _by_examples(archive, options.unlike)
            query = replace(query, unlike=less.like, avoided=less.chips, method=DEFAULT)
        return _answered(handle, archive, query, options)


def changes(
    handle: ArchiveHandle, before: Period, after: Period, sensor: str | None, limit: int
) -> ChangeCollection:
    """The places that changed most between two periods."""
    most = handle.settings.max_results
    if limit > most:
        raise ApiError(422, f"limit is {limit}, this server sends at most {most:,} places", "ask for fewer")
    from swath.archive.changes.detect import find_changes

    with handle.archive() as archive:
        found = find_changes(archive, before, after, k=limit, sensor=sensor)
    features = []
    for change in found:
        old, new = (chip_record(chip).model_dump(mode="json") for chip in (change.before, change.after))
        old.pop("geometry")
        geometry = new.pop("geometry")
        properties = {"rank": change.rank, "score": change.score, "distance": change.distance}
        features.append(
            Feature(id=new["id"], geometry=geometry, properties=properties | {"before": old, "after": new})
        )
    return ChangeCollection(
        features=features, total=found.pairs, truncated=found.pairs > len(features), notes=list(found.notes)
    )


def check_count(settings: ServerSettings, k: int) -> None:
    """Refuse more answers than this server gives, before any work is done for them."""
    most = settings.max_results
    if k > most:
        asked = f"{k:,}" if k < 10**12 else "too large"
        raise ApiError(
            422, f"k is {asked}; this server gives at most {most:,} answers", f"ask for {most:,} or fewer"
        )


def to_filter(filters: Filters) -> Filter:
    """The archive's filter; sensors are the search's own argument."""
    return Filter(
        gsd=filters.gsd,
        datetime=filters.datetime,
        intersects=filters.intersects.geojson() if filters.intersects is not None else None,
        min_valid=filters.min_valid,
    )


def _by_examples(archive: Archive, like: list[str], unlike: Sequence[str] = ()) -> Query:
    for name in (*like, *unlike):
        chip_of(archive.searcher, name)  # whole ids only, and 404 for others
    return query_by_examples(archive, like, unlike)


def _answered(
    handle: ArchiveHandle, archive: Archive, query: Query, options: SearchOptions
) -> SearchResponse:
    began = time.perf_counter()
    answers = query.search(
        archive,
        options.k,
        filter=to_filter(options.filters),
        sensor=options.filters.sensors,
        diverse=options.diverse,
        group_by_location=options.group_by_location,
        exclude_self=True,
    )
    took = (time.perf_counter() - began) * 1e3
    return SearchResponse(
        results=[
            ScoredChip(
                **chip_fields(chip),
                rank=chip.rank,
                score=chip.score,
                others=[ChipRecord(**chip_fields(other)) for other in chip.others],
            )
            for chip in answers
        ],
        k=answers.k,
        returned=len(answers),
        notes=[*answers.notes, *([answers.shortfall] if answers.shortfall else [])],
        took_ms=round(took, 2),
        query=QueryEcho(
            like=[chip.id for chip in query.chips if chip.id], unlike=[chip.id for chip in query.avoided]
        ),
    )
