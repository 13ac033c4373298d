"""Answers and archives in formats that other tools open: GeoJSON (RFC 7946) and GeoParquet 1.1."""

from __future__ import annotations

import json
import os
from typing import Any

import pyarrow as pa

from swath.archive.places import to_geojson_geometry
from swath.archive.search import Answer, Answers
from swath.archive.store import Archive, schema
from swath.files import atomic_path, write_json


def to_geojson(answers: Answers, query: dict[str, Any] | None = None) -> dict[str, Any]:
    """A GeoJSON FeatureCollection, best answer first.

    Chips without georeference become features with a null geometry, as RFC 7946 provides, so that nothing
    that was found is left out.

    Args:
        answers: From a search.
        query: What was asked, kept in the foreign member ``query``.
    """
    collection: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [_feature(answer) for answer in answers],
    }
    if query is not None:
        collection["query"] = query
    return collection


def write_geojson(
    path: str | os.PathLike[str], answers: Answers, query: dict[str, Any] | None = None
) -> None:
    """Write `to_geojson(answers, query)` to `path`, atomically."""
    write_json(path, to_geojson(answers, query))


def _feature(answer: Answer) -> dict[str, Any]:
    window = answer.window
    feature: dict[str, Any] = {
        "type": "Feature",
        "id": answer.id,
        "geometry": to_geojson_geometry(answer.geometry),
        "properties": {
            "rank": answer.rank,
            "score": round(answer.score, 6),
            "sensor": answer.sensor,
            "gsd": answer.gsd,
            "datetime": answer.datetime.isoformat() if answer.datetime else None,
            "label": answer.label,
            "source": answer.source,
            "window": [window.column, window.row, window.width, window.height],
            "valid_fraction": round(answer.valid_fraction, 4),
        },
    }
    if answer.bbox is not None:
        feature["bbox"] = [round(value, 7) for value in answer.bbox]
    return feature


def write_geoparquet(archive: Archive, path: str | os.PathLike[str]) -> int:
    """Export an archive as GeoParquet 1.1, atomically; geopandas, DuckDB and QGIS open it.

    Embeddings stay FixedSizeList<float32>[D] and raw. ``geo`` metadata name the geometry column (OGC:CRS84,
    the default of the format) and the bbox covering, by which readers skip row groups. One batch of rows is
    in memory at a time.

    Returns:
        The number of rows written.
    """
    import pyarrow.parquet as pq

    pinned = archive.at(archive.version)
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["Polygon", "MultiPolygon"],
                "covering": {"bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}},
            }
        },
    }
    described = {"model_id": archive.model_id, "dimensions": archive.dimensions, "normalized": False}
    columns = schema(archive.dimensions).with_metadata(
        {"geo": json.dumps(geo), "swath": json.dumps(described)}
    )
    written = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, columns, compression="zstd") as writer:
        for batch in pinned.batches(columns.names):
            writer.write_table(pa.Table.from_batches([batch]).cast(columns))
            written += batch.num_rows
    return written
