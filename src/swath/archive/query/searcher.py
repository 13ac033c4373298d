"""Search by example: the chips of an archive nearest to a vector, or to several, by cosine.

A search first asks the table for its version (a look at one small file), so that answers are never older than
the last commit; what is read of a version stays in memory (or memory-mapped) until the next.

How neighbors are found is behind `Index`; filters arrive there as a mask of allowed rows, so that every
index filters before it ranks and never after.

In an archive of several sensors vectors are *centered*: less the mean of their own sensor's chips, the query
too. What is constant in a sensor would rank its own chips first, however alike the places are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from swath.archive.index.columns import ChipColumns
from swath.archive.index.files import FEWEST_INDEXED, open_index
from swath.archive.index.protocol import ExactIndex, Index
from swath.archive.index.snapshot import ArchiveSnapshot, read_snapshot
from swath.archive.index.vectors import Floats, SimilaritySpace
from swath.archive.query.diversity import LocationGroups, diversify
from swath.archive.query.filters import Filter, intersects
from swath.archive.query.options import SearchOptions, merge_options
from swath.archive.query.relevance_feedback import FeedbackExample, RelevanceFeedback, query_vector
from swath.archive.query.results import SearchResult, SearchResults, results_from_rows
from swath.archive.table.sensor_means import FEWEST_TO_CENTER
from swath.errors import ChipNotFound, InvalidQuery, suggest
from swath.geo.areas import boxes_intersecting, overlap_fractions

if TYPE_CHECKING:
    from swath.archive.table.store import ArchiveTable

SHORTEST_PREFIX = 6  # characters of a chip id that may stand for the whole
MOST_ANSWERS = 10_000  # of one search; more is an export
_SPELLED = {"s1": "sentinel1", "s2": "sentinel2"}
_LEARNED_EFFORT = 4.0  # cells for a direction made of several examples, which is like no single chip
_CANDIDATES, _MOST_CANDIDATES = 10, 20_000  # looked at for each varied answer at first; at most in all


class Searcher:
    """Answers queries over one archive; see `Archive.search`, which makes and keeps one."""

    def __init__(self, archive: ArchiveTable) -> None:
        self.archive = archive
        self._snapshot: ArchiveSnapshot | None = None

    def search(
        self,
        query: Any,
        k: int = 10,
        options: SearchOptions | None = None,
        *,
        query_sensor: str | None = None,
        exclude_ids: Sequence[str] = (),
        exclude_sources: Sequence[str] = (),
        exclude_footprint: bytes | None = None,
        **named: Any,
    ) -> SearchResults:
        """The `k` chips nearest to `query`.

        Args:
            query: [D] raw embedding by the archive's model, or `RelevanceFeedback` of several.
            k: Number of results, 1 to 10,000; there may be fewer (see `SearchResults.shortfall`).
            options: See `SearchOptions`; its `exclude_self` and `exclude_location` are up to `Query.search`.
            query_sensor: Sensor of the query; needed for centering (examples have their own).
            exclude_ids: Ids of chips to omit.
            exclude_sources: Files whose chips to omit.
            exclude_footprint: WKB polygon in longitude and latitude: omit chips that share at least
                `exclude_overlap` of the smaller footprint with it.
            named: Fields of `SearchOptions`, in place of those in `options`.

        Raises:
            ArchiveError: A vector of another size, not finite or zero; k out of range; a sensor that the
                archive does not hold; `center` without a mean of the query's sensor; a malformed filter;
                examples that cancel each other; a damaged archive.
        """
        options = merge_options(options, named)
        if not 1 <= k <= MOST_ANSWERS:
            raise InvalidQuery(
                f"k is {k}; request at least 1 result"
                if k < 1
                else f"k is {k:,}; request at most {MOST_ANSWERS:,} results, or export the archive"
            )
        snapshot = self.snapshot()
        examples = (
            query
            if isinstance(query, RelevanceFeedback)
            else RelevanceFeedback([FeedbackExample(query, query_sensor)])
        )
        centering, note = self._centering(snapshot, examples, options.center)
        notes = [note] if note else []
        requested = self._direction(snapshot, examples, centering)
        allowed = self._allowed(snapshot, options.filter, options.sensor)
        if exclude_footprint is not None:
            other, unplaced = self._elsewhere(snapshot, exclude_footprint, options.exclude_overlap)
            allowed = other if allowed is None else allowed & other
            if unplaced:
                notes.append(
                    f"{unplaced:,} chips have no footprint; whether they show the query's location is unknown"
                )
        for column, values in (("id", exclude_ids), ("source", exclude_sources)):
            if values:
                found = self._isin(snapshot.chips, column, values)
                allowed = ~found if allowed is None else allowed & ~found
        candidates = int(allowed.sum()) if allowed is not None else snapshot.count
        index = snapshot.index(centering)
        effort = 1.0 if len(examples.like) == 1 and not examples.unlike else _LEARNED_EFFORT
        if isinstance(index, ExactIndex) and snapshot.count >= FEWEST_INDEXED:
            notes.append(
                f"all {snapshot.count:,} vectors were compared; run `swath archive index` to speed this up"
            )
        varied = options.diverse or options.group_by_location
        if varied and candidates:
            items, more = self._varied(
                snapshot,
                index,
                requested,
                k,
                allowed,
                candidates,
                centering,
                options,
                effort,
            )
            notes += more
        else:
            scores, rows = index.neighbors(requested, k, allowed, effort=effort)
            items = results_from_rows(snapshot.chips, rows, scores)
        return SearchResults(
            items=tuple(items),
            k=k,
            candidates=candidates,
            total=snapshot.count,
            version=snapshot.version,
            centered=centering,
            diversified=varied,
            notes=tuple(notes),
        )

    def chips(self) -> ChipColumns:
        """The small columns of the newest version."""
        return self.snapshot().listed

    def rows_at(self, area: Any) -> list[SearchResult]:
        """The chips of a place: those that lie in `area` with half of themselves, else those that touch it.

        Args:
            area: shapely geometry within +-180 degrees: a point, or from `area_of`.

        Returns:
            Chips with score 1 and rank 0, in the archive's order; none where there is no footprint.
        """
        chips = self.chips()
        inside = (
            intersects(chips, area, min_overlap=0.5)
            if area.area > 0
            else np.zeros(len(chips), dtype=np.bool_)
        )
        if not inside.any():
            inside = intersects(chips, area)
        rows = np.flatnonzero(inside)
        return [
            replace(found, rank=0) for found in results_from_rows(chips, rows, np.ones(len(rows), np.float32))
        ]

    def sensor_names(self, sensor: str | Sequence[str]) -> list[str]:
        """Names of sensors as the archive has them.

        Args:
            sensor: One or several: a name, the beginning of one that begins no other ("sentinel2"), or "s1"
                and "s2" for Sentinel-1 and Sentinel-2.

        Raises:
            ArchiveError: The archive holds no chip of it, or of several that begin so.
        """
        held = sorted(self.snapshot().means)
        found = []
        for name in [sensor] if isinstance(sensor, str) else sensor:
            spelled = _SPELLED.get(name.lower(), name)
            matches = [spelled] if spelled in held else [full for full in held if full.startswith(spelled)]
            if len(matches) > 1:
                raise InvalidQuery(f"{name!r} begins the sensors {', '.join(matches)}; give more of the name")
            if not matches:
                raise InvalidQuery(
                    f"{self.archive.path}: holds no chip of sensor {name!r}."
                    f"{suggest(name, held) if held else ' It is empty.'}"
                )
            found += matches
        return found

    def find(self, name: str) -> SearchResult | None:
        """The chip with this id, or the only one whose id begins with `name`; score 1, rank 0.

        Raises:
            ArchiveError: Several ids begin with `name`.
        """
        chips = self.chips()
        ids = chips.column("id")
        if ids is None:
            return None
        rows = np.flatnonzero(pc.equal(ids, name).to_numpy())
        if not len(rows) and len(name) >= SHORTEST_PREFIX:
            rows = np.flatnonzero(pc.starts_with(ids, name).to_numpy())
        if len(rows) > 1:
            some = ", ".join(ids.take(pa.array(rows[:3])).to_pylist())
            raise InvalidQuery(f"{name!r} begins {len(rows)} ids ({some}, ...); give more characters")
        if not len(rows):
            return None
        return replace(results_from_rows(chips, rows, np.ones(1, np.float32))[0], rank=0)

    def vector(self, name: str) -> Floats:
        """The embedding [D] of the chip with the full id `name`, as the model gave it (to rounding)."""
        return np.asarray(self.vectors([name])[0])

    def vectors(self, names: Sequence[str]) -> Floats:
        """[n, D] embeddings of the chips with these full ids, as the model gave them (to rounding).

        Raises:
            ArchiveError: There is no such chip.
        """
        snapshot = self.snapshot()
        ids = snapshot.chips.column("id")
        places = np.full(len(names), -1, dtype=np.int64)
        if ids is not None and len(names):
            found = pc.is_in(ids, value_set=pa.array(list(names), pa.string())).to_numpy()
            rows = np.flatnonzero(found if snapshot.alive is None else found & snapshot.alive)
            numbers = dict(zip(ids.take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True))
            places = np.array([numbers.get(name, -1) for name in names], dtype=np.int64)
        if (places < 0).any():
            raise ChipNotFound(f"{self.archive.path}: has no chip {names[int(np.argmax(places < 0))]}")
        return snapshot.vectors.raw(places)

    def preprocessings(self, sensor: str | None = None) -> list[str]:
        """The distinct `preprocessing` values (of a sensor's chips), the most frequent first."""
        chips = self.chips()
        found = chips.column("preprocessing")
        if found is None:
            return []
        if sensor is not None:
            number = chips.sensor_names.index(sensor) if sensor in chips.sensor_names else -1
            found = found.filter(pa.array(chips.sensors == number))
        counted = pc.value_counts(found).to_pylist() if len(found) else []
        return [entry["values"] for entry in sorted(counted, key=lambda entry: -entry["counts"])]

    @property
    def in_metres(self) -> bool:
        """Whether GSDs are metres per pixel; False where they are ratios, by a model of relative scale."""
        return not any('"gsd"' in described for described in self.preprocessings())

    # --- how a query becomes a direction --------------------------------------------------------------------

    def _centering(
        self, snapshot: ArchiveSnapshot, examples: RelevanceFeedback, center: bool | None
    ) -> tuple[bool, str | None]:
        """Whether to center, and a note on it."""
        means = snapshot.means
        if center is False or (center is None and len(means) < 2):
            several = len(means) > 1
            return (
                False,
                "not centered, as requested; sensors may rank their own chips first" if several else None,
            )
        held = ", ".join(f"{name} ({part.count:,} chips)" for name, part in sorted(means.items()))
        asking = {example.sensor for example in (*examples.like, *examples.unlike)}
        unknown = sorted(name for name in asking if name is not None and name not in means)
        reason = None
        if None in asking:
            reason = "the query's sensor is unknown (give query_sensor)"
        elif unknown:
            reason = f"the archive holds no chip of the query's sensor {unknown[0]}, so it has no mean of it"
        elif center is None and min(part.count for part in means.values()) < FEWEST_TO_CENTER:
            reason = f"fewer than {FEWEST_TO_CENTER} chips of a sensor ({held})"
        if reason is None:
            return True, f"centered: less the mean of each sensor: {held}"
        if center:
            raise InvalidQuery(f"{self.archive.path}: cannot center: {reason}; search without centering")
        return False, f"not centered: {reason}; sensors may rank their own chips first"

    def _direction(self, snapshot: ArchiveSnapshot, examples: RelevanceFeedback, centering: bool) -> Floats:
        """[D] at length 1, in the space that is searched."""
        like = self._compared(snapshot, examples.like, centering)
        if len(examples.like) == 1 and not examples.unlike and examples.method == "rocchio":
            return np.asarray(like[0])
        unlike = self._compared(snapshot, examples.unlike, centering)
        sample = None if examples.method == "rocchio" else snapshot.sample(centering)
        return query_vector(like, unlike, sample, examples.method)

    def _compared(
        self, snapshot: ArchiveSnapshot, examples: Sequence[FeedbackExample], centering: bool
    ) -> Floats:
        """[n, D] examples as the space compares them, at length 1."""
        space = snapshot.space(centering)
        found = np.empty((len(examples), self.archive.dimensions), dtype=np.float32)
        for place, example in enumerate(examples):
            found[place] = space.of(self._checked(example.vector), snapshot.sensor_number(example.sensor))
            length = float(np.linalg.norm(found[place]))
            if not np.isfinite(length) or length == 0:
                raise InvalidQuery(
                    "the query's embedding is zero or not finite, so it has no direction to compare"
                )
        return found

    def _checked(self, vector: Any) -> Floats:
        """`vector` (array or tensor) as [D] float32."""
        query = np.asarray(vector, dtype=np.float32)
        if query.ndim == 2 and len(query) == 1:
            query = query[0]
        if query.shape != (self.archive.dimensions,):
            raise InvalidQuery(
                f"{self.archive.path}: holds embeddings of {self.archive.dimensions} numbers, the query has "
                f"shape {list(query.shape)}"
            )
        return query

    # --- which chips are results ----------------------------------------------------------------------------

    def _allowed(
        self, snapshot: ArchiveSnapshot, filter: Filter | None, sensor: str | Sequence[str] | None
    ) -> NDArray[np.bool_] | None:
        """[N] bool of the chips that can be results; None for all."""
        allowed = filter.mask(snapshot.chips) if filter else None
        if snapshot.alive is not None:
            allowed = snapshot.alive if allowed is None else allowed & snapshot.alive
        if sensor is not None:
            kept = Filter(sensors=self.sensor_names(sensor)).mask(snapshot.chips)
            assert kept is not None
            allowed = kept if allowed is None else allowed & kept
        return allowed

    def _isin(self, chips: ChipColumns, column: str, values: Sequence[str]) -> NDArray[np.bool_]:
        """[N] bool, which chips have one of `values` in a column."""
        found = chips.column(column)
        if found is None:
            return np.zeros(0, dtype=np.bool_)
        known: NDArray[np.bool_] = pc.is_in(found, value_set=pa.array(list(values), pa.string())).to_numpy()
        return known

    def _elsewhere(
        self, snapshot: ArchiveSnapshot, footprint: bytes, overlap: float
    ) -> tuple[NDArray[np.bool_], int]:
        """[N] bool, which chips do not show the ground of `footprint`, and how many cannot be judged."""
        if not 0 < overlap <= 1:
            raise InvalidQuery(f"exclude_overlap is {overlap:g}; it must be above 0 and at most 1")
        from shapely import from_wkb

        chips = snapshot.chips
        near = np.flatnonzero(boxes_intersecting(chips.boxes, from_wkb(footprint)))
        elsewhere = np.ones(len(chips), dtype=np.bool_)
        table = chips.take(near)
        if table is not None:
            fractions = overlap_fractions(table["geometry"].to_pylist(), chips.boxes[near], footprint)
            # A hair below: footprints come through trigonometry; the whole of a chip must count as the whole.
            elsewhere[near] = fractions < overlap * (1 - 1e-6)
        return elsewhere, int((~snapshot.listed.placed).sum())

    def _varied(
        self,
        snapshot: ArchiveSnapshot,
        index: Index,
        query: Floats,
        k: int,
        allowed: NDArray[np.bool_] | None,
        candidates: int,
        centering: bool,
        options: SearchOptions,
        effort: float,
    ) -> tuple[list[SearchResult], list[str]]:
        """At most `k` diverse results, from as many candidates as needed, and notes on them."""
        look = max(100, _CANDIDATES * k)
        while True:
            look = min(look, candidates, _MOST_CANDIDATES)
            scores, rows = index.neighbors(query, look, allowed, effort=effort)
            vectors = partial(_taken, snapshot.space(centering), rows)
            groups = LocationGroups(snapshot.chips, rows)
            kept, joined = diversify(
                groups,
                scores,
                vectors,
                k,
                diverse=options.diverse,
                group_by_location=options.group_by_location,
            )
            if len(kept) == k or look in (candidates, _MOST_CANDIDATES):
                break
            look *= 4
        results = results_from_rows(snapshot.chips, rows[kept], scores[kept])
        notes = []
        if options.group_by_location:
            for number, places in enumerate(joined):
                others = results_from_rows(snapshot.chips, rows[places], scores[places])
                results[number] = replace(results[number], others=tuple(others))
            notes.append(f"one result per location, with its other chips among the best {len(rows):,}")
        if options.diverse:
            notes.append(f"one result per field, preferring less similar ones among the best {len(rows):,}")
        return results, notes

    def snapshot(self) -> ArchiveSnapshot:
        """The newest version; read again only if the archive has changed."""
        version = self.archive.version
        if self._snapshot is None or self._snapshot.version != version:
            self._snapshot = read_snapshot(self.archive.at(version), version, open_index(self.archive))
        return self._snapshot


def _taken(space: SimilaritySpace, rows: NDArray[np.int64], some: NDArray[np.int64]) -> Floats:
    """Vectors of some candidates, by their place among `rows`."""
    return space.take(rows[some])


def searcher_of(archive: ArchiveTable) -> Searcher:
    """The searcher of an open archive, made once and renewed when the archive has changed."""
    if archive.search_state is None:
        archive.search_state = Searcher(archive)
    searcher: Searcher = archive.search_state
    return searcher
