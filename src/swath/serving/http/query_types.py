"""Types that requests are made of: dates, intervals, ids, longitudes and latitudes, GeoJSON areas.

Lists and texts are bounded and numbers are finite, so that an accepted request is small and well formed.
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

MAX_EXAMPLES = 100  # ids in `like` or `unlike`
MAX_VERTICES = 5_000  # of an area


class StrictModel(BaseModel):
    """Base of request models: unknown keys and numbers that are not finite are refused."""

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
Ring = Annotated[list[Position], Field(min_length=4, max_length=MAX_VERTICES)]
Rings = Annotated[list[Ring], Field(min_length=1, max_length=1000)]


class GeoJsonArea(StrictModel):
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
        if sum(map(len, rings)) > MAX_VERTICES:
            raise ValueError(f"more than {MAX_VERTICES:,} vertices; simplify the outline")
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
