"""Simulated places as files, in the layouts that real archives have.

Pairs: a folder of GeoTIFFs for each sensor, and ``pairs.csv``, which `swath.datasets.pairs.opening` opens;
beside them class masks and boxes (COCO). Change: the same with two dates. Everything lies in rows at Null
Island (0 degrees north, 0 degrees east), where nobody takes it for a real place, and every file says
``SIMULATED=yes`` in its tags.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.files import atomic_folder
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.simulated.change import CHANGES, simulate_change
from swath.simulated.landscape.rasterize import BOX_KINDS, Landscape, simulate_landscape
from swath.simulated.landscape.surfaces import CLASSES
from swath.simulated.sensing import SENSORS, Gsd, sensor_grids, to_stored_values

_COLUMNS = 40  # scenes in a row
# Of masks; in the order of CLASSES.
COLORS = ((230, 200, 90), (150, 210, 90), (40, 140, 60), (20, 90, 70), (120, 190, 190), (50, 90, 200),
            (220, 80, 80), (150, 60, 150), (60, 60, 60), (200, 180, 160))  # fmt: skip
_CHANGE_COLORS = ((0, 0, 0), (220, 80, 80), (200, 160, 90), (50, 90, 200))

_README = """\
Simulated imagery, drawn by `swath simulate` from a seed. It shows no real place and lies at Null Island on
purpose. Good for tests, demonstrations and experiments that say so; never for a claim about real imagery.
"""

Progress = Callable[[int, int], None]


def write_simulated_pairs(
    folder: Path,
    *,
    splits: Mapping[str, int],
    seed: int = 0,
    size: int = 120,
    gsd: Gsd = 10.0,
    sensors: Sequence[str | Path | Sensor] = SENSORS,
    first: int = 0,
    cloud: float = 0.0,
    progress: Progress | None = None,
) -> Path:
    """Write labeled places seen by several sensors, whole or not at all.

    ``pairs.csv`` has the columns id, one a sensor (files), labels, split, group, mask; ``masks/`` the classes
    by pixel on the first sensor's grid, ``boxes.json`` settlements, buildings and ships in COCO's form on the
    first sensor's images, ``classes.json`` the names of the mask's values.

    Args:
        folder: Where to; an existing one is replaced.
        splits: How many places each split has.
        seed: Names the series.
        size: Pixels a side of the first sensor.
        gsd: Metres per pixel: one for all sensors, or by sensor name.
        sensors: Any that can be simulated.
        first: Index of the first place.
        cloud: Opacity of thin cloud over optical sensors.
        progress: Called with (places written, places in all).

    Returns:
        The folder.

    Raises:
        ImageryError: Numbers out of range, sensors that cannot be simulated.
    """
    wanted = [get_sensor(sensor) for sensor in sensors]
    grid = sensor_grids(wanted, size, gsd)
    names = [split for split, count in splits.items() for _ in range(count)]
    step = 1.1 * grid[wanted[0].name][0] * grid[wanted[0].name][1]
    with atomic_folder(folder) as temporary:
        _folders(temporary, [*(sensor.name for sensor in wanted), "masks"])
        coco = _Coco()
        rows = []
        for number, split in enumerate(names):
            index = first + number
            name = f"simulated_{index:06d}"
            grounds = {cell: simulate_landscape(seed, index, size=cell[0], gsd=cell[1])
                       for cell in set(grid.values())}  # fmt: skip
            corner = _corner(number, step)
            for sensor in wanted:
                ground = grounds[grid[sensor.name]]
                file = temporary / sensor.name / f"{name}.tif"
                _write_image(file, to_stored_values(ground, sensor, cloud=cloud), sensor, ground, corner)
            ground = grounds[grid[wanted[0].name]]
            _write_mask(temporary / "masks" / f"{name}.tif", ground.mask, ground, corner, COLORS)
            coco.add(f"{wanted[0].name}/{name}.tif", ground)
            labels = ";".join(CLASSES[k] for k in np.flatnonzero(ground.labels))
            rows.append([name, *(f"{sensor.name}/{name}.tif" for sensor in wanted), labels, split, name,
                         f"masks/{name}.tif"])  # fmt: skip
            if progress is not None:
                progress(number + 1, len(names))
        header = ["id", *(sensor.name for sensor in wanted), "labels", "split", "group", "mask"]
        _write_table(temporary / "pairs.csv", header, rows)
        coco.write(temporary / "boxes.json")
        _write_notes(temporary, CLASSES)
    return folder


def write_simulated_change(
    folder: Path,
    *,
    splits: Mapping[str, int],
    seed: int = 0,
    size: int = 120,
    gsd: Gsd = 10.0,
    sensors: Sequence[str | Path | Sensor] = SENSORS,
    first: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write change pairs, whole or not at all.

    ``change.csv`` has the columns id, ``before_<sensor>`` and ``after_<sensor>`` (files), mask, changes (the
    kinds in it, with semicolons), split, group; ``masks/`` says by pixel what was built, felled or flooded.

    Args:
        folder: Where to; an existing one is replaced.
        splits: As in `write_pairs`.
        seed: As in `write_pairs`.
        size: As in `write_pairs`.
        gsd: As in `write_pairs`.
        sensors: As in `write_pairs`.
        first: As in `write_pairs`.
        progress: As in `write_pairs`.

    Returns:
        The folder.

    Raises:
        ImageryError: As in `write_pairs`.
    """
    wanted = [get_sensor(sensor) for sensor in sensors]
    grid = sensor_grids(wanted, size, gsd)
    names = [split for split, count in splits.items() for _ in range(count)]
    step = 1.1 * grid[wanted[0].name][0] * grid[wanted[0].name][1]
    columns = [f"{date}_{sensor.name}" for date in ("before", "after") for sensor in wanted]
    with atomic_folder(folder) as temporary:
        _folders(temporary, [*columns, "masks"])
        rows = []
        for number, split in enumerate(names):
            index = first + number
            name = f"simulated_{index:06d}"
            change = simulate_change(seed, index, size=size, gsd=gsd, sensors=wanted)
            corner = _corner(number, step)
            for date, chips in (("before", change.before), ("after", change.after)):
                for sensor in wanted:
                    chip = chips[sensor.name]
                    file = temporary / f"{date}_{sensor.name}" / f"{name}.tif"
                    _write_values(file, chip.image, sensor, chip.gsd, corner)
            mask = temporary / "masks" / f"{name}.tif"
            _write_mask(mask, change.mask, change.before_landscape, corner, _CHANGE_COLORS)
            kinds = ";".join(CHANGES[k] for k in np.unique(change.mask) if k)
            rows.append([name, *(f"{column}/{name}.tif" for column in columns), f"masks/{name}.tif", kinds,
                         split, name])  # fmt: skip
            if progress is not None:
                progress(number + 1, len(names))
        _write_table(temporary / "change.csv", ["id", *columns, "mask", "changes", "split", "group"], rows)
        _write_notes(temporary, CHANGES)
    return folder


