"""Choosing the rows of an archive that shall go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from swath.errors import ArchiveError

if TYPE_CHECKING:
    from swath.archive.table.store import ArchiveTable


@dataclass(frozen=True, slots=True)
class DeleteCondition:
    """Which rows are meant: those for which all that is given holds.

    Attributes:
        ids: Chips with these ids.
        source: Chips of a file (or of a file among several) whose path is this, or matches this pattern of
            ``*``, ``?`` and ``[...]``.
        sensor: Chips of this sensor.
        before: Chips that were taken before this time; without a zone it is UTC. Those without a time stay.
        cloudier_than: Chips with a larger share of cloud. Those of which it is not known stay.
    """

    ids: Sequence[str] | None = None
    source: str | None = None
    sensor: str | None = None
    before: datetime | None = None
    cloudier_than: float | None = None


def matching_ids(archive: ArchiveTable, condition: DeleteCondition) -> list[str]:
    """Ids of the rows that meet `condition`, by one scan of the small columns.

    Raises:
        ArchiveError: A condition of nothing, which would be every row.
    """
    if condition == DeleteCondition():
        raise ArchiveError(
            "give a condition: id, source, sensor, time or cloud. To delete all chips, delete the folder"
        )
    rows = archive.rows(["id", "source", "files", "sensor", "datetime", "cloud_fraction"], ids=condition.ids)
    if condition.sensor is not None:
        rows = rows.filter(pc.equal(rows["sensor"], condition.sensor))
    if condition.before is not None:
        before = condition.before
        moment = pa.scalar(
            before if before.tzinfo is not None else before.replace(tzinfo=UTC), pa.timestamp("us", tz="UTC")
        )
        rows = rows.filter(pc.less(rows["datetime"], moment))  # null: not kept by the filter
    if condition.cloudier_than is not None:
        rows = rows.filter(pc.greater(rows["cloud_fraction"], condition.cloudier_than))
    if condition.source is None:
        return [str(name) for name in rows["id"].to_pylist()]
    meant: dict[str, bool] = {}
    found = []
    for name, source, files in zip(
        *(rows[key].to_pylist() for key in ("id", "source", "files")), strict=True
    ):
        for path in (source, *(files or ())):
            if path not in meant:
                meant[path] = path == condition.source or fnmatchcase(path, condition.source)
        if any(meant[path] for path in (source, *(files or ()))):
            found.append(str(name))
    return found
