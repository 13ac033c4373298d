"""Scenes named by STAC: items, item collections, static catalogs, and stac-geoparquet.

The files that describe are read from the local disk; assets that are elsewhere only where that is asked for
(see `swath.rasters.remote`). What a file claims is checked like anything else from outside: its size, its
types, its links (each file is visited once, so a catalog that links to itself ends).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from swath.errors import ImageryError
from swath.rasters.cloud_mask import CLOUD_LAYERS
from swath.rasters.remote import is_remote

MAX_JSON_BYTES = 256 * 2**20
PARQUET_SUFFIXES = (".parquet", ".geoparquet")
STAC_NAMES = ("catalog.json", "collection.json")
_NO_DATA_ROLES = {"thumbnail", "overview", "metadata", "visual", "labels"}
_RASTER_SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, slots=True)
class StacScene:
    """What an item says about one scene.

    Attributes:
        path: The item's JSON file.
        files: Data assets: one with many bands, or one a band.
        bands: Names of the bands where the item states them: as many as files (or as the one file has bands).
        time: Acquisition time.
        gsd: Stated ground sample distance in metres.
        properties: The item's plain properties as text, beside which files' own tags stand.
        cloud_layer: Kind and file of the asset that says where clouds are (see `swath.rasters.cloud_mask`).
        problem: Why there is nothing to read; then `files` is empty.
    """

    path: str
    files: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    time: datetime | None = None
    gsd: float | None = None
    properties: dict[str, str] = field(default_factory=dict)
    cloud_layer: tuple[str, str] | None = None
    problem: str | None = None


def is_stac(path: Path) -> bool:
    """Whether a file is a STAC item, item collection, collection or catalog."""
    try:
        data = _load(path)
    except ImageryError:
        return False
    return data.get("type") == "FeatureCollection" or "stac_version" in data


def is_stac_geoparquet(path: Path) -> bool:
    """Whether a Parquet file holds STAC items, by its columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return {"id", "assets"} <= set(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return False


def read_stac(path: str | Path, *, remote: bool = False) -> Iterator[StacScene]:
    """All scenes of a STAC file (JSON or stac-geoparquet) and of all that it links to, one by one.

    Args:
        path: The file.
        remote: Whether assets may be somewhere else than on the local disk. Descriptions may not.

    Files that are missing or wrong become a `StacScene` with a `problem`, except the first.

    Raises:
        ImageryError: `path` itself cannot be read, or is not STAC.
    """
    first = Path(path)
    if first.suffix.lower() in PARQUET_SUFFIXES:
        for item in _items_of_parquet(first):
            yield from _scenes_of_item(first, item, remote)
        return
    data = _load(first)
    if data.get("type") not in ("Feature", "FeatureCollection", "Catalog", "Collection"):
        raise ImageryError(f"{first}: is JSON, but no STAC item, item collection, collection or catalog")
    seen = {first.resolve()}
    stack: list[tuple[Path, dict[str, Any]]] = [(first, data)]
    while stack:
        here, data = stack.pop()
        kind = data.get("type")
        if kind == "Feature":
            yield from _scenes_of_item(here, data, remote)
        elif kind == "FeatureCollection":
            features = data.get("features")
            if not isinstance(features, list):
                yield StacScene(str(here), problem=f"{here}: `features` is not a list of items")
                continue
            for feature in features:
                yield from _scenes_of_item(here, feature, remote)
        else:
            linked: list[tuple[Path, dict[str, Any]]] = []
            for link in _list(data.get("links")):
                if not isinstance(link, dict) or link.get("rel") not in ("child", "item", "items"):
                    continue
                target = _local(here, link.get("href"))
                if target is None:
                    reason = f"{here}: links to {link.get('href')!r}, which is not on the local disk"
                    yield StacScene(str(here), problem=reason + "; download it first")
                elif target.resolve() not in seen:
                    seen.add(target.resolve())
                    try:
                        linked.append((target, _load(target)))
                    except ImageryError as error:
                        yield StacScene(str(target), problem=str(error))
            stack.extend(reversed(linked))


def _scenes_of_item(path: Path, item: Any, remote: bool) -> Iterator[StacScene]:
    """The scene of one item: its band files together, and each multi-band file alone."""
    if not isinstance(item, dict) or not isinstance(item.get("assets"), dict):
        yield StacScene(str(path), problem=f"{path}: an item without `assets`")
        return
    given = item.get("properties")
    properties: dict[str, Any] = given if isinstance(given, dict) else {}
    name = f"{path} (item {item.get('id', '?')})"
    about: dict[str, Any] = {
        "path": str(path),
        "time": _time(properties),
        "gsd": _positive(properties.get("gsd")),
        "properties": {
            str(key): str(value)
            for key, value in properties.items()
            if isinstance(value, str | int | float | bool)
        },
    }
    single: dict[str, str] = {}  # band name -> file
    together: list[tuple[str, tuple[str, ...]]] = []  # file, names of its bands
    elsewhere: list[str] = []
    for key, asset in item["assets"].items():
        if not isinstance(asset, dict) or not _is_data(asset):
            continue
        file = _file(path, asset.get("href"), remote)
        if file is None:
            elsewhere.append(str(asset.get("href")))
            continue
        bands = _bands(asset)
        kind = (bands[0] if len(bands) == 1 else str(key)).upper()
        if kind in CLOUD_LAYERS:
            about["cloud_layer"] = (kind, file)
        elif len(bands) > 1:
            together.append((file, bands))
        else:
            single[bands[0] if bands else str(key)] = file
    found = bool(together)
    for whole, bands in together:
        yield StacScene(files=(whole,), bands=bands, **about)
    if len(single) == 1:
        # One asset that states no bands: however many the file has. Its key is no band's name.
        found = True
        yield StacScene(files=tuple(single.values()), **about)
    elif single:
        found = True
        yield StacScene(files=tuple(single.values()), bands=tuple(single), **about)
    if not found:
        reason, fix = "no raster assets", ""
        if elsewhere:
            reason = f"only assets that are not on the local disk ({elsewhere[0]})"
            fix = "; let them be fetched (--remote), or download them first"
        yield StacScene(str(path), problem=f"{name}: has {reason}{fix}")


def _is_data(asset: dict[str, Any]) -> bool:
    roles = {str(role) for role in _list(asset.get("roles"))}
    if roles & _NO_DATA_ROLES and "data" not in roles:
        return False
    media = str(asset.get("type") or "").lower()
    if media:
        return media.startswith(
            ("image/tiff", "image/vnd.stac.geotiff", "image/jpeg", "image/png", "image/webp")
        )
    return str(asset.get("href") or "").lower().endswith(_RASTER_SUFFIXES)


def _bands(asset: dict[str, Any]) -> tuple[str, ...]:
    """Band names of an asset: STAC 1.1 `bands`, or the EO extension's `eo:bands`."""
    for key in ("bands", "eo:bands"):
        names = [band.get("name") for band in _list(asset.get(key)) if isinstance(band, dict)]
        if names and all(isinstance(name, str) and name for name in names):
            return tuple(str(name) for name in names)
    return ()


def _local(base: Path, href: Any) -> Path | None:
    """The local file that a link means, or None where it is not one."""
    if not isinstance(href, str) or not href or href.startswith("/vsi"):
        return None
    parts = urlsplit(href)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    if parts.scheme or parts.netloc:
        return None
    literal, decoded = base.parent / href, base.parent / unquote(href)
    return literal if literal.exists() or not decoded.exists() else decoded


def _file(base: Path, href: Any, remote: bool) -> str | None:
    """The file that an asset's link means, or None where it is not to be read."""
    if remote and isinstance(href, str) and is_remote(href) and not href.startswith("file:"):
        return href
    local = _local(base, href)
    return None if local is None else str(local)


def _items_of_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Items of a stac-geoparquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        from stac_geoparquet.arrow import stac_table_to_items
    except ImportError:
        raise ImageryError(f"{path}: stac-geoparquet needs an extra: pip install '.[stac]'") from None
    try:
        yield from stac_table_to_items(pq.read_table(path))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise ImageryError(f"{path}: cannot be read as stac-geoparquet ({error})") from None


def _time(properties: dict[str, Any]) -> datetime | None:
    for key in ("datetime", "start_datetime"):
        try:
            time = datetime.fromisoformat(str(properties.get(key)))
        except ValueError:
            continue
        return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return None


def _positive(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 1e7 else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ImageryError(f"{path}: JSON of more than {MAX_JSON_BYTES // 2**20} MiB; split it")
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ImageryError(f"{path}: cannot be opened ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ImageryError(f"{path}: is not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise ImageryError(f"{path}: is JSON, but no STAC object")
    return data
