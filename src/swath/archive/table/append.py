"""Rows on their way into an archive in one transaction, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from swath.archive.table.sensor_means import Means, sum_by_sensor, update_means
from swath.errors import ArchiveError


class AppendStream:
    """Rows on their way into `Archive.append`: checked, counted and summed piece by piece."""

    def __init__(
        self,
        pieces: Iterable[pa.Table | pa.RecordBatch],
        check: Callable[[pa.Table], pa.Table],
        path: str,
    ) -> None:
        self.count = 0
        self.sums: Means = {}
        self.held: pa.ChunkedArray = pa.chunked_array([], pa.string())
        self.problem: Exception | None = None
        self._pieces, self._check, self._path = pieces, check, path

    def batches(self) -> Iterator[pa.RecordBatch]:
        """What is written. An error at any point, the last included, undoes the whole transaction."""
        ids: list[pa.Array] = [*self.held.chunks]
        try:
            for piece in self._pieces:
                rows = piece if isinstance(piece, pa.Table) else pa.Table.from_batches([piece])
                rows = self._check(rows)
                self.count += rows.num_rows
                dimensions = rows.schema.field("embedding").type.list_size
                self.sums = update_means(self.sums, added=sum_by_sensor([rows], dimensions))
                ids += rows["id"].chunks
                yield from rows.to_batches()
            together = pa.chunked_array(ids, pa.string())
            if len(pc.unique(together)) < len(together):
                raise ArchiveError(
                    f"{self._path}: {self._twice(together)}; nothing was added. Use `upsert` to replace rows"
                )
        except Exception as error:
            self.problem = error
            raise

    def _twice(self, ids: pa.ChunkedArray) -> str:
        counts = pa.Table.from_struct_array(ids.value_counts())
        name = counts.filter(pc.greater(counts["counts"], 1))["values"][0]
        if pc.is_in(name, value_set=self.held).as_py():
            return f"holds a row {name.as_py()!r} already"
        return f"the id {name.as_py()!r} occurs twice in the rows to write"
