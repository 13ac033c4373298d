"""The mean embedding of each sensor of an archive: what search takes out of vectors before comparing sensors.

Kept as sums and counts in a small table beside the chips, and brought up to date by what every write adds
and takes away. The table says which version of the chips it belongs to. A process that dies between the two
commits leaves sums of an older version behind; that is seen, and the sums are computed anew. So they are true
or not used, never merely near.

Legend: D numbers in an embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from swath.archive.table.lance import connect_lance, translate_lance_errors
from swath.errors import ArchiveError

MEANS_TABLE = "sensor_means"


@dataclass(frozen=True, slots=True)
class SensorMean:
    """Sum of the raw embeddings of one sensor's chips.

    Attributes:
        count: How many chips.
        total: [D] float64.
    """

    count: int
    total: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """[D] mean embedding."""
        return self.total / self.count


Means = Mapping[str, SensorMean]


def sum_by_sensor(batches: Iterable[pa.RecordBatch | pa.Table], dimensions: int) -> dict[str, SensorMean]:
    """Sums by sensor of rows with the columns ``sensor`` and ``embedding``."""
    found: dict[str, SensorMean] = {}
    for batch in batches:
        column = batch["embedding"]
        vectors = pc.list_flatten(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
        numbers = vectors.to_numpy(zero_copy_only=False).reshape(-1, dimensions)
        sensors = pc.dictionary_encode(batch["sensor"])
        if isinstance(sensors, pa.ChunkedArray):
            sensors = sensors.unify_dictionaries().combine_chunks()
        names, which = sensors.dictionary.to_pylist(), sensors.indices.to_numpy()
        parts: dict[str, SensorMean] = {}
        for number, name in enumerate(names):
            own = numbers[which == number] if len(names) > 1 else numbers
            parts[name] = SensorMean(len(own), own.sum(axis=0, dtype=np.float64))
        found = update_means(found, added=parts)
    return found


def update_means(
    means: Means, *, added: Means | None = None, removed: Means | None = None
) -> dict[str, SensorMean]:
    """`means` after some chips have come and others gone; sensors without a chip are left out."""
    result = dict(means)
    for parts, sign in ((added or {}, 1), (removed or {}, -1)):
        for name, part in parts.items():
            old = result.get(name, SensorMean(0, np.zeros_like(part.total)))
            result[name] = SensorMean(old.count + sign * part.count, old.total + sign * part.total)
    return {name: part for name, part in result.items() if part.count > 0}


def read_means(location: str, version: int, rows: int) -> dict[str, SensorMean] | None:
    """The stored sums if they belong to `version` of the chips, which has `rows` rows; else None.

    None too where the table is damaged: it can be made again from the chips.
    """
    try:
        with translate_lance_errors(location, "is damaged"):
            database = connect_lance(location)
            if MEANS_TABLE not in database.list_tables().tables:
                return None
            table = database.open_table(MEANS_TABLE).to_arrow()
    except ArchiveError:
        return None
    found: dict[str, SensorMean] = {}
    for row in table.to_pylist():
        if row["of_version"] != version:
            return None
        if row["sensor"] is not None:
            found[row["sensor"]] = SensorMean(row["count"], np.array(row["total"], dtype=np.float64))
    known = table.num_rows > 0 and sum(part.count for part in found.values()) == rows
    return found if known else None


def write_means(location: str, version: int, means: Means, dimensions: int) -> None:
    """Store the sums of `version` in one transaction."""
    columns = pa.schema(
        [
            pa.field("sensor", pa.string()),  # null in the row that says so even where there is no chip
            pa.field("count", pa.int64()),
            pa.field("total", pa.list_(pa.float64(), dimensions)),
            pa.field("of_version", pa.int64()),
        ]
    )
    rows: list[dict[str, Any]] = [
        {"sensor": name, "count": part.count, "total": part.total.tolist(), "of_version": version}
        for name, part in sorted(means.items())
    ]
    rows.append({"sensor": None, "count": 0, "total": [0.0] * dimensions, "of_version": version})
    table = pa.Table.from_pylist(rows, schema=columns)
    database = connect_lance(location)
    if MEANS_TABLE in database.list_tables().tables:
        try:
            with translate_lance_errors(location, "is damaged"):
                database.open_table(MEANS_TABLE).add(table, mode="overwrite")
            return
        except ArchiveError:  # beyond opening; what it held can be made again, and here it is
            database.drop_table(MEANS_TABLE, ignore_missing=True)
    database.create_table(MEANS_TABLE, data=table)


def remove_old_means(location: str, keep: timedelta) -> None:
    """Remove versions of the sums that are older than `keep`."""
    database = connect_lance(location)
    if MEANS_TABLE in database.list_tables().tables:
        database.open_table(MEANS_TABLE).optimize(cleanup_older_than=keep)


FEWEST_TO_CENTER = 10  # chips of a sensor from which its mean says something about it


def centering_default(means: Means) -> bool:
    """Whether an archive is searched centered: it holds several sensors, and enough chips of each."""
    return len(means) > 1 and min(part.count for part in means.values()) >= FEWEST_TO_CENTER


def center_by_sensor(
    vectors: NDArray[np.float32], sensors: NDArray[Any], means: Means
) -> NDArray[np.float32]:
    """Raw vectors [N, D] less the mean of their own sensor [N]; not normalized.

    A sensor without a mean is left as it is.
    """
    result = vectors.astype(np.float32, copy=True)
    for name, part in means.items():
        rows = np.flatnonzero(sensors == name)
        result[rows] -= part.mean.astype(np.float32)
    return result
