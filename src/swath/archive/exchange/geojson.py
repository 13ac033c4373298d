"""Results of a search, and whole archives without their vectors, as GeoJSON (RFC 7946)."""

from __future__ import annotations

import json
import os
from typing import Any

from swath.archive.exchange.spatial_sort import Progress
from swath.archive.query.results import SearchResult, SearchResults
from swath.archive.table.store import ArchiveTable
from swath.errors import ArchiveError
from swath.files import atomic_path, write_json
from swath.geo.footprint import to_geojson_geometry


def to_geojson(results: SearchResults, query: dict[str, Any] | None = None) -> dict[str, Any]:
    """A GeoJSON FeatureCollection, best result first.

    Chips without georeference become features with a null geometry, as RFC 7946 provides, so that no
    result is omitted.

    Args:
        results: From a search.
        query: The query, stored in the foreign member ``query``.
    """
    collection: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [_feature(result) for result in results],
    }
    if query is not None:
        collection["query"] = query
    return collection


def write_geojson(
    path: str | os.PathLike[str], results: SearchResults, query: dict[str, Any] | None = None
) -> None:
    """Write `to_geojson(results, query)` to `path`, atomically."""
    write_json(path, to_geojson(results, query))


def _feature(result: SearchResult) -> dict[str, Any]:
    window = result.window
    feature: dict[str, Any] = {
        "type": "Feature",
        "id": result.id,
        "geometry": to_geojson_geometry(result.geometry),
        "properties": {
            "rank": result.rank,
            "score": round(result.score, 6),
            "sensor": result.sensor,
            "gsd": result.gsd,
            "datetime": result.datetime.isoformat() if result.datetime else None,
            "label": result.label,
            "source": result.source,
            "window": [window.column, window.row, window.width, window.height],
            "valid_fraction": round(result.valid_fraction, 4),
        },
    }
    if result.bbox is not None:
        feature["bbox"] = [round(value, 7) for value in result.bbox]
    return feature


# What a map shows of a chip; the rest is for those who go on computing.
_SHOWN = ["sensor", "gsd", "source", "valid_fraction", "label"]
_COLUMNS = ["id", "geometry", "bbox", "datetime", "window", *_SHOWN]


def write_archive_geojson(
    archive: ArchiveTable, path: str | os.PathLike[str], *, progress: Progress | None = None
) -> int:
    """Write footprints and properties of all chips, without their vectors; a feature a line.

    The file appears whole or not at all; some thousand chips at a time are in memory.

    Args:
        archive: Its version of this moment is written.
        path: The file; one that exists is replaced.
        progress: Called with (chips written, chips).

    Returns:
        The number of features.

    Raises:
        ArchiveError: The archive is damaged, or the disk is full.
    """
    pinned = archive.at(archive.version)
    total, written = pinned.count(), 0
    try:
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write('{"type": "FeatureCollection", "features": [')
            for batch in pinned.batches(_COLUMNS):
                for row in batch.to_pylist():
                    file.write(",\n" if written else "\n")
                    file.write(json.dumps(_chip(row), ensure_ascii=False))
                    written += 1
                if progress:
                    progress(written, total)
            file.write("\n]}\n")
    except OSError as error:
        raise ArchiveError(f"{path}: could not be written ({error}); nothing is left of it") from error
    return written


def _chip(row: dict[str, Any]) -> dict[str, Any]:
    geometry, box, when, window = row.pop("geometry"), row.pop("bbox"), row.pop("datetime"), row.pop("window")
    feature: dict[str, Any] = {
        "type": "Feature",
        "id": row.pop("id"),
        "geometry": to_geojson_geometry(geometry),
        "properties": {
            **row,
            "valid_fraction": round(row["valid_fraction"], 4),
            "datetime": when.isoformat() if when else None,
            "window": [window[side] for side in ("column", "row", "width", "height")],
        },
    }
    if box is not None:
        feature["bbox"] = [round(box[side], 7) for side in ("xmin", "ymin", "xmax", "ymax")]
    return feature
