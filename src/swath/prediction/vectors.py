"""Polygons with columns as GeoPackage and as GeoParquet, in the scene's own CRS.

A GeoPackage is an SQLite database of a few known tables (OGC 12-128r19), written here with Python's own
sqlite3; a GeoParquet (1.1) is a Parquet file whose metadata tell which column is the geometry. Desktop GIS
likes the first, data frames and DuckDB the second.

Without georeference coordinates are pixels of the file: x to the right, y down, (0, 0) is the upper left
corner of the first pixel. Both formats then state that there is no CRS.
"""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from swath.files import atomic_path
from swath.prediction.scene_view import ModelView

Array = NDArray[Any]
Kind = Literal["text", "integer", "real"]
Shape = tuple[list[Array], Mapping[str, Any]]
_NUMBERED = 100000  # id of a CRS in a GeoPackage that has no EPSG code


@dataclass
class VectorLayer:
    """Polygons and their columns.

    Attributes:
        crs: "EPSG:32633", WKT, or None.
        kinds: Type of each column.
        polygons: Well-known binary.
        bounds: (x0, y0, x1, y1) of each.
        columns: Values by name, as many as polygons; None where there is none.
    """

    crs: str | None
    kinds: dict[str, Kind]
    polygons: list[bytes] = field(default_factory=list)
    bounds: list[tuple[float, float, float, float]] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, view: ModelView, shapes: Iterable[Shape], kinds: Mapping[str, Kind] | None = None) -> Self:
        """Shapes found on a look's grid.

        Args:
            view: How the scene was looked at.
            shapes: For each its closed rings [n, 2] (x, y) in pixels of the look, outer one first, and the
                values of its columns.
            kinds: Types of the columns; those of polygons of classes if left out.
        """
        kinds = dict(kinds or {"class": "text", "class_id": "integer", "pixels": "integer"})
        features = cls(view.header.crs if view.transform else None, kinds)
        features.columns = {name: [] for name in kinds}
        down, across = view.steps
        a, b, c, d, e, f = view.transform or (across, 0.0, 0.0, 0.0, down, 0.0)
        for rings, values in shapes:
            placed = [
                np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)
                for x, y in (ring.astype(np.float64).T for ring in rings)
            ]
            # Outer rings counter-clockwise, holes clockwise, in the coordinates that are written.
            turned = [ring[::-1] if (_area(ring) > 0) != (i == 0) else ring for i, ring in enumerate(placed)]
            (x0, y0), (x1, y1) = placed[0].min(0), placed[0].max(0)
            features.polygons.append(_wkb(turned))
            features.bounds.append((float(x0), float(y0), float(x1), float(y1)))
            for name, column in features.columns.items():
                column.append(values[name])
        return features

    def __len__(self) -> int:
        return len(self.polygons)


