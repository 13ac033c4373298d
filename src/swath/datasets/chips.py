"""Chips: windows of scenes on their native grids, on a regular grid or at random, as map-style data sets.

Scenes may differ in CRS, GSD and size. A chip is `chip_size` pixels wide and high; with `chip_metres` it
covers that much ground in every scene instead, and is resampled to `chip_size` pixels (by area, from
overviews where there are any; bilinear where it has to be enlarged). Its GSD is measured at its own place.
Nothing is padded: a scene smaller than a chip is a problem that is reported, and so is a chip with too few
valid pixels.

Random chips are a pure function of (seed, epoch, index), see `swath.keyed_random`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch, Chip
from swath.datasets.collation import collate
from swath.datasets.protocol import Epoch, Sample
from swath.errors import ImageryError, Problem, UnstatedError
from swath.geo.footprint import image_footprint
from swath.geo.grid import PixelWindow
from swath.geo.transform import window_transform
from swath.keyed_random import sample_keys, uniform
from swath.rasters.read import SceneHeader
from swath.rasters.sensor_scene import SensorScene, match_scene_to_sensor
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor

MAX_DRAWS = 32
_DRAWS_IN_SCENE = 4  # how often another place of the same scene is tried before another scene


class _Chips:
    """What both kinds of sampling share: scenes of one sensor, and reading a window of one."""

    _lists_unstated = False  # whether a scene whose GSD or offset nobody states is a listed problem

    def __init__(
        self,
        scenes: Iterable[SceneHeader],
        sensor: str | Path | Sensor,
        *,
        gsd: float | Literal["relative"] | None,
        chip_size: int,
        chip_metres: float | None,
        min_valid: float,
        seed: int,
        offset_dn: float | None,
        problems: Iterable[Problem],
    ) -> None:
        if chip_size < 1:
            raise ImageryError(f"chip_size={chip_size}: a chip has at least one pixel")
        if chip_metres is not None and not 0 < chip_metres < float("inf"):
            raise ImageryError(f"chip_metres={chip_metres}: a positive number of metres is wanted")
        if chip_metres is not None and gsd == "relative":
            raise ImageryError(
                f"chip_metres={chip_metres} needs a GSD in metres, not gsd='relative'; use chip_size alone"
            )
        if not 0 <= min_valid <= 1:
            raise ImageryError(f"min_valid={min_valid}: a share between 0 and 1 is wanted")
        self.sensor = get_sensor(sensor)
        self.chip_size = chip_size
        self.chip_metres = chip_metres
        self.min_valid = min_valid
        self.seed = seed
        self.classes: list[str] | None = None
        self.labels: NDArray[np.int64] | None = None
        self.problems: list[Problem] = list(problems)
        self.scenes: list[SensorScene] = []
        self.chip_pixels: list[int] = []  # side of a chip in native pixels, for each scene
        self._epoch = Epoch()
        unstated = self.problems if self._lists_unstated else None
        for scene in _of_sensor(scenes, self.sensor, gsd, offset_dn, unstated):
            header = scene.header
            side = chip_size if chip_metres is None else max(1, round(chip_metres / scene.gsd()))
            if side > min(header.width, header.height):
                ground = "" if chip_metres is None else f" ({chip_metres:g} m)"
                reason = (
                    f"{header.path}: {header.width} x {header.height} pixels are fewer than a chip of "
                    f"{side} x {side}{ground}; choose a smaller "
                    + ("--chip-size" if chip_metres is None else "--chip-metres")
                    + ", or take whole images with --layout images"
                )
                self.problems.append((header.path, reason))
                continue
            self.scenes.append(scene)
            self.chip_pixels.append(side)
        if not self.scenes:
            first = f"; the first of {len(self.problems)} problems: {self.problems[0][1]}"
            raise ImageryError("no scene to cut chips from" + (first if self.problems else " was found"))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that random decisions belong to; seen by running loader workers too."""
        self._epoch.set(epoch)

    def _candidates(self, index: int, key: Tensor) -> Iterator[tuple[int, PixelWindow]]:
        """Places for chip `index` in the order in which they are tried: (scene, window)."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, read now; without an image where no valid chip could be had (see `Sample`)."""
        index = range(len(self))[index]
        sample, _ = self._take(index)
        return sample

    def get_batch(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Batch:
        """The samples at `indices` as one batch."""
        return collate([self[int(index)] for index in indices])

    def chip(self, index: int) -> Chip:
        """Chip `index` with everything that is known about it, footprint and source included.

        Raises:
            ImageryError: It could not be read, or has too few valid pixels.
        """
        index = range(len(self))[index]
        sample, window = self._take(index)
        if "image" not in sample:
            raise ImageryError(sample["problem"][1])
        header = self.scenes[sample["scene"]].header
        return Chip(
            image=sample["image"].numpy(),
            gsd=sample["gsd"],
            sensor=self.sensor.name,
            valid=sample["valid"].numpy(),
            source=header.path,
            window=window,
            footprint=window_footprint(header, window),
            time=header.time,
        )

    def _take(self, index: int) -> tuple[Sample, PixelWindow]:
        """Read the first place with enough valid pixels."""
        key = sample_keys(self.seed, self._epoch.get(), torch.tensor([index]))
        problem: Problem | None = None
        broken: set[int] = set()
        size = self.chip_size
        window = PixelWindow(0, 0, size, size)
        for place, window in self._candidates(index, key):
            if place in broken:
                continue
            scene = self.scenes[place]
            path = scene.header.path
            resampled = None if window.width == size else (size, size)
            try:
                image, valid = scene.read(window, resampled)
                gsd = scene.gsd(window, resampled)
            except ImageryError as error:
                broken.add(place)
                problem = (path, str(error))
                continue
            fraction = float(valid.mean())
            if fraction == 0 or fraction < self.min_valid:
                if problem is None:
                    problem = (path, _too_empty(path, window, fraction, self.min_valid))
                continue
            sample: Sample = {
                "image": torch.from_numpy(image),
                "gsd": gsd,
                "valid": torch.from_numpy(valid),
                "sensor": self.sensor.name,
                "index": index,
                "key": int(key),
                "window": (window.column, window.row, window.width, window.height),
                "scene": place,
            }
            if scene.header.time is not None:
                sample["time"] = scene.header.time.timestamp()
            if broken and problem is not None:  # a damaged file is news; a chip drawn again for nodata is not
                sample["problem"] = problem
            return sample, window
        shape = (len(self.sensor.bands), size, size)
        missing: Sample = {"index": index, "sensor": self.sensor.name, "shape": shape}
        missing["problem"] = problem or ("", "no place was tried")
        missing["empty"] = not broken
        return missing, window


class ChipGrid(_Chips):
    """Every chip of a regular grid over every scene, scene by scene in rows.

    The last column and row are moved inwards, so that the whole scene is covered and nothing is padded. Chips
    without any valid pixel, or with a smaller share of them than `min_valid`, have no image (see `Sample`).

    Args:
        scenes: Headers, from a catalog or `swath.rasters.read.read_header`.
        sensor: What the scenes were taken with.
        gsd: Metres per pixel of scenes without georeference; see `swath.rasters.sensor_scene.resolve_gsd`.
        chip_size: Pixels of a chip's side.
        chip_metres: Ground covered by a chip's side; None for `chip_size` native pixels.
        stride: Step between chips in chip pixels; default `chip_size` (no overlap).
        min_valid: Smallest share of valid pixels.
        seed: Seed of the samples' keys.
        offset_dn: Added to stored values before scaling, see
            `swath.rasters.sensor_scene.match_scene_to_sensor`.
        problems: (path, reason) of scenes that were left out before.

    Attributes:
        scenes: The usable scenes.
        paths: Path of the scene of each chip.
    """

    _lists_unstated = True

    def __init__(
        self,
        scenes: Iterable[SceneHeader],
        sensor: str | Path | Sensor,
        *,
        gsd: float | Literal["relative"] | None = None,
        chip_size: int = 224,
        chip_metres: float | None = None,
        stride: int | None = None,
        min_valid: float = 0.0,
        seed: int = 0,
        offset_dn: float | None = None,
        problems: Iterable[Problem] = (),
    ) -> None:
        super().__init__(
            scenes,
            sensor,
            gsd=gsd,
            chip_size=chip_size,
            chip_metres=chip_metres,
            min_valid=min_valid,
            seed=seed,
            offset_dn=offset_dn,
            problems=problems,
        )
        step = stride if stride is not None else chip_size
        if step < 1:
            raise ImageryError(f"stride={stride}: at least one pixel is wanted")
        self._axes: list[tuple[list[int], list[int]]] = []  # rows and columns of each scene
        for scene, side in zip(self.scenes, self.chip_pixels, strict=True):
            native = max(1, round(step * side / chip_size))
            size = (scene.header.height, scene.header.width)
            self._axes.append((grid_positions(size[0], side, native), grid_positions(size[1], side, native)))
        self._ends = list(accumulate(len(rows) * len(columns) for rows, columns in self._axes))
        counts = np.diff(self._ends, prepend=0)
        self.paths = [s.header.path for s, n in zip(self.scenes, counts, strict=True) for _ in range(n)]

    def __len__(self) -> int:
        return self._ends[-1]

    def place(self, index: int) -> tuple[int, PixelWindow]:
        """Where chip `index` lies: position in `scenes`, and window on its native grid. Nothing is read."""
        index = range(len(self))[index]
        scene = bisect_right(self._ends, index)
        rows, columns = self._axes[scene]
        row, column = divmod(index - (self._ends[scene - 1] if scene else 0), len(columns))
        side = self.chip_pixels[scene]
        return scene, PixelWindow(columns[column], rows[row], side, side)

    def _candidates(self, index: int, key: Tensor) -> Iterator[tuple[int, PixelWindow]]:
        yield self.place(index)


class RandomChips(_Chips):
    """Chips at random places, another set each epoch.

    A scene gets its share of the chips by its area in chips. The draw is stratified: chip `i` of `n` comes
    from the i-th of `n` equal parts of the archive, so every epoch covers all of it, and a scene whose share
    is `k` chips gets between k - 2 and k + 2 of them. Shuffle the indices in the loader.

    A chip with too few valid pixels is drawn again, first elsewhere in its scene, then anywhere, `MAX_DRAWS`
    times at most; then it has no image (see `Sample`). A damaged file is reported in the sample's `problem`,
    and the chip drawn elsewhere.

    Args:
        scenes: As in `ChipGrid`, and so are `sensor`, `gsd`, `chip_size`, `chip_metres`, `seed`, `offset_dn`
            and `problems`.
        chips_per_epoch: Length of the data set; default: as many chips as fit side by side into the scenes.
        min_valid: Smallest share of valid pixels.
        align_to_blocks: Place chips so that as few blocks (tiles of a COG) as possible are read for each.
            Every pixel can still be met, but chips begin at the same few places.

    Attributes:
        scenes: The usable scenes.
        paths: Path of each of them.
    """

    def __init__(
        self,
        scenes: Iterable[SceneHeader],
        sensor: str | Path | Sensor,
        *,
        gsd: float | Literal["relative"] | None = None,
        chip_size: int = 224,
        chip_metres: float | None = None,
        chips_per_epoch: int | None = None,
        min_valid: float = 0.5,
        align_to_blocks: bool = False,
        seed: int = 0,
        offset_dn: float | None = None,
        problems: Iterable[Problem] = (),
    ) -> None:
        super().__init__(
            scenes,
            sensor,
            gsd=gsd,
            chip_size=chip_size,
            chip_metres=chip_metres,
            min_valid=min_valid,
            seed=seed,
            offset_dn=offset_dn,
            problems=problems,
        )
        if chips_per_epoch is not None and chips_per_epoch < 1:
            raise ImageryError(f"chips_per_epoch={chips_per_epoch}: at least one chip is wanted")
        self.align = align_to_blocks
        self.paths = [scene.header.path for scene in self.scenes]
        areas = np.array([s.header.width * s.header.height for s in self.scenes], dtype=np.float64)
        fractions = areas / np.square(np.array(self.chip_pixels, dtype=np.float64))
        self._length = chips_per_epoch or max(1, int(fractions.sum()))
        self._cumulative = np.cumsum(fractions) / fractions.sum()

    def __len__(self) -> int:
        return self._length

    def _candidates(self, index: int, key: Tensor) -> Iterator[tuple[int, PixelWindow]]:
        numbers = uniform(key, "chips", 3 * MAX_DRAWS).reshape(MAX_DRAWS, 3).tolist()
        place = 0
        for draw, (where, down, across) in enumerate(numbers):
            if draw == 0:
                place = self._scene_at((index + where) / self._length)
            elif draw >= _DRAWS_IN_SCENE:
                place = self._scene_at(where)
            header, side = self.scenes[place].header, self.chip_pixels[place]
            rows, columns = header.block if self.align else (1, 1)
            yield (
                place,
                PixelWindow(
                    column=draw_position(header.width, side, columns, across),
                    row=draw_position(header.height, side, rows, down),
                    width=side,
                    height=side,
                ),
            )

    def _scene_at(self, fraction: float) -> int:
        """The scene that holds this share, 0 to 1, of the archive's area."""
        return min(int(np.searchsorted(self._cumulative, fraction, side="right")), len(self.scenes) - 1)


def grid_positions(length: int, chip: int, stride: int) -> list[int]:
    """Starts of chips along an axis: every `stride` pixels, and a last one that ends where the axis does."""
    starts = list(range(0, length - chip + 1, stride))
    if starts[-1] + chip < length:
        starts.append(length - chip)
    return starts


def draw_position(length: int, chip: int, block: int, number: float) -> int:
    """Start of a chip along an axis, by a uniform number in [0, 1).

    With `block` > 1 only starts that touch as few blocks as possible are drawn: multiples of the block where
    it is not larger than the chip; anywhere within one block where it is; and always the last one that fits.
    """
    last = length - chip
    if block <= 1:
        return min(int(number * (last + 1)), last)
    offsets = max(0, block - chip) + 1  # starts within each block
    blocks, rest = divmod(last, block)
    count = blocks * offsets + min(rest + 1, offsets)
    ends_apart = rest >= offsets  # the last start is not among them
    picked = min(int(number * (count + ends_apart)), count + ends_apart - 1)
    return last if picked == count else picked // offsets * block + picked % offsets


def window_footprint(header: SceneHeader, window: PixelWindow) -> tuple[tuple[float, float], ...] | None:
    """Closed ring of (longitude, latitude) corners of a window; None without georeference."""
    if header.transform is None or header.crs is None or header.footprint is None:
        return None
    transform = window_transform(header.transform, window.column, window.row)
    return image_footprint(transform, header.crs, window.width, window.height)


def _too_empty(path: str, window: PixelWindow, fraction: float, wanted: float) -> str:
    return f"{path}: the chip at column {window.column}, row {window.row} has {fraction:.0%} valid pixels" + (
        f", fewer than min_valid={wanted:g}" if fraction > 0 else ""
    )


def _of_sensor(
    headers: Iterable[SceneHeader],
    sensor: Sensor,
    gsd: float | Literal["relative"] | None,
    offset_dn: float | None,
    unstated: list[Problem] | None,
) -> list[SensorScene]:
    """Scenes as imagery of one sensor; raises where some do not fit, naming one that does beside it.

    Those that lack a statement of the user go to `unstated` where that is a list and others do fit.
    """
    scenes: list[SensorScene] = []
    unfit: list[str] = []
    lacking: list[Problem] = []
    total = 0
    for header in headers:
        total += 1
        try:
            scenes.append(match_scene_to_sensor(header, sensor, gsd=gsd, offset_dn=offset_dn))
        except UnstatedError as error:
            lacking.append((header.path, str(error)))
        except ImageryError as error:
            unfit.append(str(error))
    if unstated is None or not scenes:
        unfit += [reason for _, reason in lacking]
    else:
        unstated += lacking
    if unfit:
        beside = f", while {scenes[0].header.path} does" if scenes else ""
        raise ImageryError(f"{unfit[0]} ({len(unfit)} of {total} scenes do not fit{beside}.)")
    return scenes
