"""The table that `swath inspect --pair` writes: places on grids, as GeoParquet, and how it is opened.

One row a place: `id`, `crs`, `transform`, `width`, `height` of its grid, for each sensor ``files_<sensor>``,
``bands_<sensor>``, ``time_<sensor>`` and ``offset_dn_<sensor>``, the share of `overlap`, the `days` between,
a `group` (a cell of half a degree, for splits that do not leak) and the footprint. Columns that the user adds
are understood as in ``pairs.csv``: `split`, `class` or `labels` (names with semicolons, or a list).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swath.catalog.table import polygon_wkb
from swath.datasets.pairs.csv_table import PairRecord, PairTable, encode_labels
from swath.datasets.pairs.dataset import PairedImageDataset
from swath.datasets.pairs.readers import PairFit, PairReader
from swath.datasets.pairs.warped import WarpedPairReader
from swath.errors import ImageryError, suggest
from swath.files import atomic_path
from swath.geo.grid import PixelGrid
from swath.geo.transform import resampled_transform, window_transform
from swath.rasters.header import SceneHeader, read_header
from swath.rasters.sensor_scene import SensorScene, match_scene_to_sensor
from swath.renames import current_names
from swath.sensors.sensor import Sensor

if TYPE_CHECKING:
    from swath.datasets.pairs.join import PairJoinResult

FORMAT_VERSION = 1
_KEY = b"swath:pairs"


def write_pairs(joined: PairJoinResult, path: str | Path) -> Path:
    """Write the pairs, and beside them ``<name>_unpaired.csv``; returns the latter's path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from swath.files import relative

    path = Path(path)
    base = path.absolute().parent
    text, real, whole = pa.string(), pa.float64(), pa.int32()
    fields = [("id", text), ("crs", text), ("transform", pa.list_(real)), ("width", whole), ("height", whole)]
    fields += [("gsd", real), ("overlap", real), ("days", real), ("group", text)]
    for sensor in joined.sensors:
        fields += [(f"files_{sensor.name}", pa.list_(text)), (f"bands_{sensor.name}", pa.list_(text))]
        fields += [(f"time_{sensor.name}", pa.timestamp("us", tz="UTC")), (f"offset_dn_{sensor.name}", real)]
    box = pa.struct([(name, real) for name in ("xmin", "ymin", "xmax", "ymax")])
    fields += [("bbox", box), ("geometry", pa.binary())]
    rows = []
    for pair in joined.pairs:
        lon, lat = zip(*pair.footprint, strict=True)
        row: dict[str, Any] = {
            "id": pair.id,
            "crs": pair.grid.crs,
            "transform": list(pair.grid.transform),
            "width": pair.grid.width,
            "height": pair.grid.height,
            "gsd": pair.grid.gsd,
            "overlap": pair.overlap,
            "days": pair.days,
            "group": _cell(float(np.mean(lon[:-1])), float(np.mean(lat[:-1]))),
            "bbox": {"xmin": min(lon), "ymin": min(lat), "xmax": max(lon), "ymax": max(lat)},
            "geometry": polygon_wkb(pair.footprint),
        }
        for sensor, scene in zip(joined.sensors, pair.scenes, strict=True):
            row[f"files_{sensor.name}"] = [relative(file, base) for file in scene.files]
            row[f"bands_{sensor.name}"] = list(scene.descriptions)
            row[f"time_{sensor.name}"] = scene.time
            row[f"offset_dn_{sensor.name}"] = joined.offsets.get(scene.path)
        rows.append(row)
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "covering": {"bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}},
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    table = table.replace_schema_metadata({"geo": json.dumps(geo), _KEY: str(FORMAT_VERSION)})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    report = path.with_name(f"{path.stem}_unpaired.csv")
    with atomic_path(report) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sensor", "path", "reason"])
        writer.writerows(joined.unpaired)
    return report


def _cell(lon: float, lat: float) -> str:
    """The half-degree cell of a place, such as "E015.0 N45.5" by its south-western corner."""
    west, south = np.floor(((lon + 180) % 360 - 180) * 2) / 2, np.floor(lat * 2) / 2
    return f"{'E' if west >= 0 else 'W'}{abs(west):05.1f} {'N' if south >= 0 else 'S'}{abs(south):04.1f}"


def is_pair_table(path: Path) -> bool:
    """Whether a Parquet file is a table of pairs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() not in (".parquet", ".geoparquet") or not path.is_file():
        return False
    try:
        return _KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def open_pair_table(
    path: Path,
    sensors: Sequence[Sensor],
    *,
    split: str | None,
    size: tuple[int, int] | None,
    resize_mode: PairFit,
    offset_dn: float | Mapping[str, float] | None,
    classes: Sequence[str] | None,
    workers: int | None,
    **options: Any,
) -> PairedImageDataset:
    """The data set of a table; see `swath.datasets.pairs.opening.open_pairs` for the arguments."""
    rows = _read(path, sensors)
    places = _labeled(path, rows)
    names, labels = encode_labels(places, classes)
    keep = np.arange(len(rows))
    if split is not None:
        splits = [row.get("split") for row in rows]
        keep = np.flatnonzero([name == split for name in splits])
        if not len(keep):
            known = sorted({str(name) for name in splits if name})
            raise ImageryError(
                f"{path}: split={split!r}: no place is of it."
                + (suggest(split, known) if known else " It has no column `split`; add one.")
            )
    scenes, problems = _scenes(path, [rows[i] for i in keep], sensors, offset_dn, workers)
    usable = [i for i in keep.tolist() if all(_key(path, rows[i], s) in scenes[s.name] for s in sensors)]
    for i in keep.tolist():
        broken = [p for s in sensors if (p := problems.get((s.name, _key(path, rows[i], s)))) is not None]
        if broken:
            places.problems.append((rows[i]["id"], broken[0]))
    if not usable:
        raise ImageryError(f"{path}: no usable place; the first problem is: {places.problems[0][1]}")
    grids = _grids(path, [rows[i] for i in usable], size, resize_mode)
    readers: list[PairReader] = []
    for sensor in sensors:
        mine = [scenes[sensor.name][_key(path, rows[i], sensor)] for i in usable]
        times = [time.timestamp() if (time := rows[i][f"time_{sensor.name}"]) else np.nan for i in usable]
        readers.append(WarpedPairReader(mine, grids, np.array(times, dtype=np.float64)))
    chosen = [rows[i] for i in usable]
    return PairedImageDataset(
        readers,
        [row["id"] for row in chosen],
        labels=None if labels is None else labels[usable],
        classes=names,
        splits=None
        if any(row.get("split") is None for row in chosen)
        else [str(row["split"]) for row in chosen],
        groups=None if any(row.get("group") is None for row in chosen) else [row["group"] for row in chosen],
        problems=places.problems,
        **options,
    )


def _read(path: Path, sensors: Sequence[Sensor]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ImageryError(f"{path}: cannot be read as Parquet ({error})") from None
    if (table.schema.metadata or {}).get(_KEY) != str(FORMAT_VERSION).encode():
        raise ImageryError(
            f"{path}: is no table of pairs of this version; make one: swath inspect --pair A B "
            f"--out {path.name}"
        )
    known = [name.removeprefix("files_") for name in table.column_names if name.startswith("files_")]
    for sensor in sensors:
        if sensor.name not in known:
            raise ImageryError(f"{path}: has no sensor {sensor.name!r}.{suggest(sensor.name, known)}")
    if not len(table):
        raise ImageryError(f"{path}: has no rows")
    table = table.rename_columns(list(current_names(dict.fromkeys(table.column_names), "pairs", str(path))))
    rows: list[dict[str, Any]] = table.drop_columns(["geometry", "bbox"]).to_pylist()
    return rows


def _labeled(path: Path, rows: Sequence[Mapping[str, Any]]) -> PairTable:
    if "class" in rows[0] and "labels" in rows[0]:
        raise ImageryError(f"{path}: has `class` (one a place) and `labels` (several); keep one of them")
    places = PairTable(several="labels" in rows[0])
    for i, row in enumerate(rows):
        label: tuple[str, ...] | None = None
        if (given := row.get("labels")) is not None:
            parts = given.split(";") if isinstance(given, str) else given
            label = tuple(part.strip() for part in parts if part.strip())
        elif row.get("class") is not None:
            label = (str(row["class"]),)
        places.records.append(PairRecord(row["id"], {}, label, where=f"{path}, row {i}"))
    return places


def _key(path: Path, row: Mapping[str, Any], sensor: Sensor) -> tuple[tuple[str, ...], float | None]:
    path = Path(path)
    base = path.absolute().parent
    files = tuple(os.path.normpath(base / file) for file in row[f"files_{sensor.name}"])
    return files, row[f"offset_dn_{sensor.name}"]


_Key = tuple[tuple[str, ...], float | None]


def _scenes(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    sensors: Sequence[Sensor],
    offset_dn: float | Mapping[str, float] | None,
    workers: int | None,
) -> tuple[dict[str, dict[_Key, SensorScene]], dict[tuple[str, _Key], str]]:
    """Every scene once (many places may be of one), and why the others cannot be read."""
    scenes: dict[str, dict[_Key, SensorScene]] = {}
    problems: dict[tuple[str, _Key], str] = {}
    for sensor in sensors:
        wanted = {_key(path, row, sensor): row[f"bands_{sensor.name}"] for row in rows}
        given = offset_dn.get(sensor.name) if isinstance(offset_dn, Mapping) else offset_dn
        if sensor.unit != "reflectance":
            given = None

        def load(item: tuple[_Key, list[str]]) -> SceneHeader | ImageryError:
            (files, _), bands = item
            try:
                header = read_header(files[0] if len(files) == 1 else files)
            except ImageryError as error:
                return error
            return replace(header, descriptions=tuple(bands)) if len(bands) == header.bands else header

        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            headers = list(pool.map(load, wanted.items()))
        scenes[sensor.name] = {}
        for key, header in zip(wanted, headers, strict=True):
            if isinstance(header, ImageryError):
                problems[sensor.name, key] = str(header)
                continue
            offset = given if given is not None else key[1]
            scenes[sensor.name][key] = match_scene_to_sensor(header, sensor, gsd="relative", offset_dn=offset)
    return scenes, problems


def _grids(
    path: Path, rows: Sequence[Mapping[str, Any]], size: tuple[int, int] | None, fit: PairFit
) -> list[PixelGrid]:
    if fit not in ("center_crop", "resize"):
        raise ImageryError(f"resize_mode={fit!r}:{suggest(str(fit), ['center_crop', 'resize'])}")
    shapes = {(row["height"], row["width"]) for row in rows}
    if size is None and len(shapes) > 1:
        (low, *_, high) = sorted(shapes)
        raise ImageryError(
            f"{path}: places of {len(shapes)} different sizes, from {low[1]} x {low[0]} to "
            f"{high[1]} x {high[0]} pixels. Choose one with size= (data.size in a recipe), or cut chips when "
            "pairing: swath inspect --pair --chip-size"
        )
    grids = []
    for row in rows:
        height, width = row["height"], row["width"]
        rows_out, columns_out = size or (height, width)
        transform = tuple(row["transform"])
        if fit == "resize":
            transform = resampled_transform(transform, width / columns_out, height / rows_out)
        elif height < rows_out or width < columns_out:
            raise ImageryError(
                f"{path}: {row['id']} has {width} x {height} pixels, fewer than the crop of "
                f"{columns_out} x {rows_out}; choose a smaller size=, or resize_mode='resize'"
            )
        else:
            transform = window_transform(transform, (width - columns_out) // 2, (height - rows_out) // 2)
        grids.append(PixelGrid(row["crs"], transform, columns_out, rows_out))
    return grids
