"""Neighbors among very many vectors: FAISS looks in the nearest cells, what it finds is compared exactly.

Vectors are sorted into cells around centers (an inverted file, IVF). A query is compared with the centers,
then with compact codes of the vectors in the nearest cells; the best candidates are compared again with the
vectors themselves, so that scores are exact and only the choice of candidates is approximate. How many cells
that takes is not guessed: when an index is built, it searches for some of its own chips and raises the number
until the recall is reached (see `measured_probes`).

Filters are given to FAISS as a bitmap. The fewer chips pass, the more cells are looked into; where few pass,
they are all compared exactly instead.

Legend: N chips, D numbers in an embedding, C cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from swath.archive.index.protocol import Found, largest
from swath.archive.index.vectors import Floats, SimilaritySpace, normalize_rows
from swath.errors import ArchiveError

Kind = Literal["flat", "sq8", "pq"]
KINDS: tuple[str, ...] = get_args(Kind)

RECALL = 0.995  # aimed at when an index is built, so that 0.99 is kept for other queries
_RESCORED = {"flat": 2, "sq8": 4, "pq": 40}  # candidates an answer that are compared exactly
_FEWEST_RESCORED = 64
_EXACT = 5_000  # allowed rows up to which comparing all of them is as quick as looking into cells
_COMPARED = 50_000  # allowed rows that a filtered search compares at least
_MEASURED_AT = (10, 100)  # answers for which the number of cells is measured; between them it is scaled
_TRAINED_ON = 64  # vectors a cell
_QUERIES = 200  # of the measurement
_BETWEEN = 0.3  # of the way towards another chip
_MARGIN = 2  # times the cells measured: 200 queries say little of the hardest, and cells cost little
_PIECE = 32_768


@dataclass(frozen=True, slots=True)
class IvfIndex:
    """A FAISS index of the first n rows of a space, and how it is to be searched.

    Attributes:
        index: `faiss.IndexIVF` by inner product over n vectors at length 1.
        kind: What codes are: ``flat`` (the vectors), ``sq8`` (a byte a number), ``pq`` (a byte four numbers).
        probes: Cells to look into, by number of answers.
    """

    index: Any
    kind: Kind
    probes: Mapping[int, int]

    @property
    def count(self) -> int:
        """Cells, C."""
        return int(self.index.nlist)

    def probes_for(self, k: int) -> float:
        """Cells that k answers need, from those measured."""
        few, many = _MEASURED_AT
        low, high = self.probes[few], self.probes[many]
        growth = np.log(high / low) / np.log(many / few)
        return float(low * max(1.0, k / few) ** growth)

    def candidates(
        self, queries: Floats, k: int, probes: int, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """[Q, n] row numbers of the candidates for k answers to queries [Q, D]; -1 where there are fewer."""
        import faiss

        requested = max(_FEWEST_RESCORED, k * _RESCORED[self.kind])
        parameters: dict[str, Any] = {"nprobe": int(min(max(1, probes), self.count))}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            parameters["sel"] = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]
        _, found = self.index.search(queries, requested, params=faiss.SearchParametersIVF(**parameters))
        rows: NDArray[np.int64] = np.where(found < self.index.ntotal, found, -1)
        return rows


class IvfSearchIndex:
    """Cells for the rows that are indexed, exact comparison for those that came since.

    Args:
        space: N rows; the first `cells.index.ntotal` are indexed.
        cells: Where they are looked up.
    """

    def __init__(self, space: SimilaritySpace, cells: IvfIndex) -> None:
        self.space = space
        self.cells = cells
        self._indexed = int(cells.index.ntotal)

    def neighbors(
        self, query: Floats, k: int, allowed: NDArray[np.bool_] | None, *, effort: float = 1.0
    ) -> Found:
        """See `swath.archive.index.protocol.Index.neighbors`.

        Args:
            query: [D], at length 1.
            k: How many, at least 1.
            allowed: [N] bool, or None for all.
            effort: How many times as many cells to look into: more for queries that are unlike any chip.
        """
        fresh = np.arange(self._indexed, len(self.space))
        if allowed is not None:
            fresh = fresh[allowed[self._indexed :]]
        old = self._old(query, k, None if allowed is None else allowed[: self._indexed], effort)
        rows = np.concatenate([old, fresh])
        return largest(self.space.scores(query, rows), rows, k)

    def _old(
        self, query: Floats, k: int, allowed: NDArray[np.bool_] | None, effort: float
    ) -> NDArray[np.int64]:
        """Indexed rows that are worth an exact comparison."""
        passing = self._indexed if allowed is None else int(np.count_nonzero(allowed))
        if passing <= max(_EXACT, k):
            return np.arange(self._indexed) if allowed is None else np.flatnonzero(allowed)
        probes = self.cells.probes_for(k) * effort
        if allowed is not None:
            # As many allowed rows are compared as without a filter, and never so few that a filter which
            # agrees with the embedding (a place, a season) could hide the nearest of them.
            probes = max(probes * self._indexed / passing, self.cells.count * _COMPARED / passing)
        rows = self.cells.candidates(query[None], k, int(np.ceil(probes)), allowed)[0]
        return np.asarray(rows[rows >= 0])


def build_ivf(space: SimilaritySpace, kind: Kind, *, cells: int | None = None, seed: int = 0) -> IvfIndex:
    """Sort all rows of a space into cells, and measure how many of them a search has to look into.

    Args:
        space: N rows.
        kind: See `IvfIndex`.
        cells: How many; by default the power of two next to 2 sqrt(N).
        seed: Of the rows that centers are trained on and of those that are searched for.

    Raises:
        ArchiveError: An unknown kind, or fewer rows than cells.
    """
    import faiss

    if kind not in KINDS:
        raise ArchiveError(f"an index is of kind {', '.join(KINDS)}, not {kind!r}")
    count, dimensions = len(space), space.vectors.dimensions
    cells = cells or int(2 ** round(np.log2(2 * np.sqrt(max(count, 1)))))
    if count < cells:
        raise ArchiveError(f"{count:,} rows cannot be sorted into {cells:,} cells; search is exact without")
    codes = {"flat": "Flat", "sq8": "SQ8", "pq": f"PQ{_quarters(dimensions)}"}[kind]
    index: Any = faiss.index_factory(dimensions, f"IVF{cells},{codes}", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 10
    index.cp.seed = seed + 1
    index.cp.max_points_per_centroid = _TRAINED_ON
    random = np.random.default_rng(seed)
    trained_on = np.sort(random.permutation(count)[: cells * _TRAINED_ON])
    index.train(space.take(trained_on))
    for start in range(0, count, _PIECE):
        index.add(space.take(np.arange(start, min(start + _PIECE, count))))
    probes = calibrate_nprobe(space, index, kind, seed=seed)
    return IvfIndex(index, kind, probes)


def calibrate_nprobe(space: SimilaritySpace, index: Any, kind: Kind, *, seed: int = 0) -> dict[int, int]:
    """Cells to look into for 10 and for 100 answers, so that queries find their neighbors.

    Random chips are searched for, exactly and by cells; the smallest power of sqrt(2) with a mean recall of
    at least `RECALL` is taken, with a margin. A chip itself does not count as found. Every second is moved
    towards another chip: what people search for lies between the places of an archive as often as beside one
    of them, and there the neighbors are spread over more cells.
    """
    count = len(space)
    random = np.random.default_rng(seed + 1)
    asked = np.sort(random.permutation(count)[:_QUERIES])
    queries = space.take(asked)
    queries[::2] = (1 - _BETWEEN) * queries[::2] + _BETWEEN * space.take(random.permutation(asked)[::2])
    normalize_rows(queries)
    most = min(max(_MEASURED_AT) + 1, count)
    truth = _exact_neighbors(space, queries, most)
    found = {}
    probes = 1.0
    for requested in _MEASURED_AT:
        k = min(requested, most - 1)
        nearest = [near[near != own][:k] for near, own in zip(truth, asked, strict=True)]
        while probes < index.nlist:
            # A neighbor among the candidates is found: they are all compared exactly.
            candidates = IvfIndex(index, kind, {}).candidates(queries, k + 1, round(probes), None)
            hits = sum(np.isin(near, some).sum() for near, some in zip(nearest, candidates, strict=True))
            if hits >= RECALL * k * len(asked):
                break
            probes *= np.sqrt(2)
        found[requested] = min(round(_MARGIN * probes), int(index.nlist))
    return found


def _exact_neighbors(space: SimilaritySpace, queries: Floats, k: int) -> NDArray[np.int64]:
    """[Q, k] rows nearest to queries [Q, D], best first, in one pass over the vectors."""
    scores = np.full((len(queries), 0), 0, dtype=np.float32)
    rows = np.zeros((len(queries), 0), dtype=np.int64)
    for start in range(0, len(space), _PIECE):
        piece = np.arange(start, min(start + _PIECE, len(space)))
        scores = np.concatenate([scores, queries @ space.take(piece).T], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(piece, (len(queries), len(piece)))], axis=1)
        if scores.shape[1] > k:  # the k best in any order: sorting every piece took longer than comparing
            best = np.argpartition(scores, -k, axis=1)[:, -k:]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(rows, order, 1)


def _quarters(dimensions: int) -> int:
    """Parts of a product quantizer: about four numbers each."""
    return max(part for part in range(1, max(1, dimensions // 4) + 1) if dimensions % part == 0)


def write_ivf(cells: IvfIndex, path: Path) -> None:
    """Write the FAISS index to a file."""
    import faiss

    faiss.write_index(cells.index, str(path))


def read_ivf(path: Path, kind: Kind, probes: Mapping[int, int]) -> IvfIndex:
    """Open the FAISS index of a file; its codes stay in the file, memory-mapped.

    Raises:
        ArchiveError: It is no such index.
    """
    import faiss

    try:
        index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        lists = faiss.downcast_InvertedLists(index.invlists)
        if hasattr(lists, "prefetch_nthread"):
            lists.prefetch_nthread = 0  # threads started for every query cost more than they bring
    except (RuntimeError, AttributeError) as error:
        raise ArchiveError(f"{path}: is not a search index ({str(error).splitlines()[0]})") from None
    return IvfIndex(index, kind, probes)
