"""From imagery to an archive in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from swath.archive.ingest.run import EmbedReport, embed_archive
from swath.archive.query.image_query import resolve_query_sensor
from swath.archive.table.lance import archive_exists
from swath.archive.table.store import ArchiveTable
from swath.datasets.opening import open_dataset
from swath.datasets.protocol import ImageDataset
from swath.errors import ArchiveError
from swath.models.directory import load_encoder
from swath.models.model import Model
from swath.sensors.sensor import Sensor
from swath.training.parallel import World


def embed(
    model: str | Path | Model,
    data: str | Path | ImageDataset,
    archive: str | os.PathLike[str],
    *,
    sensor: str | Path | Sensor | None = None,
    gsd: float | str | None = None,
    chip_size: int | Sequence[int | None] | None = None,
    chip_metres: float | Sequence[float | None] | None = None,
    min_valid: float = 0.5,
    max_cloud: float = 1.0,
    prune: bool = False,
    batch_size: int = 64,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    device: str | None = None,
    world: World | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> EmbedReport:
    """Embed imagery into an archive; chips that it holds already are skipped before their pixels are read.

    Args:
        model: A model directory, or a model. The archive notes a directory, so that search finds it.
        data: Imagery as `open_dataset` takes it, or a data set.
        archive: Path or URL of the archive; created if nothing is there.
        sensor: What the imagery was taken with; by default the model's, if it knows only one.
        gsd: Metres per pixel of images without georeference, or as of `open_dataset`.
        chip_size: Side of a chip in pixels; several embed every place at each.
        chip_metres: Side of a chip on the ground instead; several embed every place at several GSDs.
        min_valid: Leave out chips with a smaller share of valid pixels.
        max_cloud: Leave out chips with a larger known share of cloud.
        prune: Delete rows of files below the folder `data` that are gone.
        batch_size: Chips a forward pass.
        workers: See `embed_archive`.
        engine: See `embed_archive`.
        device: Where a model directory is loaded to; by default ``cuda`` if there is one.
        world: See `embed_archive`.
        progress: Called with (chips done, chips to do) after each batch.
        **options: Other options of `open_dataset`, such as ``layout``, ``stride``, ``pattern``, ``remote``.

    Raises:
        ArchiveError: An archive of another model, a damaged one, a full disk.
        ImageryError: Nothing usable in `data`.
        ContractError: The model does not know the sensor.
    """
    opened = isinstance(data, ImageDataset)
    if prune and (opened or not Path(str(data)).is_dir()):
        raise ArchiveError(
            f"prune deletes rows of files that are gone below a folder, but {data} is no folder"
        )
    if isinstance(model, Model):
        loaded, model_path = model.encoder_model, None
    else:
        loaded = load_encoder(model, device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model_path = str(model)
    if archive_exists(archive):
        ArchiveTable.open(archive, model_id=loaded.id)  # fails before a million headers are read
    contract = loaded.contract
    if gsd is None and contract.gsd_mode == "relative":
        gsd = "relative"
    return embed_archive(
        loaded,
        data
        if isinstance(data, ImageDataset)
        else [
            open_dataset(
                data,
                sensor=resolve_query_sensor(contract, sensor),
                gsd=gsd,
                chip_size=pixels,
                chip_metres=metres,
                **options,
            )
            for pixels in _several(chip_size)
            for metres in _several(chip_metres)
        ],
        archive,
        model_path=model_path,
        batch_size=batch_size,
        workers=workers,
        min_valid=min_valid,
        max_cloud=max_cloud,
        gsd_by_width=gsd == "relative" and contract.reference_size is not None,
        prune_below=str(data) if prune else None,
        engine=engine,
        world=world,
        progress=progress,
    )


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) else [value]
