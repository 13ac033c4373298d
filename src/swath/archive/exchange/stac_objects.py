"""An archive as STAC objects: its collection and its items."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from swath._version import __version__
from swath.archive.table.rows import schema
from swath.archive.table.store import ArchiveTable

EMB = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"
_PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
_TABLE = "https://stac-extensions.github.io/table/v1.2.0/schema.json"
_VERSION = "1.0.0"  # of STAC: the one that the extension's schema stands on
TABLE_FILE = "embeddings.parquet"


@dataclass(frozen=True)
class ArchiveFacts:
    """What a catalog says of an archive, from one scan of its small columns.

    Attributes:
        rows: Chips.
        bounds: West, south, east, north of all footprints; -180 and 180 if one crosses the antimeridian.
        time: First and last acquisition.
        sensors: Name -> chips.
        gsd: Smallest and largest, metres per pixel (or ratios, of a model in relative mode).
        chip: Height and width in pixels of the windows, where all are alike.
        at: When this version of the archive was committed.
    """

    rows: int
    bounds: tuple[float, float, float, float] | None
    time: tuple[datetime, datetime] | None
    sensors: Mapping[str, int]
    gsd: tuple[float, float] | None
    chip: tuple[int, int] | None
    at: datetime


def collect_facts(archive: ArchiveTable) -> ArchiveFacts:
    """Scan an archive for its `ArchiveFacts`; memory does not grow with it."""
    sensors: dict[str, int] = {}
    corners: list[tuple[float, float, float, float]] = []
    times: list[datetime] = []
    gsds: list[float] = []
    chips: set[tuple[int, int]] = set()
    for batch in archive.batches(["sensor", "gsd", "datetime", "bbox", "window"]):
        for entry in batch.column("sensor").value_counts().to_pylist():
            sensors[entry["values"]] = sensors.get(entry["values"], 0) + entry["counts"]
        times += _ends(batch.column("datetime"))
        gsds += _ends(batch.column("gsd"))
        if box := _bounds(batch.column("bbox")):
            corners.append(box)
        window = dict(zip(batch.column("window").type.names, batch.column("window").flatten(), strict=True))
        height, width = (window[side].to_numpy().astype(np.int64) for side in ("height", "width"))
        chips |= {divmod(both, 2**32) for both in np.unique(height * 2**32 + width).tolist()}
    west, south, east, north = zip(*corners, strict=True) if corners else ((), (), (), ())
    committed = {version.number: version.time for version in archive.versions()}
    chip = chips.pop() if len(chips) == 1 else None
    return ArchiveFacts(
        rows=sum(sensors.values()),
        bounds=(min(west), min(south), max(east), max(north)) if corners else None,
        time=(min(times), max(times)) if times else None,
        sensors=dict(sorted(sensors.items())),
        gsd=(min(gsds), max(gsds)) if gsds else None,
        chip=chip if chip and min(chip) > 0 else None,
        at=committed.get(archive.version, datetime.now(UTC)),
    )


def _ends(column: pa.Array) -> list[Any]:
    ends = pc.min_max(column).as_py()
    return [] if ends["min"] is None else [ends["min"], ends["max"]]


def _bounds(boxes: pa.Array) -> tuple[float, float, float, float] | None:
    boxes = boxes.drop_null()
    if not len(boxes):
        return None
    corner = dict(zip(boxes.type.names, boxes.flatten(), strict=True))
    across = pc.any(pc.greater(corner["xmin"], corner["xmax"])).as_py()
    west, east = (
        (-180.0, 180.0) if across else (pc.min(corner["xmin"]).as_py(), pc.max(corner["xmax"]).as_py())
    )
    return west, pc.min(corner["ymin"]).as_py(), east, pc.max(corner["ymax"]).as_py()


def archive_stac_collection(
    archive: ArchiveTable, facts: ArchiveFacts, *, table: str = TABLE_FILE, model: str | None = None
) -> dict[str, Any]:
    """The archive as a STAC Collection with the embedding extension.

    Args:
        archive: Its name and model.
        facts: From `facts_of`.
        table: Name of the file with the vectors, beside the collection.
        model: Where the model's MLM Item is; without one the model's id is named.
    """
    time = [_text(when) for when in facts.time] if facts.time else [None, None]
    layout: dict[str, Any] = {"layout_type": "variable_grid"}
    if facts.chip:
        layout = {"layout_type": "regular_grid", "chip_size": list(facts.chip)}
    summaries: dict[str, Any] = {"swath:sensors": list(facts.sensors)}
    if facts.gsd:
        summaries["swath:gsd"] = {"minimum": facts.gsd[0], "maximum": facts.gsd[1]}
    links = [
        _model_link(archive, model),
        {
            "rel": "emb:source-data",
            "href": f"./{table}",
            "type": "application/vnd.apache.parquet",
            "title": "Each row names its imagery: columns source, files and window",
        },
    ]
    return {
        "type": "Collection",
        "stac_version": _VERSION,
        "stac_extensions": [EMB],
        "id": _name(archive),
        "title": f"Embeddings of {facts.rows:,} chips",
        "description": f"Embeddings of {facts.rows} image chips by the model {archive.model_id}, raw and not "
        "scaled to unit length. swath:gsd is in metres per pixel, or a ratio where the model counts so.",
        "license": "other",
        "keywords": ["embeddings", *facts.sensors],
        "extent": {
            "spatial": {"bbox": [list(facts.bounds or (-180.0, -90.0, 180.0, 90.0))]},
            "temporal": {"interval": [time]},
        },
        "emb:type": "chip",
        "emb:dimensions": archive.dimensions,
        "data_type": "float32",
        "emb:chip_layout": layout,
        "emb:fit_for_use": ["retrieval", "classification", "change_detection"],
        "summaries": summaries,
        "item_assets": {"embeddings": _asset()},
        "links": links,
    }


def archive_stac_item(
    archive: ArchiveTable, facts: ArchiveFacts, *, table: str = TABLE_FILE, model: str | None = None
) -> dict[str, Any]:
    """The archive as a STAC Item whose asset ``embeddings`` is its table. Arguments as `collection_of`."""
    geometry = None
    if facts.bounds:
        west, south, east, north = facts.bounds
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
    properties: dict[str, Any] = {"datetime": _text(facts.at), "processing:datetime": _text(facts.at)}
    if facts.time:
        first, last = map(_text, facts.time)
        properties |= {"datetime": None, "start_datetime": first, "end_datetime": last}
    else:
        properties["description"] = "The imagery carries no times: datetime is when it was embedded."
    properties["emb:runtime_parameters"] = {
        "model_id": archive.model_id,
        "sensors": dict(facts.sensors),
        "swath": __version__,
        "per_chip": "columns gsd, window and preprocessing",
    }
    columns = [{"name": field.name, "type": str(field.type)} for field in schema(archive.dimensions)]
    asset = {
        "href": f"./{table}",
        **_asset(),
        "table:row_count": facts.rows,
        "table:primary_geometry": "geometry",
        "table:columns": columns,
    }
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": _VERSION,
        "stac_extensions": [EMB, _PROCESSING, _TABLE],
        "id": f"{_name(archive)}-{archive.version}",
        "collection": _name(archive),
        "geometry": geometry,
        "properties": properties,
        "links": [
            {"rel": "collection", "href": "./collection.json", "type": "application/json"},
            {"rel": "parent", "href": "./collection.json", "type": "application/json"},
            _model_link(archive, model),
        ],
        "assets": {"embeddings": asset},
    }
    if facts.bounds:
        item["bbox"] = list(facts.bounds)
    return item


def _model_link(archive: ArchiveTable, href: str | None) -> dict[str, Any]:
    link = {
        "rel": "emb:model",
        "href": href or f"urn:swath:model:{archive.model_id}",
        "title": archive.model_id,
    }
    return link | ({"type": "application/geo+json"} if href else {})


def _asset() -> dict[str, Any]:
    return {
        "type": "application/vnd.apache.parquet",
        "title": "Vectors, footprints, times and sources (GeoParquet 1.1)",
        "roles": ["data"],
    }


def _name(archive: ArchiveTable) -> str:
    last = archive.path.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", last) or "archive"


def _text(when: datetime) -> str:
    utc = when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    return utc.isoformat().replace("+00:00", "Z")
