"""The archive as it is now, to a server that runs for months.

The archive is asked for its version at every request, so that new chips answer as soon as they are committed.
If it cannot be read (half deleted, on a disk that has gone), requests are refused until it can be again: it
is opened anew then, without a restart.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from swath.archive.archive import Archive
from swath.archive.index.columns import NO_TIME, ChipColumns
from swath.archive.query.results import SearchResult
from swath.archive.table.sensor_means import centering_default
from swath.errors import ArchiveError, SwathError
from swath.geo.footprint import to_geojson_geometry
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.serving.http.errors import ApiError, api_error_from
from swath.serving.http.schemas import ArchiveInfo, ChipRecord, Limits, SearchCapabilities, SensorInfo
from swath.serving.settings import ServerSettings

if TYPE_CHECKING:
    from swath.archive.query.searcher import Searcher
    from swath.models import Model


class ArchiveHandle:
    """An archive and, perhaps, its model.

    Args:
        path: Of the archive.
        model: The archive's model, for searches by image; None does without.
        settings: For the limits that are told.

    Raises:
        ArchiveError: No archive there, or of another model.
    """

    def __init__(self, path: str, model: Model | None, settings: ServerSettings) -> None:
        self.path = path
        self.name = PurePath(path).name or "archive"
        self.model = model
        self.settings = settings
        self._lock = threading.Lock()
        self._archive: Archive | None = self._open()
        self._info: tuple[tuple[str, int], ArchiveInfo] | None = None

    def _open(self) -> Archive:
        return Archive.open(self.path, model_id=self.model.id if self.model is not None else None)

    @contextmanager
    def archive(self) -> Iterator[Archive]:
        """The archive; Swath's errors on the way become refusals without paths."""
        try:
            with self._lock:
                if self._archive is None:
                    self._archive = self._open()
                archive = self._archive
                archive.searcher.chips()  # a new version is read once, not by every thread that sees it
            yield archive
        except SwathError as error:
            refusal = api_error_from(error, self.path, str(PurePath(self.path)))
            if isinstance(error, ArchiveError) and refusal.status == 503:
                with self._lock:
                    self._archive = None  # opened anew by the next request
            raise refusal from error

    def chips(self) -> ChipColumns:
        """The small columns of all chips."""
        with self.archive() as archive:
            return archive.searcher.chips()

    def chip(self, name: str) -> SearchResult:
        """The chip with this id.

        Raises:
            Refusal: 404.
        """
        with self.archive() as archive:
            return chip_of(archive.searcher, name)

    @property
    def sensors(self) -> dict[str, Sensor]:
        """Sensors that the model carries, by name; they need not be registered here."""
        return dict(self.model.contract.sensors) if self.model is not None else {}

    def title(self, sensor: str) -> str:
        """For people, one line."""
        known = self.sensors.get(sensor)
        if known is None:
            try:
                known = get_sensor(sensor)
            except SwathError:
                return sensor
        return known.title or sensor

    def info(self) -> ArchiveInfo:
        """What the archive holds; counted once a version."""
        with self.archive() as archive:
            state = (archive.model_id, archive.version)
            if self._info is None or self._info[0] != state:
                self._info = state, self._described(archive, state[1])
            return self._info[1]

    def _described(self, archive: Archive, version: int) -> ArchiveInfo:
        chips = archive.searcher.chips()
        counts = np.bincount(chips.sensors, minlength=len(chips.sensor_names)).tolist()
        times = chips.times[chips.times != NO_TIME]
        centered = centering_default(archive.sensor_means())
        return ArchiveInfo(
            name=self.name,
            model_id=archive.model_id,
            dimensions=archive.dimensions,
            rows=len(chips),
            placed=int(chips.placed.sum()),
            sensors=[
                SensorInfo(name=name, title=self.title(name), rows=count, centered=centered)
                for count, name in sorted(zip(counts, chips.sensor_names, strict=True), reverse=True)
            ],
            gsd=(float(chips.gsd.min()), float(chips.gsd.max())) if len(chips) else None,
            gsd_mode="metres" if archive.searcher.in_metres else "relative",
            time=(_moment(times.min()), _moment(times.max())) if len(times) else None,
            bounds=bounds_across_antimeridian(chips.boxes[chips.placed]),
            version=version,
            searches=SearchCapabilities(image=self.model is not None, place=bool(chips.placed.any())),
            limits=Limits(k=self.settings.max_results, upload_bytes=self.settings.upload_bytes),
        )


def chip_of(searcher: Searcher, name: str) -> SearchResult:
    """The chip with exactly this id, or a Refusal (404)."""
    found = searcher.find(name)
    if found is None or found.id != name:
        raise ApiError(
            404, f"the archive has no chip {name[:80]!r}", "use an id from a search or from the footprints"
        )
    return found


def chip_record(chip: SearchResult, *, geometry: bool = True) -> ChipRecord:
    """A chip as it is told: its source by name only."""
    return ChipRecord(**chip_fields(chip, geometry=geometry))


def chip_fields(chip: SearchResult, *, geometry: bool = True) -> dict[str, Any]:
    """The fields of `messages.Chip`."""
    return {
        "id": chip.id,
        "sensor": chip.sensor,
        "gsd": chip.gsd,
        "time": chip.datetime,
        "label": chip.label,
        "valid_fraction": chip.valid_fraction,
        "geometry": to_geojson_geometry(chip.geometry) if geometry else None,
        "bbox": chip.bbox,
        "source": PurePath(chip.source).name,
        "window": (chip.window.column, chip.window.row, chip.window.width, chip.window.height),
    }


def _moment(microseconds: Any) -> datetime:
    return datetime.fromtimestamp(int(microseconds) / 1e6, UTC)


def bounds_across_antimeridian(
    boxes: np.ndarray[Any, np.dtype[np.float64]],
) -> tuple[float, float, float, float] | None:
    """West, south, east, north of boxes [N, 4]; west > east where the narrowest frame crosses +-180."""
    if not len(boxes):
        return None
    south, north = float(boxes[:, 1].min()), float(boxes[:, 3].max())
    crossing = boxes[:, 0] > boxes[:, 2]
    plain = (float(boxes[:, 0].min()), float(boxes[:, 2].max()))
    # The same on a circle that begins at Greenwich.
    west = boxes[:, 0] % 360
    east = west + np.where(crossing, boxes[:, 2] - boxes[:, 0] + 360, boxes[:, 2] - boxes[:, 0])
    turned = (float(west.min()), float(east.max()))
    if not crossing.any() and plain[1] - plain[0] <= turned[1] - turned[0]:
        return plain[0], south, plain[1], north
    if turned[1] - turned[0] >= 360:
        return -180.0, south, 180.0, north
    return (turned[0] + 180) % 360 - 180, south, (turned[1] + 180) % 360 - 180, north
