"""One row of a catalog, and how rows become a GeoParquet table and come back."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swath.rasters.read import SceneHeader
from swath.rasters.remote import is_remote

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One row of a catalog.

    Attributes:
        path: The file, the folder of a product's band files, or the STAC item.
        files: The files to read.
        sensor: Name of the sensor, where the user or the band descriptions say it.
        header: What the files say; None where they cannot be read.
        problem: Why it cannot be used, and what to do; None where it can.
    """

    path: str
    files: tuple[str, ...]
    sensor: str | None = None
    header: SceneHeader | None = None
    problem: str | None = None


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int64()
    return pa.schema(
        [
            ("path", text),
            ("files", pa.list_(text)),
            ("sensor", text),
            ("bands", pa.list_(text)),
            ("crs", text),
            ("gsd", real),
            ("time", pa.timestamp("us", tz="UTC")),
            ("width", whole),
            ("height", whole),
            ("dtype", text),
            ("nodata", real),
            ("problem", text),
            ("driver", text),
            ("transform", pa.list_(real)),
            ("block", pa.list_(whole)),
            ("overviews", pa.list_(whole)),
            ("has_alpha", pa.bool_()),
            ("has_mask", pa.bool_()),
            ("band_nodata", pa.list_(real)),
            ("scales", pa.list_(real)),
            ("offsets", pa.list_(real)),
            ("tags", text),
            ("passed_over", pa.list_(text)),
            ("cloud_layer", pa.list_(text)),
            ("footprint", pa.list_(real)),
            ("bbox", pa.struct([(name, real) for name in ("xmin", "ymin", "xmax", "ymax")])),
            ("geometry", pa.binary()),
        ]
    )


def to_table(entries: Sequence[CatalogEntry], base: Path) -> pa.Table:
    """Entries as a GeoParquet 1.1 table; paths below `base` become relative to it."""
    import pyarrow as pa

    rows = [_to_row(entry, base) for entry in entries]
    boxes = [row["bbox"] for row in rows if row["bbox"] is not None]
    column: dict[str, Any] = {
        "encoding": "WKB",  # without `crs`, which means OGC:CRS84
        "geometry_types": ["Polygon"],
        "orientation": "counterclockwise",
        "covering": {"bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}},
    }
    if boxes:
        column["bbox"] = [
            *(min(box[name] for box in boxes) for name in ("xmin", "ymin")),
            *(max(box[name] for box in boxes) for name in ("xmax", "ymax")),
        ]
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    metadata = {"geo": json.dumps(geo), "swath:catalogue": str(FORMAT_VERSION)}
    return pa.Table.from_pylist(rows, schema=_schema()).replace_schema_metadata(metadata)


def _to_row(entry: CatalogEntry, base: Path) -> dict[str, Any]:
    header = entry.header
    row: dict[str, Any] = {
        "path": _stored(entry.path, base),
        "files": [_stored(file, base) for file in entry.files],
        "sensor": entry.sensor,
        "problem": entry.problem,
        "bbox": None,
    }
    if header is None:
        return row
    for name in _PLAIN:
        value = getattr(header, name)
        row[name] = list(value) if isinstance(value, tuple) else value
    row["bands"] = list(header.descriptions)
    row["tags"] = json.dumps(header.tags, ensure_ascii=False)
    row["passed_over"] = [_stored(file, base) for file in header.passed_over]
    if header.cloud_layer is not None:
        kind, file = header.cloud_layer
        row["cloud_layer"] = [kind, _stored(file, base)]
    if header.footprint is not None:
        lon, lat = zip(*header.footprint, strict=True)
        row["footprint"] = [number for point in header.footprint for number in point]
        row["bbox"] = {"xmin": min(lon), "ymin": min(lat), "xmax": max(lon), "ymax": max(lat)}
        row["geometry"] = polygon_wkb(header.footprint)
    return row


# Header fields that a row holds as they are.
_PLAIN = (
    "driver", "width", "height", "dtype", "crs", "transform", "gsd", "nodata", "has_alpha", "has_mask",
    "block", "overviews", "time", "band_nodata", "scales", "offsets",
)  # fmt: skip


def from_row(row: dict[str, Any], base: Path) -> CatalogEntry:
    """The entry that a row of `to_table` holds; relative paths are below `base`."""
    files = tuple(_found(file, base) for file in row["files"])
    path = _found(row["path"], base)
    header = None
    if row["width"] is not None:
        values: dict[str, Any] = {
            name: tuple(v) if isinstance(v := row[name], list) else v for name in _PLAIN
        }
        flat = row["footprint"]
        clouds = row.get("cloud_layer")  # catalogs of earlier days have no such column
        header = SceneHeader(
            path=path,
            files=files,
            bands=len(row["bands"]),
            descriptions=tuple(row["bands"]),
            footprint=tuple(zip(flat[::2], flat[1::2], strict=True)) if flat else None,
            tags=json.loads(row["tags"]),
            passed_over=tuple(_found(file, base) for file in row["passed_over"]),
            cloud_layer=(clouds[0], _found(clouds[1], base)) if clouds else None,
            **values,
        )
    return CatalogEntry(path, files, row["sensor"], header, row["problem"])


def _found(path: str, base: Path) -> str:
    return path if is_remote(path) else os.path.normpath(base / path)


def _stored(path: str, base: Path) -> str:
    if is_remote(path):
        return path
    absolute = Path(path).absolute()
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) else str(absolute)


def polygon_wkb(ring: Sequence[tuple[float, float]]) -> bytes:
    """A polygon of one closed ring as little-endian well-known binary."""
    return struct.pack("<BIII", 1, 3, 1, len(ring)) + b"".join(struct.pack("<dd", *point) for point in ring)
