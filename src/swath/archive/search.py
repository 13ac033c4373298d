"""Search by example: the chips of an archive nearest to a vector, by cosine.

Exact search is one product of the matrix of normalised vectors with the query. The matrix and the small
columns are read once a version of the table and kept in memory; a search first asks the table for its version
(a look at one small file), so that answers are never older than the last commit.

How neighbours are found is behind `Index`; filters arrive there as a mask of allowed rows, so that every
index filters before it ranks and never after.

In an archive of several sensors vectors are *centred*: less the mean of their own sensor's chips, the query
too. What is constant in a sensor would rank its own chips first, however alike the places are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from swath.archive.answers import Answer, Answers, answer_of
from swath.archive.index import ExactIndex, Index, normalise
from swath.archive.means import Means, centred, sums_of
from swath.archive.places import boxes_overlap, overlap_shares
from swath.errors import ArchiveError, suggest

if TYPE_CHECKING:
    from swath.archive.store import Archive

__all__ = ["Answer", "Answers", "ExactIndex", "Filter", "Index", "Searcher"]

SHORTEST_PREFIX = 6  # characters of a chip id that may stand for the whole
FEWEST_TO_CENTRE = 10  # chips of a sensor from which its mean says something about it
_SPELLED = {"s1": "sentinel1", "s2": "sentinel2"}
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


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """One version of the archive in memory."""

    version: int
    rows: pa.Table  # the small columns, in the index's order
    index: ExactIndex
    lengths: NDArray[np.float32]  # [N] of the raw vectors
    sensors: NDArray[Any]  # [N] names
    means: Means

    def raw(self) -> NDArray[np.float32]:
        """[N, D] vectors as the model gave them, to rounding."""
        return self.index.vectors * self.lengths[:, None]


class Searcher:
    """Answers queries over one archive.

    Keeps its vectors in memory: 4 D bytes a chip, and as much again once an archive of several sensors has
    been searched.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._snapshot: _Snapshot | None = None
        self._centred: tuple[int, ExactIndex] | None = None  # version, index

    def search(
        self,
        vector: Any,
        k: int = 10,
        *,
        where: Filter | None = None,
        sensor: str | Sequence[str] | None = None,
        query_sensor: str | None = None,
        centre: bool | None = None,
        exclude_ids: Sequence[str] = (),
        exclude_sources: Sequence[str] = (),
        exclude_footprint: bytes | None = None,
        exclude_share: float = 0.5,
    ) -> Answers:
        """The `k` chips nearest to `vector`.

        Args:
            vector: [D] raw embedding by the archive's model.
            k: How many answers, at least 1; there may be fewer (see `Answers.shortfall`).
            where: Only chips that pass.
            sensor: Only chips of this sensor, or of these (see `sensor_names`).
            query_sensor: What the query was taken with; needed for centring.
            centre: Compare vectors less the mean of their own sensor. None: where the archive holds several
                sensors with at least 10 chips each and the query's sensor is one of them; `Answers.notes` say
                how it was.
            exclude_ids: Chips that must not answer.
            exclude_sources: Files whose chips must not answer.
            exclude_footprint: WKB polygon in longitude and latitude: chips that show the same ground, such as
                the query's own in another sensor, must not answer.
            exclude_share: How much of the smaller of the two footprints must be shared for that.

        Raises:
            ArchiveError: A vector of another size, not finite or zero; k below 1; a sensor that the archive
                does not hold; `centre` without a mean of the query's sensor; a damaged archive.
        """
        if k < 1:
            raise ArchiveError(f"k is {k}; ask for at least 1 answer")
        snapshot = self._current()
        raw = self._checked(vector)
        centring, note = self._centring(snapshot, query_sensor, centre)
        notes = [note] if note else []
        index = self._index(snapshot, centring)
        if centring:
            assert query_sensor is not None
            raw = centred(raw[None], np.array([query_sensor]), snapshot.means)[0]
        query = self._normalised(raw)
        allowed = where.mask(snapshot.rows) if where else None
        if sensor is not None:
            kept = np.isin(snapshot.sensors, self.sensor_names(sensor))
            allowed = kept if allowed is None else allowed & kept
        if exclude_footprint is not None:
            other, unplaced = self._elsewhere(snapshot, exclude_footprint, exclude_share)
            allowed = other if allowed is None else allowed & other
            if unplaced:
                notes.append(
                    f"{unplaced:,} chips have no footprint; whether they show the query's place is unknown"
                )
        for column, values in (("id", exclude_ids), ("source", exclude_sources)):
            if values:
                found = pc.is_in(snapshot.rows[column], value_set=pa.array(list(values), pa.string()))
                kept = ~found.to_numpy()
                allowed = kept if allowed is None else allowed & kept
        scores, positions = index.neighbours(query, k, allowed)
        found_rows = snapshot.rows.take(pa.array(positions)).to_pylist()
        return Answers(
            items=tuple(
                answer_of(rank, float(score), row)
                for rank, (score, row) in enumerate(zip(scores, found_rows, strict=True), start=1)
            ),
            asked=k,
            candidates=int(allowed.sum()) if allowed is not None else snapshot.rows.num_rows,
            total=snapshot.rows.num_rows,
            version=snapshot.version,
            centred=centring,
            notes=tuple(notes),
        )

    def sensor_names(self, sensor: str | Sequence[str]) -> list[str]:
        """Names of sensors as the archive has them.

        Args:
            sensor: One or several: a name, the beginning of one that begins no other ("sentinel2"), or "s1"
                and "s2" for Sentinel-1 and Sentinel-2.

        Raises:
            ArchiveError: The archive holds no chip of it, or of several that begin so.
        """
        held = sorted(self._current().means)
        found = []
        for name in [sensor] if isinstance(sensor, str) else sensor:
            spelled = _SPELLED.get(name.lower(), name)
            matches = [spelled] if spelled in held else [full for full in held if full.startswith(spelled)]
            if len(matches) > 1:
                raise ArchiveError(f"{name!r} begins the sensors {', '.join(matches)}; give more of the name")
            if not matches:
                raise ArchiveError(
                    f"{self.archive.path}: holds no chip of sensor {name!r}."
                    f"{suggest(name, held) if held else ' It is empty.'}"
                )
            found += matches
        return found

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
        return answer_of(0, 1.0, matches.to_pylist()[0]) if matches.num_rows else None

    def vector(self, name: str) -> NDArray[np.float32]:
        """The embedding [D] of the chip with the full id `name`, as the model gave it (to rounding)."""
        snapshot = self._current()
        position = pc.index(snapshot.rows["id"], name).as_py()
        if position < 0:
            raise ArchiveError(f"{self.archive.path}: has no chip {name}")
        found: NDArray[np.float32] = snapshot.index.vectors[position] * snapshot.lengths[position]
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

    def _centring(
        self, snapshot: _Snapshot, query_sensor: str | None, centre: bool | None
    ) -> tuple[bool, str | None]:
        """Whether to centre, and what to say about it."""
        means = snapshot.means
        if centre is False or (centre is None and len(means) < 2):
            several = len(means) > 1
            return False, "not centred: as asked; sensors may rank their own chips first" if several else None
        held = ", ".join(f"{name} ({part.count:,} chips)" for name, part in sorted(means.items()))
        reason = None
        if query_sensor is None:
            reason = "the query's sensor is not stated (query_sensor)"
        elif query_sensor not in means:
            reason = (
                f"the archive holds no chip of the query's sensor {query_sensor}, so it has no mean of it"
            )
        elif centre is None and min(part.count for part in means.values()) < FEWEST_TO_CENTRE:
            reason = f"fewer than {FEWEST_TO_CENTRE} chips of a sensor ({held})"
        if reason is None:
            return True, f"centred: less the mean of each sensor: {held}"
        if centre:
            raise ArchiveError(f"{self.archive.path}: cannot centre: {reason}; search without centring")
        return False, f"not centred: {reason}; sensors may rank their own chips first"

    def _index(self, snapshot: _Snapshot, centring: bool) -> ExactIndex:
        """The index of the vectors as they are, or centred (made when first asked for)."""
        if not centring:
            return snapshot.index
        if self._centred is None or self._centred[0] != snapshot.version:
            vectors = centred(snapshot.raw(), snapshot.sensors, snapshot.means)
            normalise(vectors)
            self._centred = snapshot.version, ExactIndex(vectors)
        return self._centred[1]

    def _elsewhere(
        self, snapshot: _Snapshot, footprint: bytes, share: float
    ) -> tuple[NDArray[np.bool_], int]:
        """[N] bool, which chips do not show the ground of `footprint`, and how many cannot be judged."""
        if not 0 < share <= 1:
            raise ArchiveError(f"the share of the footprint is more than 0 and at most 1, not {share:g}")
        geometry = snapshot.rows["geometry"].combine_chunks()
        overlap = overlap_shares(geometry.to_pylist(), _boxes(snapshot.rows["bbox"]), footprint)
        # A hair below: footprints come through trigonometry, and the whole of a chip must count as the whole.
        return overlap < share * (1 - 1e-6), geometry.null_count

    def _checked(self, vector: Any) -> NDArray[np.float32]:
        """`vector` (array or tensor) as [D] float32."""
        query = np.asarray(vector, dtype=np.float32)
        if query.ndim == 2 and len(query) == 1:
            query = query[0]
        if query.shape != (self.archive.dimensions,):
            raise ArchiveError(
                f"{self.archive.path}: holds embeddings of {self.archive.dimensions} numbers, the query has "
                f"shape {list(query.shape)}"
            )
        return query

    def _normalised(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """A vector [D] at length 1."""
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
    rows = (pa.Table.from_batches(parts) if parts else archive.rows(_COLUMNS)).combine_chunks()
    means = archive.stored_means()
    if means is None:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), archive.dimensions)
        means = sums_of([pa.table({"sensor": rows["sensor"], "embedding": flat})], archive.dimensions)
    sensors = rows["sensor"].to_numpy(zero_copy_only=False).astype(str)
    lengths = normalise(vectors)
    return _Snapshot(version, rows, ExactIndex(vectors), lengths, sensors, means)
