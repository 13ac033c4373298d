"""Requests and responses of the HTTP interface, checked by types; the server and the client share them.

Request models forbid unknown keys (see `swath.serving.http.query_types`). Times are ISO 8601; one without a
zone is UTC, and a bare date at the end of a range includes that day. Positions are longitude, latitude in
degrees (OGC:CRS84).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from swath.serving.http.query_types import (
    MAX_EXAMPLES,
    ChipId,
    GeoJsonArea,
    LastMoment,
    Latitude,
    Longitude,
    Moment,
    Name,
    Positive,
    StrictModel,
)

# --- requests ---------------------------------------------------------------------------------------------


class Filters(StrictModel):
    """Which chips may answer; what is left out lets every chip pass."""

    sensors: Annotated[list[Name], Field(min_length=1, max_length=50)] | None = None
    gsd: tuple[Positive, Positive] | None = Field(None, description="smallest and largest, metres per pixel")
    time: tuple[Moment, LastMoment] | None = Field(None, description="first and last")
    area: GeoJsonArea | None = Field(None, description="chips whose footprint touches it")
    valid_min: float | None = Field(None, ge=0, le=1, description="least share of valid pixels")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.gsd is not None and self.gsd[0] > self.gsd[1]:
            raise ValueError("gsd: the smallest comes first")
        if self.time is not None and self.time[0] > self.time[1]:
            raise ValueError("time: the first comes first")
        return self


class SearchOptions(StrictModel):
    """What every search may say."""

    k: int = Field(20, ge=1, description="answers wanted; the server's limit is in /api/archive")
    filters: Filters = Field(default_factory=lambda: Filters.model_validate({}))
    diverse: bool = Field(False, description="no ten answers from one field")
    group_places: bool = Field(False, description="one answer a place")


class SearchRequest(SearchOptions):
    """A search by examples, a place or an area; exactly one of the three (`unlike` goes with `like`)."""

    like: list[ChipId] = Field(default_factory=list, max_length=MAX_EXAMPLES)
    unlike: list[ChipId] = Field(default_factory=list, max_length=MAX_EXAMPLES)
    place: tuple[Longitude, Latitude] | None = None
    area: GeoJsonArea | None = Field(
        None, description="search by what is there: the mean of the chips inside"
    )

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if (bool(self.like) + (self.place is not None) + (self.area is not None)) != 1:
            raise ValueError("give one of `like` (ids of chips), `place` ([lon, lat]) or `area` (GeoJSON)")
        if self.unlike and not self.like:
            raise ValueError("`unlike` needs at least one `like`")
        return self


class ImageSearchOptions(SearchOptions):
    """What a search by an uploaded image may say, as JSON in the form field `options`."""

    like: list[ChipId] = Field(default_factory=list, max_length=MAX_EXAMPLES)
    unlike: list[ChipId] = Field(default_factory=list, max_length=MAX_EXAMPLES)

    sensor: Name | None = Field(None, description="what the image was taken with, where it is not plain")
    gsd: Positive | None = Field(None, description="metres per pixel of an image without georeference")


# --- responses --------------------------------------------------------------------------------------------

Box = tuple[float, float, float, float]


class ChipRecord(BaseModel):
    """One chip of the archive. `source` is a file's name, never its path."""

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
    """A chip that a search found."""

    rank: int
    score: float
    others: list[ChipRecord] = Field([], description="further chips of the place, where answers are grouped")


class QueryEcho(BaseModel):
    """What was searched with."""

    like: list[str] = Field(description="chips that were the examples, also those of a place or an area")
    unlike: list[str]


class SearchResponse(BaseModel):
    """Answers, best first."""

    answers: list[ScoredChip]
    asked: int
    found: int
    notes: list[str]
    took_ms: float
    query: QueryEcho


class SensorInfo(BaseModel):
    """Chips of one sensor."""

    name: str
    title: str
    rows: int
    centred: bool = Field(description="whether searches compare its chips less their mean")


class SearchCapabilities(BaseModel):
    """Ways to search this archive, beside by example."""

    image: bool
    place: bool


class Limits(BaseModel):
    """What one request may ask for."""

    k: int
    upload_bytes: int


class ArchiveInfo(BaseModel):
    """What the archive holds."""

    name: str
    model_id: str
    dimensions: int
    rows: int
    placed: int = Field(description="chips that have a footprint")
    sensors: list[SensorInfo]
    gsd: tuple[float, float] | None
    gsd_mode: Literal["metres", "relative"]
    time: tuple[datetime, datetime] | None
    bounds: Box | None
    version: int
    searches: SearchCapabilities
    limits: Limits


class ChipPage(BaseModel):
    """Some chips to begin with, evenly spread over the archive."""

    chips: list[ChipRecord]
    total: int = Field(description="how many pass the filters")


class Health(BaseModel):
    """Whether the service can answer."""

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
    total: int = Field(description="how many there are")
    truncated: bool = Field(description="whether there are more than were sent")


class ChangeCollection(FeatureCollection):
    """Places that changed most, most first; their geometry is the later chip's.

    Properties: rank; score (standard deviations above what is usual around the place between the two dates);
    distance (of the embeddings); before and after, which are chips without geometry.
    """

    notes: list[str]


class Problem(BaseModel):
    """What is wrong, and how to put it right."""

    what: str
    fix: str | None


class ErrorMessage(BaseModel):
    """The body of every answer with a status of 400 or more."""

    error: Problem
