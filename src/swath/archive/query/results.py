"""The results of a search: chips, best first, with notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.archive.index.columns import ChipColumns
from swath.geo.grid import PixelWindow
from swath.reporting.notebook import NotebookRepr


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One chip that was found, and how near it is."""

    rank: int
    score: float  # cosine with the query, -1 to 1
    id: str
    source: str
    window: PixelWindow
    sensor: str
    gsd: float
    datetime: datetime | None
    bbox: tuple[float, float, float, float] | None
    geometry: bytes | None = field(repr=False)  # WKB, OGC:CRS84
    valid_fraction: float = 1.0
    cloud_fraction: float | None = None  # None if unknown
    label: str | None = None
    files: tuple[str, ...] | None = None  # one a band, where the source is not one file
    others: tuple[SearchResult, ...] = ()  # further chips of the place, best first, where answers are grouped


@dataclass(frozen=True, slots=True)
class SearchResults(NotebookRepr, Sequence[SearchResult]):
    """Answers, best first; a sequence of `SearchResult`.

    Attributes:
        items: The results.
        k: The k of the query.
        candidates: Chips that passed the filter and the exclusions.
        total: Chips in the archive.
        version: Version of the archive.
        centered: Whether scores are cosines of vectors less the mean of their own sensor.
        varied: Whether answers that are alike or of one place were left out.
        notes: What a reader of the scores should know: how sensors were compared, what could not be judged.
    """

    items: tuple[SearchResult, ...]
    k: int
    candidates: int
    total: int
    version: int
    centered: bool = False
    diversified: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    @property
    def shortfall(self) -> str | None:
        """Why there are fewer results than requested, or None."""
        if len(self.items) >= self.k:
            return None
        if not self.total:
            return f"0 of {self.k} results: the archive is empty"
        reason = (
            f"the archive holds only {self.total:,} chips"
            if self.candidates == self.total
            else f"{self.candidates:,} of {self.total:,} chips pass the filters and exclusions"
        )
        if self.diversified and len(self.items) < self.candidates:
            reason += ", and the others are of the same places or fields"
        return f"{len(self.items)} of {self.k} results: {reason}"


def result_from_row(rank: int, score: float, row: dict[str, Any]) -> SearchResult:
    """A result from a row of the archive's small columns."""
    box = row["bbox"]
    return SearchResult(
        rank=rank,
        score=score,
        id=row["id"],
        source=row["source"],
        window=PixelWindow(**row["window"]),
        sensor=row["sensor"],
        gsd=row["gsd"],
        datetime=row["datetime"],
        bbox=(box["xmin"], box["ymin"], box["xmax"], box["ymax"]) if box else None,
        geometry=row["geometry"],
        valid_fraction=row["valid_fraction"],
        cloud_fraction=row["cloud_fraction"],
        label=row["label"],
        files=tuple(row["files"]) if row["files"] else None,
    )


def results_from_rows(
    columns: ChipColumns, rows: NDArray[np.int64], scores: NDArray[np.float32]
) -> list[SearchResult]:
    """Rows by number as results, ranked from 1."""
    table = columns.take(rows)
    records = table.to_pylist() if table is not None else []
    return [
        result_from_row(rank, float(score), record)
        for rank, (record, score) in enumerate(zip(records, scores, strict=True), start=1)
    ]
