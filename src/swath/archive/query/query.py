"""What is searched for: chips of the archive by id, by place, or by several examples.

`swath.archive.query.image_query` makes a query of an image file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from swath.archive.index.vectors import Floats
from swath.archive.query.options import SearchOptions, merge_options
from swath.archive.query.relevance_feedback import DEFAULT, FeedbackExample, Method, RelevanceFeedback
from swath.archive.query.results import SearchResult, SearchResults
from swath.archive.query.searcher import searcher_of
from swath.errors import ChipNotFound, InvalidQuery
from swath.geo.areas import parse_area

if TYPE_CHECKING:
    from swath.archive.table.store import ArchiveTable

MAX_EXAMPLES = 1_000  # chips of an area that are averaged; of more, a random sample of this size
_EARTH_KM = 6371.0


@dataclass(frozen=True, slots=True)
class Query:
    """What to search for, and what is needed to show it.

    Attributes:
        text: The query as given: a path, an id, a place.
        like: Embeddings to be near to, at least one, with their sensors.
        chips: Where their pixels are, in the form of results (rank 0, score 1; `id` is "" for an image file).
        unlike: Embeddings to be away from.
        avoided: Where their pixels are; they are never results.
        method: How several examples become one direction (see `swath.archive.query.relevance_feedback`).
    """

    text: str
    like: Sequence[FeedbackExample]
    chips: Sequence[SearchResult]
    unlike: Sequence[FeedbackExample] = ()
    avoided: Sequence[SearchResult] = ()
    method: Method = "rocchio"

    @property
    def chip(self) -> SearchResult:
        """The first chip of the query."""
        return self.chips[0]

    @property
    def vector(self) -> Floats:
        """[D] mean of the positive examples."""
        return np.asarray(np.mean([example.vector for example in self.like], axis=0), dtype=np.float32)

    def search(
        self,
        archive: ArchiveTable,
        k: int = 10,
        options: SearchOptions | None = None,
        **named: Any,
    ) -> SearchResults:
        """The `k` nearest chips of `archive`.

        Args:
            archive: To search.
            k: Number of results.
            options: See `SearchOptions`.
            named: Fields of `SearchOptions`, in place of those in `options`.

        Raises:
            ArchiveError: `exclude_location` for a query without footprint; see also `Searcher.search`.
        """
        options = merge_options(options, named)
        own = options.exclude_self
        return searcher_of(archive).search(
            RelevanceFeedback(self.like, self.unlike, self.method),
            k,
            options,
            exclude_footprint=self._footprint() if options.exclude_location else None,
            exclude_ids=[chip.id for chip in (*(self.chips if own else ()), *self.avoided) if chip.id],
            exclude_sources=[chip.source for chip in self.chips if own and not chip.id],
        )

    def _footprint(self) -> bytes:
        """The query's footprint, as WKB."""
        import shapely

        known = [chip.geometry for chip in self.chips if chip.geometry is not None]
        if len(known) < len(self.chips):
            raise InvalidQuery(
                f"{self.text}: has no footprint, so chips of its location cannot be excluded. Use "
                "--exclude-self, or a georeferenced query"
            )
        if len(known) == 1:
            return known[0]
        merged: bytes = shapely.to_wkb(shapely.union_all(shapely.from_wkb(np.array(known, dtype=object))))
        return merged


def query_by_id(archive: ArchiveTable, name: str) -> Query:
    """A chip of the archive, by its id or the beginning of it (at least 6 characters).

    Raises:
        ArchiveError: No such chip, or several.
    """
    return _of_chips(archive, name, [_chip(archive, name)])


def query_by_examples(
    archive: ArchiveTable, like: Sequence[str], unlike: Sequence[str] = (), *, method: Method | None = None
) -> Query:
    """Chips of the archive: more like these, less like those.

    Args:
        archive: It will be searched.
        like: Ids (or beginnings of ids), at least one.
        unlike: Ids to be away from; they are never results.
        method: How the examples become one direction (see `swath.archive.query.relevance_feedback`); by
            default the one that was measured best of several, and the chip itself of a single one.

    Raises:
        ArchiveError: No example, no such chip, or one that is both liked and not.
    """
    if not like:
        raise InvalidQuery("give at least one chip to search for; chips to avoid are not enough")
    chips = _distinct(_chip(archive, name) for name in like)
    avoided = _distinct(_chip(archive, name) for name in unlike)
    both = {chip.id for chip in chips} & {chip.id for chip in avoided}
    if both:
        raise InvalidQuery(f"chip {sorted(both)[0]} is both an example to search for and one to avoid")
    text = ", ".join(like) + (f"; not {', '.join(unlike)}" if unlike else "")
    single = len(chips) == 1 and not avoided
    return _of_chips(archive, text, chips, avoided, method or ("rocchio" if single else DEFAULT))


