"""Exact search and upserts: an archive of 200,000 x 384 side by side with bare numpy on the same vectors.

Both answer the same queries in turns, query by query, so that whatever else the machine does hits both. Bare
numpy is `vectors @ query` and `argpartition` on normalized vectors that lie in memory; the archive also asks
the table for its version, fetches the answers' rows and makes objects of them. It is checked that both find
the same chips. Upserts are timed as the archive grows, in batches of 1,000 new rows.

    python benchmarks/search.py [--rows 200000] [--dimensions 384] [--queries 60] [--json OUT.json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from swath.archive.archive import Archive
from swath.archive.query.filters import Filter
from swath.archive.table.rows import schema

K = 10


def make_rows(first: int, vectors: np.ndarray) -> pa.Table:
    """Rows as `swath embed` writes them, with a footprint's WKB of usual length."""
    count, dimensions = vectors.shape
    numbers = range(first, first + count)
    columns: dict[str, Any] = {
        "id": [f"{i:032x}" for i in numbers],
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimensions),
        "geometry": [bytes(93)] * count,
        "bbox": [{"xmin": i % 180, "ymin": 0.0, "xmax": i % 180 + 0.1, "ymax": 0.1} for i in numbers],
        "datetime": [None] * count,
        "sensor": ["sentinel2_l2a" if i % 10 else "sentinel1_grd" for i in numbers],
        "gsd": [10.0] * count,
        "source": [f"scenes/{i // 400:06d}.tif" for i in numbers],
        "files": [None] * count,
        "window": [{"column": i % 20 * 224, "row": 0, "width": 224, "height": 224} for i in numbers],
        "valid_fraction": [1.0] * count,
        "label": [None] * count,
        "model_id": ["benchmark-0"] * count,
        "preprocessing": ['{"layout": "chips", "chip_size": 224}'] * count,
        "fingerprint": [f"{i // 400:032x}" for i in numbers],
    }
    requested = schema(dimensions)
    return pa.table(
        [
            value if isinstance(value, pa.Array) else pa.array(value, requested.field(name).type)
            for name, value in columns.items()
        ],
        schema=requested,
    )


def numpy_search(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    scores = vectors @ (query / np.linalg.norm(query))
    best = np.argpartition(scores, -K)[-K:]
    return best[np.argsort(-scores[best])]


def percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99])
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    vectors = random.standard_normal((options.rows, options.dimensions), dtype=np.float32)
    found: dict[str, Any] = {"rows": options.rows, "dimensions": options.dimensions}

    with tempfile.TemporaryDirectory() as folder:
        archive = Archive.create(Path(folder) / "archive", "benchmark-0", options.dimensions)
        # Filled in large commits; timed in small ones at the beginning and at the end.
        rates: dict[str, float] = {}
        timed, bulk = 5_000, 20_000
        done = 0
        while done < options.rows:
            near_edge = done < timed or done >= options.rows - timed
            step = min(1_000 if near_edge else bulk, options.rows - done)
            if done < options.rows - timed:
                step = min(step, options.rows - timed - done)
            rows = make_rows(done, vectors[done : done + step])
            started = time.perf_counter()
            archive.upsert(rows)
            if near_edge:
                where = "empty" if done < timed else "full"
                rates[where] = rates.get(where, 0.0) + time.perf_counter() - started
            done += step
        found["upsert_rows_per_s"] = {where: round(timed / seconds) for where, seconds in rates.items()}

        started = time.perf_counter()
        searcher = Archive.open(archive.path).searcher()
        searcher.search(vectors[0], K)
        found["open_and_first_answer_s"] = round(time.perf_counter() - started, 2)

        normalized = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        filters = {"archive": None, "archive, 10 % pass a filter": Filter(sensors=["sentinel1_grd"])}
        seconds: dict[str, list[float]] = {"numpy": [], **{name: [] for name in filters}}
        for query in random.standard_normal((options.queries, options.dimensions), dtype=np.float32):
            started = time.perf_counter()
            expected = numpy_search(normalized, query)
            seconds["numpy"].append(time.perf_counter() - started)
            for name, where in filters.items():
                started = time.perf_counter()
                answers = searcher.search(query, K, filter=where)
                seconds[name].append(time.perf_counter() - started)
                if where is None:
                    assert [int(answer.id, 16) for answer in answers] == expected.tolist()
    found["search"] = {name: percentiles(values) for name, values in seconds.items()}
    ratio = np.median(np.array(seconds["archive"]) / np.array(seconds["numpy"]))
    found["archive_over_numpy"] = round(float(ratio), 3)
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
