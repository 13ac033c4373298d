"""Search over a million chips: the archive's index beside bare FAISS and bare LanceDB, in one run.

Vectors are made, not real: a tree of 40 x 25 x 20 clusters (as land cover, variants of it, places), every
level a Gaussian step of falling size, within a cluster Gaussian noise; all in a space whose directions vary
by 1 / sqrt(rank), as the directions of trained embeddings do, around a common mean. Queries are new vectors
of the same tree, 1 in 4 moved towards another cluster. The intrinsic dimension that this gives is estimated
(two-NN) and printed, for comparison with that of real embeddings (`--like FILE.npz` prints theirs).
Footprints lie in 1,000 scenes; a chip's cluster decides its half of the globe, so that a filter on place
agrees with the embedding, which is hard for an index.

What is timed, one query at a time, in turns, so that whatever else the machine does hits all, by the clock
and by CPU time of the whole process (which a busy machine does not stretch):

- archive: `Searcher.search`: version check, filter, neighbors, exact scores, rows and answers
- FAISS: the same kind of index in memory, row numbers only, not re-scored
- LanceDB: its own index (IVF_PQ, refined) with as many probes as its recall needs, ids and distances

    python benchmarks/archive_search.py FOLDER --rows 1000000     # makes what is not there, then measures
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from swath.archive.archive import Archive
from swath.archive.index.files import build_index, open_index
from swath.archive.index.vectors import normalize_rows
from swath.archive.query.filters import Filter
from swath.archive.query.searcher import Searcher
from swath.archive.table.rows import rows_from_vectors

K = 10
MODEL = "benchmark-0"
PIECE = 20_000
BRANCHES = (40, 25, 20)
STEPS = (1.0, 0.7, 0.5)
NOISE = 0.45


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--kind", default="sq8")
    parser.add_argument("--like", type=Path, help=".npz with X: print its intrinsic dimension and stop")
    parser.add_argument("--no-lancedb", action="store_true", help="without LanceDB's own index")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.like:
        print("two-NN intrinsic dimension:", round(intrinsic(np.load(options.like)["X"]), 1))
        return
    tree = Tree(options.dimensions)
    found: dict[str, Any] = {"rows": options.rows, "dimensions": options.dimensions, "load": os.getloadavg()}
    found["intrinsic_dimension"] = round(intrinsic(next(tree.pieces(PIECE))[0]), 1)
    archive = made_archive(options.folder / "archive", tree, options.rows, found)
    index = open_index(archive)
    if index is None or index.version != archive.version:
        started, cpu = time.perf_counter(), time.process_time()
        build_index(archive, kind=options.kind, log=print)
        found["index_built"] = {"s": spent(started), "cpu_s": round(time.process_time() - cpu, 1)}
    found["bytes_a_row"] = {
        name: round(size_of(options.folder / "archive" / name) / options.rows)
        for name in ("chips.lance", "search_index")
    }
    found["opening"] = opening(archive.path)
    found["search"] = measured(archive, tree, options)
    found["load_after"] = os.getloadavg()
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


class Tree:
    """Clusters of clusters of clusters."""

    def __init__(self, dimensions: int) -> None:
        random = np.random.default_rng(0)
        self.spread = (1 / np.sqrt(np.arange(1, dimensions + 1))).astype(np.float32)
        self.mean = 2 * self.spread * random.standard_normal(dimensions, dtype=np.float32)
        self.levels, nodes = [], 1
        for branches, step in zip(BRANCHES, STEPS, strict=True):
            nodes *= branches
            self.levels.append(step * self.spread * random.standard_normal((nodes, dimensions), np.float32))

    def draw(self, random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """[count, D] vectors and the leaf [count] of each."""
        leaf = random.integers(np.prod(BRANCHES), size=count)
        node, vectors = leaf, np.broadcast_to(self.mean, (count, len(self.mean))).copy()
        for level, branches in zip(self.levels[::-1], BRANCHES[::-1], strict=True):
            vectors += level[node]
            node = node // branches
        vectors += NOISE * self.spread * random.standard_normal(vectors.shape, dtype=np.float32)
        return vectors, leaf

    def pieces(self, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All vectors of an archive, some thousand at a time."""
        random = np.random.default_rng(1)
        for start in range(0, rows, PIECE):
            yield self.draw(random, min(PIECE, rows - start))

    def queries(self, count: int) -> np.ndarray:
        """[count, D] that are in no archive."""
        random = np.random.default_rng(2)
        vectors, _ = self.draw(random, count)
        others, _ = self.draw(random, count)
        return np.where(np.arange(count)[:, None] % 4 == 0, 0.7 * vectors + 0.3 * others, vectors)


