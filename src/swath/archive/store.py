"""The archive: one table of chips with their embeddings, places, times and scales, on LanceDB.

Every change is one transaction that appears whole or not at all, and makes a new *version*; readers see
whole versions while a writer writes. Vectors are stored raw (float32, as the model gave them): search
normalises its own copy, and an export loses nothing.

One archive holds embeddings of one model only, because distances between two models' vectors mean nothing.
The model's id (name and hash of its weights) and the format's version are in the table's own metadata, so
they are as transactional as the rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from swath.archive.means import Means, changed, read_means, sums_of, tidy_means, write_means
from swath.archive.tables import (
    TABLE,
    archive_exists,
    connect,
    guard,
    id_filter,
    is_local,
    location_of,
    refuse_to_cover,
    require_archive,
    schema,
    writing,
)
from swath.errors import ArchiveError

__all__ = ["Archive", "Summary", "Version", "archive_exists", "schema"]

if TYPE_CHECKING:
    from swath.archive.search import Answers, Filter, Searcher

FORMAT = "swath-archive"
FORMAT_VERSION = 1

_METADATA_KEY = b"swath"  # the one key of ours in the table's metadata
_IDS_A_STATEMENT = 1000  # ids in one `IN (...)`; the planner's time grows with the list


@dataclass(frozen=True, slots=True)
class Version:
    """One committed state of an archive; `Archive.open(path, version=number)` shows it again."""

    number: int
    time: datetime
    rows: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What an archive holds, in a few numbers."""

    rows: int
    sensors: Mapping[str, int]  # name -> chips
    gsd: tuple[float, float] | None  # smallest, largest
    time: tuple[datetime, datetime] | None  # first, last, of the chips that have a time
    bounds: tuple[float, float, float, float] | None  # west, south, east, north, of those with a footprint
    placed: int  # chips that have a footprint


