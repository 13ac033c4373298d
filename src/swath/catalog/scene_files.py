"""Which files make up a scene, told by their names and by STAC, before any image is opened."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from swath.catalog.products.layers import layers_beside_images
from swath.catalog.stac import PARQUET_SUFFIXES, STAC_NAMES, StacScene, is_stac, read_stac
from swath.errors import ImageryError
from swath.rasters.cloud_mask import CLOUD_LAYERS
from swath.rasters.pillow_reader import IMAGE_SUFFIXES, TIFF_SUFFIXES
from swath.rasters.safe_open import open_checked
from swath.sensors.registry import get_sensor, list_sensors
from swath.sensors.sensor import Sensor

logger = logging.getLogger(__name__)

# Rasters that Swath does not open. An ENVI image is known by its header.
NOT_READ = frozenset(
    [
        ".jp2",
        ".j2k",
        ".img",
        ".hdr",
        ".nc",
        ".nc4",
        ".h5",
        ".he5",
        ".hdf",
        ".hdf5",
        ".zarr",
        ".grib",
        ".grb",
        ".grb2",
        ".vrt",
        ".ecw",
        ".sid",
        ".bil",
        ".bip",
        ".bsq",
        ".ntf",
        ".nitf",
        ".pix",
        ".kea",
        ".asc",
        ".bmp",
        ".gif",
        ".tar",
        ".tgz",
        ".zip",
        ".gz",
        ".7z",
    ]
)


@dataclass(frozen=True, slots=True)
class SceneFiles:
    """Files that belong together, before any is opened."""

    path: str
    files: tuple[str, ...]
    bands: tuple[str, ...] = ()
    stac: StacScene | None = None
    cloud_layer: tuple[str, str] | None = None  # kind, file
    problem: str | None = None


def find_scenes(
    root: Path, sensor: Sensor | None = None, pattern: str | None = None, *, remote: bool = False
) -> list[SceneFiles]:
    """Group the files at `root` into scenes by their names (and STAC).

    Links to folders are followed, each folder is entered once. Layers that come with a product, and files of
    formats that are not read, are counted in one line of the log.
    """
    if root.is_file():
        if root.suffix.lower() in (".json", ".geojson", *PARQUET_SUFFIXES):
            return [_from_stac(scene, sensor) for scene in read_stac(root, remote=remote)]
        return [SceneFiles(str(root), (str(root),))]
    found: list[SceneFiles] = []
    # Of all sensors: the band files of another product are a scene as well, if not one of this sensor.
    tokens = _band_tokens(sensor)
    layers: Counter[str] = Counter()
    not_read: Counter[str] = Counter()
    entered: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in entered:
            folders[:] = []
            continue
        entered.add(real)
        stac = next((Path(folder, name) for name in STAC_NAMES if name in names), None)
        if stac is not None and is_stac(stac):
            folders[:] = []
            found += [_from_stac(scene, sensor) for scene in read_stac(stac, remote=remote)]
            continue
        not_read.update(s for n in (*names, *folders) if (s := Path(n).suffix.lower()) in NOT_READ)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and not n.lower().endswith(".zarr"))
        files = [
            name
            for name in sorted(names)
            if not name.startswith(".")
            and Path(name).suffix.lower() in IMAGE_SUFFIXES
            and (pattern is None or fnmatch(os.path.relpath(Path(folder, name), root), pattern))
        ]
        beside = layers_beside_images([Path(name).stem for name in files], tokens | CLOUD_LAYERS.keys())
        layers.update(beside.values())
        files = [name for name in files if Path(name).stem not in beside]
        found += [_bands_of(scene, sensor) for scene in _group(Path(folder), files, tokens)]
    if layers:
        count = ", ".join(f"{number} {layer}" for layer, number in sorted(layers.items()))
        logger.warning("%s: layers of products, not bands, are left out: %s", root, count)
    if not_read:
        count = ", ".join(f"{number} {suffix}" for suffix, number in sorted(not_read.items()))
        logger.warning("%s: %d files of formats that are not read: %s", root, not_read.total(), count)
    return found


def _band_tokens(sensor: Sensor | None) -> set[str]:
    """Band names that may end a file's name, in upper case."""
    sensors = [get_sensor(name) for name in list_sensors()] + ([sensor] if sensor is not None else [])
    return {band.name.upper() for one in sensors for band in one.bands}


