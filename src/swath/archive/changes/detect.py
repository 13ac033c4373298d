"""What changed most between two dates: places whose embeddings differ more than those around them.

Two looks at one place never have the same embedding: season, light and sensor state move all of them. So a
distance alone says little, and two calibrations stand between it and a score:

1. What all places of a pair of dates share is taken out: embeddings are compared less the mean of their own
   date, as sensors are compared less theirs.
2. The score says by how many (robust) standard deviations a place's distance lies above the median of its
   neighbors at the same pair of dates, so that a season that moves all fields does not hide a new road.

A place is a pair of chips of one sensor and about one scale, before and after, whose footprints share most of
their ground. Where a period has several dates, the pair that differs least counts: what changed for good
differs at every date, a cloud at one.

Legend: P pairs, D numbers in an embedding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swath.archive.index.columns import ChipColumns
from swath.archive.index.vectors import Floats, normalize_rows
from swath.archive.query.filters import Filter
from swath.archive.query.results import SearchResult, results_from_rows
from swath.archive.query.searcher import searcher_of
from swath.errors import ChipNotFound, InvalidQuery
from swath.files import write_json
from swath.geo.footprint import to_geojson_geometry
from swath.reporting.notebook import NotebookRepr

if TYPE_CHECKING:
    from swath.archive.table.store import ArchiveTable

Period = tuple[datetime, datetime]

SAME_GROUND = 0.6  # of the larger footprint, shared by the two chips of a pair
SAME_SCALE = 1.5  # their GSDs differ by no more than this factor
FEWEST_TOGETHER = 20  # pairs from which a mean and a spread say something
NEIGHBORS = 60  # pairs around a place that say what is usual there
_MOST_PAIRS = 2_000_000
_SPREAD = 1.4826  # of the median absolute deviation, to be a standard deviation of normal numbers


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """One place before and after.

    Attributes:
        rank: 1 for the largest score.
        score: Standard deviations above what is usual around the place between the two dates.
        distance: 1 - cosine of the two embeddings, each less the mean of its date; 0 to 2.
        before, after: The chips.
    """

    rank: int
    score: float
    distance: float
    before: SearchResult
    after: SearchResult


@dataclass(frozen=True, slots=True)
class ChangeResults(NotebookRepr, Sequence[ChangeResult]):
    """Places by how much they changed, most first; a sequence of `Change`.

    Attributes:
        items: The places asked for.
        pairs: Places that could be compared.
        version: Of the archive.
        boxes: [P, 4] west, south, east, north of all places compared (west > east crosses the antimeridian).
        scores: [P] their scores.
        notes: What a reader should know.
    """

    items: tuple[ChangeResult, ...]
    pairs: int
    version: int
    boxes: NDArray[np.float64]
    scores: Floats
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]


def find_changes(
    archive: ArchiveTable,
    before: Period,
    after: Period,
    *,
    k: int | None = 20,
    filter: Filter | None = None,
    sensor: str | Sequence[str] | None = None,
) -> ChangeResults:
    """The places of an archive that changed most between two periods.

    Args:
        archive: Chips with footprints and times.
        before: First and last time of the earlier period, both included.
        after: The same of the later one.
        k: How many places; None for all.
        filter: Only chips that pass (its time is not used).
        sensor: Only chips of this sensor, or of these.

    Raises:
        ArchiveError: Periods that overlap or are turned round, or no place that both show.
    """
    if not before[0] <= before[1] < after[0] <= after[1]:
        raise InvalidQuery("the first period has to end before the second begins, and both to go forward")
    if k is not None and k < 1:
        raise InvalidQuery(f"k is {k}; ask for at least 1 place")
    searcher = searcher_of(archive)
    snapshot = searcher.snapshot()
    chips, vectors = snapshot.chips, snapshot.vectors
    names = searcher.sensor_names(sensor) if sensor is not None else None
    rows = []
    for period in (before, after):
        asked = replace(filter or Filter(), datetime=period)
        mask = asked.mask(chips)
        assert mask is not None
        mask = mask & chips.placed & (True if snapshot.alive is None else snapshot.alive)
        if names is not None:
            mask &= np.isin(chips.sensors, [chips.sensor_names.index(name) for name in names])
        rows.append(np.flatnonzero(mask))
    first, second = match_pairs(chips, *rows)
    if not len(first):
        raise ChipNotFound(
            f"{archive.path}: no place is shown both {_words(before)} ({len(rows[0]):,} chips) and "
            f"{_words(after)} ({len(rows[1]):,} chips) by one sensor at one scale, with footprint and time"
        )
    dates = _date_pairs(chips, first, second)
    distances = embedding_distances(vectors.raw(first), vectors.raw(second), dates)
    first, second, distances = _least_of_place(first, second, distances)
    scores = robust_z_scores(distances, _middles(chips.boxes[second]), _date_pairs(chips, first, second))
    order = np.lexsort((second, -scores))
    first, second, distances, scores = first[order], second[order], distances[order], scores[order]
    shown = slice(None if k is None else k)
    olds, news = (results_from_rows(chips, part[shown], scores[shown]) for part in (first, second))
    items = tuple(
        ChangeResult(rank, float(score), float(distance), old, new)
        for rank, (score, distance, old, new) in enumerate(
            zip(scores[shown], distances[shown], olds, news, strict=True), start=1
        )
    )
    notes = [f"{len(first):,} places are shown at both times"]
    if len(first) < FEWEST_TOGETHER:
        notes.append(
            f"fewer than {FEWEST_TOGETHER} places: scores are plain distances, with nothing to calibrate by"
        )
    return ChangeResults(items, len(first), snapshot.version, chips.boxes[second], scores, tuple(notes))


def write_changes(path: str | os.PathLike[str], changes: ChangeResults) -> None:
    """Write the places as a GeoJSON FeatureCollection, atomically: footprints after, most changed first."""
    features = [
        {
            "type": "Feature",
            "geometry": to_geojson_geometry(change.after.geometry),
            "properties": {
                "rank": change.rank,
                "score": round(change.score, 4),
                "distance": round(change.distance, 6),
                "sensor": change.after.sensor,
                "gsd": change.after.gsd,
                **{
                    f"{name}_{key}": value
                    for name, chip in (("before", change.before), ("after", change.after))
                    for key, value in (
                        ("id", chip.id),
                        ("time", chip.datetime.isoformat() if chip.datetime else None),
                        ("source", chip.source),
                    )
                },
            },
        }
        for change in changes
    ]
    write_json(path, {"type": "FeatureCollection", "features": features, "notes": list(changes.notes)})


def match_pairs(
    chips: ChipColumns, before: NDArray[np.int64], after: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of rows that show the same ground by one sensor at about one scale.

    Args:
        chips: Of the archive.
        before: Rows of the earlier period, with footprints.
        after: Rows of the later one.

    Returns:
        [P] rows before, [P] rows after.
    """
    import shapely

    if not len(before) or not len(after):
        return before[:0], after[:0]
    olds, news = (_shapes(chips, rows) for rows in (before, after))
    # Footprints that touch at all are found by a tree; how much they share is then asked of these alone.
    new, old = shapely.STRtree(olds).query(news, predicate="intersects")
    alike = chips.sensors[before[old]] == chips.sensors[after[new]]
    ratio = chips.gsd[before[old]] / chips.gsd[after[new]]
    alike &= (ratio < SAME_SCALE) & (ratio > 1 / SAME_SCALE)
    new, old = new[alike], old[alike]
    if len(new) > _MOST_PAIRS:
        raise InvalidQuery(
            f"{len(new):,} pairs of chips overlap; narrow the periods or the area (at most {_MOST_PAIRS:,})"
        )
    common = shapely.area(shapely.intersection(olds[old], news[new]))
    # Square degrees: both lie at one latitude, so their ratio is that on the ground.
    larger = np.maximum(shapely.area(olds[old]), shapely.area(news[new]))
    share = common / np.maximum(larger, 1e-30)
    kept = share >= SAME_GROUND
    new, old, share = new[kept], old[kept], share[kept]
    # Of the chips of one date, the one that shares most; each date before is one look.
    times = chips.times[before[old]]
    order = np.lexsort((-share, times, new))
    new, old, times = new[order], old[order], times[order]
    best = np.ones(len(new), dtype=np.bool_)
    best[1:] = (new[1:] != new[:-1]) | (times[1:] != times[:-1])
    return before[old[best]], after[new[best]]


