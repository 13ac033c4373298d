"""Features of one run, kept chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    pass

CHUNK = 512  # images whose features are kept together


class FeatureBuffer:
    """Features of some images by one feature extractor at one side, a chunk at a time; in memory."""

    def __init__(self) -> None:
        self._rows: dict[int, Tensor] = {}

    def has(self, chunk: int) -> bool:
        """Whether the features of that chunk need not be computed."""
        return chunk in self._rows

    def put(self, chunk: int, rows: Tensor, *, whole: bool) -> None:
        """Keep features; `whole` unless images of the chunk could not be read."""
        self._rows[chunk] = rows

    def rows(self, chunks: list[range]) -> list[Tensor]:
        """Features [n, D] of each chunk, once all are there; no rows where nothing could be read."""
        return [self._rows.get(number, torch.empty(0, 0)) for number in range(len(chunks))]
