"""What goes over the wire, checked by types: requests, answers, errors. The server and the client share it.

Every request model forbids unknown keys and numbers that are not finite, and bounds every list and text, so
that what passes is small and well formed. Times are ISO 8601; one without a zone is UTC, and a bare date as
the end of a range means the end of that day. Places are longitude, latitude in degrees (OGC:CRS84).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    model_validator,
)

MOST_EXAMPLES = 100  # ids in `like` or `unlike`
MOST_VERTICES = 5_000  # of an area


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


# --- parts of requests ------------------------------------------------------------------------------------


def _moment(value: object) -> object:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise ValueError("give a time as text: 2021-06-30 or 2021-06-30T12:00:00Z")
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{value[:40]!r} is no ISO 8601 time such as 2021-06-30T12:00:00Z") from None


def _zoned(value: datetime) -> datetime:
    try:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies outside of the years 1 to 9999") from None


def parse_interval(text: str) -> tuple[datetime, datetime]:
    """A day, or two times with a slash between, both included.

    Raises:
        ValueError: It is neither, or goes backward.
    """
    first, slash, last = text.partition("/")
    begin, end = _RANGE.validate_python((first, last if slash else first))
    if begin > end:
        raise ValueError("the first time comes first")
    return begin, end


def _end(value: object) -> object:
    whole_day = isinstance(value, str) and len(value) == len("2021-06-30")
    moment = _moment(value)
    if whole_day and isinstance(moment, datetime) and moment < datetime(9999, 12, 31):
        moment += timedelta(days=1, microseconds=-1)
    return moment


Moment = Annotated[datetime, BeforeValidator(_moment), AfterValidator(_zoned)]
LastMoment = Annotated[datetime, BeforeValidator(_end), AfterValidator(_zoned)]
_RANGE: TypeAdapter[tuple[datetime, datetime]] = TypeAdapter(tuple[Moment, LastMoment])
ChipId = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Longitude = Annotated[float, Field(ge=-360, le=360)]
Latitude = Annotated[float, Field(ge=-90, le=90)]
Positive = Annotated[float, Field(gt=0, le=1e7)]
Position = Annotated[list[float], Field(min_length=2, max_length=3)]
Ring = Annotated[list[Position], Field(min_length=4, max_length=MOST_VERTICES)]
Rings = Annotated[list[Ring], Field(min_length=1, max_length=1000)]


class GeoJsonArea(_Strict):
    """A GeoJSON Polygon or MultiPolygon in longitude and latitude.

    It may go on beyond +-180 degrees where it crosses the antimeridian (up to a turn), or be cut there into
    several polygons as RFC 7946 has it.
    """

    type: Literal["Polygon", "MultiPolygon"]
    coordinates: Rings | Annotated[list[Rings], Field(min_length=1, max_length=1000)]
    bbox: list[float] | None = Field(default=None, max_length=6)  # GeoJSON may carry one; it is not used

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        depth = _depth(self.coordinates)
        if depth != {"Polygon": 3, "MultiPolygon": 4}[self.type]:
            raise ValueError(f"the coordinates of a {self.type} are nested {depth} deep")
        rings = [ring for polygon in self.polygons for ring in polygon]
        if sum(map(len, rings)) > MOST_VERTICES:
            raise ValueError(f"more than {MOST_VERTICES:,} vertices; simplify the outline")
        for ring in rings:
            if ring[0] != ring[-1]:
                raise ValueError("a ring ends where it began: repeat its first position at the end")
            for position in ring:
                if not (-360 <= position[0] <= 360 and -90 <= position[1] <= 90):
                    raise ValueError(
                        f"{position[:2]} is no longitude (-360 to 360) and latitude (-90 to 90) in degrees"
                    )
        return self

    @property
    def polygons(self) -> list[list[list[list[float]]]]:
        """Polygons as lists of rings."""
        return [self.coordinates] if self.type == "Polygon" else self.coordinates  # type: ignore[list-item, return-value]

    def geojson(self) -> dict[str, Any]:
        """As a GeoJSON geometry."""
        return {"type": self.type, "coordinates": self.coordinates}


def _depth(value: object) -> int:
    return 1 + _depth(value[0]) if isinstance(value, list) else 0


class Filters(_Strict):
    """Which chips may answer; what is left out lets every chip pass."""

    sensors: Annotated[list[Name], Field(min_length=1, max_length=50)] | None = None
    gsd: tuple[Positive, Positive] | None = Field(None, description="smallest and largest, metres per pixel")
    datetime: tuple[Moment, LastMoment] | None = Field(None, description="first and last")
    intersects: GeoJsonArea | None = Field(None, description="chips whose footprint touches it")
    min_valid: float | None = Field(None, ge=0, le=1, description="least share of valid pixels")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.gsd is not None and self.gsd[0] > self.gsd[1]:
            raise ValueError("gsd: the smallest comes first")
        if self.datetime is not None and self.datetime[0] > self.datetime[1]:
            raise ValueError("time: the first comes first")
        return self


class SearchOptions(_Strict):
    """What every search may say."""

    k: int = Field(20, ge=1, description="answers wanted; the server's limit is in /api/archive")
    filters: Filters = Field(default_factory=lambda: Filters.model_validate({}))
    diverse: bool = Field(False, description="no ten answers from one field")
    group_by_location: bool = Field(False, description="one answer a place")


class SearchRequest(SearchOptions):
    """A search by examples, a place or an area; exactly one of the three (`unlike` goes with `like`)."""

    like: Annotated[list[ChipId], Field(max_length=MOST_EXAMPLES)] = []
    unlike: Annotated[list[ChipId], Field(max_length=MOST_EXAMPLES)] = []
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

    like: Annotated[list[ChipId], Field(max_length=MOST_EXAMPLES)] = []
    unlike: Annotated[list[ChipId], Field(max_length=MOST_EXAMPLES)] = []

    sensor: Name | None = Field(None, description="what the image was taken with, where it is not plain")
    gsd: Positive | None = Field(None, description="metres per pixel of an image without georeference")


# --- answers ----------------------------------------------------------------------------------------------

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

    results: list[ScoredChip]
    k: int
    returned: int
    notes: list[str]
    took_ms: float
    query: QueryEcho


class SensorInfo(BaseModel):
    """Chips of one sensor."""

    name: str
    title: str
    rows: int
    centered: bool = Field(description="whether searches compare its chips less their mean")


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
