"""Requests and responses of the HTTP interface, checked by types; the server and the client share them.

Request models forbid unknown keys (see `swath.serving.http.query_types`). Times are ISO 8601; one without a
zone is UTC, and a date without time at the end of an interval includes that day. Positions are longitude,
latitude in degrees (OGC:CRS84).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from swath.serving.http.query_types import (
    MAX_EXAMPLES,
    ChipId,
    GeoJsonArea,
    Interval,
    Latitude,
    Longitude,
    Name,
    Positive,
    StrictModel,
)

# --- requests ---------------------------------------------------------------------------------------------


class Filters(StrictModel):
    """Filters of a search; omitted ones admit every chip."""

    sensors: Annotated[list[Name], Field(min_length=1, max_length=50)] | None = None
    gsd: tuple[Positive, Positive] | None = Field(None, description="minimum and maximum, metres per pixel")
    datetime: Interval | None = None
    intersects: GeoJsonArea | None = Field(None, description="area that the footprint of a chip must touch")
    min_valid: float | None = Field(None, ge=0, le=1, description="minimum fraction of valid pixels")
    max_cloud: float | None = Field(None, ge=0, le=1, description="maximum fraction of cloudy pixels")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.gsd is not None and self.gsd[0] > self.gsd[1]:
            raise ValueError("gsd: the minimum is larger than the maximum")
        return self


class BaseSearchRequest(StrictModel):
    """What every search has."""

    k: int = Field(20, ge=1, description="number of results; the server's limit is in /api/archive")
    filters: Filters = Field(default_factory=lambda: Filters.model_validate({}))
    diverse: bool = Field(False, description="avoid near-duplicate results")
    group_by_location: bool = Field(False, description="one result per place")


class SearchRequest(BaseSearchRequest):
    """A search by examples, a place or an area: exactly one of them (`unlike` only with `like`)."""

    like: list[ChipId] = Field(default_factory=list, max_length=MAX_EXAMPLES)
    unlike: list[ChipId] = Field(default_factory=list, max_length=MAX_EXAMPLES)
    place: tuple[Longitude, Latitude] | None = None
    area: GeoJsonArea | None = Field(None, description="search by the mean embedding of the chips inside")

    @model_validator(mode="after")
    def _has_one_query(self) -> Self:
        if (bool(self.like) + (self.place is not None) + (self.area is not None)) != 1:
            raise ValueError(
                "give exactly one of `like` (ids of chips), `place` ([lon, lat]) and `area` (GeoJSON)"
            )
        if self.unlike and not self.like:
            raise ValueError("`unlike` needs at least one `like`")
        return self


class ImageSearchOptions(BaseSearchRequest):
    """Options of a search by an uploaded image, as JSON in the form field `options`."""

    like: list[ChipId] = Field(default_factory=list, max_length=MAX_EXAMPLES)
    unlike: list[ChipId] = Field(default_factory=list, max_length=MAX_EXAMPLES)

    sensor: Name | None = Field(None, description="sensor of the image; needed if several fit")
    gsd: Positive | None = Field(None, description="metres per pixel; needed without a georeference")


# --- responses --------------------------------------------------------------------------------------------

Box = tuple[float, float, float, float]


class ChipRecord(BaseModel):
    """A chip of the archive. `source` is the name of a file, never its path."""

    id: str
    sensor: str
    gsd: float
    time: datetime | None
    label: str | None
    valid_fraction: float
    geometry: dict[str, Any] | None = Field(description="GeoJSON")
    bbox: Box | None = Field(description="west, south, east, north; west > east crosses the antimeridian")
    source: str
    window: tuple[int, int, int, int] = Field(description="column, row, width, height in the source")


class ScoredChip(ChipRecord):
    """A result of a search."""

    rank: int
    score: float
    others: list[ChipRecord] = Field(
        [], description="further chips of the place, if results are grouped by location"
    )


class QueryEcho(BaseModel):
    """The examples that a search used."""

    like: list[str] = Field(description="ids of the examples, also those of a place or an area")
    unlike: list[str]


class SearchResponse(BaseModel):
    """Results, best first."""

    results: list[ScoredChip]
    k: int = Field(description="requested number of results")
    returned: int = Field(description="number of results")
    notes: list[str]
    took_ms: float
    query: QueryEcho


class SensorInfo(BaseModel):
    """Chips of one sensor."""

    name: str
    title: str
    rows: int
    centered: bool = Field(description="whether searches subtract the mean embedding of this sensor")


class SearchCapabilities(BaseModel):
    """Queries that this server supports, besides search by example."""

    image: bool
    place: bool


class Limits(BaseModel):
    """Limits of one request."""

    k: int
    upload_bytes: int


class ArchiveInfo(BaseModel):
    """Contents of the archive, and how it can be searched."""

    name: str
    model_id: str
    dimensions: int
    rows: int
    with_footprint: int = Field(description="number of chips that have a footprint")
    sensors: list[SensorInfo]
    gsd: tuple[float, float] | None
    gsd_mode: Literal["metres", "relative"]
    time: tuple[datetime, datetime] | None
    bounds: Box | None
    version: int
    capabilities: SearchCapabilities
    limits: Limits


class ChipPage(BaseModel):
    """One page of chips, in a fixed shuffled order."""

    chips: list[ChipRecord]
    total: int = Field(description="number of chips that match the filters")


class Health(BaseModel):
    """State of the server."""

    status: Literal["ok"]
    version: str
    rows: int


class Feature(BaseModel):
    """A GeoJSON feature; its properties are a chip without its geometry, or a change."""

    type: Literal["Feature"] = "Feature"
    id: str
    geometry: dict[str, Any] | None
    properties: dict[str, Any]


class FeatureCollection(BaseModel):
    """A GeoJSON FeatureCollection."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    features: list[Feature]
    total: int = Field(description="number of matches")
    truncated: bool = Field(description="whether there are more matches than features")


class ChangeCollection(FeatureCollection):
    """Changes between two dates, largest first; the geometry is that of the later chip.

    Properties: rank; score (standard deviations above the local median); distance of the embeddings; before
    and after (chips without geometry).
    """

    notes: list[str]


class Problem(BaseModel):
    """Problem details (RFC 9457): the body of every response with a status of 400 or more."""

    type: str
    title: str
    status: int
    detail: str = Field(description="what is wrong")
    fix: str | None = Field(description="what to do about it")
