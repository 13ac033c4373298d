"""The options of a search, listed once for Python, the command line and the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from swath.archive.query.filters import Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Which chips are results, and how they are compared.

    Attributes:
        filter: Only chips that pass.
        sensor: Only chips of this sensor, or of these (see `Searcher.sensor_names`).
        center: Subtract the mean of each sensor from its vectors. None: if the archive has several sensors of
            at least 10 chips and the query's sensor is one of them; `SearchResults.notes` report it.
        diverse: At most one result per field (nearer than half a chip's width, or overlapping), and prefer
            results that are less similar to each other.
        group_by_location: One result per location, its best chip; the location's other chips (dates, GSDs,
            sensors) among the best candidates are its `SearchResult.others`.
        exclude_self: Omit the query's own chips, or all chips of the query's image file.
        exclude_location: Omit chips that show the query's location, of any sensor and date.
        exclude_overlap: Fraction of the smaller footprint that two chips of one location share.
    """

    filter: Filter | None = None
    sensor: str | Sequence[str] | None = None
    center: bool | None = None
    diverse: bool = False
    group_by_location: bool = False
    exclude_self: bool = False
    exclude_location: bool = False
    exclude_overlap: float = 0.5


def merge_options(options: SearchOptions | None, named: dict[str, Any]) -> SearchOptions:
    """`options`, with the fields that were given by name."""
    return replace(options or SearchOptions(), **named)