class Archive:
    """An archive of embedded chips. Make one with `Archive.create`, open one with `Archive.open`.

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
        self._searcher: Searcher | None = None
        described = _described(path, table)
        self.model_id: str = described["model_id"]
        self.dimensions: int = described["dimensions"]

    # --- making and opening -----------------------------------------------------------------------------

    @classmethod
    def create(cls, path: str | os.PathLike[str], model_id: str, dimensions: int) -> Archive:
        """Make an empty archive at `path` for embeddings of `model_id` with D = `dimensions`.

        Raises:
            ArchiveError: There is an archive (whole or damaged) already, or the folder holds other files.
        """
        location = location_of(path)
        if is_local(location):
            refuse_to_cover(Path(location))
        described = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "model_id": model_id,
            "dimensions": dimensions,
        }
        columns = schema(dimensions).with_metadata({_METADATA_KEY: json.dumps(described).encode()})
        with guard(location, "cannot be created"), writing(location):
            table = connect(location).create_table(TABLE, schema=columns)
            write_means(location, int(table.version), {}, dimensions)
        return cls(location, table, pinned=False)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, model_id: str | None = None, version: int | None = None
    ) -> Archive:
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
        with guard(location, "is damaged and cannot be opened"):
            table = connect(location).open_table(TABLE)
            known = [entry["version"] for entry in table.list_versions()]
        if version is not None:
            if version not in known:
                raise ArchiveError(
                    f"{location}: has no version {version}; kept are {min(known)} to {max(known)}"
                )
            with guard(location, f"is damaged in version {version}"):
                table.checkout(version)
        archive = cls(location, table, pinned=version is not None)
        if model_id is not None:
            archive.require_model(model_id)
        return archive

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str], model_id: str, dimensions: int) -> Archive:
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
            rows: Columns of `schema(D)` in any order.

        Returns:
            How many rows were new.

        Raises:
            ArchiveError: Rows of another model, wrong columns, an id twice, or embeddings that are not
                finite; nothing is written then. Also if the disk is full or the archive is damaged.
        """
        self._require_writable()
        rows = self._checked(rows)
        if rows.num_rows == 0:
            return 0
        with guard(self.path, "could not be written"), writing(self.path):
            before, known = self._known_means()
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            result = merge.execute(rows)
            removed: Means = {}
            if result.num_updated_rows:
                old = self.at(before).rows(["sensor", "embedding"], ids=rows["id"].to_pylist())
                removed = sums_of([old], self.dimensions)
            self._keep_means(before + 1, known, added=sums_of([rows], self.dimensions), removed=removed)
            return int(result.num_inserted_rows)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete the rows with these ids; unknown ids are no error. Returns how many rows went."""
        self._require_writable()
        with guard(self.path, "could not be written"), writing(self.path):
            before = self._table.count_rows()
            version, known = self._known_means()
            removed = sums_of([self.rows(["sensor", "embedding"], ids=ids)], self.dimensions)
            for start in range(0, len(ids), _IDS_A_STATEMENT):
                self._table.delete(id_filter(ids[start : start + _IDS_A_STATEMENT]))
                version += 1
            self._keep_means(version, known, removed=removed)
            return int(before - self._table.count_rows())

    def compact(self, keep: timedelta = timedelta(days=7)) -> None:
        """Merge the small files that many commits leave; versions older than `keep` are removed."""
        self._require_writable()
        with guard(self.path, "could not be compacted"), writing(self.path):
            _, known = self._known_means()
            self._table.optimize(cleanup_older_than=keep)
            if is_local(self.path):  # elsewhere another writer may have come between
                self._keep_means(int(self._table.version), known)
            tidy_means(self.path, keep)

    def remember_model(self, path: str) -> None:
        """Note where the model directory was last seen, so that search by image finds it by itself."""
        if path == self.model_path:
            return
        self._require_writable()
        with guard(self.path, "could not be written"), writing(self.path):
            before, known = self._known_means()
            self._table.update_field_metadata({"path": "embedding", "metadata": {"swath:model_path": path}})
            self._keep_means(before + 1, known)

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
            means = sums_of(self.batches(["sensor", "embedding"]), self.dimensions)
        else:
            means = changed(known, added=added, removed=removed)
        if int(self._table.version) == version:
            write_means(self.path, version, means, self.dimensions)

    # --- reading ----------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Number of the version that is read now (the newest, unless an older one was opened)."""
        with guard(self.path, "is damaged"):
            return int(self._table.version)

    @property
    def model_path(self) -> str | None:
        """Where the model directory was when it last embedded into this archive; it may have moved."""
        with guard(self.path, "is damaged"):
            noted = self._table.schema.field("embedding").metadata or {}
        value = noted.get(b"swath:model_path")
        return value.decode() if value else None

    def versions(self) -> list[Version]:
        """All versions that can still be opened, oldest first."""
        with guard(self.path, "is damaged"):
            entries = self._table.list_versions()
        return [
            Version(
                int(entry["version"]),
                entry["timestamp"].astimezone(),
                int(entry["metadata"].get("total_rows", 0)),
            )
            for entry in entries
        ]

    def count(self) -> int:
        """How many chips."""
        with guard(self.path, "is damaged"):
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
        with guard(self.path, "is damaged"):
            if ids is None:
                return self._table.search().select(names).to_arrow().select(names)
            parts = [
                self._table.search()
                .where(id_filter(ids[start : start + _IDS_A_STATEMENT]))
                .select(names)
                .to_arrow()
                .select(names)
                for start in range(0, len(ids), _IDS_A_STATEMENT)
            ]
            return pa.concat_tables(parts) if parts else schema(self.dimensions).empty_table().select(names)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in pieces of a few thousand, so that a large archive need not fit into memory."""
        names = list(columns)
        with guard(self.path, "is damaged"):
            for batch in self._table.search().select(names).to_batches(batch_size=8192):
                yield batch.select(names)

    def at(self, version: int) -> Archive:
        """This archive as it was at `version`, read-only."""
        return Archive.open(self.path, version=version)

    def files(self) -> int:
        """Number of data files; every commit adds one, `compact` merges them."""
        with guard(self.path, "is damaged"):
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
        with guard(self.path, "is damaged"):
            known = self.stored_means()
        return known or sums_of(self.batches(["sensor", "embedding"]), self.dimensions)

    def summary(self) -> Summary:
        """Counts, ranges and bounds, from one scan of the small columns."""
        table = self.rows(["sensor", "gsd", "datetime", "bbox"])
        counted = table["sensor"].value_counts().to_pylist()
        sensors = {entry["values"]: entry["counts"] for entry in counted}
        gsd = pc.min_max(table["gsd"]).as_py()
        time = pc.min_max(table["datetime"]).as_py()
        boxes = table["bbox"].drop_null()
        bounds = None
        if len(boxes):
            flat = pa.Table.from_struct_array(boxes)
            bounds = (
                pc.min(flat["xmin"]).as_py(),
                pc.min(flat["ymin"]).as_py(),
                pc.max(flat["xmax"]).as_py(),
                pc.max(flat["ymax"]).as_py(),
            )
        return Summary(
            rows=table.num_rows,
            sensors=dict(sorted(sensors.items(), key=lambda item: -item[1])),
            gsd=(gsd["min"], gsd["max"]) if gsd["min"] is not None else None,
            time=(time["min"], time["max"]) if time["min"] is not None else None,
            bounds=bounds,
            placed=len(boxes),
        )

    # --- searching --------------------------------------------------------------------------------------

    def search(
        self,
        vector: Any,
        k: int = 10,
        *,
        where: Filter | None = None,
        sensor: str | Sequence[str] | None = None,
        query_sensor: str | None = None,
        centre: bool | None = None,
        exclude_footprint: bytes | None = None,
        exclude_share: float = 0.5,
    ) -> Answers:
        """The `k` chips nearest to `vector` [D] by cosine; see `swath.archive.search.Searcher.search`."""
        return self.searcher().search(
            vector,
            k,
            where=where,
            sensor=sensor,
            query_sensor=query_sensor,
            centre=centre,
            exclude_footprint=exclude_footprint,
            exclude_share=exclude_share,
        )

    def searcher(self) -> Searcher:
        """The searcher over this archive, kept in memory and renewed when the archive has changed."""
        if self._searcher is None:
            from swath.archive.search import Searcher

            self._searcher = Searcher(self)
        return self._searcher

    # --- showing itself ---------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Archive({self.path!r}, {self.count():,} chips x {self.dimensions}, model {self.model_id})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>"
            f"{escape(value)}</td></tr>"
            for name, value in self.describe().items()
        )
        return f"<table><caption>Archive {escape(self.path)}</caption>{rows}</table>"

    def describe(self) -> dict[str, str]:
        """The summary as words, for the terminal and notebooks."""
        found = self.summary()
        words = {
            "chips": f"{found.rows:,}",
            "model": f"{self.model_id} ({self.dimensions} dimensions)",
            "sensors": ", ".join(f"{name} ({count:,})" for name, count in found.sensors.items()) or "none",
        }
        if found.gsd:
            words["gsd"] = f"{found.gsd[0]:.4g} to {found.gsd[1]:.4g}"
        if found.time:
            words["time"] = f"{found.time[0]:%Y-%m-%d} to {found.time[1]:%Y-%m-%d}"
        if found.bounds:
            west, south, east, north = found.bounds
            words["place"] = f"{west:.4f} to {east:.4f} E, {south:.4f} to {north:.4f} N"
        if found.placed < found.rows:
            words["without footprint"] = f"{found.rows - found.placed:,}"
        words["version"] = str(self.version)
        return words

    # --- checks -----------------------------------------------------------------------------------------

    def _require_writable(self) -> None:
        if self._pinned:
            raise ArchiveError(
                f"{self.path}: an older version is opened for reading only; open it without one"
            )

    def _checked(self, rows: pa.Table) -> pa.Table:
        """`rows` in our schema, or an ArchiveError that says what is wrong with them."""
        wanted = schema(self.dimensions)
        missing = sorted(set(wanted.names) - set(rows.column_names))
        unknown = sorted(set(rows.column_names) - set(wanted.names))
        if missing or unknown:
            raise ArchiveError(f"{self.path}: rows lack columns {missing} and have unknown ones {unknown}")
        others = set(pc.unique(rows["model_id"]).to_pylist()) - {self.model_id}
        if others:
            self.require_model(sorted(map(str, others))[0])
        found = rows.schema.field("embedding").type
        if not pa.types.is_fixed_size_list(found) or found.list_size != self.dimensions:
            raise ArchiveError(
                f"{self.path}: holds embeddings of {self.dimensions} numbers, the rows have {found}"
            )
        try:
            rows = rows.select(wanted.names).cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
            raise ArchiveError(f"{self.path}: rows do not fit the archive's columns ({error})") from None
        for field in wanted:
            if not field.nullable and rows[field.name].null_count:
                raise ArchiveError(f"{self.path}: {rows[field.name].null_count} rows have no {field.name}")
        if len(pc.unique(rows["id"])) != rows.num_rows:
            raise ArchiveError(f"{self.path}: an id occurs twice in the rows to write")
        vectors = rows["embedding"].combine_chunks()
        numbers = pc.list_flatten(vectors)
        if numbers.null_count or pc.all(pc.is_finite(numbers)).as_py() is False:  # None when empty
            raise ArchiveError(f"{self.path}: embeddings that are not finite are not stored")
        return rows


def _described(path: str, table: Any) -> dict[str, Any]:
    """Our note in the table's metadata, checked."""
    with guard(path, "is damaged"):
        note = (table.schema.metadata or {}).get(_METADATA_KEY)
    try:
        described = json.loads(note) if note else {}
    except ValueError:
        described = {}
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ArchiveError(f"{path}: is a LanceDB table, but not an archive that Swath made")
    if described["version"] > FORMAT_VERSION:
        raise ArchiveError(
            f"{path}: was written by a newer Swath (archive format {described['version']}, this one reads up "
            f"to {FORMAT_VERSION}); upgrade with `pip install -U swath`"
        )
    return described
