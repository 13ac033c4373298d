"""Types that requests are made of: dates, intervals, ids, longitudes and latitudes, GeoJSON areas.

Lists and texts are bounded and numbers are finite, so that an accepted request is small and well formed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

MAX_EXAMPLES = 100  # ids in `like` or `unlike`
MAX_VERTICES = 5_000  # of an area


class StrictModel(BaseModel):
    """Base of request models: unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


# --- parts of requests ------------------------------------------------------------------------------------


# Keys and parameters that had another name before version 0.2.
RENAMED = {
    "time": "datetime",
    "time_min": "datetime",
    "time_max": "datetime",
    "area": "intersects",
    "valid_min": "min_valid",
    "group_places": "group_by_location",
    "k": "limit",
}
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def unknown_key_text(name: str) -> str:
    """The message for an unknown key or parameter."""
    current = RENAMED.get(name)
    return f"{name[:60]!r} is now {current!r}" if current else f"{name[:60]!r} is not supported"


def parse_interval(text: str) -> tuple[datetime, datetime]:
    """A day or a time, or FIRST/LAST of them, both included; `..` in place of one leaves it open.

    Raises:
        ValueError: It is neither, or the first is later than the last.
    """
    first, slash, last = text.partition("/")
    if slash and first in ("", "..") and last in ("", ".."):
        raise ValueError("at least one end of a datetime interval must be given")
    begin = EARLIEST if slash and first in ("", "..") else _utc(_datetime(first))
    end = LATEST if slash and last in ("", "..") else _utc(_end(last if slash else first))
    if begin > end:
        raise ValueError("the first datetime is later than the last")
    return begin, end


def _datetime(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text[:40]!r} is not an ISO 8601 datetime such as 2021-06-30 or 2021-06-30T12:00:00Z"
        ) from None


def _end(text: str) -> datetime:
    """The end of a day if there is only a date."""
    value = _datetime(text)
    if len(text) == len("2021-06-30") and value < datetime(9999, 12, 31):
        value += timedelta(days=1, microseconds=-1)
    return value


def _utc(value: datetime) -> datetime:
    try:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError("a datetime must be in the years 1 to 9999") from None


def _check_interval(text: str) -> str:
    parse_interval(text)
    return text


Interval = Annotated[
    str,
    Field(max_length=100, description="2021-06-30, or FIRST/LAST; `..` in place of one leaves it open"),
    AfterValidator(_check_interval),
]
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

    Where it crosses the antimeridian, its longitudes may exceed +-180 degrees (up to 360), or it is split
    there into several polygons (RFC 7946).
    """

    type: Literal["Polygon", "MultiPolygon"]
    coordinates: Rings | Annotated[list[Rings], Field(min_length=1, max_length=1000)]
    bbox: list[float] | None = Field(default=None, max_length=6)  # allowed by GeoJSON; not used

    @model_validator(mode="after")
    def _is_valid(self) -> Self:
        depth = _depth(self.coordinates)
        if depth != {"Polygon": 3, "MultiPolygon": 4}[self.type]:
            raise ValueError(f"the coordinates of a {self.type} are nested {depth} levels deep")
        rings = [ring for polygon in self.polygons for ring in polygon]
        if sum(map(len, rings)) > MAX_VERTICES:
            raise ValueError(f"more than {MAX_VERTICES:,} vertices; simplify the area")
        for ring in rings:
            if ring[0] != ring[-1]:
                raise ValueError("a ring is not closed: repeat its first position at the end")
            for position in ring:
                if not (-360 <= position[0] <= 360 and -90 <= position[1] <= 90):
                    raise ValueError(
                        f"{position[:2]} is not a longitude (-360 to 360) and latitude (-90 to 90) in degrees"
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
