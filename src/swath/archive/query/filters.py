"""Which chips can be results: sensor, scale, time, place and quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.archive.index.columns import NO_TIME, ChipColumns
from swath.errors import InvalidQuery
from swath.geo.areas import boxes_overlap, footprints_intersecting, parse_area, parse_bbox

_REMEMBERED = 8  # areas, whose chips are known without looking again


@dataclass(frozen=True, slots=True)
class Filter:
    """Which chips can be results. A field that is None lets every chip pass.

    A chip that does not have what a part asks for (no time, no footprint) does not pass it.

    Attributes:
        sensors: Names of sensors.
        gsd: Smallest and largest GSD, both included.
        datetime: First and last time, both included; without a zone they are UTC.
        bbox: West, south, east, north in degrees that the footprint's bounds must touch; west > east crosses
            the antimeridian.
        intersects: What the footprint itself must touch: a GeoJSON Polygon or MultiPolygon, a shapely
            geometry, WKB or a box; see `swath.geo.areas.parse_area`.
        min_valid: Smallest fraction of pixels that are not nodata, 0 to 1.
        max_cloud: Largest fraction of pixels that are cloud, 0 to 1. Where nothing says how cloudy it is (see
            `swath.rasters.cloud_mask`), a chip does not pass.

    Raises:
        ArchiveError: When it is applied: a range from large to small, a fraction beyond 0 to 1, no such area.
    """

    sensors: Sequence[str] | None = None
    gsd: tuple[float, float] | None = None
    datetime: tuple[datetime, datetime] | None = None
    bbox: tuple[float, float, float, float] | None = None
    intersects: Any = None
    min_valid: float | None = None
    max_cloud: float | None = None

    def mask(self, chips: ChipColumns) -> NDArray[np.bool_] | None:
        """[N] bool of the chips that pass, or None if there is no filter."""
        masks: list[NDArray[np.bool_]] = []
        if self.sensors is not None:
            asked = [name in set(self.sensors) for name in chips.sensor_names]
            masks.append(np.array([*asked, False], dtype=np.bool_)[chips.sensors])
        if self.gsd is not None:
            low, high = self.gsd
            if not 0 <= low <= high:
                raise InvalidQuery(
                    f"a range of GSD goes from the smaller to the larger, not {low:g} to {high:g}"
                )
            # A GSD computed from a transform is a hair off its nominal value: 10 m must find 9.9999999.
            masks.append((chips.gsd >= low * (1 - 1e-6)) & (chips.gsd <= high * (1 + 1e-6)))
        if self.datetime is not None:
            first, last = (_microseconds(moment) for moment in self.datetime)
            if first > last:
                raise InvalidQuery(f"a range of time goes from the earlier to the later, not {self.datetime}")
            masks.append((chips.times >= first) & (chips.times <= last) & (chips.times != NO_TIME))
        if self.min_valid is not None:
            if not 0 <= self.min_valid <= 1:
                raise InvalidQuery(f"the fraction of valid pixels is 0 to 1, not {self.min_valid:g}")
            masks.append(chips.valid >= self.min_valid * (1 - 1e-6))
        if self.max_cloud is not None:
            if not 0 <= self.max_cloud <= 1:
                raise InvalidQuery(f"the fraction of cloud is 0 to 1, not {self.max_cloud:g}")
            masks.append(chips.cloud <= self.max_cloud * (1 + 1e-6))  # NaN does not pass
        if self.bbox is not None:
            masks.append(boxes_overlap(chips.boxes, parse_bbox(self.bbox)))
        if self.intersects is not None:
            masks.append(intersects(chips, parse_area(self.intersects)))
        return np.logical_and.reduce(masks) if masks else None


def parse_datetime(text: str) -> tuple[datetime, datetime]:
    """A period in words: a year, month or day, or the first and last of them; UTC where no zone is given.

    Args:
        text: "2018", "2018-03", "2018-03-14", "2018-03:2018-05" (the last is included), or two ISO 8601 times
            with / between them.

    Raises:
        ArchiveError: It is none of these, or goes backwards.
    """
    first, separator, last = text.partition("/" if "/" in text else ":")
    try:
        start, stop = _moments(first)[0], _moments(last if separator else first)[1]
    except ValueError:
        raise InvalidQuery(
            f"{text!r} is not a time such as 2018, 2018-03 or 2018-03-14, or a range such as "
            "2020-01-01:2020-12-31 (or ISO 8601 times, with / between them)"
        ) from None
    if start > stop:
        raise InvalidQuery(f"{text!r}: the first time is later than the last")
    return start, stop


def _moments(text: str) -> tuple[datetime, datetime]:
    """First and last moment of a year, month, day or time."""
    parts = text.split("-")
    if len(text) <= len("2018-03") and len(parts) <= 2:
        year, month = int(parts[0]), int(parts[1]) if len(parts) == 2 else None
        if len(parts[0]) != 4:
            raise ValueError(text)
        start = datetime(year, month or 1, 1, tzinfo=UTC)
        months = year * 12 + ((month or 12) - 1) + 1
        return start, datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    whole_day = len(text) == len("2018-03-14")
    return moment, moment + timedelta(days=1, microseconds=-1) if whole_day else moment


def intersects(chips: ChipColumns, area: Any, *, min_overlap: float = 0.0) -> NDArray[np.bool_]:
    """[N] which chips touch a shapely geometry, or lie in it with a fraction of at least `min_overlap`.

    The last few are remembered: in an area that a user has drawn, every click is another search.
    """
    import shapely

    geometries = chips.column("geometry")
    if geometries is None:
        return np.zeros(0, dtype=np.bool_)
    key = shapely.to_wkb(area), min_overlap
    found = chips.touched.pop(key, None)
    if found is None:
        found = footprints_intersecting(geometries, chips.boxes, area, overlap=min_overlap)
        found.flags.writeable = False
    chips.touched[key] = found  # the newest last
    while len(chips.touched) > _REMEMBERED:
        chips.touched.pop(next(iter(chips.touched), key), None)
    return found


def _microseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1e6)