def made_archive(path: Path, tree: Tree, rows: int, found: dict[str, Any]) -> Archive:
    """The archive at `path`, appended in one transaction if it is not there."""
    if path.exists():
        archive = Archive.open(path)
        assert archive.count() == rows, f"{path} has {archive.count()} rows; delete it, or ask for as many"
        return archive
    archive = Archive.create(path, MODEL, len(tree.mean))
    start = datetime(2020, 1, 1, tzinfo=UTC)

    def tables() -> Iterator[pa.Table]:
        done = 0
        random = np.random.default_rng(3)
        for vectors, leaf in tree.pieces(rows):
            numbers = range(done, done + len(vectors))
            scene = random.integers(1000, size=len(vectors))
            west = np.where(leaf % 2 == 0, -170.0, 10.0) + scene % 40 * 4 + random.random(len(vectors)) * 3
            south = scene // 40 * 4.0 - 50 + random.random(len(vectors)) * 3
            yield rows_from_vectors(
                MODEL,
                [f"{i * 2654435761 % 2**64:016x}{i:016x}" for i in numbers],
                vectors,
                sensor="sentinel2_l2a",
                gsd=np.where(np.array(numbers) % 10 == 0, 20.0, 10.0),
                bounds=np.stack([west, south, west + 0.02, south + 0.02], axis=1),
                time=[start + timedelta(hours=i % 30_000) for i in numbers],
                source=[f"scenes/{one:06d}.tif" for one in scene],
            )
            done += len(vectors)

    started = time.perf_counter()
    archive.append(tables())
    found["made_rows_per_s"] = round(rows / (time.perf_counter() - started))
    return archive


def opening(path: str) -> dict[str, Any]:
    """Seconds until a fresh archive object is ready and has answered a question; memory that it takes.

    Files that were read before are in the system's cache; memory is what the process holds besides them.
    """
    query = np.random.default_rng(0).standard_normal(Archive.open(path).dimensions)
    before = own_memory()
    started, cpu = time.perf_counter(), time.process_time()
    searcher = Searcher(Archive.open(path))
    searcher.snapshot()
    opened, opened_cpu = spent(started), time.process_time() - cpu
    searcher.search(query, K)
    return {
        "opened_s": opened,
        "opened_cpu_s": round(opened_cpu, 2),
        "first_answer_s": spent(started),
        "memory_mb": round(own_memory() - before),
    }


def own_memory() -> float:
    """MB of the process that are no memory-mapped file."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measured(archive: Archive, tree: Tree, options: argparse.Namespace) -> dict[str, Any]:
    """Latency and recall of all ways."""
    import faiss

    queries = tree.queries(options.queries)
    centered = queries.copy()
    normalize_rows(centered)
    searcher = archive.searcher
    snapshot = searcher.snapshot()
    index = open_index(archive)
    assert index is not None
    year = datetime(2021, 1, 1, tzinfo=UTC), datetime(2021, 2, 6, tzinfo=UTC)
    four = [[10, -50], [60, -50], [100, 20], [10, 20]]
    many = [[95 + 60 * r * np.cos(a), 35 * r * np.sin(a)] for a, r in star(40)]
    filters: dict[str, Filter | None] = {
        "archive": None,
        "archive, 10 % by GSD": Filter(gsd=(20, 20)),
        "archive, 3 % by time": Filter(datetime=year),
        "archive, half by place": Filter(bbox=(0, -60, 180, 60)),
        "archive, a box of 0.4 %": Filter(bbox=(20, -30, 28, -22)),
        "archive, a polygon of 4 corners": Filter(intersects=polygon(four)),
        "archive, a star of 40 corners": Filter(intersects=polygon(many)),
    }
    truth = {name: exact(snapshot, centered, where) for name, where in filters.items()}

    cells = snapshot.stored.cells(False)  # type: ignore[union-attr]
    assert cells is not None
    in_memory = faiss.read_index(str(index.folder / "plain.faiss"))
    probes = int(np.ceil(cells.probes_for(K)))
    # Chips of an area that was just asked for are remembered; here every query draws its own, a hair beside.
    drawn = {
        name: [Filter(intersects=polygon(corners, 1e-10 * (i + 1))) for i in range(len(queries))]
        for name, corners in (("a polygon of 4 corners", four), ("a star of 40 corners", many))
    }
    ways: dict[str, Callable[[int], np.ndarray]] = {
        name: (lambda i, where=where: rows_of(searcher.search(queries[i], K, filter=where)))
        for name, where in filters.items()
    }
    for name, areas in drawn.items():
        truth[f"archive, {name}, drawn anew"] = truth[f"archive, {name}"]
        ways[f"archive, {name}, drawn anew"] = lambda i, areas=areas: rows_of(
            searcher.search(queries[i], K, filter=areas[i])
        )
    parameters = faiss.SearchParametersIVF(nprobe=probes)
    ways["FAISS, in memory"] = lambda i: in_memory.search(centered[i : i + 1], K, params=parameters)[1][0]
    if not options.no_lancedb:
        ways["LanceDB, its index"] = lancedb_way(
            options.folder, tree, options.rows, centered, truth["archive"]
        )
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    hits: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        for i in range(5):  # columns of filters are read once, files come into memory
            way(i)
    for i in range(len(queries)):
        for name, way in ways.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            answered = way(i)
            seconds[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - cpu_started)
            requested = truth.get(name, truth["archive"])[i]
            hits[name].append(len(np.intersect1d(answered, requested)) / max(1, len(requested)))
    return {
        "kind": cells.kind, "cells": cells.count, "probes": probes,
        **{name: {"p50_ms": percentile(taken, 50), "p99_ms": percentile(taken, 99),
                  "cpu_p50_ms": percentile(cpu[name], 50), "cpu_p99_ms": percentile(cpu[name], 99),
                  "recall": round(float(np.mean(hits[name])), 4)} for name, taken in seconds.items()},
    }  # fmt: skip


def polygon(corners: list[list[float]], shift: float = 0.0) -> dict[str, Any]:
    ring = [[x + shift, y] for x, y in corners]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def star(points: int) -> list[tuple[float, float]]:
    """Angle and radius of the corners of a star."""
    return [(2 * np.pi * i / points, 1.0 if i % 2 == 0 else 0.55) for i in range(points)]


def exact(snapshot: Any, queries: np.ndarray, where: Filter | None) -> list[np.ndarray]:
    """Row numbers of the true neighbors among the rows that pass."""
    mask = where.mask(snapshot.chips) if where else None
    rows = np.arange(len(snapshot.chips)) if mask is None else np.flatnonzero(mask)
    best = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(rows), PIECE):
        part = rows[start : start + PIECE]
        scores = np.concatenate([scores, queries @ snapshot.vectors.take(part).T], axis=1)
        best = np.concatenate([best, np.broadcast_to(part, (len(queries), len(part)))], axis=1)
        order = np.argpartition(-scores, min(K, scores.shape[1] - 1), axis=1)[:, :K]
        scores, best = np.take_along_axis(scores, order, 1), np.take_along_axis(best, order, 1)
    return list(best)


def rows_of(answers: Any) -> np.ndarray:
    return np.array([int(answer.id[16:], 16) for answer in answers])


def lancedb_way(
    folder: Path, tree: Tree, rows: int, queries: np.ndarray, truth: list[np.ndarray]
) -> Callable[[int], np.ndarray]:
    """LanceDB's own search over a table of numbers and vectors, at the fewest probes with recall 0.99."""
    table = made_lancedb(folder, tree, rows)

    def ask(i: int, probes: int, refine: int) -> np.ndarray:
        requested = table.search(queries[i]).distance_type("cosine").nprobes(probes).refine_factor(refine)
        return requested.select(["number", "_distance"]).limit(K).to_arrow()["number"].to_numpy()

    for probes, refine in ((40, 20), (80, 30), (160, 50)):
        recall = np.mean([len(np.intersect1d(ask(i, probes, refine), truth[i])) / K for i in range(50)])
        print(f"LanceDB: {probes} probes, refined {refine}: recall {recall:.3f}")
        if recall >= 0.99:
            break
    return lambda i: ask(i, probes, refine)