def _group(folder: Path, names: Sequence[str], tokens: set[str]) -> list[SceneFiles]:
    """Put the band files of a product together: names that differ in one band name only."""
    products: dict[str, dict[str, str]] = defaultdict(dict)
    clouds: dict[str, tuple[str, str]] = {}  # layer of a product, or of the one file of that stem
    alone: list[str] = []
    for name in names:
        is_tiff = Path(name).suffix.lower() in TIFF_SUFFIXES
        split = _split_band(Path(name).stem, tokens) if is_tiff else None
        layer = _split_band(Path(name).stem, CLOUD_LAYERS.keys() - tokens) if is_tiff else None
        if layer is not None:
            clouds[layer[0]] = (layer[1], str(folder / name))
        elif split is None or split[1] in products[split[0]]:
            alone.append(name)
        else:
            products[split[0]][split[1]] = name
    found: list[SceneFiles] = []
    for product, bands in products.items():
        if len(bands) < 2 or not _holds_one_band(folder / next(iter(bands.values()))):
            alone += bands.values()
            continue
        files = tuple(str(folder / name) for name in bands.values())
        found.append(SceneFiles(str(folder), files, tuple(bands), cloud_layer=clouds.pop(product, None)))
        stem = product.split("\0")[0]
        for name in [name for name in alone if stem and name.startswith(stem)]:
            alone.remove(name)
            reason = f"{folder / name}: beside the band files {stem}* of a product, but none of them"
            found.append(SceneFiles(str(folder / name), (str(folder / name),), problem=f"{reason}; left out"))
    by_stem = {product.split("\0")[0].rstrip("_-. "): layer for product, layer in clouds.items()}
    found += [
        SceneFiles(str(folder / name), (str(folder / name),), cloud_layer=by_stem.pop(Path(name).stem, None))
        for name in alone
    ]
    # A layer without a scene is looked at as an image, and what is wrong with it is said.
    found += [SceneFiles(file, (file,)) for _, file in by_stem.values()]
    return sorted(found, key=lambda scene: scene.files)


def _holds_one_band(path: Path) -> bool:
    """Whether it is a file of one band, or one that cannot be opened (which is told when it is read)."""
    try:
        opened = open_checked(str(path))
    except ImageryError:
        return True
    opened.dataset.close()
    return len(opened.bands) == 1


def _split_band(stem: str, tokens: Set[str]) -> tuple[str, str] | None:
    """("what is left \\0 and right of the band", band) of a file's name, such as ``T33_B8A_20m``."""
    parts = re.split(r"([_\-. ])", stem)
    for last in range(len(parts) - 1, -1, -2):
        for first in (last - 2, last):  # "SR_B2" before "B2"
            if first >= 0 and (band := "".join(parts[first : last + 1]).upper()) in tokens:
                right = "" if last == len(parts) - 1 else re.sub(r"\d+m$", "", "".join(parts[last + 1 :]))
                return "".join(parts[:first]) + "\0" + right, band
    return None


def _from_stac(scene: StacScene, sensor: Sensor | None) -> SceneFiles:
    found = SceneFiles(scene.path, scene.files, scene.bands, scene, scene.cloud_layer, scene.problem)
    found = _bands_of(found, sensor)
    return found if len(found.files) != 1 else replace(found, path=found.files[0])


def _bands_of(found: SceneFiles, sensor: Sensor | None) -> SceneFiles:
    """The scene with the sensor's band files only: others are angles, classifications, other resolutions.

    So the grid, which is that of the finest file, is that of the sensor's finest band.
    """
    if sensor is None or len(found.files) < 2 or len(found.bands) != len(found.files):
        return found
    known = {name.upper() for band in sensor.bands for name in (band.name, band.common_name) if name}
    chosen = [
        (file, band) for file, band in zip(found.files, found.bands, strict=True) if band.upper() in known
    ]
    if not chosen:
        return found
    return replace(found, files=tuple(file for file, _ in chosen), bands=tuple(band for _, band in chosen))
