"""The archive: one table of chips with their embeddings, places, times and scales, on LanceDB.

Every change is one transaction that appears whole or not at all, and makes a new *version*; readers see
whole versions while a writer writes. Vectors are stored raw (float32, as the model gave them): search
normalizes its own copy, and an export loses nothing.

One archive holds embeddings of one model only, because distances between two models' vectors mean nothing.
The model's id (name and hash of its weights) and the format's version are in the table's own metadata, so
they are as transactional as the rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from swath.archive.table.append import AppendStream
from swath.archive.table.lance import (
    TABLE,
    archive_exists,
    connect_lance,
    id_filter,
    is_local,
    location_of,
    require_archive,
    require_empty_location,
    translate_lance_errors,
    write_lock,
)
from swath.archive.table.rows import find_foreign_model, schema, validate_rows
from swath.archive.table.sensor_means import (
    Means,
    read_means,
    remove_old_means,
    sum_by_sensor,
    update_means,
    write_means,
)
from swath.errors import ArchiveError, ArchiveUnavailable

FORMAT = "swath-archive"
FORMAT_VERSION = 2  # since 2 rows have a cloud_fraction; archives of 1 get the column when written

_METADATA_KEY = b"swath"  # the one key of ours in the table's metadata
_ROWS_AT_ONCE = 4096
_IDS_A_STATEMENT = 1000  # ids in one `IN (...)`; the planner's time grows with the list


@dataclass(frozen=True, slots=True)
class ArchiveVersion:
    """One committed state of an archive; `Archive.open(path, version=number)` shows it again."""

    number: int
    time: datetime
    rows: int


@dataclass(frozen=True, slots=True)
class CompactionResult:
    """What `Archive.compact` did: data files before and after, and old versions that are gone."""

    files_before: int
    files: int
    versions_removed: int


class ArchiveTable:
    """The rows of an archive and their versions; `swath.Archive` adds search, index and display.

    Any number of processes may read while one writes. Writers on one machine take turns (a lock file that
    the kernel releases when a process dies).

    Attributes:
        path: Folder or object-store URL of the archive.
        model_id: The only model whose embeddings it takes.
        dimensions: Numbers in an embedding, D.
    """

    def __init__(self, path: str, table: Any, *, pinned: bool) -> None:
        self.path = path
        self._table = table
        self._pinned = pinned
        self.search_state: Any = None  # what `swath.archive.query.searcher.searcher_of` keeps
        described = _described(path, table)
        self.model_id: str = described["model_id"]
        self.dimensions: int = described["dimensions"]

    # --- making and opening -----------------------------------------------------------------------------

    @classmethod
    def create(cls, path: str | os.PathLike[str], model_id: str, dimensions: int) -> Self:
        """Make an empty archive at `path` for embeddings of `model_id` with D = `dimensions`.

        Raises:
            ArchiveError: There is an archive (whole or damaged) already, or the folder holds other files.
        """
        location = location_of(path)
        if is_local(location):
            require_empty_location(Path(location))
        elif archive_exists(location):
            raise ArchiveError(f"{location}: there is an archive already; open it, or choose another place")
        described = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "model_id": model_id,
            "dimensions": dimensions,
        }
        columns = schema(dimensions).with_metadata({_METADATA_KEY: json.dumps(described).encode()})
        with translate_lance_errors(location, "cannot be created"), write_lock(location):
            table = connect_lance(location).create_table(TABLE, schema=columns)
            write_means(location, int(table.version), {}, dimensions)
        return cls(location, table, pinned=False)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, model_id: str | None = None, version: int | None = None
    ) -> Self:
        """Open the archive at `path`.

        Args:
            path: Its folder or object-store URL.
            model_id: If given, the archive must have been embedded with this model.
            version: An older version (see `versions`) to look at; such an archive cannot be written.

        Raises:
            ArchiveError: None there, damaged, from a newer Swath, of another model, or no such version.
        """
        location = location_of(path)
        if is_local(location):
            require_archive(Path(location))
        elif not archive_exists(location):
            raise ArchiveUnavailable(
                f"{location}: no archive there; `swath embed MODEL DATA --to {location}` makes one"
            )
        with translate_lance_errors(location, "is damaged and cannot be opened"):
            table = connect_lance(location).open_table(TABLE)
            known = [entry["version"] for entry in table.list_versions()]
        if version is not None:
            if version not in known:
                raise ArchiveUnavailable(
                    f"{location}: has no version {version}; kept are {min(known)} to {max(known)}"
                )
            with translate_lance_errors(location, f"is damaged in version {version}"):
                table.checkout(version)
        archive = cls(location, table, pinned=version is not None)
        if model_id is not None:
            archive.require_model(model_id)
        return archive

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str], model_id: str, dimensions: int) -> Self:
        """The archive at `path`, made if nothing is there; it must be of `model_id` (else ArchiveError)."""
        if not archive_exists(path):
            try:
                return cls.create(path, model_id, dimensions)
            except ArchiveError:
                if not archive_exists(path):  # else another process was faster
                    raise
        return cls.open(path, model_id=model_id)

    def require_model(self, model_id: str) -> None:
        """Raise ArchiveError, naming both, unless this archive's embeddings come from `model_id`."""
        if model_id != self.model_id:
            raise ArchiveError(
                f"{self.path}: was embedded with model {self.model_id}, not with {model_id}; distances "
                "between two models' embeddings mean nothing. Use the first model, or embed with the second "
                "into an archive of its own (--to another path)"
            )

    # --- writing ----------------------------------------------------------------------------------------

    def upsert(self, rows: pa.Table) -> int:
        """Insert rows, replacing those whose id is there already, in one transaction.

        Args:
            rows: Columns of `swath.archive.table.rows.schema` in any order (see `rows_from_vectors`).

        Returns:
            How many rows were new.

        Raises:
            ArchiveError: Rows of another model, wrong columns, an id twice, or embeddings that are not
                finite; nothing is written then. Also if the disk is full or the archive is damaged.
        """
        self._require_writable()
        rows = self._checked(rows)
        if len(pc.unique(rows["id"])) != rows.num_rows:
            raise ArchiveError(f"{self.path}: an id occurs twice in the rows to write")
        if rows.num_rows == 0:
            return 0
        with translate_lance_errors(self.path, "could not be written"), write_lock(self.path):
            self._bring_up_to_date()
            before, known = self._known_means()
            added = sum_by_sensor([rows], self.dimensions)
            # Under the lock nobody can insert between a look and a write, and adding is cheaper than merging.
            if is_local(self.path) and not self._any_held(rows["id"]):
                self._table.add(rows)
                self._keep_means(before + 1, known, added=added)
                return int(rows.num_rows)
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            result = merge.execute(rows)
            removed: Means = {}
            if result.num_updated_rows:
                old = self.at(before).rows(["sensor", "embedding"], ids=rows["id"].to_pylist())
                removed = sum_by_sensor([old], self.dimensions)
            self._keep_means(before + 1, known, added=added, removed=removed)
            return int(result.num_inserted_rows)

    def append(self, pieces: pa.Table | Iterable[pa.Table | pa.RecordBatch]) -> int:
        """Add new rows, however many, in one transaction: the fast way in for ready-made vectors.

        Pieces are written as they come (some thousand rows a piece are good), so they need not fit into
        memory together. They become visible all at once, or not at all if anything goes wrong.

        Args:
            pieces: A table, or tables or record batches one after the other, as for `upsert`.

        Returns:
            How many rows were added.

        Raises:
            ArchiveError: As for `upsert`, and for an id that the archive holds already. On an object store
                that is seen only where nobody else writes meanwhile.
        """
        self._require_writable()
        incoming = AppendStream(
            [pieces] if isinstance(pieces, pa.Table) else pieces, self._checked, self.path
        )
        try:
            with translate_lance_errors(self.path, "could not be written"), write_lock(self.path):
                self._bring_up_to_date()
                before, known = self._known_means()
                incoming.held = self._table.search().select(["id"]).to_arrow()["id"]
                columns = schema(self.dimensions)
                self._table.add(pa.RecordBatchReader.from_batches(columns, incoming.batches()))
                self._keep_means(before + 1, known, added=incoming.sums)
        except ArchiveError:
            if incoming.problem is not None:  # what the pieces raised comes back from Rust as another error
                raise incoming.problem from None
            raise
        return incoming.count

    def delete(self, ids: Sequence[str]) -> int:
        """Delete the rows with these ids in one transaction; unknown ids are no error. How many rows went."""
        self._require_writable()
        with translate_lance_errors(self.path, "could not be written"), write_lock(self.path):
            before = self._table.count_rows()
            version, known = self._known_means()
            removed = sum_by_sensor([self.rows(["sensor", "embedding"], ids=ids)], self.dimensions)
            if not removed:
                return 0
            self._table.delete(id_filter(ids))
            self._keep_means(version + 1, known, removed=removed)
            return int(before - self._table.count_rows())

    def compact(self, keep: timedelta = timedelta(days=7)) -> CompactionResult:
        """Merge the small files that many commits leave, and remove versions older than `keep`.

        Readers that have a version open which is younger than `keep` are not disturbed, and a process that
        is killed here loses nothing: the merged files are a new version like any other, and what it replaced
        goes only when it is old.
        """
        self._require_writable()
        with translate_lance_errors(self.path, "could not be compacted"), write_lock(self.path):
            files, versions = self.files(), len(self.versions())
            before, known = self._known_means()
            with self._index_kept():
                self._table.optimize(cleanup_older_than=keep)
            if is_local(self.path):  # elsewhere another writer may have come between
                self._keep_means(int(self._table.version), known)
            remove_old_means(self.path, keep)
            return CompactionResult(
                files, self.files(), versions - len(self.versions()) + self.version - before
            )

    def _index_kept(self) -> AbstractContextManager[object]:
        """What surrounds a compaction, which moves rows; the facade takes the index along."""
        return nullcontext()

    def remember_model(self, path: str) -> None:
        """Note where the model directory was last seen, so that search by image finds it by itself."""
        if path == self.model_path:
            return
        self._require_writable()
        with translate_lance_errors(self.path, "could not be written"), write_lock(self.path):
            before, known = self._known_means()
            self._table.update_field_metadata({"path": "embedding", "metadata": {"swath:model_path": path}})
            self._keep_means(before + 1, known)

    def _bring_up_to_date(self) -> None:
        """Give an archive of an older format the columns that it lacks; their values are null."""
        lacking = [field for field in schema(self.dimensions) if field.name not in self._table.schema.names]
        if lacking:
            self._table.add_columns(lacking)

    def _any_held(self, ids: pa.ChunkedArray) -> bool:
        """Whether the archive holds one of these ids."""
        held = self._table.search().select(["id"]).to_arrow()["id"]
        return bool(pc.any(pc.is_in(ids, value_set=held)).as_py())

    def _known_means(self) -> tuple[int, Means | None]:
        """The version before a write, and the sums by sensor that are stored of it."""
        version = int(self._table.version)
        return version, read_means(self.path, version, self._table.count_rows())

    def _keep_means(
        self, version: int, known: Means | None, *, added: Means | None = None, removed: Means | None = None
    ) -> None:
        """Store the sums after a write that should have made `version`; scan where none were known before.

        On an object store another writer may have come between; then nothing is stored, and the sums of the
        older version, which say so, are computed anew when they are asked for.
        """
        if known is None:
            means = sum_by_sensor(self.batches(["sensor", "embedding"]), self.dimensions)
        else:
            means = update_means(known, added=added, removed=removed)
        if int(self._table.version) == version:
            write_means(self.path, version, means, self.dimensions)

    # --- reading ----------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Number of the version that is read now (the newest, unless an older one was opened)."""
        with translate_lance_errors(self.path, "is damaged"):
            return int(self._table.version)

    @property
    def model_path(self) -> str | None:
        """Where the model directory was when it last embedded into this archive; it may have moved."""
        with translate_lance_errors(self.path, "is damaged"):
            noted = self._table.schema.field("embedding").metadata or {}
        value = noted.get(b"swath:model_path")
        return value.decode() if value else None

    def versions(self) -> list[ArchiveVersion]:
        """All versions that can still be opened, oldest first."""
        with translate_lance_errors(self.path, "is damaged"):
            entries = self._table.list_versions()
        return [
            ArchiveVersion(
                int(entry["version"]),
                entry["timestamp"].astimezone(),
                int(entry["metadata"].get("total_rows", 0)),
            )
            for entry in entries
        ]

    def count(self) -> int:
        """How many chips."""
        with translate_lance_errors(self.path, "is damaged"):
            return int(self._table.count_rows())

    def __len__(self) -> int:
        return self.count()

    def rows(self, columns: Sequence[str] | None = None, ids: Sequence[str] | None = None) -> pa.Table:
        """Rows as an Arrow table.

        Args:
            columns: Names of columns, all by default.
            ids: Only the rows with these ids (in no particular order), all by default.
        """
        names = list(columns) if columns is not None else schema(self.dimensions).names
        with translate_lance_errors(self.path, "is damaged"):
            held = self._held(names)
            if ids is None:
                return self._completed(self._table.search().select(held).to_arrow(), names)
            parts = [
                self._table.search()
                .where(id_filter(ids[start : start + _IDS_A_STATEMENT]))
                .select(held)
                .to_arrow()
                for start in range(0, len(ids), _IDS_A_STATEMENT)
            ]
            if not parts:
                return schema(self.dimensions).empty_table().select(names)
            return self._completed(pa.concat_tables(parts), names)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in pieces of a few thousand, so that a large archive need not fit into memory."""
        names = list(columns)
        with translate_lance_errors(self.path, "is damaged"):
            held = self._held(names)
            for batch in self._table.search().select(held).to_batches(batch_size=8192):
                yield self._completed(batch, names)

    def row_ids(self) -> NDArray[np.uint64]:
        """[N] where each row is in the table's files, in the order of `batches`.

        A row keeps its number while it is what it is: one that is replaced gets another, and `compact`, which
        moves rows, gives others to those that it moves.
        """
        with translate_lance_errors(self.path, "is damaged"):
            batches = self._table.search().select(["_rowid"]).to_batches(batch_size=1 << 18)
            parts = [batch["_rowid"].to_numpy(zero_copy_only=False) for batch in batches]
        return np.concatenate([np.zeros(0, np.uint64), *parts])

    def rows_at(self, row_ids: NDArray[np.uint64], columns: Sequence[str]) -> Iterator[pa.Table]:
        """Rows by their `row_ids`, in that order, in pieces of a few thousand."""
        names = list(columns)
        with translate_lance_errors(self.path, "is damaged"):
            held = self._held(names)
            for start in range(0, len(row_ids), _ROWS_AT_ONCE):
                requested = row_ids[start : start + _ROWS_AT_ONCE].tolist()
                yield self._completed(self._table.take_row_ids(requested).select(held).to_arrow(), names)

    def _held(self, names: Sequence[str]) -> list[str]:
        """Those of our columns that the table has; an archive of an older format lacks the newest."""
        has = set(self._table.schema.names)
        ours = set(schema(self.dimensions).names)
        return [name for name in names if name in has or name not in ours]

    def _completed(self, rows: Any, names: Sequence[str]) -> Any:
        """A table or batch with the columns `names`, null where the table has none."""
        for name in names:
            if name not in rows.schema.names:
                field = schema(self.dimensions).field(name)
                rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
        return rows.select(list(names))

    def at(self, version: int) -> Self:
        """This archive as it was at `version`, read-only."""
        return type(self).open(self.path, version=version)

    def files(self) -> int:
        """Number of data files; every commit adds one, `compact` merges them."""
        with translate_lance_errors(self.path, "is damaged"):
            return int(self._table.stats()["fragment_stats"]["num_fragments"])

    def stored_means(self) -> Means | None:
        """Sums and counts of the raw embeddings by sensor, if those that are stored are of this version."""
        version, known = self._known_means()
        return known if self.version == version else None

    def sensor_means(self) -> Means:
        """Sums, counts and means of the raw embeddings by sensor, true of the version that is read now.

        What search takes out of vectors before it compares sensors. From the archive's own table, or by a
        scan of the embeddings where that is of another version (an older one is opened, or a writer died).
        """
        with translate_lance_errors(self.path, "is damaged"):
            known = self.stored_means()
        return known or sum_by_sensor(self.batches(["sensor", "embedding"]), self.dimensions)

    # --- showing itself ---------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Archive({self.path!r}, {self.count():,} chips x {self.dimensions}, model {self.model_id})"

    # --- checks -----------------------------------------------------------------------------------------

    def _require_writable(self) -> None:
        if self._pinned:
            raise ArchiveError(
                f"{self.path}: an older version is opened for reading only; open it without one"
            )

    def _checked(self, rows: pa.Table) -> pa.Table:
        """`rows` in our schema, or an ArchiveError that says what is wrong with them."""
        try:
            rows = validate_rows(rows, self.dimensions)
        except ArchiveError as error:
            raise ArchiveError(f"{self.path}: {error}") from None
        if (other := find_foreign_model(rows, self.model_id)) is not None:
            self.require_model(other)
        return rows


def _described(path: str, table: Any) -> dict[str, Any]:
    """Our note in the table's metadata, checked."""
    with translate_lance_errors(path, "is damaged"):
        note = (table.schema.metadata or {}).get(_METADATA_KEY)
    try:
        described = json.loads(note) if note else {}
    except ValueError:
        described = {}
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ArchiveUnavailable(f"{path}: is a LanceDB table, but not an archive that Swath made")
    if described["version"] > FORMAT_VERSION:
        raise ArchiveUnavailable(
            f"{path}: was written by a newer Swath (archive format {described['version']}, this one reads up "
            f"to {FORMAT_VERSION}); install a newer Swath"
        )
    return described