def embedding_distances(before: Floats, after: Floats, dates: NDArray[np.int64]) -> Floats:
    """[P] distances 1 - cosine between embeddings [P, D], less what all pairs of the same dates share.

    Args:
        before: Raw embeddings [P, D].
        after: The same of the later dates.
        dates: [P] which pair of dates each is of; where fewer than 20 are of one, all small ones together.
    """
    before, after = np.array(before, np.float32), np.array(after, np.float32)
    for part in (before, after):
        normalize_rows(part)
    for rows in _together(dates):
        if len(rows) >= FEWEST_TOGETHER:
            before[rows] -= before[rows].mean(0)
            after[rows] -= after[rows].mean(0)
    for part in (before, after):
        normalize_rows(part)
    return np.asarray(1 - np.einsum("pd,pd->p", before, after), dtype=np.float32)


def robust_z_scores(distances: Floats, middles: NDArray[np.float64], dates: NDArray[np.int64]) -> Floats:
    """[P] robust standard deviations above the median of the neighbors at the same pair of dates.

    Args:
        distances: [P].
        middles: [P, 3] on the unit sphere.
        dates: [P] which pair of dates each is of.
    """
    import faiss

    scores = distances.copy()
    for rows in _together(dates):
        if len(rows) < FEWEST_TOGETHER:
            continue
        around = min(NEIGHBORS + 1, len(rows))
        # Offsets from the group's middle: metres apart are lost in float32 on the unit sphere otherwise.
        places = np.ascontiguousarray(1e4 * (middles[rows] - middles[rows].mean(0)), dtype=np.float32)
        _, near = faiss.knn(places, places, around)
        usual = distances[rows][near]
        middle = np.median(usual, axis=1)
        spread = _SPREAD * np.median(np.abs(usual - middle[:, None]), axis=1)
        # Where all neighbors are the same (water, nodata) the spread of all pairs keeps scores finite.
        whole = _SPREAD * np.median(np.abs(distances[rows] - np.median(distances[rows])))
        scores[rows] = (distances[rows] - middle) / np.maximum(spread, max(0.25 * whole, 1e-6))
    return scores


