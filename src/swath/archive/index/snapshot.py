"""One version of an archive, ready to be searched."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from swath.archive.index.columns import COLUMNS, ChipColumns
from swath.archive.index.files import StoredIndex
from swath.archive.index.ivf import IvfSearchIndex
from swath.archive.index.protocol import ExactIndex, Index
from swath.archive.index.vectors import Floats, SimilaritySpace, VectorBlocks, normalize_rows, vectors_of
from swath.archive.table.sensor_means import Means, sum_by_sensor
from swath.errors import ArchiveUnavailable

if TYPE_CHECKING:
    from swath.archive.table.store import ArchiveTable

_SAMPLE = 1024  # random chips that stand for the archive


@dataclass(eq=False)
class ArchiveSnapshot:
    """One version of an archive.

    Attributes:
        version: Of the table.
        chips: Small columns of N chips.
        vectors: Their N vectors.
        means: Sums of raw vectors by sensor, true of this version.
        alive: [N] bool, which of them this version has; None for all. The others are left over in the index.
        stored: The index whose rows are the first ones; None where all vectors are in memory.
    """

    version: int
    chips: ChipColumns
    vectors: VectorBlocks
    means: Means
    alive: NDArray[np.bool_] | None = None
    stored: StoredIndex | None = None
    _spaces: dict[bool, SimilaritySpace] = field(default_factory=dict)
    _indices: dict[bool, Index] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many chips this version has."""
        return len(self.chips) if self.alive is None else int(np.count_nonzero(self.alive))

    @cached_property
    def listed(self) -> ChipColumns:
        """The chips that this version has, without rows that are left over in an index."""
        return self.chips if self.alive is None else self.chips.filter(self.alive)

    def space(self, centered: bool) -> SimilaritySpace:
        """The vectors as they are, or less the mean of their own sensor."""
        if centered not in self._spaces:
            self._spaces[centered] = SimilaritySpace(
                self.vectors, self.chips.sensors, self._mean_matrix if centered else None
            )
        return self._spaces[centered]

    def index(self, centered: bool) -> Index:
        """What finds neighbors in that space."""
        if centered not in self._indices:
            cells = self.stored.cells(centered) if self.stored is not None else None
            space = self.space(centered)
            self._indices[centered] = IvfSearchIndex(space, cells) if cells is not None else ExactIndex(space)
        return self._indices[centered]

    def sensor_number(self, name: str | None) -> int | None:
        """A sensor's place among `chips.sensor_names`; None if there is no chip of it."""
        names = self.chips.sensor_names
        return names.index(name) if name in names else None

    def sample(self, centered: bool, count: int = _SAMPLE) -> Floats:
        """[n, D] vectors of at most `count` random chips in that space; the same ones each time."""
        rows = np.arange(len(self.chips)) if self.alive is None else np.flatnonzero(self.alive)
        rows = np.random.default_rng(0).choice(rows, min(count, len(rows)), replace=False)
        return self.space(centered).take(np.sort(rows))

    @cached_property
    def _mean_matrix(self) -> Floats:
        """[S, D] mean raw vector of each sensor; zero of one whose chips are all gone."""
        found = np.zeros((len(self.chips.sensor_names), self.vectors.dimensions), dtype=np.float32)
        for number, name in enumerate(self.chips.sensor_names):
            if name in self.means:
                found[number] = self.means[name].mean
        return found


def read_snapshot(archive: ArchiveTable, version: int, stored: StoredIndex | None = None) -> ArchiveSnapshot:
    """A pinned version, ready to be searched.

    Args:
        archive: At that version.
        version: Its number.
        stored: An index of this or another version of the archive: its rows are memory-mapped, and only those
            that it lacks are read.

    Raises:
        ArchiveError: The archive is damaged.
    """
    since = _read_since(archive, version, stored) if stored is not None else None
    if stored is None or since is None:
        stored = None
        table, vectors = _read_all(archive)
        blocks, tables, alive = [vectors], [table], None
        lengths = normalize_rows(vectors)
    else:
        table, vectors, alive = since
        blocks, tables = [stored.vectors, vectors], [stored.chips, table]
        lengths = np.concatenate([stored.lengths, normalize_rows(vectors)])
        if alive is not None:
            alive = np.concatenate([alive, np.ones(len(vectors), dtype=np.bool_)])
    held = VectorBlocks(blocks, lengths)
    chips = ChipColumns(tables)
    means = archive.stored_means() or sum_by_sensor(
        archive.batches(["sensor", "embedding"]), archive.dimensions
    )
    return ArchiveSnapshot(version, chips, held, means, alive, stored)


def _read_all(archive: ArchiveTable) -> tuple[pa.Table, Floats]:
    """Small columns and raw vectors of all rows, in one scan so that their orders agree."""
    count = archive.count()
    vectors = np.empty((count, archive.dimensions), dtype=np.float32)
    parts, done = [], 0
    for batch in archive.batches([*COLUMNS, "embedding"]):
        vectors[done : done + batch.num_rows] = vectors_of(batch, archive.dimensions)
        parts.append(batch.select(list(COLUMNS)))
        done += batch.num_rows
    if done != count:
        raise ArchiveUnavailable(f"{archive.path}: is damaged: it lists {count} chips, {done} could be read")
    return (pa.Table.from_batches(parts) if parts else archive.rows(COLUMNS)), vectors


def _read_since(
    archive: ArchiveTable, version: int, stored: StoredIndex
) -> tuple[pa.Table, Floats, NDArray[np.bool_] | None] | None:
    """Small columns and raw vectors of rows that an index lacks, and which of its rows are still there.

    None where it lacks most of them: then all are read in one scan, which is quicker.
    """
    nothing = archive.rows(COLUMNS, ids=[]), np.empty((0, archive.dimensions), dtype=np.float32)
    if version == stored.version and stored.described["whole"]:
        return *nothing, None
    current = archive.row_ids()
    alive = np.isin(stored.row_ids, current)
    fresh = current[~np.isin(current, stored.row_ids)]
    if len(fresh) > len(current) / 2:
        return None
    vectors = np.empty((len(fresh), archive.dimensions), dtype=np.float32)
    parts, done = [], 0
    for piece in archive.rows_at(fresh, [*COLUMNS, "embedding"]):
        vectors[done : done + piece.num_rows] = vectors_of(piece, archive.dimensions)
        parts.append(piece.select(list(COLUMNS)))
        done += piece.num_rows
    if done != len(fresh):
        raise ArchiveUnavailable(
            f"{archive.path}: is damaged: {len(fresh)} chips came since it was indexed, {done} could be read"
        )
    table = pa.concat_tables(parts) if parts else nothing[0]
    return table, vectors, None if alive.all() else alive
