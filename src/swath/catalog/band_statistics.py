"""Mean, standard deviation and percentiles of each band over an archive, in one pass and little memory.

Moments are merged window by window in float64 by the parallel update of Chan, Golub and LeVeque ("Updating
formulae and a pairwise algorithm for computing sample variances", 1979), which does not lose digits where the
mean is large against the deviation. Only valid pixels count. Percentiles come from an evenly thinned sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from swath.errors import ImageryError, Problem, UnstatedError
from swath.geo.grid import PixelWindow
from swath.keyed_random import sample_keys, uniform
from swath.rasters.read import SceneHeader
from swath.rasters.sensor_scene import SensorScene, match_scene_to_sensor
from swath.sensors.registry import builtin_sensors, write_sensor
from swath.sensors.sensor import Sensor
from swath.sensors.sentinel2_offset import SENTINEL2

Array64 = NDArray[np.float64]
PERCENTILES = (1.0, 2.0, 50.0, 98.0, 99.0)
WINDOW = 1024  # pixels of a window's side, at least; whole blocks
_SAMPLE_LIMIT = 2**19  # pixels kept for the percentiles
_SAMPLE_WINDOW = 2**13  # pixels of one window that go into them


@dataclass(slots=True)
class RunningStatistics:
    """Count, mean and sum of squared deviations of each of C bands; grows by `add` and `merge`."""

    count: int
    mean: Array64  # [C]
    squares: Array64  # [C], sum of squared deviations from the mean
    low: Array64  # [C]
    high: Array64  # [C]

    @classmethod
    def empty(cls, bands: int) -> RunningStatistics:
        """Of no pixels."""
        return cls(0, np.zeros(bands), np.zeros(bands), np.full(bands, np.inf), np.full(bands, -np.inf))

    @classmethod
    def of(cls, values: NDArray[Any]) -> RunningStatistics:
        """Of the pixels [C, N]."""
        if values.shape[1] == 0:
            return cls.empty(values.shape[0])
        mean = values.mean(axis=1, dtype=np.float64)
        deviations = values - mean[:, None]
        squares = np.einsum("cn,cn->c", deviations, deviations)
        low, high = (edge.astype(np.float64) for edge in (values.min(axis=1), values.max(axis=1)))
        return cls(values.shape[1], mean, squares, low, high)

    def merge(self, other: RunningStatistics) -> RunningStatistics:
        """Of the pixels of both."""
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        squares = self.squares + other.squares + np.square(delta) * (self.count * other.count / count)
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return RunningStatistics(count, mean, squares, low, high)

    @property
    def std(self) -> Array64:
        """Standard deviation [C] of the population."""
        return np.sqrt(self.squares / max(self.count, 1))


@dataclass(frozen=True, slots=True)
class BandStatistics:
    """What `estimate_statistics` found.

    Attributes:
        sensor: The sensor, with the means and standard deviations found.
        pixels: Valid pixels counted.
        scenes: Scenes that they are from.
        low: Minimum [C] in the unit.
        high: Maximum [C].
        percentiles: [C, P] at `PERCENTILES`.
        valid_share: Valid pixels of all pixels read.
        problems: (path, reason) of scenes that could not be read.
    """

    sensor: Sensor
    pixels: int
    scenes: int
    low: Array64
    high: Array64
    percentiles: Array64
    valid_fraction: float
    problems: list[Problem] = field(default_factory=list)


def compute_band_statistics(
    scenes: Sequence[SceneHeader],
    sensor: Sensor,
    *,
    offset_dn: float | None = None,
    windows_per_scene: int | None = None,
    workers: int = 1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> BandStatistics:
    """Statistics of each band over the valid pixels of all scenes.

    Args:
        scenes: Headers, from a catalog.
        sensor: What they were taken with; its own statistics are not looked at.
        offset_dn: Added to stored values before scaling, see
            `swath.rasters.sensor_scene.match_scene_to_sensor`.
        windows_per_scene: Read so many windows of each scene, drawn evenly; None reads all of it.
        workers: Threads that read.
        seed: Of the draw of windows and pixels.
        progress: Called with (scenes read, scenes in all).

    Raises:
        ImageryError: No valid pixel, a band that is constant, or a scene that is not the sensor's.
    """
    moments = RunningStatistics.empty(len(sensor.bands))
    sample = _Sample(len(sensor.bands), seed)
    problems: list[Problem] = []
    read = used = 0
    looked = []
    for header in scenes:
        try:
            looked.append(match_scene_to_sensor(header, sensor, gsd="relative", offset_dn=offset_dn))
        except UnstatedError as error:
            problems.append((header.path, str(error)))

    def summarize(number: int) -> tuple[RunningStatistics, _Sample, int] | ImageryError:
        try:
            return _scene_statistics(looked[number], number, windows_per_scene, seed)
        except ImageryError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        for number, result in enumerate(pool.map(summarize, range(len(looked)))):
            if isinstance(result, ImageryError):
                problems.append((looked[number].header.path, str(result)))
            else:
                moments = moments.merge(result[0])
                sample.merge(result[1])
                read += result[2]
                used += result[0].count > 0
            if progress is not None:
                progress(number + 1, len(looked))
    if moments.count == 0:
        reason = f"; the first of {len(problems)} problems: {problems[0][1]}" if problems else ""
        raise ImageryError(f"no valid pixel in {len(scenes)} scenes to take statistics of{reason}")
    constant = [band.name for band, std in zip(sensor.bands, moments.std, strict=True) if not std > 0]
    if constant:
        raise ImageryError(
            f"band {', '.join(constant)} has the same value in all {moments.count:,} valid pixels; leave it "
            "out of the sensor, or state its nodata"
        )
    source = f"{moments.count:,} valid pixels of {used} scenes, by swath inspect --statistics"
    found = sensor.with_statistics(moments.mean.tolist(), moments.std.tolist(), source)
    return BandStatistics(
        sensor=found,
        pixels=moments.count,
        scenes=used,
        low=moments.low,
        high=moments.high,
        percentiles=sample.percentiles(PERCENTILES),
        valid_fraction=moments.count / read,
        problems=problems,
    )


def write_sensor_with_statistics(statistics: BandStatistics, path: str | Path, name: str) -> Sensor:
    """Write the sensor, as `name`, with its statistics as a YAML file that `get_sensor` reads. Returns it."""
    found = statistics.sensor.to_dict() | {"name": name}
    origin = statistics.sensor.name
    if origin in builtin_sensors():  # whose own sentences speak of other statistics, or of none
        found["description"] = (
            f"Bands, unit, scale and nodata of the built-in sensor {origin}; mean and standard deviation "
            "estimated from an archive."
        )
        if origin in SENTINEL2:
            found["description"] += " State `offset_dn` for scenes that do not say their processing baseline."
    try:
        sensor = Sensor.from_dict(found, where=str(path))
    except ImageryError as error:
        raise ImageryError(f"{error}\nChoose the sensor's name with --name") from None
    write_sensor(sensor, path)
    return sensor


# -------------------------------------------------------------------------------------------------- one scene


def _scene_statistics(
    scene: SensorScene, number: int, windows: int | None, seed: int
) -> tuple[RunningStatistics, _Sample, int]:
    """Moments and sample of one scene, and how many pixels were read."""
    scene.check_values()
    moments = RunningStatistics.empty(len(scene.sensor.bands))
    sample = _Sample(len(scene.sensor.bands), seed)
    key = sample_keys(seed, 0, torch.tensor([number]))
    places = list(_windows(scene.header))
    if windows is not None and windows < len(places):
        order = np.argsort(uniform(key, "windows", len(places))[0].numpy(), kind="stable")
        places = [places[i] for i in sorted(order[:windows])]
    read = 0
    for place, window in enumerate(places):
        image, valid = scene.read(window)
        pixels = image.reshape(len(image), -1) if valid.all() else image[:, valid]
        moments = moments.merge(RunningStatistics.of(pixels))
        sample.add(pixels, sample_keys(seed, number + 1, torch.tensor([place])))
        read += valid.size
    return moments, sample, read


def _windows(header: SceneHeader) -> Iterator[PixelWindow]:
    """The scene in windows of whole blocks, at least `WINDOW` pixels wide and high where it is so large."""
    height, width = (
        min(size, -(-WINDOW // block) * block)
        for size, block in zip((header.height, header.width), header.block, strict=True)
    )
    for row in range(0, header.height, height):
        for column in range(0, header.width, width):
            wide, tall = min(width, header.width - column), min(height, header.height - row)
            yield PixelWindow(column, row, wide, tall)


class _Sample:
    """An even sample of pixels: each part holds pixels that stand for `weight` pixels each."""

    def __init__(self, bands: int, seed: int) -> None:
        self.bands = bands
        self.parts: list[tuple[NDArray[np.float32], float]] = []  # [C, n], weight
        self._seed = seed
        self._thinned = 0

    def add(self, pixels: NDArray[Any], key: torch.Tensor) -> None:
        """Take some of the pixels [C, N]."""
        count = pixels.shape[1]
        if count == 0:
            return
        taken = min(count, _SAMPLE_WINDOW)
        if taken < count:  # one from each of `taken` equal parts
            inside = uniform(key, "pixels", taken)[0].double().numpy()
            pixels = pixels[
                :, ((np.arange(taken) + inside) * (count / taken)).astype(np.int64).clip(0, count - 1)
            ]
        self.parts.append((pixels.astype(np.float32), count / taken))
        self._thin()

    def merge(self, other: _Sample) -> None:
        """Take over another's pixels."""
        self.parts += other.parts
        self._thin()

    def _thin(self) -> None:
        """Halve until it fits; a random half, because neighbors are alike."""
        while sum(part.shape[1] for part, _ in self.parts) > _SAMPLE_LIMIT:
            key = sample_keys(self._seed, -1, torch.tensor([self._thinned]))
            self._thinned += 1
            keys = sample_keys(int(key), 0, torch.arange(len(self.parts)))
            halved = []
            for (part, weight), each in zip(self.parts, keys, strict=True):
                size = part.shape[1]
                order = np.argsort(uniform(each[None], "thin", size)[0].numpy(), kind="stable")
                kept = np.sort(order[: max(1, size // 2)])
                halved.append((part[:, kept], weight * size / len(kept)))
            self.parts = halved

    def percentiles(self, fractions: Sequence[float]) -> Array64:
        """[C, P]: the value below which `shares` percent of the weight lie."""
        values = np.concatenate([part for part, _ in self.parts], axis=1)
        weights = np.concatenate([np.full(part.shape[1], weight) for part, weight in self.parts])
        out = np.empty((self.bands, len(fractions)))
        for band in range(self.bands):
            order = np.argsort(values[band], kind="stable")
            below = np.cumsum(weights[order])
            at = (below - weights[order] / 2) / below[-1] * 100
            out[band] = np.interp(fractions, at, values[band][order])
        return out
