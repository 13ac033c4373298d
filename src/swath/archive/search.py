"""Search by example: the chips of an archive nearest to a vector, by cosine.

Exact search is one product of the matrix of normalised vectors with the query. The matrix and the small
columns are read once a version of the table and kept in memory; a search first asks the table for its version
(a look at one small file), so that answers are never older than the last commit.

How neighbours are found is behind `Index`; filters arrive there as a mask of allowed rows, so that every
index filters before it ranks and never after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from swath.archive.places import boxes_overlap
from swath.errors import ArchiveError
from swath.imagery.chip import Window

if TYPE_CHECKING:
    from swath.archive.store import Archive

SHORTEST_PREFIX = 6  # characters of a chip id that may stand for the whole
_COLUMNS = (
    "id",
    "geometry",
    "bbox",
    "datetime",
    "sensor",
    "gsd",
    "source",
    "files",
    "window",
    "valid_fraction",
    "label",
    "preprocessing",
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which chips may answer. A part that is None lets every chip pass.

    A chip that does not have what a part asks for (no time, no footprint) does not pass it.

    Attributes:
        sensors: Names of sensors.
        gsd: Smallest and largest GSD, both included.
        time: First and last time, both included; timezone-aware.
        bbox: West, south, east, north in degrees that the footprint's bounds must touch; west > east crosses
            the antimeridian.
    """

    sensors: Sequence[str] | None = None
    gsd: tuple[float, float] | None = None
    time: tuple[datetime, datetime] | None = None
    bbox: tuple[float, float, float, float] | None = None

    def mask(self, rows: pa.Table) -> NDArray[np.bool_] | None:
        """[N] bool of the rows that pass, or None if all do because nothing is asked."""
        parts: list[Any] = []
        if self.sensors is not None:
            parts.append(pc.is_in(rows["sensor"], value_set=pa.array(list(self.sensors), pa.string())))
        if self.gsd is not None:
            low, high = self.gsd
            # A GSD computed from a transform is a hair off its nominal value: 10 m must find 9.9999999.
            parts.append(pc.and_(pc.greater_equal(rows["gsd"], low * (1 - 1e-6)),
                                 pc.less_equal(rows["gsd"], high * (1 + 1e-6))))  # fmt: skip
        if self.time is not None:
            first, last = (pa.scalar(moment, pa.timestamp("us", tz="UTC")) for moment in self.time)
            parts.append(pc.and_(pc.greater_equal(rows["datetime"], first),
                                 pc.less_equal(rows["datetime"], last)))  # fmt: skip
        masks = [np.asarray(pc.fill_null(part, False).to_numpy(), dtype=np.bool_) for part in parts]
        if self.bbox is not None:
            masks.append(boxes_overlap(_boxes(rows["bbox"]), self.bbox))
        return np.logical_and.reduce(masks) if masks else None


