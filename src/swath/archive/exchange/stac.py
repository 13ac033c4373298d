"""An archive in the words of STAC: a Collection and an Item with the embedding extension, and its model.

The extension (``emb``; github.com/geo-embeddings/embeddings-stac-specification, v0.0.1, a proposal) puts what
is true of all vectors on the Collection (kind, dimensions, data type, layout of the chips, links to the model
and to the imagery) and how they were made on the Item, whose asset ``embeddings`` is the table of vectors.
The model is an Item of the Machine Learning Model extension, which every model directory has as ``mlm.json``.

Nothing is looked up in a network: `swath.archive.exchange.stac` writes plain JSON.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from swath.archive.exchange.spatial_sort import Progress
from swath.archive.exchange.stac_objects import (
    EMB,
    TABLE_FILE,
    archive_stac_collection,
    archive_stac_item,
    collect_facts,
)
from swath.archive.table.store import ArchiveTable
from swath.errors import ArchiveError
from swath.files import atomic_folder


def write_stac(
    archive: ArchiveTable,
    folder: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> int:
    """Write a STAC catalog of an archive: a folder that appears whole or not at all.

    ===================  ==========================================================================
    collection.json      what is true of all vectors
    item.json            how they were made; its asset ``embeddings`` is the table
    embeddings.parquet   the table: GeoParquet 1.1, see `swath.archive.exchange.geoparquet`
    model.json           the model as an MLM Item, where its directory is found
    ===================  ==========================================================================

    Args:
        archive: Its version of this moment is written.
        folder: Where; an earlier export there is replaced.
        model: The model directory; by default where the archive last saw it.
        progress: Called with (rows read, rows).

    Returns:
        The number of rows.

    Raises:
        ArchiveError: The folder holds something else; `model` is no model directory, or another model's.
    """
    from swath.archive.exchange.geoparquet import write_geoparquet

    folder = Path(folder)
    _refuse_to_cover(folder)
    pinned = archive.at(archive.version)
    facts = collect_facts(pinned)
    described = _model_item(archive, model)
    href = "./model.json" if described else None
    try:
        with atomic_folder(folder) as temporary:
            written = write_geoparquet(pinned, temporary / TABLE_FILE, progress=progress)
            collection = archive_stac_collection(pinned, facts, model=href)
            collection["links"].append({"rel": "item", "href": "./item.json", "type": "application/geo+json"})
            pages = {"collection.json": collection, "item.json": archive_stac_item(pinned, facts, model=href)}
            if described:
                pages["model.json"] = described
            for name, page in pages.items():
                text = json.dumps(page, indent=2, ensure_ascii=False) + "\n"
                (temporary / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ArchiveError(f"{folder}: could not be written ({error}); nothing is left of it") from error
    return written


def _refuse_to_cover(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ArchiveError(f"{folder}: is a file; a STAC export is a folder")
    if folder.is_dir() and any(folder.iterdir()):
        try:
            page = json.loads((folder / "collection.json").read_text(encoding="utf-8"))
            ours = EMB in page["stac_extensions"]
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise ArchiveError(f"{folder}: holds other files; give the export a folder of its own")


def _model_item(archive: ArchiveTable, model: str | os.PathLike[str] | None) -> dict[str, Any] | None:
    """The mlm.json of the archive's model, its files named by where they are; None where it is not found."""
    place = Path(model) if model is not None else Path(archive.model_path or "")
    try:
        item: dict[str, Any] = json.loads((place / "mlm.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if model is not None:
            raise ArchiveError(f"{place}: is no model directory (it has no readable mlm.json)") from None
        return None
    if item.get("id") != archive.model_id:
        if model is not None:
            archive.require_model(str(item.get("id")))
        return None  # another model stands there now
    for name, asset in item.get("assets", {}).items():
        asset["title"] = f"{asset.get('title', name)} (in the model directory)"
    return item
