"""Rows of an archive: their columns, rows made of ready vectors, and what is not let in.

Legend: N rows, D numbers in an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from swath.errors import ArchiveError


def schema(dimensions: int) -> pa.Schema:
    """Columns of an archive whose embeddings have `dimensions` numbers.

    ``id`` names the chip (stable over runs, see `swath.archive.ingest.chip_ids`); ``embedding`` is the raw
    vector; ``geometry`` is the footprint as WKB in OGC:CRS84 and ``bbox`` its bounds in degrees, where xmin >
    xmax says that it crosses the antimeridian (both null without georeference); ``gsd`` is metres per pixel
    of the pixels that the model saw, or the ratio to the reference in relative mode; ``source`` and
    ``window`` say where the pixels are (``files`` lists the band files of a scene that has one for each
    band); ``label`` is the class where the data set has classes; ``valid_fraction`` is the share of pixels
    that are not nodata and ``cloud_fraction`` the share under cloud, null where nothing says it (see
    `swath.archive.ingest.clouds`); ``preprocessing`` is JSON of how the window became the model's input;
    ``fingerprint`` changes when the source file does.
    """
    vector = pa.list_(pa.float32(), dimensions)
    corners = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
    window = pa.struct([(name, pa.int32()) for name in ("column", "row", "width", "height")])
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("embedding", vector, nullable=False),
            pa.field("geometry", pa.binary()),
            pa.field("bbox", corners),
            pa.field("datetime", pa.timestamp("us", tz="UTC")),
            pa.field("sensor", pa.string(), nullable=False),
            pa.field("gsd", pa.float64(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("files", pa.list_(pa.string())),
            pa.field("window", window, nullable=False),
            pa.field("valid_fraction", pa.float32(), nullable=False),
            pa.field("cloud_fraction", pa.float32()),
            pa.field("label", pa.string()),
            pa.field("model_id", pa.string(), nullable=False),
            pa.field("preprocessing", pa.string(), nullable=False),
            pa.field("fingerprint", pa.string(), nullable=False),
        ]
    )


def rows_from_vectors(
    model_id: str,
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    *,
    sensor: str | Sequence[str],
    gsd: float | Sequence[float] | NDArray[np.float64],
    bounds: ArrayLike | None = None,
    time: Sequence[datetime | None] | None = None,
    source: str | Sequence[str] = "",
    label: Sequence[str | None] | None = None,
    **columns: Any,
) -> pa.Table:
    """Rows of vectors that something else has computed, for `Archive.append` and `Archive.upsert`.

    Args:
        model_id: What made the vectors; the archive takes those of one model only.
        ids: [N] names, each once.
        vectors: [N, D] raw embeddings.
        sensor: Name of the sensor, one for all or one a row.
        gsd: Metres per pixel, one for all or one a row.
        bounds: [N, 4] west, south, east, north in degrees, which become the footprints; west > east crosses
            the antimeridian. Rows of NaN, and None, have no footprint.
        time: [N] acquisition times.
        source: Where the pixels are, one for all or one a row; empty where there are none to show.
        label: [N] class names.
        **columns: Any other column of `schema`, one value a row.

    Raises:
        ArchiveError: Sizes that do not fit together, or a column that archives do not have.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise ArchiveError(f"vectors have shape {vectors.shape}; {len(ids)} ids need [{len(ids)}, D]")
    count, dimensions = vectors.shape
    requested = schema(dimensions)
    if unknown := sorted(set(columns) - set(requested.names)):
        raise ArchiveError(f"an archive has no column {unknown[0]!r}; it has {', '.join(requested.names)}")
    nowhere = {"column": 0, "row": 0, "width": 0, "height": 0}
    given: dict[str, Any] = {
        "id": ids,
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimensions),
        "sensor": sensor,
        "gsd": gsd,
        "datetime": time,
        "source": source,
        "window": pa.repeat(pa.scalar(nowhere, requested.field("window").type), count),
        "valid_fraction": 1.0,
        "label": label,
        "model_id": model_id,
        "preprocessing": "{}",
        "fingerprint": "",
    }
    if bounds is not None:
        given["geometry"], given["bbox"] = _rectangles(np.asarray(bounds, dtype=np.float64), count)
    given |= columns
    try:
        return pa.table([_column(given.get(f.name), f, count) for f in requested], schema=requested)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ArchiveError(f"the rows do not fit an archive's columns ({error})") from None


