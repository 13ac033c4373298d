"""An image file as a query: it becomes a chip as the archive's chips did.

An image of the user's goes through the same reading, cutting and conversion as the archive's chips: the
preprocessing is stored with every row. Of an archive of chips cut from scenes, the chip at the image's center
is taken; of an archive of whole images, the whole image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.archive.ingest.chip_ids import absolute_path
from swath.archive.ingest.encode import Embedder
from swath.archive.query.query import Query
from swath.archive.query.relevance_feedback import FeedbackExample
from swath.archive.query.results import SearchResult
from swath.archive.query.searcher import searcher_of
from swath.archive.table.store import ArchiveTable
from swath.datasets.image_files import ImageFileDataset
from swath.datasets.opening import open_dataset
from swath.errors import ArchiveError, ContractError, ImageryError, InvalidQuery
from swath.geo.footprint import footprint_geometry
from swath.geo.grid import PixelWindow
from swath.models.contract import Contract
from swath.rasters.pillow_reader import read_image_header
from swath.rasters.safe_open import sniff_driver
from swath.renames import current_names
from swath.sensors.matching import match_bands
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor

if TYPE_CHECKING:
    from swath.models import Model
    from swath.rasters.read import SceneHeader


def load_archive_model(
    archive: ArchiveTable, path: str | os.PathLike[str] | None = None, device: str = "cpu"
) -> Model:
    """The archive's model: from `path`, or from where it last embedded into the archive.

    Raises:
        ArchiveError: It is not there any more, or it is another model.
    """
    from swath.models import load_encoder

    noted = path or archive.model_path
    if noted is None or not Path(noted).exists():
        raise ArchiveError(
            f"{archive.path}: its model {archive.model_id} is not at {noted} any more; say where it is "
            "(--model DIR)"
        )
    model = load_encoder(Path(noted), device=device)
    archive.require_model(model.id)
    return model


def query_by_image(
    archive: ArchiveTable,
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
    cutting = QueryPreprocessing.of(archive, model)
    return embed_query_image(
        model, read_query_image(cutting, path, sensor=sensor, gsd=gsd, offset_dn=offset_dn)
    )


@dataclass(frozen=True, slots=True)
class QueryPreprocessing:
    """How an image becomes what the archive's chips are. Plain data, for reading in another process.

    Attributes:
        archive: Its path, for messages.
        contract: Of the archive's model.
        preprocessings: JSON of how the chips of each sensor were made, the most frequent; "" is for all.
    """

    archive: str
    contract: Contract
    preprocessings: Mapping[str, str]

    @classmethod
    def of(cls, archive: ArchiveTable, model: Embedder) -> QueryPreprocessing:
        """Of an archive, which must be of this model and hold something.

        Raises:
            ArchiveError: It is not, or does not.
        """
        archive.require_model(model.id)
        searcher = searcher_of(archive)
        every = searcher.preprocessings()
        if not every:
            raise ArchiveError(f"{archive.path}: is empty; embed something into it first")
        each = {name: searcher.preprocessings(name)[0] for name in searcher.chips().sensor_names}
        return cls(archive.path, model.contract, {"": every[0], **each})


@dataclass(frozen=True, slots=True)
class QueryImage:
    """An image cut as the archive's chips were, to be embedded. Plain data.

    Attributes:
        path: The file.
        image: [C, H, W] in the sensor's unit.
        valid: [H, W].
        gsd: As the model takes it.
        sensor: Name.
        window: Where in the file.
        time: Of the file, if it says.
        geometry: Footprint as WKB, or None without georeference.
        bbox: Its bounds.
    """

    path: str
    image: NDArray[np.float32]
    valid: NDArray[np.bool_]
    gsd: float
    sensor: str
    window: PixelWindow
    time: datetime | None
    geometry: bytes | None
    bbox: tuple[float, float, float, float] | None


def read_query_image(
    cutting: QueryPreprocessing,
    path: str | os.PathLike[str],
    *,
    sensor: str | Path | Sensor | None = None,
    gsd: float | Literal["relative"] | None = None,
    offset_dn: float | None = None,
) -> QueryImage:
    """The pixels of `query_by_image`, and what it raises about the file; no model is needed."""
    chosen = _sensor(cutting, sensor, path)
    made = cutting.preprocessings.get(chosen.name, cutting.preprocessings[""])
    options = current_names(json.loads(made), "preprocessing", None)
    scale = options.pop("gsd", None)  # how the archive's chips got their GSD, where it was not measured
    by_width = scale == "width" and gsd is None
    if scale is not None and gsd is None:
        gsd = "relative"
    if "size" in options:
        options["size"] = tuple(options["size"])
    dataset = open_dataset(Path(path), sensor=chosen, gsd=gsd, offset_dn=offset_dn, **options)
    image, valid, native, window, time, header = _center(dataset, path)
    if not bool(valid.any()):
        raise ImageryError(f"{path}: none of its pixels is valid; choose an image that is not all nodata")
    if by_width:
        assert cutting.contract.reference_size is not None
        native = cutting.contract.reference_size / image.shape[-1]
    geometry, box = _footprint(header, window)
    return QueryImage(
        os.fspath(path), image.numpy(), valid.numpy(), native, chosen.name, window, time, geometry, box
    )


def embed_query_image(model: Embedder, chip: QueryImage) -> Query:
    """A query from an image that has been read."""
    image, valid = torch.from_numpy(chip.image), torch.from_numpy(chip.valid)
    gsd = torch.tensor([chip.gsd], dtype=torch.float32)
    vector = model.embed(image[None], gsd=gsd, sensor=chip.sensor, valid=valid[None])
    shown = SearchResult(
        rank=0,
        score=1.0,
        id="",
        source=absolute_path(chip.path),
        window=chip.window,
        sensor=chip.sensor,
        gsd=chip.gsd,
        datetime=chip.time,
        bbox=chip.bbox,
        geometry=chip.geometry,
        valid_fraction=float(valid.to(torch.float32).mean()),
    )
    example = FeedbackExample(vector[0].detach().to("cpu", torch.float32).numpy(), chip.sensor)
    return Query(chip.path, [example], [shown])


def _sensor(
    cutting: QueryPreprocessing, sensor: str | Path | Sensor | None, path: str | os.PathLike[str]
) -> Sensor:
    """The query's sensor as the model knows it: as given, or by the bands that the file has."""
    contract = cutting.contract
    if sensor is not None or len(contract.sensors) == 1:
        return resolve_query_sensor(contract, sensor)
    if Path(path).is_dir():  # band files, which say little about their sensor
        raise InvalidQuery(
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
    held = [name for name in fitting if name in cutting.preprocessings]
    for names in (fitting, held):
        if len(names) == 1:
            return resolve_query_sensor(contract, names[0])
    raise InvalidQuery(
        f"{path}: may be of {' or '.join(sorted(fitting))} by its {len(bands)} bands; say which "
        f"(--query-sensor {sorted(fitting)[0]})"
    )


def _bands(path: str | os.PathLike[str]) -> list[str | None]:
    """Descriptions of a file's bands, None where they have none."""
    if sniff_driver(path) != "GTiff":
        return [None] * read_image_header(path).bands
    from swath.rasters.read import read_header

    return [text or None for text in read_header(os.fspath(path)).descriptions]


def _footprint(
    header: SceneHeader | None, window: PixelWindow
) -> tuple[bytes | None, tuple[float, float, float, float] | None]:
    """Geometry (WKB) and bounds of a window; None without georeference."""
    if header is None:
        return None, None
    from swath.datasets.chips import window_footprint

    ring = window_footprint(header, window)
    if ring is None:
        return None, None
    geometry, box = footprint_geometry(ring)
    return geometry, (box["xmin"], box["ymin"], box["xmax"], box["ymax"])


def resolve_query_sensor(contract: Any, sensor: str | Path | Sensor | None) -> Sensor:
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


def _center(
    dataset: Any, path: str | os.PathLike[str]
) -> tuple[Tensor, Tensor, float, PixelWindow, datetime | None, SceneHeader | None]:
    """Pixels [C, H, W], valid [H, W], GSD, window, time, header of the chip in the middle of the only scene.

    The header is None of a picture, which has no georeference.
    """
    if isinstance(dataset, ImageFileDataset):
        sample = dataset[0]
        if "image" not in sample:
            raise ImageryError(sample["problem"][1])
        height, width = map(int, dataset.shapes[0])
        window, header = PixelWindow(0, 0, width, height), None
        if sniff_driver(dataset.paths[0]) == "GTiff":
            from swath.rasters.read import read_header

            header = read_header(dataset.paths[0])
        time = header.time if header is not None else None
        return sample["image"], sample["valid"], sample["gsd"], window, time, header
    if len(dataset.scenes) != 1:
        raise ImageryError(f"{path}: holds {len(dataset.scenes)} scenes; search with one image")
    scene, side, size = dataset.scenes[0], dataset.chip_pixels[0], dataset.chip_size
    header = scene.header
    window = PixelWindow((header.width - side) // 2, (header.height - side) // 2, side, side)
    shape = None if side == size else (size, size)
    image, valid = scene.read(window, shape)
    gsd = scene.gsd(window, shape)
    return torch.from_numpy(image), torch.from_numpy(valid), gsd, window, header.time, header