def _boxes(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """bbox structs as [N, 4] xmin, ymin, xmax, ymax; NaN where null."""
    corners = [
        pc.struct_field(column, name).to_numpy(zero_copy_only=False)
        for name in ("xmin", "ymin", "xmax", "ymax")
    ]
    return np.stack(corners, axis=1).astype(np.float64)


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


@dataclass(frozen=True, slots=True)
class Answer:
    """One chip that was found, and how near it is."""

    rank: int
    score: float  # cosine, -1 to 1
    id: str
    source: str
    window: Window
    sensor: str
    gsd: float
    datetime: datetime | None
    bbox: tuple[float, float, float, float] | None
    geometry: bytes | None = field(repr=False)  # WKB, OGC:CRS84
    valid_fraction: float = 1.0
    label: str | None = None
    files: tuple[str, ...] | None = None  # one a band, where the source is not one file


@dataclass(frozen=True, slots=True)
class Answers(Sequence[Answer]):
    """Answers, best first; a sequence of `Answer`.

    Attributes:
        items: The answers.
        asked: The k of the query.
        candidates: Chips that passed the filter and the exclusions.
        total: Chips in the archive.
        version: Version of the archive that answered.
    """

    items: tuple[Answer, ...]
    asked: int
    candidates: int
    total: int
    version: int

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    @property
    def shortfall(self) -> str | None:
        """Why there are fewer answers than asked for, or None if there are enough."""
        if len(self.items) >= self.asked:
            return None
        if not self.total:
            return f"0 of {self.asked} answers: the archive is empty"
        reason = (
            f"the archive holds only {self.total:,} chips"
            if self.candidates == self.total
            else f"{self.candidates:,} of {self.total:,} chips pass the filters and exclusions"
        )
        return f"{len(self.items)} of {self.asked} answers: {reason}"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from html import escape

        head = "".join(f"<th>{name}</th>" for name in ("score", "sensor", "gsd", "date", "source"))
        lines = "".join(
            f"<tr><td>{found.score:.3f}</td><td>{escape(found.sensor)}</td><td>{found.gsd:.3g}</td>"
            f"<td>{found.datetime.date() if found.datetime else ''}</td><td>{escape(found.source)}</td></tr>"
            for found in self.items
        )
        return f"<table><tr>{head}</tr>{lines}</table>"


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """One version of the archive in memory."""

    version: int
    rows: pa.Table  # the small columns, in the index's order
    index: ExactIndex


class Searcher:
    """Answers queries over one archive; keeps its vectors in memory (4 D bytes a chip)."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._snapshot: _Snapshot | None = None

    def search(
        self,
        vector: Any,
        k: int = 10,
        *,
        where: Filter | None = None,
        exclude_ids: Sequence[str] = (),
        exclude_sources: Sequence[str] = (),
    ) -> Answers:
        """The `k` chips nearest to `vector`.

        Args:
            vector: [D] raw embedding by the archive's model.
            k: How many answers, at least 1; there may be fewer (see `Answers.shortfall`).
            where: Only chips that pass.
            exclude_ids: Chips that must not answer.
            exclude_sources: Files whose chips must not answer.

        Raises:
            ArchiveError: A vector of another size, not finite or zero; k below 1; a damaged archive.
        """
        if k < 1:
            raise ArchiveError(f"k is {k}; ask for at least 1 answer")
        query = self._normalised(vector)
        snapshot = self._current()
        allowed = where.mask(snapshot.rows) if where else None
        for column, values in (("id", exclude_ids), ("source", exclude_sources)):
            if values:
                found = pc.is_in(snapshot.rows[column], value_set=pa.array(list(values), pa.string()))
                kept = ~found.to_numpy()
                allowed = kept if allowed is None else allowed & kept
        scores, positions = snapshot.index.neighbours(query, k, allowed)
        found_rows = snapshot.rows.take(pa.array(positions)).to_pylist()
        return Answers(
            items=tuple(
                _answer(rank, float(score), row)
                for rank, (score, row) in enumerate(zip(scores, found_rows, strict=True), start=1)
            ),
            asked=k,
            candidates=int(allowed.sum()) if allowed is not None else snapshot.rows.num_rows,
            total=snapshot.rows.num_rows,
            version=snapshot.version,
        )

    def find(self, name: str) -> Answer | None:
        """The chip with this id, or the only one whose id begins with `name`; score 1, rank 0.

        Raises:
            ArchiveError: Several ids begin with `name`.
        """
        rows = self._current().rows
        matches = rows.filter(pc.equal(rows["id"], name))
        if not matches.num_rows and len(name) >= SHORTEST_PREFIX:
            matches = rows.filter(pc.starts_with(rows["id"], name))
        if matches.num_rows > 1:
            some = ", ".join(matches["id"][:3].to_pylist())
            raise ArchiveError(f"{name!r} begins {matches.num_rows} ids ({some}, ...); give more characters")
        return _answer(0, 1.0, matches.to_pylist()[0]) if matches.num_rows else None

    def vector(self, name: str) -> NDArray[np.float32]:
        """The normalised vector [D] of the chip with the full id `name`."""
        snapshot = self._current()
        position = pc.index(snapshot.rows["id"], name).as_py()
        if position < 0:
            raise ArchiveError(f"{self.archive.path}: has no chip {name}")
        found: NDArray[np.float32] = snapshot.index.vectors[position]
        return found

    def preprocessings(self, sensor: str | None = None) -> list[str]:
        """The distinct `preprocessing` values (of a sensor's chips), the most frequent first."""
        rows = self._current().rows
        if sensor is not None:
            rows = rows.filter(pc.equal(rows["sensor"], sensor))
        counted = pc.value_counts(rows["preprocessing"]).to_pylist()
        return [entry["values"] for entry in sorted(counted, key=lambda entry: -entry["counts"])]

    @property
    def in_metres(self) -> bool:
        """Whether GSDs are metres per pixel; False where they are ratios, by a model of relative scale."""
        return not any('"gsd"' in described for described in self.preprocessings())

    def _normalised(self, vector: Any) -> NDArray[np.float32]:
        """`vector` (array or tensor) as a unit vector [D], checked."""
        query = np.asarray(vector, dtype=np.float32)
        if query.ndim == 2 and len(query) == 1:
            query = query[0]
        if query.shape != (self.archive.dimensions,):
            raise ArchiveError(
                f"{self.archive.path}: holds embeddings of {self.archive.dimensions} numbers, the query has "
                f"shape {list(query.shape)}"
            )
        length = float(np.linalg.norm(query))
        if not np.isfinite(length) or length == 0:
            raise ArchiveError(
                "the query's embedding is zero or not finite, so it has no direction to compare"
            )
        return query / np.float32(length)

    def _current(self) -> _Snapshot:
        """The newest version in memory; read again only if the archive has changed."""
        version = self.archive.version
        if self._snapshot is None or self._snapshot.version != version:
            self._snapshot = _read(self.archive.at(version), version)
        return self._snapshot


def _read(archive: Archive, version: int) -> _Snapshot:
    """Vectors and small columns of a pinned version, in one scan so that their orders agree."""
    count = archive.count()
    vectors = np.empty((count, archive.dimensions), dtype=np.float32)
    parts, done = [], 0
    for batch in archive.batches([*_COLUMNS, "embedding"]):
        flat = pc.list_flatten(batch.column("embedding")).to_numpy(zero_copy_only=False)
        vectors[done : done + batch.num_rows] = flat.reshape(batch.num_rows, archive.dimensions)
        parts.append(batch.select(list(_COLUMNS)))
        done += batch.num_rows
    if done != count:
        raise ArchiveError(f"{archive.path}: is damaged: it lists {count} chips, {done} could be read")
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    np.divide(vectors, lengths, out=vectors, where=lengths > 0)  # a zero vector stays zero: its cosine is 0
    rows = pa.Table.from_batches(parts) if parts else archive.rows(_COLUMNS)
    return _Snapshot(version, rows.combine_chunks(), ExactIndex(vectors))


def _answer(rank: int, score: float, row: dict[str, Any]) -> Answer:
    box = row["bbox"]
    return Answer(
        rank=rank,
        score=score,
        id=row["id"],
        source=row["source"],
        window=Window(**row["window"]),
        sensor=row["sensor"],
        gsd=row["gsd"],
        datetime=row["datetime"],
        bbox=(box["xmin"], box["ymin"], box["xmax"], box["ymax"]) if box else None,
        geometry=row["geometry"],
        valid_fraction=row["valid_fraction"],
        label=row["label"],
        files=tuple(row["files"]) if row["files"] else None,
    )