# ------------------------------------------------------------------------------------------------------ files


def _folders(root: Path, names: Iterable[str]) -> None:
    for name in names:
        (root / name).mkdir()


def _corner(number: int, step: float) -> tuple[float, float]:
    """Easting and northing (EPSG:32631) of a place's upper left corner."""
    # Zone 31 N has easting 166,021 m at 0 degrees east.
    return 166_021 + step * (number % _COLUMNS), step * (1 + number // _COLUMNS)


def _write_image(
    path: Path, stored: NDArray[Any], sensor: Sensor, ground: Landscape, corner: tuple[float, float]
) -> None:
    """Values as `measure` gives them; decibels as float32, as radar products have them."""
    if stored.dtype == np.int16:
        stored = stored.astype(np.float32) * np.float32(0.01)
    elif stored.dtype == np.uint16 and any(band.scale >= 0.01 for band in sensor.bands):
        stored = stored.astype(np.float32) * np.float32(1e-4)  # a sensor in plain reflectance
    _write_tiff(path, stored, ground.gsd, corner, sensor.band_names, _tags(sensor))


def _write_values(
    path: Path, image: NDArray[Any], sensor: Sensor, gsd: float, corner: tuple[float, float]
) -> None:
    """A chip's values, in the unit, back as they are stored."""
    if sensor.unit == "reflectance" and all(band.scale < 0.01 for band in sensor.bands):
        scale = np.array([band.scale for band in sensor.bands])[:, None, None]
        offset = np.array([band.offset for band in sensor.bands])[:, None, None]
        image = np.rint((image - offset) / scale).astype(np.uint16)
    _write_tiff(path, image, gsd, corner, sensor.band_names, _tags(sensor))


def _tags(sensor: Sensor) -> dict[str, str]:
    """Who is imitated; and, where digital numbers might have Sentinel-2's offset, that they have not."""
    offset = {"BOA_ADD_OFFSET": "0"} if sensor.unit == "reflectance" else {}
    return {"SENSOR": sensor.name, **offset}


def _write_mask(
    path: Path,
    mask: NDArray[np.uint8],
    ground: Landscape,
    corner: tuple[float, float],
    colors: Sequence[tuple[int, int, int]],
) -> None:
    _write_tiff(path, mask[None], ground.gsd, corner, ("class",), {}, colors)


def _write_tiff(
    path: Path,
    values: NDArray[Any],
    gsd: float,
    corner: tuple[float, float],
    bands: Sequence[str],
    tags: Mapping[str, str],
    colors: Sequence[tuple[int, int, int]] | None = None,
) -> None:
    import rasterio

    count, height, width = values.shape
    # GDAL takes the fourth of four bands of bytes for transparency, unless told that nothing is a color.
    kind = {"photometric": "rgb" if count == 3 and values.dtype == np.uint8 else "minisblack"}
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype=values.dtype.name,
        crs="EPSG:32631", transform=rasterio.Affine(gsd, 0, corner[0], 0, -gsd, corner[1]),
        compress="deflate", zlevel=1, **({} if colors is not None else kind),
    ) as file:  # fmt: skip
        file.write(values)
        for number, band in enumerate(bands, 1):
            file.set_band_description(number, band)
        file.update_tags(SIMULATED="yes", **tags)
        if colors is not None:
            file.write_colormap(1, {value: (*color, 255) for value, color in enumerate(colors)})


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_notes(folder: Path, names: Sequence[str]) -> None:
    (folder / "README.txt").write_text(_README, encoding="utf-8")
    (folder / "classes.json").write_text(json.dumps(list(names), indent=1) + "\n", encoding="utf-8")


class _Coco:
    """Boxes in the form of COCO's instance annotations."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, file: str, landscape: Landscape) -> None:
        number = len(self.images) + 1
        self.images.append(
            {
                "id": number,
                "file_name": file,
                "width": landscape.size,
                "height": landscape.size,
                "gsd_m": landscape.gsd,
            }
        )
        for box, kind in zip(landscape.boxes.tolist(), landscape.box_kinds, strict=True):
            x0, y0, x1, y1 = (round(edge, 2) for edge in box)
            width, height = round(x1 - x0, 2), round(y1 - y0, 2)
            self.annotations.append({
                "id": len(self.annotations) + 1, "image_id": number, "bbox": [x0, y0, width, height],
                "area": round(width * height, 2), "iscrowd": 0, "category_id": BOX_KINDS.index(kind) + 1,
            })  # fmt: skip

    def write(self, path: Path) -> None:
        categories = [{"id": number, "name": kind} for number, kind in enumerate(BOX_KINDS, 1)]
        data = {"info": {"description": "SIMULATED"}, "images": self.images, "categories": categories,
                "annotations": self.annotations}  # fmt: skip
        path.write_text(json.dumps(data) + "\n", encoding="utf-8")
