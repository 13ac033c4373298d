"""What is searched for: a chip of the archive, or an image file that becomes a chip as the archive's did.

An image of the user's goes through the same reading, cutting and conversion as the archive's chips: the
preprocessing is stored with every row. Of an archive of chips cut from scenes, the chip at the image's centre
is taken; of an archive of whole images, the whole image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.archive.embed import Embedder
from swath.archive.places import footprint_geometry
from swath.archive.search import Answer, Answers, Filter
from swath.archive.sources import absolute
from swath.archive.store import Archive
from swath.errors import ArchiveError, ContractError, ImageryError
from swath.imagery.chip import Window
from swath.imagery.datasets import open_dataset
from swath.imagery.image_files import ImageFiles
from swath.imagery.pictures import picture_header
from swath.imagery.safe_open import sniff_driver
from swath.imagery.sensors import Sensor, get_sensor, match_bands

if TYPE_CHECKING:
    from swath.imagery.raster import SceneHeader


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
        self,
        archive: Archive,
        k: int = 10,
        *,
        where: Filter | None = None,
        sensor: str | Sequence[str] | None = None,
        centre: bool | None = None,
        exclude_self: bool = False,
        exclude_pair: float | None = None,
    ) -> Answers:
        """The `k` nearest chips of `archive`.

        Args:
            archive: To search.
            k: How many.
            where: Only chips that pass.
            sensor: Only chips of this sensor, or of these; any sensor may ask.
            centre: As for `swath.archive.search.Searcher.search`.
            exclude_self: Leave out the chip asked for, or every chip of the image file asked for.
            exclude_pair: Leave out chips of any sensor that share this much of the query's footprint (of the
                smaller of the two; 0.5 is a half): its own place.

        Raises:
            ArchiveError: `exclude_pair` of a query without footprint; see also `Searcher.search`.
        """
        if exclude_pair is not None and self.chip.geometry is None:
            raise ArchiveError(
                f"{self.text}: has no footprint, so chips of the same place cannot be told from others; use "
                "--exclude-self, or a georeferenced query"
            )
        return archive.searcher().search(
            self.vector,
            k,
            where=where,
            sensor=sensor,
            query_sensor=self.chip.sensor,
            centre=centre,
            exclude_footprint=None if exclude_pair is None else self.chip.geometry,
            exclude_share=0.5 if exclude_pair is None else exclude_pair,
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
        sensor: What the image was taken with; default: the only sensor of the model or of the archive, or the
            only one of the model whose bands the file has.
        gsd: Metres per pixel where the file has no georeference.
        offset_dn: Added to stored values before scaling; None for what the file says about itself.

    Raises:
        ArchiveError: The archive is of another model, or the sensor has to be given.
        ContractError: The model does not know the sensor, or no sensor of its has the file's bands.
        ImageryError: The file is no usable image, or its GSD is unknown.
    """
    archive.require_model(model.id)
    chosen = _sensor(archive, model, sensor, path)
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
    image, valid, native, window, time, header = _centre(dataset, path)
    if not bool(valid.any()):
        raise ImageryError(f"{path}: none of its pixels is valid; choose an image that is not all nodata")
    if by_width:
        native = model.contract.reference_size / image.shape[-1]
    vector = model.embed(
        image[None], gsd=torch.tensor([native], dtype=torch.float32), sensor=chosen.name, valid=valid[None]
    )
    geometry, box = _footprint(header, window)
    chip = Answer(
        rank=0,
        score=1.0,
        id="",
        source=absolute(os.fspath(path)),
        window=window,
        sensor=chosen.name,
        gsd=native,
        datetime=time,
        bbox=box,
        geometry=geometry,
        valid_fraction=float(valid.to(torch.float32).mean()),
    )
    return Query(os.fspath(path), vector[0].detach().to("cpu", torch.float32).numpy(), chip)


