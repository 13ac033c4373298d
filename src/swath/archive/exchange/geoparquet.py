"""An archive as one GeoParquet 1.1 file, and back.

The file holds the archive's own columns (`swath.archive.table.rows.schema`): vectors raw, as
FixedSizeList<float32>[D], footprints as WKB in OGC:CRS84. geopandas, DuckDB and QGIS open it. Besides:

- ``covering``: the box that readers skip row groups by. It is ``bbox``, but for footprints across the
  antimeridian: their ``bbox`` has xmin > xmax, as in GeoJSON, and their covering goes round the Earth;
- rows in the order of a Hilbert curve, so that a row group covers a small area;
- metadata ``geo`` (GeoParquet), ``swath`` (format, model id, dimensions) and ``stac``: a STAC Collection with
  the fields of the embedding extension (`swath.archive.exchange.stac`).

What comes back is the archive exactly: every column, bit for bit. A file that another tool has filtered or
joined and written again comes back too, if the archive's columns are still in it; Parquet writers drop our
metadata, but each row says its model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from swath.archive.exchange.spatial_sort import Progress, sort_spatially
from swath.archive.exchange.stac_objects import archive_stac_collection, collect_facts
from swath.archive.table.lance import archive_exists
from swath.archive.table.rows import schema
from swath.archive.table.store import ArchiveTable
from swath.errors import ArchiveError
from swath.files import atomic_path

FORMAT = "swath-archive-geoparquet"
FORMAT_VERSION = 1

_GROUP_BYTES = 32 * 2**20
_NAMES = ("xmin", "ymin", "xmax", "ymax")
# Columns whose values repeat; the others gain nothing by a dictionary.
_REPEATING = ["sensor", "gsd", "source", "label", "model_id", "preprocessing", "fingerprint"]


def write_geoparquet(
    archive: ArchiveTable,
    path: str | os.PathLike[str],
    *,
    group_rows: int | None = None,
    bucket_rows: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Export an archive as GeoParquet 1.1; the file appears whole or not at all.

    Memory does not grow with the archive, but for 8 bytes a row; on the disk beside `path` as much room is
    needed for a while as the archive takes. The file depends on the rows only, not on their history.

    Args:
        archive: Its version of this moment is written, whatever others write meanwhile.
        path: The file; one that exists is replaced.
        group_rows: Rows of a row group; by default about 32 MB.
        bucket_rows: Rows sorted at a time; see `in_spatial_order`.
        progress: Called with (rows read, rows).

    Returns:
        The number of rows written.

    Raises:
        ArchiveError: The archive is damaged, or the disk is full.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    pinned = archive.at(archive.version)
    own = schema(archive.dimensions)
    facts = collect_facts(pinned)
    described = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "model_id": archive.model_id,
        "dimensions": archive.dimensions,
        "normalized": False,
    }
    metadata = {
        "geo": json.dumps(_geo(facts.bounds)),
        "swath": json.dumps(described),
        "stac": json.dumps(archive_stac_collection(pinned, facts, table=path.name)),
    }
    columns = own.insert(own.get_field_index("bbox") + 1, pa.field("covering", own.field("bbox").type))
    columns = columns.with_metadata(metadata)
    rows = group_rows or max(1000, _GROUP_BYTES // (4 * archive.dimensions + 256))
    written = 0
    try:
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(
                temporary, columns, compression="zstd", use_dictionary=_REPEATING, write_page_index=True
            ) as writer,
        ):
            for table in sort_spatially(
                pinned, own.names, path.parent, bucket_rows=bucket_rows, progress=progress
            ):
                boxes = covering(table["bbox"])
                table = table.append_column("covering", boxes).select(columns.names).cast(columns)
                writer.write_table(table, row_group_size=rows)
                written += table.num_rows
    except OSError as error:
        raise ArchiveError(f"{path}: could not be written ({error}); nothing is left of it") from error
    return written


def covering(boxes: pa.ChunkedArray) -> pa.ChunkedArray:
    """Boxes without xmin > xmax: those across the antimeridian become the whole belt of latitudes."""
    parts = []
    for chunk in boxes.chunks:
        corners = dict(zip(chunk.type.names, chunk.flatten(), strict=True))
        across = pc.fill_null(pc.greater(corners["xmin"], corners["xmax"]), False)
        corners["xmin"] = pc.if_else(across, -180.0, corners["xmin"])
        corners["xmax"] = pc.if_else(across, 180.0, corners["xmax"])
        parts.append(
            pa.StructArray.from_arrays([corners[n] for n in _NAMES], names=list(_NAMES), mask=chunk.is_null())
        )
    return pa.chunked_array(parts, boxes.type)


def _geo(bounds: tuple[float, float, float, float] | None) -> dict[str, Any]:
    """The ``geo`` metadata; without a ``crs`` it is OGC:CRS84."""
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["MultiPolygon", "Polygon"],
        "covering": {"bbox": {name: ["covering", name] for name in _NAMES}},
    }
    if bounds is not None:
        column["bbox"] = list(bounds)
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


# ---- and back


def read_geoparquet(
    path: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Import such a file into an archive, which is made if it is not there.

    A new or empty archive gets all rows in one transaction, or none. In another, rows whose id is there are
    replaced, some ten thousand in a transaction; an import that was interrupted is simply run again.

    Args:
        path: A file of `write_geoparquet`, or one with the same columns.
        to: The archive; it must be of the same model and dimensions.
        progress: Called with (rows read, rows).

    Returns:
        Rows in the file, and how many of them were new to the archive.

    Raises:
        ArchiveError: No Parquet, cut short, columns missing, of a newer format, of several models, or of
            another model or other dimensions than the archive's; with the fix. Nothing is written then.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            model_id, dimensions = _described(path, file)
            total = file.metadata.num_rows
            if archive_exists(to):
                archive = ArchiveTable.open(to, model_id=model_id)
                if archive.dimensions != dimensions:
                    raise ArchiveError(
                        f"{path}: has embeddings of {dimensions} numbers, the archive {archive.path} of "
                        f"{archive.dimensions}; import into another path"
                    )
            else:
                archive = ArchiveTable.create(to, model_id, dimensions)
            tables = _tables(path, file, dimensions, lambda done: progress and progress(done, total))
            if archive.count() == 0:
                return total, archive.append(tables)
            return total, sum(archive.upsert(table) for table in tables)
    except FileNotFoundError:
        raise ArchiveError(f"{path}: there is no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(
            f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]}); copy it again from where it "
            "came from"
        ) from None


def _described(path: str | os.PathLike[str], file: Any) -> tuple[str, int]:
    """Model id and dimensions, from the metadata or, where these are gone, from the rows themselves."""
    found = file.schema_arrow
    example = schema(1)
    missing = [f.name for f in example if not f.nullable and f.name not in found.names]
    if missing:
        raise ArchiveError(
            f"{path}: has no column {', '.join(missing)}, so it is no export of an archive. Write one with "
            "`swath archive export`; ready-made vectors of other programs come in through Archive.append "
            "(swath.archive.rows_from_vectors makes rows of them)"
        )
    note = (file.metadata.metadata or {}).get(b"swath")
    if note is not None:
        try:
            described = json.loads(note)
            form, version = described.get("format"), described["version"]
            model_id, dimensions = str(described["model_id"]), int(described["dimensions"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ArchiveError(
                f"{path}: its `swath` metadata are damaged; export the archive again"
            ) from None
        if form != FORMAT:
            raise ArchiveError(f"{path}: says to be {form!r}, not {FORMAT!r}; nothing was imported")
        if version > FORMAT_VERSION:
            raise ArchiveError(
                f"{path}: was written by a newer Swath (format {version}, this one reads up to "
                f"{FORMAT_VERSION}); install a newer Swath"
            )
        vector = found.field("embedding").type
        if pa.types.is_fixed_size_list(vector) and vector.list_size != dimensions:
            raise ArchiveError(
                f"{path}: its metadata say {dimensions} dimensions, its column {vector.list_size}; it "
                "was put together from two files: export the archive again"
            )
        return model_id, dimensions
    if file.metadata.num_rows == 0:
        raise ArchiveError(f"{path}: has no rows and does not say its model; export the archive again")
    models: set[str] = set()
    for batch in file.iter_batches(columns=["model_id"]):
        models |= {str(name) for name in pc.unique(batch.column("model_id")).to_pylist()}
    if len(models) > 1:
        raise ArchiveError(
            f"{path}: has rows of {len(models)} models ({', '.join(sorted(models)[:3])}); an archive "
            "holds those of one. Write a file for each, with `WHERE model_id = ...`"
        )
    first = next(file.iter_batches(batch_size=1, columns=["embedding"])).column("embedding")
    return models.pop(), len(first[0])


def _tables(
    path: str | os.PathLike[str], file: Any, dimensions: int, advance: Callable[[int], Any]
) -> Iterator[pa.Table]:
    """The file's rows in pieces of a few ten megabytes, as an archive takes them."""
    requested = schema(dimensions)
    names = [name for name in requested.names if name in file.schema_arrow.names]
    size = max(1000, _GROUP_BYTES // (4 * dimensions + 256))
    done = 0
    for batch in file.iter_batches(batch_size=size, columns=names):
        done += batch.num_rows
        columns = [_plain(path, batch.column(name), requested.field(name).type) for name in names]
        yield pa.table(columns, names=names)
        advance(done)


def _plain(path: str | os.PathLike[str], column: pa.Array, requested: pa.DataType) -> pa.Array:
    """A column in the archive's own type; what other writers make of it is undone."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_fixed_size_list(requested) and not pa.types.is_fixed_size_list(column.type):
        lengths = np.unique(pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False))
        if lengths.tolist() != [requested.list_size]:
            raise ArchiveError(
                f"{path}: has embeddings of {', '.join(map(str, lengths.tolist()))} numbers, "
                f"{requested.list_size} are wanted"
            )
        column = pa.FixedSizeListArray.from_arrays(column.flatten().cast(pa.float32()), requested.list_size)
    return column if column.type == requested else column.cast(requested)
