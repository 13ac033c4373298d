"""The current state of an archive, for a server that runs for months.

Its version is checked at every request, so that new chips are found as soon as they are committed. While it
cannot be read (partly deleted, disk not mounted), requests get status 503; it is then opened again without a
restart.
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
from swath.errors import ArchiveUnavailable, SwathError
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
    """An archive and, optionally, its model.

    Args:
        path: The archive.
        model: Its model, for searches by image, or None.
        settings: The limits reported by `info`.

    Raises:
        ArchiveError: There is no archive, or it was embedded with another model.
    """

    def __init__(self, path: str, model: Model | None, settings: ServerSettings) -> None:
        self.path = path
        self.name = PurePath(path).name or "archive"
        self.model = model
        self.settings = settings
        self._lock = threading.Lock()
        self._archive: Archive | None = self._open_archive()
        self._info: tuple[tuple[str, int], ArchiveInfo] | None = None

    def _open_archive(self) -> Archive:
        return Archive.open(self.path, model_id=self.model.id if self.model is not None else None)

    @contextmanager
    def open(self) -> Iterator[Archive]:
        """The archive; errors of the library become ApiErrors without paths."""
        try:
            with self._lock:
                if self._archive is None:
                    self._archive = self._open_archive()
                archive = self._archive
                archive.searcher.chips()  # within the lock: a new version is read by one thread only
            yield archive
        except SwathError as error:
            if isinstance(error, ArchiveUnavailable):
                with self._lock:
                    self._archive = None  # the next request opens it again
            raise api_error_from(error, self.path, str(PurePath(self.path))) from error

    def chips(self) -> ChipColumns:
        """The small columns of all chips."""
        with self.open() as archive:
            return archive.searcher.chips()

    def chip(self, name: str) -> SearchResult:
        """The chip with this id.

        Raises:
            ApiError: 404.
        """
        with self.open() as archive:
            return chip_of(archive.searcher, name)

    @property
    def sensors(self) -> dict[str, Sensor]:
        """Sensors of the model's contract by name; they need not be registered here."""
        return dict(self.model.contract.sensors) if self.model is not None else {}

    def title(self, sensor: str) -> str:
        """The title of a sensor, one line."""
        definition = self.sensors.get(sensor)
        if definition is None:
            try:
                definition = get_sensor(sensor)
            except SwathError:
                return sensor
        return definition.title or sensor

    def info(self) -> ArchiveInfo:
        """Contents of the archive; computed once per version."""
        with self.open() as archive:
            state = (archive.model_id, archive.version)
            if self._info is None or self._info[0] != state:
                self._info = state, self._compute_info(archive, state[1])
            return self._info[1]

    def _compute_info(self, archive: Archive, version: int) -> ArchiveInfo:
        chips = archive.searcher.chips()
        counts = np.bincount(chips.sensors, minlength=len(chips.sensor_names)).tolist()
        times = chips.times[chips.times != NO_TIME]
        centered = centering_default(archive.sensor_means())
        return ArchiveInfo(
            name=self.name,
            model_id=archive.model_id,
            dimensions=archive.dimensions,
            rows=len(chips),
            with_footprint=int(chips.placed.sum()),
            sensors=[
                SensorInfo(name=name, title=self.title(name), rows=count, centered=centered)
                for count, name in sorted(zip(counts, chips.sensor_names, strict=True), reverse=True)
            ],
            gsd=(float(chips.gsd.min()), float(chips.gsd.max())) if len(chips) else None,
            gsd_mode="metres" if archive.searcher.in_metres else "relative",
            time=(_moment(times.min()), _moment(times.max())) if len(times) else None,
            bounds=bounds_across_antimeridian(chips.boxes[chips.placed]),
            version=version,
            capabilities=SearchCapabilities(image=self.model is not None, place=bool(chips.placed.any())),
            limits=Limits(k=self.settings.max_results, upload_bytes=self.settings.upload_bytes),
        )


def chip_of(searcher: Searcher, name: str) -> SearchResult:
    """The chip with exactly this id; raises ApiError (404) if there is none."""
    chip = searcher.find(name)
    if chip is None or chip.id != name:
        raise ApiError(
            404, f"the archive has no chip {name[:80]!r}", "Use an id from a search or from /api/footprints."
        )
    return chip


def chip_record(chip: SearchResult, *, geometry: bool = True) -> ChipRecord:
    """Public record of a chip; the source is reduced to its file name."""
    return ChipRecord(**chip_fields(chip, geometry=geometry))


def chip_fields(chip: SearchResult, *, geometry: bool = True) -> dict[str, Any]:
    """The fields of a `ChipRecord`."""
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
    """West, south, east, north of boxes [N, 4]; west > east if the narrowest bounds cross +-180 degrees."""
    if not len(boxes):
        return None
    south, north = float(boxes[:, 1].min()), float(boxes[:, 3].max())
    crossing = boxes[:, 0] > boxes[:, 2]
    plain = (float(boxes[:, 0].min()), float(boxes[:, 2].max()))
    # The same with longitudes from 0 to 360.
    west = boxes[:, 0] % 360
    east = west + np.where(crossing, boxes[:, 2] - boxes[:, 0] + 360, boxes[:, 2] - boxes[:, 0])
    turned = (float(west.min()), float(east.max()))
    if not crossing.any() and plain[1] - plain[0] <= turned[1] - turned[0]:
        return plain[0], south, plain[1], north
    if turned[1] - turned[0] >= 360:
        return -180.0, south, 180.0, north
    return (turned[0] + 180) % 360 - 180, south, (turned[1] + 180) % 360 - 180, north
