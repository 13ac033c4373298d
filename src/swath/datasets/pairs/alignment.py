"""Do the images of a place show the same ground, in one size for each sensor? Told by their headers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swath.datasets.pairs.csv_table import PairRecord
from swath.datasets.pairs.readers import NativePairReader, PairFit, PairReader
from swath.errors import ImageryError, Problem, suggest
from swath.rasters.header import SceneHeader, read_header
from swath.rasters.sensor_scene import SensorScene, match_scene_to_sensor
from swath.sensors.sensor import Sensor

Gsd = float | Literal["relative"] | Mapping[str, float] | None


def open_pair_readers(
    records: Sequence[PairRecord],
    sensors: Sequence[Sensor],
    *,
    size: tuple[int, int] | None,
    resize_mode: PairFit,
    gsd: Gsd,
    offset_dn: float | Mapping[str, float] | None,
    tolerance: float,
    workers: int | None,
) -> tuple[list[PairReader], NDArray[np.int64], list[Problem]]:
    """A reader for each sensor, the positions of the usable places, and the problems of the others.

    Raises:
        ImageryError: Bands or types that are not the sensor's, grids that differ, sizes that differ.
    """
    if resize_mode not in ("center_crop", "resize"):
        raise ImageryError(
            f"resize_mode={resize_mode!r}:{suggest(str(resize_mode), ['center_crop', 'resize'])}"
        )
    for name, given in (("gsd", gsd), ("offset_dn", offset_dn)):
        for key in given if isinstance(given, Mapping) else ():
            if key not in [sensor.name for sensor in sensors]:
                raise ImageryError(f"{name}: {key!r}:{suggest(key, [sensor.name for sensor in sensors])}")

    def headers(place: PairRecord) -> dict[str, SceneHeader] | str:
        try:
            return {s.name: _header(place.files[s.name], s, place.bands.get(s.name)) for s in sensors}
        except ImageryError as error:
            return str(error)

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        probed = list(pool.map(headers, records))
    problems = [(p.id, found) for p, found in zip(records, probed, strict=True) if isinstance(found, str)]
    good = [i for i, found in enumerate(probed) if not isinstance(found, str)]
    if not good:
        raise ImageryError(f"no usable place; the first of {len(problems)} problems: {problems[0][1]}")
    scenes: dict[str, list[SensorScene]] = {}
    for sensor in sensors:
        given = gsd.get(sensor.name) if isinstance(gsd, Mapping) else gsd
        scenes[sensor.name] = []
        for i in good:
            found = probed[i]
            assert not isinstance(found, str)
            offset = records[i].offset_dn.get(sensor.name)
            if offset is None:
                offset = offset_dn.get(sensor.name) if isinstance(offset_dn, Mapping) else offset_dn
            if not _may_have_offset(sensor):
                offset = None
            # Not a matter of a broken file: bands or units of another sensor are an error.
            scenes[sensor.name].append(
                match_scene_to_sensor(found[sensor.name], sensor, gsd=given, offset_dn=offset)
            )
    _check_footprints([records[i] for i in good], sensors, scenes, tolerance)
    shapes, corners = _shapes([records[i] for i in good], sensors, scenes, size, resize_mode)
    readers: list[PairReader] = []
    for sensor in sensors:
        times = [
            time.timestamp() if (time := records[i].times.get(sensor.name) or scene.header.time) else np.nan
            for i, scene in zip(good, scenes[sensor.name], strict=True)
        ]
        mine = scenes[sensor.name]
        readers.append(
            NativePairReader(
                mine, shapes[sensor.name], resize_mode, corners[sensor.name], np.array(times, np.float64)
            )
        )
    return readers, np.array(good, dtype=np.int64), problems


def _may_have_offset(sensor: Sensor) -> bool:
    """Only digital numbers of reflectance have one; dB must not be shifted by what was said of Sentinel-2."""
    return sensor.unit == "reflectance"


def _header(files: tuple[str, ...], sensor: Sensor, bands: tuple[str, ...] | None) -> SceneHeader:
    if len(files) == 1:
        header = read_header(files[0])
        if bands is not None and len(bands) == header.bands and not any(header.descriptions):
            return replace(header, descriptions=bands)
        return header
    return replace(read_header(files), descriptions=sensor.band_names)  # they were chosen by their names


# ------------------------------------------------------------------------------------------- the same ground


def _check_footprints(
    places: Sequence[PairRecord],
    sensors: Sequence[Sensor],
    scenes: Mapping[str, Sequence[SensorScene]],
    tolerance: float,
) -> None:
    first = sensors[0]
    for other in sensors[1:]:
        apart = [
            (i, why)
            for i in range(len(places))
            if (why := _apart(scenes[first.name][i].header, scenes[other.name][i].header, tolerance))
        ]
        if not apart:
            continue
        i, why = apart[0]
        a, b = scenes[first.name][i].header, scenes[other.name][i].header
        raise ImageryError(
            f"{places[i].id}: its images do not show the same ground, {why}:\n"
            f"  {first.name}: {describe_grid(a)}\n  {other.name}: {describe_grid(b)}\n"
            f"({len(apart)} of {len(places)} pairs differ.) Put them on one grid and open the table: swath "
            f"inspect --pair FOLDER_A FOLDER_B --sensor {first.name} --sensor {other.name} "
            f"--grid {other.name} --out pairs.parquet"
        )


def _apart(a: SceneHeader, b: SceneHeader, tolerance: float) -> str | None:
    """Why two images do not have one footprint; None where they do."""
    if a.crs is None or b.crs is None or a.transform is None or b.transform is None:
        # Nothing says where they are, so the user vouches for it; but shapes have to be alike.
        ratio = (a.width * b.height) / (a.height * b.width)
        return None if 0.99 < ratio < 1.01 else "one is wider than the other"
    if a.crs != b.crs and not _same_crs(a.crs, b.crs):
        return "they are in different coordinate reference systems"
    corners = [
        [
            (t[0] * x * h.width + t[1] * y * h.height + t[2], t[3] * x * h.width + t[4] * y * h.height + t[5])
            for x, y in ((0, 0), (1, 0), (0, 1))
        ]
        for h in (a, b)
        if (t := h.transform) is not None
    ]
    pixel = max(
        max(np.hypot(t[0], t[3]), np.hypot(t[1], t[4]))
        for t in (np.asarray(a.transform), np.asarray(b.transform))
    )
    distance = float(np.abs(np.subtract(corners[0], corners[1])).max() / pixel)
    if distance <= tolerance:
        return None
    return f"their corners are {distance:.3g} pixels apart (tolerance {tolerance:g})"


def _same_crs(a: str, b: str) -> bool:
    from pyproj import CRS

    return bool(CRS.from_user_input(a).equals(CRS.from_user_input(b), ignore_axis_order=True))


def describe_grid(header: SceneHeader) -> str:
    """An image's grid in a line."""
    gsd = "" if header.gsd is None else f" of {header.gsd:.4g} m"
    place = "without georeference"
    if header.crs is not None and header.transform is not None:
        place = f"in {header.crs:.40}, upper left ({header.transform[2]:.10g}, {header.transform[5]:.10g})"
    return f"{header.path}: {header.width} x {header.height} pixels{gsd}, {place}"