def _sensor(
    archive: Archive, model: Any, sensor: str | Path | Sensor | None, path: str | os.PathLike[str]
) -> Sensor:
    """The query's sensor as the model knows it: as given, or by the bands that the file has."""
    contract = model.contract
    if sensor is not None or len(contract.sensors) == 1:
        return sensor_of(contract, sensor)
    if Path(path).is_dir():  # band files, which say little about their sensor
        raise ArchiveError(
            f"{path}: is a folder of band files; say which sensor it is of (--query-sensor "
            f"{sorted(contract.sensors)[0]})"
        )
    bands = _bands(path)
    fitting = []
    for name, known in contract.sensors.items():
        with suppress(ImageryError):
            match_bands(known, bands)
            fitting.append(name)
    if not fitting:
        told = ", ".join(str(band) for band in bands if band) or "which have no names"
        sensors = "; ".join(
            f"{name}: {', '.join(known.band_names)}" for name, known in sorted(contract.sensors.items())
        )
        raise ContractError(
            f"{path}: is of no sensor that the model knows: it has {len(bands)} bands ({told}), the model "
            f"was trained on {sensors}. If it holds these bands, name them in the file's band descriptions; "
            "else search with a model that was trained on its sensor."
        )
    held = [name for name in fitting if name in archive.summary().sensors]
    for names in (fitting, held):
        if len(names) == 1:
            return sensor_of(contract, names[0])
    raise ArchiveError(
        f"{path}: may be of {' or '.join(sorted(fitting))} by its {len(bands)} bands; say which "
        f"(--query-sensor {sorted(fitting)[0]})"
    )


def _bands(path: str | os.PathLike[str]) -> list[str | None]:
    """Descriptions of a file's bands, None where they have none."""
    if sniff_driver(path) != "GTiff":
        return [None] * picture_header(path).bands
    from swath.imagery.raster import read_header

    return [text or None for text in read_header(os.fspath(path)).descriptions]


def _footprint(
    header: SceneHeader | None, window: Window
) -> tuple[bytes | None, tuple[float, float, float, float] | None]:
    """Geometry (WKB) and bounds of a window; None without georeference."""
    if header is None:
        return None, None
    from swath.imagery.chips import window_footprint

    ring = window_footprint(header, window)
    if ring is None:
        return None, None
    geometry, box = footprint_geometry(ring)
    return geometry, (box["xmin"], box["ymin"], box["xmax"], box["ymax"])


def sensor_of(contract: Any, sensor: str | Path | Sensor | None) -> Sensor:
    """A sensor by name or YAML file as the model's contract has it; with None the contract's only one.

    A sensor that only the model carries (from its trainer's YAML) need not be registered here.

    Raises:
        ContractError: The model does not know it, or knows several and none was named.
    """
    if sensor is None and len(contract.sensors) > 1:
        names = sorted(contract.sensors)
        raise ContractError(
            f"the model knows the sensors {', '.join(names)}; say which one the images are of "
            f"(--sensor {names[0]})"
        )
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
) -> tuple[Tensor, Tensor, float, Window, datetime | None, SceneHeader | None]:
    """Pixels [C, H, W], valid [H, W], GSD, window, time, header of the chip in the middle of the only scene.

    The header is None of a picture, which has no georeference.
    """
    if isinstance(dataset, ImageFiles):
        sample = dataset[0]
        if "image" not in sample:
            raise ImageryError(sample["problem"][1])
        height, width = map(int, dataset.shapes[0])
        window, header = Window(0, 0, width, height), None
        if sniff_driver(dataset.paths[0]) == "GTiff":
            from swath.imagery.raster import read_header

            header = read_header(dataset.paths[0])
        time = header.time if header is not None else None
        return sample["image"], sample["valid"], sample["gsd"], window, time, header
    if len(dataset.scenes) != 1:
        raise ImageryError(f"{path}: holds {len(dataset.scenes)} scenes; search with one image")
    scene, side, size = dataset.scenes[0], dataset.chip_pixels[0], dataset.chip_size
    header = scene.header
    window = Window((header.width - side) // 2, (header.height - side) // 2, side, side)
    shape = None if side == size else (size, size)
    image, valid = scene.read(window, shape)
    gsd = scene.gsd(window, shape)
    return torch.from_numpy(image), torch.from_numpy(valid), gsd, window, header.time, header