def _column(values: Any, field: pa.Field, count: int) -> pa.Array:
    """One column of `count` values; a single value stands for all."""
    if values is None:
        return pa.nulls(count, field.type)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return values.cast(field.type)
    if isinstance(values, str | int | float):
        return pa.repeat(pa.scalar(values, field.type), count)
    return pa.array(values, field.type)


def _rectangles(bounds: NDArray[np.float64], count: int) -> tuple[pa.Array, pa.Array]:
    """Footprints (WKB) and bboxes of [N, 4] bounds; null where they are not finite."""
    if bounds.shape != (count, 4):
        raise ArchiveError(f"bounds have shape {bounds.shape}; {count} rows need [{count}, 4]")
    known: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(bounds), axis=1)
    west, south, east, north = bounds.T
    # Of a rectangle all is known but eight numbers: a header of 13 bytes, and five corners of 16.
    written = np.zeros(count, dtype=[("order", "u1"), ("header", "<u4", 3), ("corners", "<f8", (5, 2))])
    written["order"], written["header"] = 1, (3, 1, 5)
    for corner, (x, y) in enumerate(
        ((west, south), (east, south), (east, north), (west, north), (west, south))
    ):
        written["corners"][:, corner, 0], written["corners"][:, corner, 1] = x, y
    geometry = [written[place].tobytes() if known[place] else None for place in range(count)]
    across = np.flatnonzero(known & (west > east))
    if len(across):
        from swath.geo.footprint import footprint_geometry

        for place in across:
            w, s, e, n = bounds[place]
            ring = ((w, s), (e + 360, s), (e + 360, n), (w, n), (w, s))
            geometry[place] = footprint_geometry(ring)[0]
    corners = [pa.array(column) for column in (west, south, east, north)]
    bbox = pa.StructArray.from_arrays(corners, names=["xmin", "ymin", "xmax", "ymax"], mask=pa.array(~known))
    return pa.array(geometry, pa.binary()), bbox


def validate_rows(rows: pa.Table, dimensions: int) -> pa.Table:
    """`rows` in the schema of an archive, whatever the order of their columns.

    A column that may be null may be missing.

    Raises:
        ArchiveError: What is wrong with them: columns, dimensions, nulls, or numbers that are not finite.
            A row of another model is not told here (see `other_model`).
    """
    requested = schema(dimensions)
    missing = [f.name for f in requested if not f.nullable and f.name not in rows.column_names]
    unknown = sorted(set(rows.column_names) - set(requested.names))
    if missing or unknown:
        raise ArchiveError(f"rows lack columns {sorted(missing)} and have unknown ones {unknown}")
    found = rows.schema.field("embedding").type
    if not pa.types.is_fixed_size_list(found) or found.list_size != dimensions:
        raise ArchiveError(f"holds embeddings of {dimensions} numbers, the rows have {found}")
    try:
        for field in requested:
            if field.name not in rows.column_names:
                rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
        rows = rows.select(requested.names).cast(requested)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise ArchiveError(f"rows do not fit the archive's columns ({error})") from None
    for field in requested:
        if not field.nullable and rows[field.name].null_count:
            raise ArchiveError(f"{rows[field.name].null_count} rows have no {field.name}")
    for chunk in rows["embedding"].chunks:
        numbers = pc.list_flatten(chunk)
        if numbers.null_count or not np.isfinite(numbers.to_numpy()).all():
            raise ArchiveError("embeddings that are not finite are not stored")
    return rows


def find_foreign_model(rows: pa.Table, model_id: str) -> str | None:
    """The first model, other than `model_id`, that rows come from."""
    others = {str(name) for name in pc.unique(rows["model_id"]).to_pylist()} - {model_id}
    return min(others, default=None)