def query_by_place(archive: ArchiveTable, longitude: float, latitude: float) -> Query:
    """The chips of the archive that show a point, all dates, scales and sensors together (their mean).

    Raises:
        ArchiveError: The point is off the globe, or no chip shows it; the nearest is named then.
    """
    from shapely import MultiPoint, Point

    if not (abs(longitude) <= 540 and abs(latitude) <= 90):
        raise InvalidQuery(
            f"a place is a longitude and a latitude in degrees, not {longitude:g}, {latitude:g}"
        )
    longitude = (longitude + 180) % 360 - 180
    here = Point(longitude, latitude)
    if longitude == -180:  # and 180, where other footprints end
        here = MultiPoint([(-180, latitude), (180, latitude)])
    chips = searcher_of(archive).rows_at(here)
    text = f"{longitude:.5f}, {latitude:.5f}"
    if not chips:
        raise ChipNotFound(f"{archive.path}: no chip shows {text}{_nearest(archive, longitude, latitude)}")
    return _of_chips(archive, text, chips)


def query_by_area(archive: ArchiveTable, area: Any) -> Query:
    """The chips of an area together (their mean): those that lie in it by half, else those that touch it.

    Args:
        archive: It will be searched.
        area: A GeoJSON Polygon or MultiPolygon, a shapely geometry, WKB, or a box (west, south, east, north).

    Raises:
        ArchiveError: It is no area, or no chip touches it.
    """
    shape = parse_area(area)
    chips = searcher_of(archive).rows_at(shape)
    west, south, east, north = shape.bounds
    text = f"area within {west:.5f}, {south:.5f}, {east:.5f}, {north:.5f}"
    if not chips:
        middle = shape.representative_point()
        raise ChipNotFound(f"{archive.path}: no chip shows the {text}{_nearest(archive, middle.x, middle.y)}")
    if len(chips) > MAX_EXAMPLES:
        some = np.sort(np.random.default_rng(0).permutation(len(chips))[:MAX_EXAMPLES])
        text += f" ({MAX_EXAMPLES:,} of its {len(chips):,} chips)"
        chips = [chips[place] for place in some]
    return _of_chips(archive, text, chips)


def _of_chips(
    archive: ArchiveTable,
    text: str,
    chips: Sequence[SearchResult],
    avoided: Sequence[SearchResult] = (),
    method: Method = "rocchio",
) -> Query:
    vectors = searcher_of(archive).vectors([chip.id for chip in (*chips, *avoided)])
    examples = [
        FeedbackExample(vector, chip.sensor) for vector, chip in zip(vectors, (*chips, *avoided), strict=True)
    ]
    return Query(text, examples[: len(chips)], chips, examples[len(chips) :], avoided, method)


def _chip(archive: ArchiveTable, name: str) -> SearchResult:
    chip = searcher_of(archive).find(name)
    if chip is None:
        raise ChipNotFound(
            f"{name!r} is neither an image file nor the beginning of a chip id in {archive.path}. Give the "
            "path of an image, or an id from the results of a search"
        )
    return chip


def _distinct(chips: Any) -> list[SearchResult]:
    return list({chip.id: chip for chip in chips}.values())


def _nearest(archive: ArchiveTable, longitude: float, latitude: float) -> str:
    """Where the nearest footprint is, in words."""
    chips = searcher_of(archive).chips()
    boxes = chips.boxes[chips.placed]
    if not len(boxes):
        return "; its chips have no footprints"
    wide = (boxes[:, 2] - boxes[:, 0]) % 360
    east, north = np.radians(boxes[:, 0] + wide / 2), np.radians(boxes[:, 1:4:2].mean(1))
    here_east, here_north = np.radians(longitude), np.radians(latitude)
    half = (
        np.sin((north - here_north) / 2) ** 2
        + np.cos(here_north) * np.cos(north) * np.sin((east - here_east) / 2) ** 2
    )
    distance = 2 * _EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))
    best = int(np.argmin(distance))
    where = (np.degrees(east[best]) + 180) % 360 - 180
    return (
        f"; the middle of the nearest chip is {distance[best]:,.1f} km away, at {where:.5f}, "
        f"{np.degrees(north[best]):.5f}"
    )
