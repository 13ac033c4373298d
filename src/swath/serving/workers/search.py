"""From requests to searches of the archive, and from results to responses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from swath.archive.query.filters import Filter
from swath.archive.query.options import SearchOptions
from swath.archive.query.query import Query, query_by_area, query_by_examples, query_by_place
from swath.archive.query.relevance_feedback import DEFAULT
from swath.serving.http.errors import ApiError
from swath.serving.http.query_types import parse_interval
from swath.serving.http.schemas import (
    BaseSearchRequest,
    ChangeCollection,
    ChipRecord,
    Feature,
    Filters,
    ImageSearchOptions,
    QueryEcho,
    ScoredChip,
    SearchRequest,
    SearchResponse,
)
from swath.serving.settings import ServerSettings
from swath.serving.workers.archive_handle import ArchiveHandle, chip_fields, chip_of, chip_record

if TYPE_CHECKING:
    from swath.archive.archive import Archive
    from swath.archive.changes.detect import Period


def search_by_example(handle: ArchiveHandle, request: SearchRequest) -> SearchResponse:
    """Search by chips, a place or an area; the examples are excluded from the results."""
    check_count(handle.settings, request.k)
    with handle.open() as archive:
        if request.place is not None:
            query = query_by_place(archive, *request.place)
        elif request.area is not None:
            query = query_by_area(archive, request.area.geojson())
        else:
            query = _by_examples(archive, request.like, request.unlike)
        return _run(archive, query, request)


def search_by_image(handle: ArchiveHandle, image: Query, options: ImageSearchOptions) -> SearchResponse:
    """Search by an embedded image and, optionally, further examples."""
    with handle.open() as archive:
        query = image
        if options.like:
            more = _by_examples(archive, options.like)
            query = replace(
                query, like=[*query.like, *more.like], chips=[*query.chips, *more.chips], method=DEFAULT
            )
        if options.unlike:
            less = _by_examples(archive, options.unlike)
            query = replace(query, unlike=less.like, avoided=less.chips, method=DEFAULT)
        return _run(archive, query, options)


def changes(
    handle: ArchiveHandle, before: Period, after: Period, sensor: str | None, limit: int
) -> ChangeCollection:
    """The largest changes between two periods."""
    maximum = handle.settings.max_results
    if limit > maximum:
        detail = f"limit is {limit}; this server returns at most {maximum:,} changes"
        raise ApiError(422, detail, f"Use limit={maximum} or less.")
    from swath.archive.changes.detect import find_changes

    with handle.open() as archive:
        detected = find_changes(archive, before, after, k=limit, sensor=sensor)
    features = []
    for change in detected:
        old, new = (chip_record(chip).model_dump(mode="json") for chip in (change.before, change.after))
        old.pop("geometry")
        geometry = new.pop("geometry")
        properties = {"rank": change.rank, "score": change.score, "distance": change.distance}
        features.append(
            Feature(id=new["id"], geometry=geometry, properties=properties | {"before": old, "after": new})
        )
    return ChangeCollection(
        features=features,
        total=detected.pairs,
        truncated=detected.pairs > len(features),
        notes=list(detected.notes),
    )


def check_count(settings: ServerSettings, k: int) -> None:
    """Refuse a `k` above the limit before any work is done."""
    maximum = settings.max_results
    if k > maximum:
        value = f"{k:,}" if k < 10**12 else "too large"
        raise ApiError(
            422, f"k is {value}; this server returns at most {maximum:,} results", f"Use k={maximum} or less."
        )


def to_filter(filters: Filters) -> Filter:
    """The filter of the archive; sensors are a separate argument of a search."""
    return Filter(
        gsd=filters.gsd,
        datetime=parse_interval(filters.datetime) if filters.datetime is not None else None,
        intersects=filters.intersects.geojson() if filters.intersects is not None else None,
        min_valid=filters.min_valid,
        max_cloud=filters.max_cloud,
    )


def _by_examples(archive: Archive, like: list[str], unlike: Sequence[str] = ()) -> Query:
    for name in (*like, *unlike):
        chip_of(archive.searcher, name)  # full ids only; 404 otherwise
    return query_by_examples(archive, like, unlike)


def _run(archive: Archive, query: Query, request: BaseSearchRequest) -> SearchResponse:
    start = time.perf_counter()
    options = SearchOptions(
        filter=to_filter(request.filters),
        sensor=request.filters.sensors,
        diverse=request.diverse,
        group_by_location=request.group_by_location,
        exclude_self=True,
    )
    results = query.search(archive, request.k, options)
    took = (time.perf_counter() - start) * 1e3
    return SearchResponse(
        results=[
            ScoredChip(
                **chip_fields(chip),
                rank=chip.rank,
                score=chip.score,
                others=[ChipRecord(**chip_fields(other)) for other in chip.others],
            )
            for chip in results
        ],
        k=results.k,
        returned=len(results),
        notes=[*results.notes, *([results.shortfall] if results.shortfall else [])],
        took_ms=round(took, 2),
        query=QueryEcho(
            like=[chip.id for chip in query.chips if chip.id], unlike=[chip.id for chip in query.avoided]
        ),
    )
