"""Finding neighbors among vectors; search holds the rest of what a query means."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from swath.archive.index.vectors import Floats, SimilaritySpace

Found = tuple[Floats, NDArray[np.int64]]


class Index(Protocol):
    """Finds neighbors among the N vectors of a space."""

    def neighbors(
        self, query: Floats, k: int, allowed: NDArray[np.bool_] | None, *, effort: float = 1.0
    ) -> Found:
        """Cosines and row numbers of the at most `k` best of the allowed rows, best first.

        Of equal scores the lower row number comes first.

        Args:
            query: [D], at length 1.
            k: How many, at least 1.
            allowed: [N] bool, or None for all.
            effort: How much more to look than usual, for queries that are unlike any chip.
        """
        ...


class ExactIndex:
    """Every row is compared: one matrix product, then the k largest. The truth that others are held to."""

    def __init__(self, space: SimilaritySpace) -> None:
        self.space = space

    def neighbors(
        self, query: Floats, k: int, allowed: NDArray[np.bool_] | None, *, effort: float = 1.0
    ) -> Found:
        """See `Index.neighbors`."""
        if allowed is None:
            return largest(self.space.scores(query), None, k)
        rows = np.flatnonzero(allowed)
        # Gathering rows copies them; that is worth it only when it saves most of the product.
        few = len(rows) < len(self.space) // 8
        return largest(self.space.scores(query, rows) if few else self.space.scores(query)[rows], rows, k)


def largest(scores: Floats, rows: NDArray[np.int64] | None, k: int) -> Found:
    """The at most `k` largest of `scores` [n] and their row numbers (`rows` [n], or their places)."""
    k = min(k, len(scores))
    best = np.argpartition(scores, len(scores) - k)[len(scores) - k :] if k else np.zeros(0, np.int64)
    numbers = best.astype(np.int64) if rows is None else rows[best]
    order = np.lexsort((numbers, -scores[best]))
    return scores[best][order], numbers[order]