# ------------------------------------------------------------------------------------------------- one size


def _shapes(
    places: Sequence[PairRecord],
    sensors: Sequence[Sensor],
    scenes: Mapping[str, Sequence[SensorScene]],
    size: tuple[int, int] | None,
    fit: PairFit,
) -> tuple[dict[str, tuple[int, int]], dict[str, NDArray[np.int64]]]:
    """Size of each sensor's images, and [N, 2] corner of each place's crop."""
    native = {
        sensor.name: np.array([(s.header.height, s.header.width) for s in scenes[sensor.name]])
        for sensor in sensors
    }
    none = {name: np.zeros((len(places), 2), np.int64) for name in native}
    if size is not None and fit == "resize":
        return dict.fromkeys(native, size), none
    first = native[sensors[0].name]
    if size is None:
        for name, each in native.items():
            sizes = Counter(map(tuple, each.tolist()))
            if len(sizes) > 1:
                low, high = min(sizes), max(sizes)
                a, b = (int(np.flatnonzero((each == shape).all(axis=1))[0]) for shape in (low, high))
                raise ImageryError(
                    f"images of {name} have {len(sizes)} different sizes, such as {low[1]} x {low[0]} in "
                    f"{scenes[name][a].header.path} and {high[1]} x {high[0]} in "
                    f"{scenes[name][b].header.path}: choose one with size= (data.size in a recipe), and "
                    "resize_mode='center_crop' or 'resize'"
                )
        return {name: (int(each[0, 0]), int(each[0, 1])) for name, each in native.items()}, none
    small = np.flatnonzero((first < size).any(axis=1))
    if len(small):
        i = int(small[0])
        raise ImageryError(
            f"{scenes[sensors[0].name][i].header.path}: {first[i, 1]} x {first[i, 0]} pixels are fewer than "
            f"the crop of {size[1]} x {size[0]}; choose a smaller size=, or resize_mode='resize'"
        )
    shapes: dict[str, tuple[int, int]] = {}
    corners: dict[str, NDArray[np.int64]] = {}
    # The crop's corner on the first sensor's grid has to be a whole pixel on every grid.
    ratios = {name: _ratio(name, each, first, scenes[name]) for name, each in native.items()}
    step = int(np.lcm.reduce([ratio.denominator for ratio in ratios.values()]))
    corner = (first - np.array(size)) // 2 // step * step
    for name, ratio in ratios.items():
        if any((side * ratio).denominator != 1 for side in size):
            raise ImageryError(
                f"size={size}: pixels of {sensors[0].name} are not whole pixels of {name}, of which one is "
                f"{1 / float(ratio):.4g} wide; choose a multiple of {step}, or resize_mode='resize'"
            )
        shapes[name] = (int(size[0] * ratio), int(size[1] * ratio))
        corners[name] = (corner * ratio.numerator // ratio.denominator).astype(np.int64)
    return shapes, corners


def _ratio(name: str, each: NDArray[Any], first: NDArray[Any], scenes: Sequence[SensorScene]) -> Fraction:
    """Pixels of this sensor a pixel of the first one; the same for all places."""
    ratios = {Fraction(int(h), int(h0)) for (h, _), (h0, _) in zip(each, first, strict=True)}
    if len(ratios) > 1:
        raise ImageryError(
            f"images of {name} are not the same share of the first sensor's everywhere (from "
            f"{float(min(ratios)):.4g} to {float(max(ratios)):.4g} pixels a pixel, such as in "
            f"{scenes[0].header.path}); use resize_mode='resize'"
        )
    return ratios.pop()
