"""What is compared: the cosine of vectors as they are, or of vectors less the mean of their own sensor.

Vectors are kept once, at length 1, with their lengths beside them. A centered vector is (length * v - mean of
its sensor) at length 1; a cosine with it follows from the product with v by two numbers a chip, so that an
archive of several sensors needs no second copy of its vectors.

Legend: N chips, D numbers in an embedding, S sensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_PIECE = 16_384  # rows in hand at once


class VectorBlocks:
    """N normalized vectors in blocks (arrays, or memory-mapped files), numbered through.

    Attributes:
        blocks: Arrays [n, D] of float32, at length 1 (a zero vector stays zero).
        lengths: [N] float32 that the raw vectors had.
    """

    def __init__(self, blocks: Sequence[Floats], lengths: Floats) -> None:
        self.blocks = list(blocks)
        self.lengths = lengths
        self._ends = np.cumsum([0, *(len(block) for block in self.blocks)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def dimensions(self) -> int:
        """Numbers in a vector, D."""
        return int(self.blocks[0].shape[1])

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """[n, D] vectors by number, at length 1."""
        found = np.empty((len(rows), self.dimensions), dtype=np.float32)
        owners = np.searchsorted(self._ends, rows, side="right") - 1
        for owner, block in enumerate(self.blocks):
            of_block = np.flatnonzero(owners == owner)
            if len(of_block):
                found[of_block] = block[rows[of_block] - self._ends[owner]]
        return found

    def raw(self, rows: NDArray[np.int64]) -> Floats:
        """[n, D] vectors as the model gave them, to rounding."""
        return self.take(rows) * self.lengths[rows, None]

    def dot(self, query: Floats) -> Floats:
        """[N] products of all vectors with a query [D]."""
        return np.concatenate([block @ query for block in self.blocks])


class SimilaritySpace:
    """Vectors and the way in which they are compared.

    Args:
        vectors: N of them.
        sensors: [N] index of each chip's sensor.
        means: [S, D] mean raw embedding of each sensor to take out; None compares vectors as they are.
    """

    def __init__(
        self, vectors: VectorBlocks, sensors: NDArray[np.int32] | None = None, means: Floats | None = None
    ) -> None:
        self.vectors = vectors
        self.means = means
        self._sensors = sensors

    @property
    def centered(self) -> bool:
        """Whether vectors are compared less the mean of their sensor."""
        return self.means is not None

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """[n, D] vectors of chips as they are compared, at length 1."""
        if self.means is None:
            return self.vectors.take(rows)
        assert self._sensors is not None
        found = self.vectors.raw(rows) - self.means[self._sensors[rows]]
        normalize_rows(found)
        return found

    def of(self, raw: Floats, sensor: int | None) -> Floats:
        """[D] a raw embedding of a sensor as it is compared, at length 1; zero if it has no direction."""
        vector = np.array(raw, dtype=np.float32)[None]
        if self.means is not None:
            assert sensor is not None
            vector -= self.means[sensor]
        normalize_rows(vector)
        return np.asarray(vector[0])

    def scores(self, query: Floats, rows: NDArray[np.int64] | None = None) -> Floats:
        """Cosines with a query [D] at length 1, of all chips [N], or of some by number."""
        if rows is not None:
            pieces = [
                self.take(rows[start : start + _PIECE]) @ query for start in range(0, len(rows), _PIECE)
            ]
            return np.concatenate([np.zeros(0, np.float32), *pieces])
        if self.means is None:
            return self.vectors.dot(query)
        assert self._sensors is not None
        above = self.vectors.lengths * self.vectors.dot(query) - (self.means @ query)[self._sensors]
        found: Floats = np.divide(
            above, self._centered_lengths, out=np.zeros_like(above), where=self._centered_lengths > 0
        )
        return found

    @cached_property
    def _centered_lengths(self) -> Floats:
        """[N] lengths of the raw vectors less their sensor's mean."""
        assert self.means is not None
        assert self._sensors is not None
        found = np.empty(len(self), dtype=np.float32)
        for start in range(0, len(self), _PIECE):
            rows = np.arange(start, min(start + _PIECE, len(self)))
            found[rows] = np.linalg.norm(self.vectors.raw(rows) - self.means[self._sensors[rows]], axis=1)
        return found


def normalize_rows(vectors: Floats) -> Floats:
    """Scale vectors [N, D] to length 1 where they are; returns their lengths [N].

    A zero vector stays zero: its cosine is 0.
    """
    lengths: Floats = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    np.divide(vectors, lengths[:, None], out=vectors, where=lengths[:, None] > 0)
    return lengths


def vectors_of(batch: Any, dimensions: int) -> NDArray[np.float32]:
    """[n, D] raw embeddings of a batch or table of rows."""
    column = batch["embedding"]
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat: NDArray[np.float32] = pc.list_flatten(column).to_numpy(zero_copy_only=False)
    return flat.reshape(-1, dimensions)
