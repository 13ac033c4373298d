"""What a data set's chips are called and where they lie, known before a pixel is read.

A chip's id is a hash of its source, its window and how the window becomes the model's input. It does not
depend on the file's content, so a file that has changed *replaces* its chips; the fingerprint (the files'
sizes and times, the sensor and the GSD) says whether that is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swath.datasets.hdf5 import Hdf5Images
from swath.datasets.image_files import ImageFileDataset
from swath.datasets.protocol import ImageDataset
from swath.errors import ArchiveError
from swath.geo.grid import PixelWindow
from swath.rasters.safe_open import sniff_driver
from swath.renames import stored_names

if TYPE_CHECKING:
    from swath.rasters.read import SceneHeader


@dataclass(frozen=True, slots=True)
class ChipSource:
    """One chip of a data set, named.

    Attributes:
        id: 32 hexadecimal digits.
        source: Absolute path of the file (or of the folder that band files share), or URL.
        files: Absolute paths, one or one a band.
        window: On the source's native grid.
        label: Class name, or None.
        fingerprint: Changes when the chip has to be embedded again.
        header: Of the scene, where it has been read already.
    """

    id: str
    source: str
    files: tuple[str, ...]
    window: PixelWindow
    label: str | None
    fingerprint: str
    header: SceneHeader | None = None

    def place(self) -> tuple[tuple[tuple[float, float], ...] | None, datetime | None]:
        """Footprint ring (longitude, latitude) and acquisition time; each None where unknown."""
        header = self.header
        if header is None:
            if sniff_driver(self.files[0]) != "GTiff":
                return None, None  # plain pictures have no CRS; GDAL is not loaded for them
            from swath.rasters.read import read_header

            header = read_header(self.files[0])
        from swath.datasets.chips import window_footprint

        return window_footprint(header, self.window), header.time


def chip_sources(dataset: ImageDataset, described: str) -> list[ChipSource]:
    """Every chip of `dataset` preprocessed as `described`, in order. Reads file times, no pixels."""
    sensor = dataset.sensor.name
    stamps: dict[tuple[str, ...], str] = {}
    chips = []
    for index in range(len(dataset)):
        files, window, terms, header = _where(dataset, index)
        files = tuple(absolute_path(name) for name in files)
        if files not in stamps:
            stamps[files] = _stamp(files)
        source = files[0] if header is None else absolute_path(header.path)
        label = dataset.labels[index] if dataset.labels is not None else None
        chips.append(
            ChipSource(
                id=chip_id(source, window, described),
                source=source,
                files=files,
                window=window,
                label=dataset.classes[label] if label is not None and dataset.classes else None,
                fingerprint=_hash([stamps[files], sensor, *terms]),
                header=header,
            )
        )
    if len({chip.id for chip in chips}) < len(chips):
        raise ArchiveError("the data set lists the same chip of a file twice; list each file once")
    return chips


def preprocessing(dataset: ImageDataset, *, scale: str | None = None) -> str:
    """How `dataset` makes the model's input, as JSON by which a query image is opened in the same way.

    Args:
        dataset: Of whole images or of chips on a grid.
        scale: None where GSDs are metres, "relative" where they are ratios to the model's reference, "width"
            where these ratios follow from the images' widths.

    Raises:
        ArchiveError: The data set draws its chips at random.
    """
    from swath.datasets.chips import ChipGrid, RandomChips

    options: dict[str, Any]
    if isinstance(dataset, Hdf5Images):
        raise ArchiveError("images in HDF5 cannot be embedded: an archive points to files; write them out")
    if isinstance(dataset, ImageFileDataset):
        if dataset.size is not None and dataset.resize_mode == "random_crop":
            raise ArchiveError("random crops cannot be embedded: an archive needs the same chip each time")
        options = {"layout": "images"}
        if dataset.size is not None:
            options |= {"size": list(dataset.size), "resize_mode": dataset.resize_mode}
    elif isinstance(dataset, ChipGrid):
        options = {"layout": "chips", "chip_size": dataset.chip_size}
        if dataset.chip_metres is not None:
            options["chip_metres"] = dataset.chip_metres
    elif isinstance(dataset, RandomChips):
        raise ArchiveError("chips drawn at random cannot be embedded; use sampling='grid'")
    else:
        raise ArchiveError(f"cannot embed a data set of type {type(dataset).__name__}")
    if scale is not None:
        options["gsd"] = scale
    # Chip ids are hashes of this text, and archives store it: it stays as it was first spelled.
    return json.dumps(stored_names(options, "preprocessing"))


def _where(
    dataset: ImageDataset, index: int
) -> tuple[tuple[str, ...], PixelWindow, tuple[str, ...], SceneHeader | None]:
    """Files and window of a chip, what besides the files decides its pixels and GSD, and header if known."""
    if isinstance(dataset, ImageFileDataset):
        height, width = map(int, dataset.shapes[index])
        window = PixelWindow(0, 0, width, height)
        if dataset.size is not None and dataset.resize_mode == "center_crop":
            rows, columns = dataset.size
            window = PixelWindow((width - columns) // 2, (height - rows) // 2, columns, rows)
        terms = [f"{dataset.gsds[index]:.6g}"]
        if dataset.offset_dn is not None:  # what a file itself says of it changes with the file
            terms.append(f"{dataset.offset_dn:g}")
        return (dataset.paths[index],), window, tuple(terms), None
    from swath.datasets.chips import ChipGrid

    assert isinstance(dataset, ChipGrid)
    place, window = dataset.place(index)
    scene = dataset.scenes[place]
    gsd = "measured" if scene.native_gsd is None else f"{scene.native_gsd:.6g}"
    return scene.header.files, window, (gsd, f"{scene.offset_dn:g}"), scene.header


def chip_id(source: str, window: PixelWindow, described: str) -> str:
    """The id of a window of a source that is preprocessed as `described`."""
    return _hash([source, window.column, window.row, window.width, window.height, described])


def absolute_path(path: str) -> str:
    """A path as it is found from anywhere; URLs stay as they are."""
    return path if "://" in path else str(Path(os.path.abspath(path)))  # noqa: PTH100 -- links stay


def _stamp(files: tuple[str, ...]) -> str:
    """Sizes and modification times of files; of URLs nothing is known, they count as unchanged."""
    stamps: list[Any] = []
    for name in files:
        if "://" not in name:
            try:
                status = Path(name).stat()
            except OSError:  # gone since it was listed: reading it will say so
                continue
            stamps.append([status.st_size, status.st_mtime_ns])
    return _hash(stamps)


def _hash(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()