def _together(dates: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of each pair of dates; those with too few pairs together."""
    _, numbers, counts = np.unique(dates, return_inverse=True, return_counts=True)
    few = counts[numbers] < FEWEST_TOGETHER
    groups = [np.flatnonzero(numbers == one) for one in np.flatnonzero(counts >= FEWEST_TOGETHER)]
    return [*groups, np.flatnonzero(few)] if few.any() else groups


def _date_pairs(chips: ChipColumns, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """[P] number of the pair of dates (days) and sensor that each pair of chips is of."""
    day = 86_400 * 1_000_000
    keys = np.stack([chips.times[first] // day, chips.times[second] // day, chips.sensors[second]], axis=1)
    return np.asarray(np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def _least_of_place(
    first: NDArray[np.int64], second: NDArray[np.int64], distances: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Of the pairs that share a chip, before or after, the one that differs least."""
    # Pairs that are linked through chips get the smallest of their numbers, link by link.
    place = np.arange(len(first))
    while True:
        linked = place.copy()
        for chips in (first, second):
            _, chip = np.unique(chips, return_inverse=True)
            smallest = np.full(int(chip.max()) + 1, len(first))
            np.minimum.at(smallest, chip, linked)
            linked = smallest[chip]
        if (linked == place).all():
            break
        place = linked
    order = np.lexsort((second, distances, place))
    kept = order[np.concatenate([[True], place[order][1:] != place[order][:-1]])]
    kept = np.sort(kept)
    return first[kept], second[kept], distances[kept]


def _shapes(chips: ChipColumns, rows: NDArray[np.int64]) -> Any:
    """[n] shapely geometries of chips; the box of those that have only that."""
    import shapely

    table = chips.take(rows)
    assert table is not None
    shapes = shapely.from_wkb(np.array(table["geometry"].to_pylist(), dtype=object))
    plain = shapely.is_missing(shapes)
    shapes[plain] = shapely.box(*chips.boxes[rows[plain]].T)
    return shapes


def _middles(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 3] middles of boxes [n, 4] on the unit sphere, where distances know no antimeridian and no pole."""
    east = np.radians(boxes[:, 0] + (boxes[:, 2] - boxes[:, 0]) % 360 / 2)
    north = np.radians((boxes[:, 1] + boxes[:, 3]) / 2)
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=1)


def _words(period: Period) -> str:
    return f"from {period[0]:%Y-%m-%d} to {period[1]:%Y-%m-%d}"
