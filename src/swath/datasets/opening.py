"""Data sets in the layouts that people have: class folders, CSV manifests, plain folders, archives of scenes.

Every data set is map-style (``dataset[i]`` is a sample, see `swath.datasets.protocol`), cheap to send to
loader workers, and deterministic: a sample depends on (seed, epoch, index) only. Files are judged once, by
their headers, when the data set is made: what cannot be used is left out, counted and explained in
``dataset.problems``; nothing is ever replaced by zeros. `open_dataset` finds out which layout a path has.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from swath.datasets.collation import collate
from swath.datasets.csv_table import CsvManifest
from swath.datasets.folders import ClassFolder, UnlabeledFolderDataset, find_images
from swath.datasets.hdf5 import Hdf5Images, is_hdf5
from swath.datasets.image_files import Gsd, ImageFileDataset
from swath.datasets.protocol import ImageDataset, Sample
from swath.errors import ImageryError, suggest
from swath.rasters.pillow_reader import IMAGE_SUFFIXES
from swath.rasters.read import read_header
from swath.rasters.remote import is_remote
from swath.rasters.safe_open import sniff_driver
from swath.sensors.sensor import Sensor

__all__ = [
    "ClassFolder",
    "CsvManifest",
    "ImageDataset",
    "ImageFileDataset",
    "Sample",
    "UnlabeledFolderDataset",
    "collate",
    "find_images",
    "open_dataset",
]


Layout = Literal["auto", "chips", "class_folder", "csv", "hdf5", "images"]
_LAYOUTS = ("auto", "chips", "class_folder", "csv", "hdf5", "images")

# Which options of `open_dataset` have a meaning in which layout; any other is refused, not passed over.
_WHOLE = {"size", "resize_mode", "cache", "max_pixels", "offset_dn", "workers"}
_OPTIONS = {
    "images": _WHOLE,
    "class_folder": _WHOLE | {"classes"},
    "hdf5": _WHOLE | {"hdf5_group", "label_column"},
    "csv": _WHOLE | {"image_root", "file_column", "label_column", "label_separator", "split", "filter"},
    "chips": {
        "sampling", "chip_size", "chip_metres", "stride", "chips_per_epoch", "min_valid", "align_to_blocks",
        "offset_dn", "pattern", "workers", "remote",
    },
}  # fmt: skip
_ONLY_CHIPS = _OPTIONS["chips"] - _WHOLE


def open_dataset(
    path: str | Path,
    *,
    sensor: str | Path | Sensor,
    gsd: Gsd | str = None,
    layout: Layout = "auto",
    seed: int = 0,
    **options: Any,
) -> ImageDataset:
    """Open imagery in any layout.

    Args:
        path: A folder, a CSV table, a catalog (``.parquet``), a STAC file (JSON or stac-geoparquet), an
            HDF5 file, one image, or the URL of a GeoTIFF.
        sensor: What the imagery was taken with: a registered name, a YAML path or a `Sensor`.
        gsd: Metres per pixel of images that state none, ``"relative"``, ``"override:0.3"`` (see
            `swath.rasters.sensor_scene.resolve_gsd`), or a column of the CSV table.
        layout: ``auto`` decides by what is there: a CSV table is a manifest; a catalog, a STAC file and
            georeferenced TIFFs are scenes for chips, and so are others where an option of chips is given;
            otherwise images are ``class_folder`` where they lie in sub-folders and ``images`` (no labels)
            where they do not. HDF5 files, one or a folder of them, are ``hdf5``.
        seed: Seed of all random decisions.
        **options: Of the layout; None counts as not given.

            - whole images (``class_folder``, ``csv``, ``images``): size, fit, cache, max_pixels, offset_dn,
              workers (see `ImageFileDataset`); ``class_folder``: classes; ``csv``: root, file, label,
              separator, split, where (see `CsvManifest`)
            - ``hdf5``: those of whole images, and group, label (see `swath.datasets.hdf5`)
            - ``chips``: sampling (``"grid"``, the default, or ``"random"``), chip_size, chip_metres,
              stride, chips_per_epoch, min_valid, align, offset_dn, pattern, workers, remote (see
              `swath.datasets.chips`)

    Raises:
        ImageryError: Nothing usable at `path`, or options that do not belong to the layout.
    """
    url = os.fspath(path) if is_remote(path) else None
    path = Path(path)
    if url is None and not path.exists():
        raise ImageryError(f"{path}: there is no such file or folder")
    if url is not None and layout not in ("auto", "chips"):
        raise ImageryError(
            f"{url}: layout={layout!r} is for local files; a GeoTIFF elsewhere is cut into chips"
        )
    if layout not in _LAYOUTS:
        raise ImageryError(f"layout={layout!r}:{suggest(str(layout), list(_LAYOUTS))}")
    kind = "chips" if url else detect_layout(path) if layout == "auto" else layout
    given = {name: value for name, value in options.items() if value is not None}
    if layout == "auto" and kind in ("images", "class_folder") and _ONLY_CHIPS & set(given):
        kind = "chips"  # who asks for chips of images without georeference shall have them
    if given.get("cache") == "none" and "cache" not in _OPTIONS[kind]:
        del given["cache"]  # true of a layout that never holds its images
    for name in given:
        if name not in _OPTIONS[kind]:
            known = sorted(set().union(*_OPTIONS.values()))
            if name not in known:
                raise ImageryError(f"open_dataset: unknown option {name!r}.{suggest(name, known)}")
            homes = [home for home, names in _OPTIONS.items() if name in names]
            raise ImageryError(
                f"{path}: was opened with layout={kind!r}, where {name}={given[name]!r} means nothing; "
                f"it belongs to layout={' or '.join(map(repr, homes))}"
            )
    if kind == "csv":
        return CsvManifest(path, sensor, gsd, seed=seed, **given)
    if kind == "hdf5":
        return Hdf5Images(path, sensor, gsd, seed=seed, **given)  # type: ignore[arg-type]
    if kind == "class_folder":
        return ClassFolder(path, sensor, gsd, seed=seed, **given)  # type: ignore[arg-type]
    if kind == "images":
        return UnlabeledFolderDataset(path, sensor, gsd, seed=seed, **given)  # type: ignore[arg-type]
    from swath.datasets.chip_opening import open_chips

    return open_chips(url or path, sensor=sensor, gsd=gsd, seed=seed, **given)  # type: ignore[arg-type]


def detect_layout(path: Path) -> Literal["chips", "class_folder", "csv", "hdf5", "images"]:
    """What `layout="auto"` takes `path` for (see `open_dataset`)."""
    if path.is_file():
        if path.suffix.lower() == ".csv":
            return "csv"
        if path.suffix.lower() in (".parquet", ".geoparquet", ".json", ".geojson"):
            return "chips"
        if is_hdf5(path):
            return "hdf5"
        return "chips" if sniff_driver(path) == "GTiff" else "images"
    if any((path / name).is_file() for name in ("catalog.json", "collection.json")):
        return "chips"
    kinds: list[str] = []
    for image in find_images(path):
        try:
            if sniff_driver(image) == "GTiff" and read_header(image).crs is not None:
                return "chips"
        except ImageryError:
            continue  # this file tells nothing; the data set itself will report it
        kinds.append("class_folder" if image.parent != path else "images")
        if len(kinds) >= 16:  # a few files tell the layout; a million need not be looked at
            break
    if not kinds and any(is_hdf5(file) for file in path.iterdir()):
        return "hdf5"
    if not kinds:
        raise ImageryError(
            f"{path}: no readable image in it or below it (suffixes: {', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    return "images" if "images" in kinds else "class_folder"
