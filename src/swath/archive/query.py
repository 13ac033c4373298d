"""What is searched for: a chip of the archive, or an image file that becomes a chip as the archive's did.

An image of the user's goes through the same reading, cutting and conversion as the archive's chips: the
preprocessing is stored with every row. Of an archive of chips cut from scenes, the chip at the image's centre
is taken; of an archive of whole images, the whole image.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.archive.embed import Embedder
from swath.archive.search import Answer, Answers, Filter
from swath.archive.sources import absolute
from swath.archive.store import Archive
from swath.errors import ArchiveError, ContractError, ImageryError
from swath.imagery.chip import Window
from swath.imagery.datasets import open_dataset
from swath.imagery.image_files import ImageFiles
from swath.imagery.sensors import Sensor, get_sensor


@dataclass(frozen=True, slots=True)
class Query:
    """One thing to search for, and what is needed to show it.

    Attributes:
        text: What the user asked for: a path or an id.
        vector: [D] embedding.
        chip: Where its pixels are, in the form of an answer (rank 0, score 1; `id` is "" for an image file).
    """

    text: str
    vector: NDArray[np.float32]
    chip: Answer

    def search(
        self, archive: Archive, k: int = 10, *, where: Filter | None = None, exclude_self: bool = False
    ) -> Answers:
        """The `k` nearest chips of `archive`.

        Args:
            archive: To search.
            k: How many.
            where: Only chips that pass.
            exclude_self: Leave out the chip asked for, or every chip of the image file asked for.
        """
        return archive.searcher().search(
            self.vector,
            k,
            where=where,
            exclude_ids=[self.chip.id] if exclude_self and self.chip.id else (),
            exclude_sources=[self.chip.source] if exclude_self and not self.chip.id else (),
        )


def query_by_id(archive: Archive, name: str) -> Query:
    """A chip of the archive, by its id or the beginning of it (at least 6 characters).

    Raises:
        ArchiveError: No such chip, or several.
    """
    chip = archive.searcher().find(name)
    if chip is None:
        raise ArchiveError(
            f"{name!r} is no image file, and no chip of {archive.path} has an id that begins so; give the "
            "path of an image, or an id from the answers of a search"
        )
    return Query(name, archive.searcher().vector(chip.id), chip)


def query_by_image(
    archive: Archive,
    path: str | os.PathLike[str],
    model: Embedder,
    *,
    sensor: str | Path | Sensor | None = None,
    gsd: float | Literal["relative"] | None = None,
    offset_dn: float | None = None,
) -> Query:
    """An image file, embedded as the archive's chips were.

    Args:
        archive: It will be searched.
        path: The image.
        model: The archive's model.
        sensor: What the image was taken with; default: the archive's sensor, if it has one only.
        gsd: Metres per pixel where the file has no georeference.
        offset_dn: Added to stored values before scaling; None for what the file says about itself.

    Raises:
        ArchiveError: The archive is of another model, or has several sensors and none is given.
        ContractError: The model does not know the sensor.
        ImageryError: The file is no usable image, or its GSD is unknown.
    """
    archive.require_model(model.id)
    chosen = _sensor(archive, model, sensor)
    found = archive.searcher().preprocessings(chosen.name) or archive.searcher().preprocessings()
    if not found:
        raise ArchiveError(f"{archive.path}: is empty; embed something into it first")
    options: dict[str, Any] = json.loads(found[0])
    scale = options.pop("gsd", None)  # how the archive's chips got their GSD, where it was not measured
    by_width = scale == "width" and gsd is None
    if scale is not None and gsd is None:
        gsd = "relative"
    if "size" in options:
        options["size"] = tuple(options["size"])
    dataset = open_dataset(Path(path), sensor=chosen, gsd=gsd, offset_dn=offset_dn, **options)
    image, valid, native, window, time = _centre(dataset, path)
    if not bool(valid.any()):
        raise ImageryError(f"{path}: none of its pixels is valid; choose an image that is not all nodata")
    if by_width:
        native = model.contract.reference_size / image.shape[-1]
    vector = model.embed(
        image[None], gsd=torch.tensor([native], dtype=torch.float32), sensor=chosen.name, valid=valid[None]
    )
    chip = Answer(
        rank=0,
        score=1.0,
        id="",
        source=absolute(os.fspath(path)),
        window=window,
        sensor=chosen.name,
        gsd=native,
        datetime=time,
        bbox=None,
        geometry=None,
        valid_fraction=float(valid.to(torch.float32).mean()),
    )
    return Query(os.fspath(path), vector[0].detach().to("cpu", torch.float32).numpy(), chip)


def _sensor(archive: Archive, model: Any, sensor: str | Path | Sensor | None) -> Sensor:
    """The query's sensor as the model knows it."""
    contract = model.contract
    if sensor is None:
        names = list(archive.summary().sensors)
        if len(names) > 1:
            raise ArchiveError(
                f"{archive.path}: holds chips of {', '.join(names)}; say which the image is of (--sensor)"
            )
        sensor = names[0] if names else None
    return sensor_of(contract, sensor)


def sensor_of(contract: Any, sensor: str | Path | Sensor | None) -> Sensor:
    """A sensor by name or YAML file as the model's contract has it; with None the contract's only one.

    A sensor that only the model carries (from its trainer's YAML) need not be registered here.

    Raises:
        ContractError: The model does not know it, or knows several and none was named.
    """
    if sensor is None or (isinstance(sensor, str) and sensor in contract.sensors):
        known: Sensor = contract.sensor(sensor)
        return known
    named = get_sensor(sensor)
    known = contract.sensor(named.name)
    if [band.name for band in named.bands] != [band.name for band in known.bands]:
        raise ContractError(
            f"sensor {named.name} has bands {', '.join(named.band_names)}, but the model was trained with "
            f"{', '.join(known.band_names)}; name the bands of the data as the model does"
        )
    return named


def _centre(
    dataset: Any, path: str | os.PathLike[str]
) -> tuple[Tensor, Tensor, float, Window, datetime | None]:
    """Pixels [C, H, W], valid [H, W], GSD, window and time of the chip in the middle of the only scene."""
    if isinstance(dataset, ImageFiles):
        sample = dataset[0]
        if "image" not in sample:
            raise ImageryError(sample["problem"][1])
        height, width = map(int, dataset.shapes[0])
        return sample["image"], sample["valid"], sample["gsd"], Window(0, 0, width, height), None
    if len(dataset.scenes) != 1:
        raise ImageryError(f"{path}: holds {len(dataset.scenes)} scenes; search with one image")
    scene, side, size = dataset.scenes[0], dataset.chip_pixels[0], dataset.chip_size
    header = scene.header
    window = Window((header.width - side) // 2, (header.height - side) // 2, side, side)
    shape = None if side == size else (size, size)
    image, valid = scene.read(window, shape)
    return torch.from_numpy(image), torch.from_numpy(valid), scene.gsd(window, shape), window, header.time