def write_vector_layer(stem: Path, features: VectorLayer, table: str) -> list[Path]:
    """Write `stem`.gpkg and `stem`.parquet, each whole or not at all; returns their paths.

    Args:
        stem: Path without ending.
        features: What is written.
        table: Name of the layer in the GeoPackage.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    package, parquet = (stem.with_name(stem.name + ending) for ending in (".gpkg", ".parquet"))
    with atomic_path(package) as path:
        _write_geopackage(path, features, table)
    with atomic_path(parquet) as path:
        _write_geoparquet(path, features)
    return [package, parquet]


# ------------------------------------------------------------------------------------------------- GeoParquet


def _write_geoparquet(path: Path, features: VectorLayer) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"text": pa.string(), "integer": pa.int64(), "real": pa.float64()}
    corners = ("xmin", "ymin", "xmax", "ymax")
    bbox = pa.struct([(name, pa.float64()) for name in corners])
    fields = [("geometry", pa.binary()), ("bbox", bbox)]
    fields += [(name, types[kind]) for name, kind in features.kinds.items()]
    crs = None
    if features.crs is not None:
        from pyproj import CRS

        crs = CRS.from_user_input(features.crs).to_json_dict()
    geometry: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "orientation": "counterclockwise",
        "crs": crs,
        "covering": {"bbox": {name: ["bbox", name] for name in corners}},
    }
    whole = _together(features.bounds)
    if whole is not None:
        geometry["bbox"] = list(whole)
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    boxes = [dict(zip(corners, box, strict=True)) for box in features.bounds]
    values = {"geometry": features.polygons, "bbox": boxes, **features.columns}
    schema = pa.schema(fields, metadata={"geo": json.dumps(geo)})
    pq.write_table(pa.table(values, schema=schema), path, compression="zstd")


# ------------------------------------------------------------------------------------------------- GeoPackage

_TABLES = """
CREATE TABLE gpkg_spatial_ref_sys (
    srs_name TEXT NOT NULL, srs_id INTEGER NOT NULL PRIMARY KEY, organization TEXT NOT NULL,
    organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (
    table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
    description TEXT DEFAULT '', last_change DATETIME NOT NULL, min_x DOUBLE, min_y DOUBLE, max_x DOUBLE,
    max_y DOUBLE, srs_id INTEGER,
    CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (
    table_name TEXT NOT NULL, column_name TEXT NOT NULL, geometry_type_name TEXT NOT NULL,
    srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL,
    CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name),
    CONSTRAINT uk_gc_table_name UNIQUE (table_name),
    CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
    CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
"""
_WGS84 = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433],AUTHORITY["EPSG","4326"]]'
)
_TYPES = {"text": "TEXT", "integer": "INTEGER", "real": "REAL"}


def _write_geopackage(path: Path, features: VectorLayer, table: str) -> None:
    path.unlink()  # an empty file is no database
    srs, definition = _reference_system(features.crs)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA application_id = {0x47504B47}")  # "GPKG"
        database.execute("PRAGMA user_version = 10300")
        database.executescript(_TABLES)
        known = [
            ("Undefined Cartesian SRS", -1, "NONE", -1, "undefined", None),
            ("Undefined geographic SRS", 0, "NONE", 0, "undefined", None),
            ("WGS 84", 4326, "EPSG", 4326, _WGS84, None),
        ]
        if srs not in (-1, 0, 4326):
            known.append(definition)
        database.executemany("INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, ?)", known)
        whole = _together(features.bounds) or (None,) * 4
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        contents = (table, "features", table, "", now, *whole, srs)
        database.execute("INSERT INTO gpkg_contents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", contents)
        database.execute(
            "INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 'POLYGON', ?, 0, 0)", (table, srs)
        )
        columns = ", ".join(f"{_quoted(name)} {_TYPES[kind]}" for name, kind in features.kinds.items())
        database.execute(
            f"CREATE TABLE {_quoted(table)} "
            f"(fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom POLYGON, {columns})"
        )
        marks = ", ".join("?" * (1 + len(features.kinds)))
        names = ", ".join(["geom", *map(_quoted, features.kinds)])
        blobs = (
            _blob(polygon, box, srs) for polygon, box in zip(features.polygons, features.bounds, strict=True)
        )
        rows = zip(blobs, *features.columns.values(), strict=True)
        database.executemany(f"INSERT INTO {_quoted(table)} ({names}) VALUES ({marks})", rows)


def _reference_system(crs: str | None) -> tuple[int, tuple[Any, ...]]:
    """Its id in the GeoPackage, and its row there."""
    if crs is None:
        return -1, ()
    from pyproj import CRS

    parsed = CRS.from_user_input(crs)
    authority = parsed.to_authority(min_confidence=100)
    name, code = authority if authority and authority[1].isdigit() else ("NONE", str(_NUMBERED))
    return int(code), (parsed.name, int(code), name, int(code), parsed.to_wkt("WKT1_GDAL"), None)


def _blob(polygon: bytes, box: tuple[float, float, float, float], srs: int) -> bytes:
    """A geometry as GeoPackage has it: a header with its envelope, and well-known binary."""
    x0, y0, x1, y1 = box
    return struct.pack("<2sBBi4d", b"GP", 0, 0b00000011, srs, x0, x1, y0, y1) + polygon


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# ----------------------------------------------------------------------------------------------------- shapes


def _wkb(rings: Sequence[Array]) -> bytes:
    """Closed rings [n, 2] as a little-endian well-known binary polygon."""
    parts = [struct.pack("<BII", 1, 3, len(rings))]
    for ring in rings:
        parts += [struct.pack("<I", len(ring)), np.ascontiguousarray(ring, "<f8").tobytes()]
    return b"".join(parts)


def _area(ring: Array) -> float:
    """Signed: positive where the ring runs counter-clockwise (y up)."""
    x, y = (ring - ring[0]).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def _together(boxes: Sequence[tuple[float, ...]]) -> tuple[float, ...] | None:
    if not boxes:
        return None
    corners = np.array(boxes)
    whole = (*corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist())
    return whole if all(map(math.isfinite, whole)) else None
