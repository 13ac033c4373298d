"""The search index beside the table: what a search needs, in files that are memory-mapped.

    ARCHIVE/search_index/v00000042/
        index.json         what it is of (version, model, rows), how to search it, and checksums
        row_ids.npy        [N] where each row is in the table
        vectors.npy        [N, D] float32 at length 1
        lengths.npy        [N] their lengths before
        chips.arrow        the small columns
        plain.faiss        cells of the vectors, and/or
        centered.faiss      cells of the vectors less their sensor's mean

It is made of one version of the table and appears whole or not at all. A row that is replaced gets another
number, and a compaction, which moves rows, takes the index along (`index_carried`). So a later version is
searched right without another index: rows whose number is not in it are compared exactly, rows whose number
has gone are masked. When too many have come or gone (`IndexStatus.due`), it is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
from numpy.typing import NDArray

from swath.archive.index.columns import COLUMNS, ChipColumns
from swath.archive.index.ivf import IvfIndex, Kind, build_ivf, read_ivf, write_ivf
from swath.archive.index.vectors import Floats, SimilaritySpace, VectorBlocks, normalize_rows, vectors_of
from swath.archive.table.lance import is_local
from swath.archive.table.sensor_means import centering_default
from swath.errors import ArchiveError, ArchiveUnavailable
from swath.files import atomic_folder, sha256
from swath.locks import exclusive_lock

if TYPE_CHECKING:
    from swath.archive.table.store import ArchiveTable

FOLDER = "search_index"
FORMAT_VERSION = 2  # since 2 chips have a cloud_fraction
FEWEST_INDEXED = 50_000  # rows from which looking into cells is worth the trouble
MOST_UNINDEXED = 0.1  # share of rows that came or went since, beyond which an index is made again

_DICTIONARIES = ("sensor", "source", "label", "preprocessing")  # columns of few values, stored once each
_EDGE = 4 << 20  # bytes at either end of a file that opening checks
_NOWHERE = np.uint64(2**64 - 1)  # row number of a chip that is gone

LogFn = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class StoredIndex:
    """An index as it lies on disk, opened.

    Attributes:
        folder: Where it is.
        version: Of the table that it was made of.
        row_ids: [N] uint64.
        vectors: [N, D], memory-mapped.
        lengths: [N].
        chips: Small columns, memory-mapped.
        described: index.json.
    """

    folder: Path
    version: int
    row_ids: NDArray[np.uint64]
    vectors: Floats
    lengths: Floats
    chips: pa.Table
    described: dict[str, Any]

    def cells(self, centered: bool) -> IvfIndex | None:
        """The cells of one way of comparing, opened anew; None where there are none."""
        name = _name(centered)
        entry = self.described["cells"].get(name)
        if entry is None:
            return None
        probes = {int(k): int(count) for k, count in entry["probes"].items()}
        return read_ivf(self.folder / f"{name}.faiss", entry["kind"], probes)

    def verify(self) -> None:
        """Compare all bytes with their checksums (opening compares the ends of the files).

        Raises:
            ArchiveError: A file is damaged.
        """
        for name, entry in self.described["files"].items():
            if sha256(self.folder / name) != entry["sha256"]:
                raise ArchiveError(
                    f"{self.folder / name}: is damaged; `swath archive index {self.folder.parent.parent}` "
                    "makes it again"
                )


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """How an archive and its index stand to each other.

    Attributes:
        rows: Chips in the archive.
        indexed: Chips of them that the index holds.
        gone: Rows of the index that are no more in the archive.
        version: Of the table that the index was made of; None without an index.
        centered: Whether search compares this archive centered by default.
        fitting: Whether the index has cells for that.
    """

    rows: int
    indexed: int
    gone: int
    version: int | None
    centered: bool
    fitting: bool

    @property
    def due(self) -> bool:
        """Whether an index should be made (again)."""
        if self.rows < FEWEST_INDEXED:
            return False
        moved = self.rows - self.indexed + self.gone
        return not self.fitting or moved > MOST_UNINDEXED * self.rows


def open_index(archive: ArchiveTable) -> StoredIndex | None:
    """The newest usable index of an archive; None where there is none.

    An index that is damaged, of another format, model or archive is passed over: search is exact then, and
    `swath archive index` makes another.
    """
    if not is_local(archive.path):
        return None
    for folder in _folders(archive.path):
        try:
            found = _open(folder)
        except (ArchiveError, OSError, ValueError, KeyError, pa.ArrowException):
            continue
        if found.described["model_id"] == archive.model_id and _of_archive(found, archive):
            return found
    return None


def check_index(archive: ArchiveTable) -> str | None:
    """Why the newest index cannot be used, in words; None where it can, or where there is none."""
    for folder in _folders(archive.path) if is_local(archive.path) else []:
        try:
            found = _open(folder)
        except (ArchiveError, OSError, ValueError, KeyError, pa.ArrowException) as error:
            return str(error)
        if found.described["model_id"] != archive.model_id or not _of_archive(found, archive):
            return f"{folder}: is not of this archive"
        return None
    return None


def build_index(
    archive: ArchiveTable,
    *,
    kind: Kind = "sq8",
    cells: int | None = None,
    both: bool = False,
    log: LogFn = lambda _: None,
) -> Path:
    """Make the search index of an archive's newest version, and remove older ones.

    Readers go on with what they have open; writers are not held up.

    Args:
        archive: On a local disk.
        kind: Of codes: ``sq8`` (a quarter of the vectors' size), ``flat`` or ``pq``.
        cells: How many; by default the power of two next to 2 sqrt(N).
        both: Cells for centered and for plain comparison; by default for the one that search takes.
        log: Called with each progress message.

    Returns:
        The folder of the index.

    Raises:
        ArchiveError: On an object store, too few rows, a full disk, or another process makes one already.
    """
    if not is_local(archive.path):
        raise ArchiveError(f"{archive.path}: an index needs a local disk; copy the archive to one")
    with _alone(archive.path):
        version = archive.version
        pinned = archive.at(version)
        target = Path(archive.path) / FOLDER / f"v{version:08d}"
        try:
            with atomic_folder(target) as folder:
                _write(pinned, version, folder, kind, cells, both, log)
        except OSError as error:
            raise ArchiveError(f"{target}: could not be written ({error})") from error
        for old in _folders(archive.path):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return target


def _write(
    archive: ArchiveTable, version: int, folder: Path, kind: Kind, cells: int | None, both: bool, log: LogFn
) -> None:
    """All files of an index."""
    count, dimensions = archive.count(), archive.dimensions
    started = time.monotonic()
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(count, dimensions)
    )
    row_ids = np.empty(count, dtype=np.uint64)
    lengths = np.empty(count, dtype=np.float32)
    tables, done = [], 0
    for batch in archive.batches([*COLUMNS, "embedding", "_rowid"]):
        rows = slice(done, done + batch.num_rows)
        part = np.array(vectors_of(batch, dimensions))
        lengths[rows] = normalize_rows(part)
        vectors[rows] = part
        row_ids[rows] = batch["_rowid"].to_numpy(zero_copy_only=False)
        tables.append(batch.select(list(COLUMNS)))
        done += batch.num_rows
        if done // 250_000 > (done - batch.num_rows) // 250_000:
            log(f"read {done:,} of {count:,} vectors ({time.monotonic() - started:.0f} s)")
    if done != count:
        raise ArchiveUnavailable(f"{archive.path}: is damaged: it lists {count} chips, {done} could be read")
    vectors.flush()
    np.save(folder / "row_ids.npy", row_ids)
    np.save(folder / "lengths.npy", lengths)
    table = _with_dictionaries(pa.Table.from_batches(tables)) if tables else archive.rows(COLUMNS)
    with pa.OSFile(str(folder / "chips.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    chips = ChipColumns([table])
    means = archive.sensor_means()
    default = centering_default(means)
    entries: dict[str, Any] = {}
    for centered in [default, not default] if both and len(means) > 1 else [default]:
        matrix = np.stack([means[name].mean for name in chips.sensor_names]).astype(np.float32)
        space = SimilaritySpace(VectorBlocks([vectors], lengths), chips.sensors, matrix if centered else None)
        log(f"sorting {count:,} vectors into cells ({_name(centered)})")
        made = build_ivf(space, kind, cells=cells)
        write_ivf(made, folder / f"{_name(centered)}.faiss")
        entries[_name(centered)] = {"kind": kind, "cells": made.count, "probes": dict(made.probes)}
    described = {
        "format": "swath-search-index",
        "format_version": FORMAT_VERSION,
        "of_version": version,
        "of_time": _time_of(archive, version),
        "whole": True,  # it has the rows of that version, all of them and no others
        "model_id": archive.model_id,
        "rows": count,
        "dimensions": dimensions,
        "cells": entries,
        "files": {path.name: _checksums(path) for path in sorted(folder.iterdir())},
    }
    (folder / "index.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    log(f"indexed {count:,} chips in {time.monotonic() - started:.0f} s")


def _open(folder: Path) -> StoredIndex:
    """Open the files of an index, checked at their ends."""
    described = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    if described["format_version"] != FORMAT_VERSION:
        age = "a newer" if described["format_version"] > FORMAT_VERSION else "an older"
        raise ArchiveError(f"{folder}: was made by {age} Swath")
    for name, entry in described["files"].items():
        path = folder / name
        if path.stat().st_size != entry["bytes"] or _ends(path) != entry["ends"]:
            raise ArchiveError(f"{path}: is damaged")
    chips = pa.ipc.open_file(pa.memory_map(str(folder / "chips.arrow"))).read_all()
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    row_ids, lengths = np.load(folder / "row_ids.npy"), np.load(folder / "lengths.npy")
    if not len(vectors) == len(row_ids) == len(lengths) == chips.num_rows == described["rows"]:
        raise ArchiveError(f"{folder}: its files are of different numbers of rows")
    return StoredIndex(folder, int(described["of_version"]), row_ids, vectors, lengths, chips, described)


def _of_archive(index: StoredIndex, archive: ArchiveTable) -> bool:
    """Whether an index is of this archive, and not of another that was at the same place before."""
    time_of = _time_of(archive, index.version)
    if time_of is not None and time_of != index.described["of_time"]:
        return False
    if time_of is None and index.version > max(entry.number for entry in archive.versions()):
        return False
    return int(index.vectors.shape[1]) == archive.dimensions


def _time_of(archive: ArchiveTable, version: int) -> str | None:
    """When a version was committed, if it can still be opened."""
    times = {entry.number: entry.time for entry in archive.versions()}
    found = times.get(version)
    return None if found is None else f"{found.timestamp():.6f}"


def _with_dictionaries(table: pa.Table) -> pa.Table:
    """Columns of few values as dictionaries, one chunk a column: small files, quick comparisons."""
    for place, field in enumerate(table.schema):
        if field.name in _DICTIONARIES:
            column = table[field.name].combine_chunks().dictionary_encode()
            table = table.set_column(place, field.with_type(column.type), column)
    return table.combine_chunks()


def _folders(path: str) -> list[Path]:
    """Folders of indices, the newest version first."""
    root = Path(path) / FOLDER
    found = [entry for entry in root.glob("v*") if entry.name[1:].isdigit()] if root.is_dir() else []
    return sorted(found, reverse=True)


def _name(centered: bool) -> str:
    return "centred" if centered else "plain"


def _checksums(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path), "ends": _ends(path)}


def _ends(path: Path) -> str:
    """Checksum of the first and last 4 MiB of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        found.update(file.read(_EDGE))
        file.seek(max(0, path.stat().st_size - _EDGE))
        found.update(file.read(_EDGE))
    return found.hexdigest()


def index_status(archive: ArchiveTable) -> IndexStatus:
    """How an archive and its index stand to each other, from one scan of the rows' numbers."""
    means = archive.sensor_means()
    centered = centering_default(means)
    rows = sum(part.count for part in means.values())
    stored = open_index(archive)
    if stored is None:
        return IndexStatus(rows, 0, 0, None, centered, fitting=False)
    held = int(np.isin(stored.row_ids, archive.row_ids()).sum())
    fitting = _name(centered) in stored.described["cells"]
    return IndexStatus(rows, held, len(stored.row_ids) - held, stored.version, centered, fitting)


def build_index_if_due(
    archive: ArchiveTable, *, kind: Kind = "sq8", log: LogFn = lambda _: None
) -> Path | None:
    """Make the index of an archive if one is due (see `IndexStatus.due`); None where it is not."""
    if not is_local(archive.path) or not index_status(archive).due:
        return None
    return build_index(archive, kind=kind, log=log)


@contextmanager
def index_carried(archive: ArchiveTable) -> Iterator[None]:
    """Around a compaction, which moves rows but changes none: the index follows them by their ids.

    Nobody else may write meanwhile. Only the row numbers are written anew; all other files are linked.
    """
    stored = open_index(archive)
    if stored is None:
        yield
        return
    alive = np.isin(stored.row_ids, archive.row_ids())
    yield
    if archive.version != stored.version:
        # A compaction is done by now, whatever becomes of the index; one that is lost is made again.
        with suppress(ArchiveError, OSError):
            _carry(archive, stored, alive)


def _carry(archive: ArchiveTable, stored: StoredIndex, alive: NDArray[np.bool_]) -> None:
    """The index of the newest version, which has the chips `alive` [N] of `stored` elsewhere."""
    ids, row_ids = [], []
    for batch in archive.batches(["id", "_rowid"]):
        ids.append(batch["id"])
        row_ids.append(batch["_rowid"].to_numpy(zero_copy_only=False))
    places = pc.index_in(stored.chips["id"], value_set=pa.chunked_array(ids, pa.string()))
    moved = np.asarray(pc.fill_null(places, -1).to_numpy(), dtype=np.int64)
    alive = alive & (moved >= 0)
    numbers = np.full(len(alive), _NOWHERE)
    numbers[alive] = np.concatenate([np.zeros(0, np.uint64), *row_ids])[moved[alive]]
    version = archive.version
    target = stored.folder.parent / f"v{version:08d}"
    with _alone(archive.path), atomic_folder(target) as folder:
        for name in stored.described["files"]:
            if name != "row_ids.npy":
                os.link(stored.folder / name, folder / name)
        np.save(folder / "row_ids.npy", numbers)
        described = stored.described | {"of_version": version, "of_time": _time_of(archive, version)}
        described["whole"] = False
        entry = {"row_ids.npy": _checksums(folder / "row_ids.npy")}
        described["files"] = described["files"] | entry
        (folder / "index.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(stored.folder, ignore_errors=True)


def _alone(path: str) -> AbstractContextManager[None]:
    """Only one process makes an index of an archive at a time."""
    occupied = "makes its index already; wait for it, or end it"
    return exclusive_lock(Path(path) / ".index.lock", ArchiveError, occupied)