def made_lancedb(folder: Path, tree: Tree, rows: int) -> Any:
    """The table with its index, made if it is not there; trained on as many vectors a cell as ours."""
    import lancedb
    from lancedb.index import IvfPq

    database = lancedb.connect(folder / "lancedb")
    if "bare" in database.list_tables().tables:
        return database.open_table("bare")
    fields = pa.schema([("number", pa.int64()), ("vector", pa.list_(pa.float32(), len(tree.mean)))])

    def batches() -> Iterator[pa.RecordBatch]:
        done = 0
        for vectors, _ in tree.pieces(rows):
            normalize_rows(vectors)
            flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            numbers = pa.array(np.arange(done, done + len(vectors)))
            done += len(vectors)
            yield pa.record_batch([numbers, flat], schema=fields)

    cells = 1024 if rows >= 256 * 1024 else rows // 256
    table = database.create_table("bare", pa.RecordBatchReader.from_batches(fields, batches()))
    started, cpu = time.perf_counter(), time.process_time()
    how = IvfPq(distance_type="cosine", num_partitions=cells, max_iterations=10, sample_rate=64)
    table.create_index("vector", config=how)
    print(f"LanceDB index: {spent(started)} s, {time.process_time() - cpu:.0f} CPU-s")
    return table


def intrinsic(vectors: np.ndarray, count: int = 2_000) -> float:
    """Two-NN estimate (Facco et al. 2017) on at most 20,000 vectors at length 1."""
    points = np.array(vectors[:20_000], np.float32)
    normalize_rows(points)
    likeness = points[:count] @ points.T
    likeness[np.arange(len(likeness)), np.arange(len(likeness))] = -2
    nearest = np.sqrt(np.maximum(2 - 2 * np.sort(-likeness, axis=1)[:, :2] * -1, 1e-12))
    ratio = np.sort(nearest[:, 1] / nearest[:, 0])
    ratio = ratio[: int(0.9 * len(ratio))]
    share = np.arange(1, len(ratio) + 1) / (len(nearest) + 1)
    x, y = np.log(ratio), -np.log(1 - share)
    return float((x @ y) / (x @ x))


def percentile(seconds: list[float], which: float) -> float:
    return round(float(np.percentile(np.array(seconds) * 1e3, which)), 2)


def spent(started: float) -> float:
    return round(time.perf_counter() - started, 2)


if __name__ == "__main__":
    main()
