"""Finding neighbours among normalised vectors; search holds the rest of what a query means."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Index(Protocol):
    """Finds neighbours among N normalised vectors."""

    def neighbours(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and row numbers of the at most `k` best of the allowed rows, best first.

        Args:
            query: [D], normalised.
            k: How many, at least 1.
            allowed: [N] bool, or None for all.
        """
        ...


class ExactIndex:
    """Every row is compared: one matrix product, then the k largest. The truth that others are held to."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors  # [N, D], normalised

    def neighbours(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `Index.neighbours`. Of equal scores the lower row number comes first."""
        if allowed is None:
            rows, scores = None, self.vectors @ query
        else:
            rows = np.flatnonzero(allowed)
            # Gathering rows copies them; that is worth it only when it saves most of the product.
            few = len(rows) < len(self.vectors) // 8
            scores = self.vectors[rows] @ query if few else (self.vectors @ query)[rows]
        k = min(k, len(scores))
        best = np.argpartition(scores, len(scores) - k)[len(scores) - k :] if k else np.zeros(0, np.int64)
        best = best[np.lexsort((best, -scores[best]))]
        return scores[best], best.astype(np.int64) if rows is None else rows[best]


def normalise(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors [N, D] to length 1 where they are; returns their lengths [N].

    A zero vector stays zero: its cosine is 0.
    """
    lengths: NDArray[np.float32] = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    np.divide(vectors, lengths[:, None], out=vectors, where=lengths[:, None] > 0)
    return lengths
