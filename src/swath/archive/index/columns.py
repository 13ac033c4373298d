"""The small columns of an archive's chips, in the order in which an index numbers their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

COLUMNS = (
    "id",
    "geometry",
    "bbox",
    "datetime",
    "sensor",
    "gsd",
    "source",
    "files",
    "window",
    "valid_fraction",
    "cloud_fraction",
    "label",
    "preprocessing",
)
NO_TIME = np.iinfo(np.int64).min


class ChipColumns:
    """N chips without their vectors. Columns become arrays when they are first asked for, and stay.

    Attributes:
        parts: Tables of `COLUMNS`, one after the other; rows are numbered through.
        touched: [N] which chips touch an area, by what was asked last (see `swath.archive.query.filters`).
    """

    def __init__(self, parts: Sequence[pa.Table]) -> None:
        self.parts = [part.combine_chunks() for part in parts if part.num_rows]
        self._ends = np.cumsum([0, *(part.num_rows for part in self.parts)])
        self.touched: dict[tuple[bytes, float], NDArray[np.bool_]] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def column(self, name: str) -> pa.ChunkedArray | None:
        """A column through all parts; None where there is no row."""
        chunks = [chunk for part in self.parts for chunk in part[name].chunks]
        if not chunks:
            return None
        plain = [
            chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk for chunk in chunks
        ]
        return pa.chunked_array(plain)

    def take(self, rows: NDArray[np.int64]) -> pa.Table | None:
        """Rows by number, in that order; None where none is asked for."""
        if not len(rows):
            return None
        owners = np.searchsorted(self._ends, rows, side="right") - 1
        order, tables = [], []
        for owner, part in enumerate(self.parts):
            of_part = np.flatnonzero(owners == owner)
            if len(of_part):
                taken = part.take(pa.array(rows[of_part] - self._ends[owner]))
                tables.append(_decoded(taken))
                order.append(of_part)
        return pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(order))))

    def filter(self, keep: NDArray[np.bool_]) -> ChipColumns:
        """The chips where `keep` [N] is true."""
        pieces = np.split(keep, self._ends[1:-1])
        return ChipColumns(
            [part.filter(pa.array(piece)) for part, piece in zip(self.parts, pieces, strict=True)]
        )

    @cached_property
    def sensor_names(self) -> list[str]:
        """Names of the sensors, sorted; `sensors` are indices into it."""
        names = {name for part in self.parts for name in pc.unique(part["sensor"]).to_pylist()}
        return sorted(names)

    @cached_property
    def sensors(self) -> NDArray[np.int32]:
        """[N] index into `sensor_names`."""
        requested = pa.array(self.sensor_names, pa.string())
        return self._numbers(lambda part: pc.index_in(_plain(part["sensor"]), value_set=requested), np.int32)

    @cached_property
    def gsd(self) -> NDArray[np.float64]:
        """[N] metres per pixel (or ratios, in relative mode)."""
        return self._numbers(lambda part: part["gsd"], np.float64)

    @cached_property
    def times(self) -> NDArray[np.int64]:
        """[N] microseconds since 1970 UTC, `NO_TIME` where there is none."""
        return self._numbers(lambda part: pc.fill_null(part["datetime"].cast(pa.int64()), NO_TIME), np.int64)

    @cached_property
    def valid(self) -> NDArray[np.float32]:
        """[N] share of pixels that are not nodata."""
        return self._numbers(lambda part: part["valid_fraction"], np.float32)

    @cached_property
    def cloud(self) -> NDArray[np.float32]:
        """[N] share of pixels that are cloud, NaN where nothing says it."""
        return self._numbers(lambda part: part["cloud_fraction"].cast(pa.float32()), np.float32)

    @cached_property
    def boxes(self) -> NDArray[np.float64]:
        """[N, 4] xmin, ymin, xmax, ymax of footprints in degrees, NaN where unknown."""
        found = np.empty((4, len(self)), dtype=np.float64)  # by sides, as they are compared
        for side, name in enumerate(("xmin", "ymin", "xmax", "ymax")):
            found[side] = self._numbers(partial(_field, name=name), np.float64)
        return found.T

    @cached_property
    def placed(self) -> NDArray[np.bool_]:
        """[N] which chips have a footprint."""
        return ~np.isnan(self.boxes[:, 0])

    def _numbers(self, of: Any, kind: Any) -> NDArray[Any]:
        pieces = [of(part).to_numpy(zero_copy_only=False) for part in self.parts]
        return np.concatenate([np.zeros(0, kind), *pieces]).astype(kind, copy=False)


def _field(part: pa.Table, name: str) -> pa.ChunkedArray:
    return pc.struct_field(part["bbox"], name)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _decoded(table: pa.Table) -> pa.Table:
    """A small table with its dictionaries spelled out, so that tables of both kinds can be joined."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.with_type(field.type.value_type), _plain(table[field.name]))
    return table
