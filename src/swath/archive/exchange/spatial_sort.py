"""Rows of an archive in the order of a curve that fills the plane, with little memory.

Neighbors on a Hilbert curve (Hilbert 1891) are neighbors on the ground, so that rows written along it fall
into row groups that cover small areas, and a reader who wants one place skips the others.

The rows are sorted outside of memory: one scan of the small columns decides which stretch of the curve goes
into which *bucket*, a second one writes every row to its bucket's file, and each bucket is then read and
sorted by itself. The order depends on the rows alone and not on when they were written.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
from numpy.typing import NDArray

from swath.archive.table.store import ArchiveTable

Progress = Callable[[int, int], None]  # (done, in all)

_LEVELS = 16  # 65,536 x 65,536 cells: 600 m at the equator, finer than the row groups of any archive
_NOWHERE = 1 << (2 * _LEVELS)  # chips without a footprint come last
_BUCKET_BYTES = 192 * 2**20
_MOST_BUCKETS = 256  # files that are open at once


def hilbert(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Distance along a Hilbert curve over the unit square, of points in it.

    Args:
        x: [N], 0 to 1.
        y: [N], 0 to 1.

    Returns:
        [N] whole numbers from 0 to 4^16 - 1.
    """
    side = 1 << _LEVELS
    column, row = (np.clip(np.floor(v * side), 0, side - 1).astype(np.int64) for v in (x, y))
    distance = np.zeros(len(column), dtype=np.int64)
    for level in reversed(range(_LEVELS)):
        half = 1 << level
        right, upper = (column & half) > 0, (row & half) > 0
        distance += half * half * ((3 * right) ^ upper)
        # Turn the quarter so that its curve starts where that of the one before has ended.
        flip = ~upper & right
        column, row = np.where(flip, side - 1 - column, column), np.where(flip, side - 1 - row, row)
        column, row = np.where(upper, column, row), np.where(upper, row, column)
    return distance.astype(np.uint64)


def hilbert_position(boxes: pa.Array) -> NDArray[np.uint64]:
    """[N] where chips lie along the curve over the whole Earth; those without a footprint come last.

    Args:
        boxes: [N] structs xmin, ymin, xmax, ymax in degrees, xmin > xmax across the antimeridian; or null.
    """
    corners = {
        name: boxes.field(index).to_numpy(zero_copy_only=False).astype(np.float64)
        for index, name in enumerate(boxes.type.names)
    }
    nowhere = boxes.is_null().to_numpy(zero_copy_only=False)
    nowhere |= ~np.isfinite(sum(corners.values()))
    west, east = corners["xmin"], corners["xmax"]
    longitude = (west + np.where(west > east, east + 360, east)) / 2
    latitude = (corners["ymin"] + corners["ymax"]) / 2
    x, y = (np.where(nowhere, 0.0, v) for v in (((longitude + 180) / 360) % 1.0, (latitude + 90) / 180))
    return np.where(nowhere, np.uint64(_NOWHERE), hilbert(x, y))


def sort_spatially(
    archive: ArchiveTable,
    columns: list[str],
    scratch: Path,
    *,
    bucket_rows: int | None = None,
    progress: Progress | None = None,
) -> Iterator[pa.Table]:
    """All rows, sorted along the curve, in tables of bounded size.

    Args:
        archive: Should not change meanwhile: give an opened version (`Archive.at`).
        columns: Which to read; ``id`` and ``bbox`` must be among them.
        scratch: Folder for the buckets' files, about as large as the archive; they are removed in the end.
        bucket_rows: Rows sorted at a time; by default as many as fill about 200 MB.
        progress: Called with (rows written to buckets, rows).
    """
    keys = np.concatenate(
        [_keys(batch) for batch in archive.batches(["id", "bbox"])] or [np.empty(0, dtype=np.uint64)]
    )
    if not len(keys):
        return
    rows = bucket_rows or _BUCKET_BYTES // (4 * archive.dimensions + 512)
    count = min(_MOST_BUCKETS, -(-len(keys) // rows))
    # The first key of every bucket but the first; 8 bytes a row are all that grows with the archive.
    borders = np.array([len(keys) * i // count for i in range(1, count)], dtype=np.int64)
    starts = np.partition(keys, borders)[borders] if count > 1 else np.empty(0, dtype=np.uint64)
    total = len(keys)
    del keys
    with TemporaryDirectory(dir=scratch, prefix=".buckets.") as folder:
        files = [Path(folder) / f"{number}.arrow" for number in range(count)]
        _scatter(archive, columns, files, starts, progress, total)
        for file in files:
            if file.exists():
                yield _sorted(file)
                file.unlink()


def _scatter(
    archive: ArchiveTable,
    columns: list[str],
    files: list[Path],
    starts: NDArray[np.uint64],
    progress: Progress | None,
    total: int,
) -> None:
    """Write every row to the file of its bucket."""
    done = 0
    with ExitStack() as open_files:
        writers: dict[int, ipc.RecordBatchStreamWriter] = {}
        for batch in archive.batches(columns):
            bucket = np.searchsorted(starts, _keys(batch), side="right")
            order = np.argsort(bucket, kind="stable")
            sorted_batch, bucket = batch.take(pa.array(order)), bucket[order]
            for number in np.unique(bucket).tolist():
                first, last = np.searchsorted(bucket, [number, number + 1])
                if number not in writers:
                    sink = open_files.enter_context(pa.OSFile(str(files[number]), "wb"))
                    writers[number] = open_files.enter_context(ipc.new_stream(sink, batch.schema))
                writers[number].write_batch(sorted_batch.slice(first, last - first))
            done += batch.num_rows
            if progress:
                progress(done, total)


def _sorted(file: Path) -> pa.Table:
    with pa.memory_map(str(file)) as source, ipc.open_stream(source) as stream:
        table = stream.read_all()
        keys = np.concatenate([_keys(batch) for batch in table.select(["id", "bbox"]).to_batches()])
        order = pa.table({"key": keys, "id": table["id"], "row": np.arange(len(keys))})
        return table.take(order.sort_by([("key", "ascending"), ("id", "ascending")])["row"])


def _keys(batch: pa.RecordBatch) -> NDArray[np.uint64]:
    """Where rows belong: the place on the curve, and a hash of the id that parts many rows of one place."""
    places = hilbert_position(batch.column("bbox"))
    hashes = np.fromiter(
        (zlib.crc32(name.encode()) >> 2 for name in batch.column("id").to_pylist()), np.uint64, len(places)
    )
    return (places << np.uint64(30)) | hashes
