"""The archive as users have it: rows with versions, search, index, changes and exchange in one class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import swath.archive.show.notebook  # noqa: F401 -- registers what notebooks show
from swath.archive.changes.detect import ChangeResults, Period, find_changes
from swath.archive.exchange.geojson import write_archive_geojson
from swath.archive.exchange.geoparquet import write_geoparquet
from swath.archive.exchange.spatial_sort import Progress
from swath.archive.exchange.stac import write_stac
from swath.archive.index.files import build_index, index_carried
from swath.archive.index.ivf import Kind
from swath.archive.query.build import build_query
from swath.archive.query.filters import Filter
from swath.archive.query.options import SearchOptions, merge_options
from swath.archive.query.relevance_feedback import Method
from swath.archive.query.results import SearchResults
from swath.archive.query.searcher import Searcher, searcher_of
from swath.archive.show.text import summary_text
from swath.archive.table.store import ArchiveTable
from swath.archive.table.summary import ArchiveSummary, summary_of
from swath.errors import InvalidQuery
from swath.reporting.notebook import NotebookRepr

if TYPE_CHECKING:
    from swath.archive.ingest.encode import Embedder


class Archive(ArchiveTable, NotebookRepr):
    """An archive of embedded chips. Make one with `Archive.create`, open one with `Archive.open`.

    Any number of processes may read while one writes. Writers on one machine take turns (a lock file that
    is released when a process dies).

    Attributes:
        path: Folder or object-store URL of the archive.
        model_id: The only model whose embeddings it takes.
        dimensions: Numbers in an embedding, D.
    """

    def search(
        self,
        vector: Any = None,
        k: int = 10,
        *,
        image: str | os.PathLike[str] | None = None,
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        place: tuple[float, float] | None = None,
        area: Any = None,
        model: Embedder | None = None,
        method: Method | None = None,
        query_sensor: str | None = None,
        exclude_footprint: bytes | None = None,
        options: SearchOptions | None = None,
        **named: Any,
    ) -> SearchResults:
        """The `k` chips that are most similar to a vector, an image, chips of the archive, or a place.

        Give exactly one of `vector`, `image`, `like`, `place` and `area`.

        Args:
            vector: [D] raw embedding by the archive's model.
            k: Number of results; there may be fewer (see `SearchResults.shortfall`).
            image: An image file; it is embedded as the archive's chips were.
            like: Ids of chips (the first 6 characters suffice) as positive examples.
            unlike: Ids of negative examples, which are never results. Only with `like`.
            place: Longitude and latitude: the chips that show it are the query.
            area: GeoJSON Polygon or MultiPolygon, or a box (west, south, east, north): the chips in it are.
            model: Embeds `image`; by default the archive's model, from its last known directory.
            method: How several examples are combined (see `swath.archive.query.relevance_feedback`).
            query_sensor: Sensor of `vector` or `image`.
            exclude_footprint: WKB: omit chips that show this location. Only with `vector`.
            options: See `SearchOptions`.
            named: Fields of `SearchOptions`, in place of those in `options`: ``diverse=True``.

        Raises:
            ArchiveError: Not exactly one query, or as for `Searcher.search`.
        """
        options = merge_options(options, named)
        if vector is not None:
            if image is not None or like or unlike or place is not None or area is not None:
                raise InvalidQuery("give either a vector or one of image, like, place and area, not both")
            if options.exclude_self or options.exclude_location:
                raise InvalidQuery(
                    "exclude_self and exclude_location do not apply to a vector; use exclude_footprint"
                )
            return self.searcher.search(
                vector, k, options, query_sensor=query_sensor, exclude_footprint=exclude_footprint
            )
        query = build_query(
            self,
            image=image,
            like=like,
            unlike=unlike,
            place=place,
            area=area,
            model=model,
            sensor=query_sensor,
            method=method,
        )
        return query.search(self, k, options)

    @property
    def searcher(self) -> Searcher:
        """The searcher over this archive, cached and renewed when the archive has changed."""
        return searcher_of(self)

    def summary(self) -> ArchiveSummary:
        """Counts, ranges and bounds, from one scan of the small columns."""
        return summary_of(self.rows(["sensor", "gsd", "datetime", "bbox"]))

    def describe(self) -> dict[str, str]:
        """The summary as text, for the terminal and notebooks."""
        return summary_text(self, self.summary())

    def changes(
        self,
        before: Period,
        after: Period,
        *,
        k: int | None = 20,
        filter: Filter | None = None,
        sensor: str | Sequence[str] | None = None,
    ) -> ChangeResults:
        """The places that changed most between two periods; arguments and errors as of `find_changes`."""
        return find_changes(self, before, after, k=k, filter=filter, sensor=sensor)

    def build_index(self, *, kind: Kind = "sq8", cells: int | None = None, both: bool = False) -> Path:
        """Build the search index of the newest version; returns its folder.

        Args:
            kind: Codes: ``sq8`` (a quarter of the vectors' size), ``flat`` or ``pq``.
            cells: Number of cells; by default the power of two next to 2 sqrt(N).
            both: Build cells for centered and for plain comparison, not only for the one that search takes.

        Raises:
            ArchiveError: On an object store, too few rows, a full disk, or another process builds one.
        """
        return build_index(self, kind=kind, cells=cells, both=both)

    def to_geoparquet(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> int:
        """Write all rows as GeoParquet 1.1; returns their number. The file appears whole or not at all.

        Args:
            path: The file; an existing one is replaced.
            progress: Called with (rows read, rows).
        """
        return write_geoparquet(self, path, progress=progress)

    def to_stac(
        self,
        folder: str | os.PathLike[str],
        *,
        model: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Write a STAC catalog with the table as GeoParquet; returns the number of rows.

        Args:
            folder: The folder; an earlier export there is replaced.
            model: The model directory; by default where the archive last saw it.
            progress: Called with (rows read, rows).
        """
        return write_stac(self, folder, model=model, progress=progress)

    def to_geojson(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> int:
        """Write footprints and properties of all chips as GeoJSON, without vectors; returns their number.

        Args:
            path: The file; an existing one is replaced.
            progress: Called with (chips written, chips).
        """
        return write_archive_geojson(self, path, progress=progress)

    def _index_kept(self) -> AbstractContextManager[object]:
        return index_carried(self)
