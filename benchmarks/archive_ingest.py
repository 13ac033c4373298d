"""Ready-made vectors into an archive, beside bare LanceDB: rows a second, in one run.

Both get the same tables, made beforehand. `append` writes all pieces in one transaction; `upsert` makes one
of each piece; so do the two ways of bare LanceDB (`add` of a reader, `add` of each table). What the archive
does besides: it checks every column and number, looks for ids that are there already, and keeps the sums by
sensor that cross-sensor search needs. Rounds take turns; medians are reported, in rows per second of wall
clock and of CPU.

    python benchmarks/archive_ingest.py [--rows 200000] [--dimensions 384] [--piece 20000] [--rounds 3]
        [--json OUT.json] [--keep FOLDER]

`--keep` leaves the appended archive there (with `--rounds 1 --rows 1000000`: one to measure search on).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa

from swath.archive.archive import Archive
from swath.archive.table.rows import rows_from_vectors

MODEL = "benchmark-0"


def pieces(rows: int, dimensions: int, piece: int) -> Iterator[pa.Table]:
    """Clustered vectors, as embeddings are, with footprints; seeded."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((1000, dimensions), dtype=np.float32)
    for first in range(0, rows, piece):
        count = min(piece, rows - first)
        which = random.integers(0, len(centers), count)
        vectors = centers[which] + 0.5 * random.standard_normal((count, dimensions), dtype=np.float32)
        west, south = random.uniform(-180, 179, count), random.uniform(-80, 79, count)
        yield rows_from_vectors(
            MODEL,
            [f"{number:032x}" for number in range(first, first + count)],
            vectors,
            sensor=["sentinel1_grd" if number % 10 == 0 else "sentinel2_l2a" for number in which],
            gsd=10.0,
            bounds=np.stack([west, south, west + 0.02, south + 0.02], axis=1),
            source=[f"scenes/{number // 400:06d}.tif" for number in range(first, first + count)],
        )


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall clock and of CPU."""
    started, cpu = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - started, cpu_seconds() - cpu


def one_round(base: Path, tables: list[pa.Table], taken: dict[str, list[tuple[float, float]]]) -> None:
    """Every way once, into tables of its own."""
    columns, rows = tables[0].schema, sum(table.num_rows for table in tables)
    dimensions = columns.field("embedding").type.list_size
    appended = Archive.create(base / "append", MODEL, dimensions)
    upserted = Archive.create(base / "upsert", MODEL, dimensions)
    bare = lancedb.connect(base / "bare")
    whole, parts = (bare.create_table(name, schema=columns) for name in ("whole", "parts"))
    batches = [batch for table in tables for batch in table.to_batches()]
    ways: dict[str, Callable[[], object]] = {
        "Archive.append, one transaction": lambda: appended.append(tables),
        "LanceDB add, one transaction": lambda: whole.add(
            pa.RecordBatchReader.from_batches(columns, iter(batches))
        ),
        "Archive.upsert, piece by piece": lambda: [upserted.upsert(table) for table in tables],
        "LanceDB add, piece by piece": lambda: [parts.add(table) for table in tables],
    }
    for name, way in ways.items():
        taken.setdefault(name, []).append(measure(way))
    assert appended.count() == upserted.count() == whole.count_rows() == parts.count_rows() == rows
    shutil.rmtree(base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--piece", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    size = (options.rows, options.dimensions, options.piece)
    if options.keep:
        archive = Archive.create(options.keep, MODEL, options.dimensions)
        wall, cpu = measure(lambda: print(archive.append(pieces(*size)), "rows in", options.keep))
        print(f"{wall:.1f} s, {cpu:.1f} CPU-s, vectors made and written")
        return

    tables = list(pieces(*size))
    taken: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as base:
        for number in range(options.rounds):
            one_round(Path(base) / str(number), tables, taken)
    found = {
        name: {
            "rows_per_s": round(options.rows / statistics.median(wall for wall, _ in times)),
            "rows_per_cpu_s": round(options.rows / statistics.median(cpu for _, cpu in times)),
        }
        for name, times in taken.items()
    }
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(vars(options) | found, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
