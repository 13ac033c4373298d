"""What a network is shown of a scene: tiles of it, at the GSD that it is looked at, of one date or of two.

Each tile is cut, resampled and given its GSD by itself, from the pixels of the file that it covers. So it is
the same to the last bit whatever else was read together with it.

Legend: N tiles of a window, C bands, h x w pixels of a tile.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from swath.datasets.image_reading import read_image_file
from swath.errors import ImageryError
from swath.geo.grid import PixelGrid, PixelWindow
from swath.geo.transform import resampled_transform, window_transform
from swath.models.contract import Contract
from swath.prediction.options import PredictionOptions
from swath.rasters.header import SceneHeader, Six
from swath.rasters.resampling import kernel_support, resample
from swath.rasters.sensor_scene import OVERRIDE, SensorScene, match_scene_to_sensor
from swath.rasters.warp import read_on_grid, to_pixels
from swath.sensors.sensor import Sensor
from swath.sensors.units import to_unit
from swath.tasks.change.phase_correlation import phase_correlation_shift
from swath.tasks.change.radiometric_match import RadiometricMatch, RadiometryStatistics
from swath.tasks.dense.data import same_grid

Array = NDArray[Any]
Valid = NDArray[np.bool_]
LARGEST_ENLARGEMENT = 4  # of a scene that is coarser than what the model was trained on
NATIVE_WITHIN = 0.05  # a GSD so near to one that the model knows is not worth resampling
_TRUSTED = 8.0  # see `shift_between`
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class TileBounds:
    """A tile on the grid that is looked at: its first row and column, and its size."""

    top: int
    left: int
    height: int
    width: int


class SceneDateReader(Protocol):
    """One date of a scene on a grid."""

    def read(self, boxes: Sequence[TileBounds]) -> list[tuple[Array, Valid]]:
        """([C, h, w] in the sensor's unit, [h, w] valid) of tiles that lie near one another."""
        ...


class NativeSceneReader:
    """A scene on its own grid, or on one that is coarser or finer by a factor.

    Args:
        scene: The scene.
        height: Rows of the grid that is looked at.
        width: Columns of it.
    """

    def __init__(self, scene: SensorScene, height: int, width: int) -> None:
        self.scene = scene
        self.full = (scene.header.height, scene.header.width)
        self.steps = (self.full[0] / height, self.full[1] / width)
        self.native = (height, width) == self.full
        self.kernel: Literal["area", "bilinear"] = "area" if min(self.steps) >= 1 else "bilinear"
        self._picture: tuple[Array, Valid] | None = None
        self._decoding = threading.Lock()

    def read(self, boxes: Sequence[TileBounds]) -> list[tuple[Array, Valid]]:
        """See `View`."""
        spans = [(self._span(0, b.top, b.height), self._span(1, b.left, b.width)) for b in boxes]
        top, bottom = min(rows[0] for rows, _ in spans), max(rows[1] for rows, _ in spans)
        left, right = min(cols[0] for _, cols in spans), max(cols[1] for _, cols in spans)
        values, valid = self._pixels(top, bottom, left, right)
        tiles = []
        for box, (rows, columns) in zip(boxes, spans, strict=True):
            own = (slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left))
            piece, ok = values[:, *own], valid[own]
            tiles.append((piece, ok) if self.native else self._resampled(piece, ok, box, rows, columns))
        return tiles

    def _span(self, axis: int, start: int, size: int) -> tuple[int, int]:
        """Pixels of the file that a tile looks at along an axis: [first, last)."""
        if self.native:
            return start, start + size
        step = self.steps[axis]
        margin = kernel_support(self.kernel, step)
        first = max(0, math.floor(start * step - margin + 1e-6))
        last = min(self.full[axis], math.ceil((start + size) * step + margin - 1e-6))
        return first, last

    def _pixels(self, top: int, bottom: int, left: int, right: int) -> tuple[Array, Valid]:
        scene = self.scene
        if scene.header.driver != "picture":
            return scene.read(PixelWindow(left, top, right - left, bottom - top))
        with self._decoding:  # such a file has no random access: it is decoded once
            if self._picture is None:
                self._picture = read_image_file(scene.header.path, scene.sensor, offset_dn=scene.offset_dn)
        image, valid = self._picture
        return image[:, top:bottom, left:right], valid[top:bottom, left:right]

    def _resampled(
        self, values: Array, valid: Valid, box: TileBounds, rows: tuple[int, int], columns: tuple[int, int]
    ) -> tuple[Array, Valid]:
        down, right = self.steps
        decibels = self.scene.sensor.unit == "dB"
        if decibels:  # the mean of logarithms is not the backscatter of the area
            with np.errstate(over="ignore"):
                values = np.where(valid, np.power(10, values / 10), 0)
        out, ok = resample(
            values,
            valid,
            (box.top * down - rows[0], (box.top + box.height) * down - rows[0]),
            (box.left * right - columns[0], (box.left + box.width) * right - columns[0]),
            (box.height, box.width),
            self.kernel,
        )
        if decibels:
            ok = ok & (out > 0).all(axis=0)
            out = np.where(ok, 10 * np.log10(np.where(ok, out, 1)), 0).astype(np.float32)
        return out, ok


class CoregisteredReader:
    """A scene on the grid of another one, by their georeferences.

    Args:
        scene: What is read.
        crs: Of the grid.
        transform: Of the grid that is looked at.
    """

    def __init__(self, scene: SensorScene, crs: str, transform: Six) -> None:
        self.scene, self.crs, self.transform = scene, crs, transform

    def read(self, boxes: Sequence[TileBounds]) -> list[tuple[Array, Valid]]:
        """See `View`; where the scene does not reach, nothing is valid."""
        return [self._tile(box) for box in boxes]

    def _tile(self, box: TileBounds) -> tuple[Array, Valid]:
        grid = PixelGrid(self.crs, window_transform(self.transform, box.left, box.top), box.width, box.height)
        scene = self.scene
        decibels = scene.sensor.unit == "dB"
        if self._meet(grid):
            stored, valid = read_on_grid(scene, grid)
        else:
            kind = np.float32 if decibels else np.dtype(scene.header.dtype)
            stored = np.zeros((len(scene.bands), box.height, box.width), kind)
            valid = np.zeros((box.height, box.width), bool)
        return (stored if decibels else to_unit(stored, scene.sensor, scene.offset_dn)), valid

    def _meet(self, grid: PixelGrid) -> bool:
        """Whether the grid and the scene have a pixel in common."""
        a, b, c, d, e, f = grid.transform
        along = np.linspace(0, 1, 9)
        columns, rows = (np.ravel(m) for m in np.meshgrid(along * grid.width, along * grid.height))
        at = to_pixels(self.scene.header, grid.crs, a * columns + b * rows + c, d * columns + e * rows + f)
        size = (self.scene.header.width, self.scene.header.height)
        return all(bool(x.min() < n - 1 and x.max() > 1) for x, n in zip(at, size, strict=True))


@dataclass(frozen=True)
class ModelView:
    """How a scene, or a pair of scenes, is looked at.

    Attributes:
        height: Rows of the grid that is looked at.
        width: Columns.
        views: One, or before and after.
        scene: The (first) scene.
        gsd: Metres per pixel at its center, of what is looked at (1 in relative mode).
        native_gsd: Of the file.
        header: Of the (first) scene.
        notes: What people should know.
        match: What is done to the later date of a pair, see `matched_look`.
    """

    height: int
    width: int
    views: tuple[SceneDateReader, ...]
    scene: SensorScene
    gsd: float
    native_gsd: float
    notes: tuple[str, ...] = ()
    match: RadiometricMatch | None = None

    @property
    def header(self) -> SceneHeader:
        """Of the (first) scene."""
        return self.scene.header

    @property
    def steps(self) -> tuple[float, float]:
        """Pixels of the file per pixel that is looked at: down, across."""
        return self.header.height / self.height, self.header.width / self.width

    @property
    def transform(self) -> Six | None:
        """Of the grid that is looked at; None without georeference."""
        if self.header.transform is None:
            return None
        return resampled_transform(self.header.transform, self.steps[1], self.steps[0])

    @property
    def pixel_bytes(self) -> float:
        """Memory that reading one pixel takes, roughly."""
        return 6.0 * len(self.scene.bands) * len(self.views) * self.steps[0] * self.steps[1]

    def read(self, boxes: Sequence[TileBounds]) -> tuple[Array, Valid, NDArray[np.float32]]:
        """Tiles of one size.

        Returns:
            ([N, C, h, w], or [N, 2, C, h, w] of two dates; [N, h, w] valid at all dates; [N] GSD).
        """
        dates = [view.read(boxes) for view in self.views]
        images = [np.stack([image for image, _ in tiles]) for tiles in dates]
        if self.match is not None:
            images[1] = self.match(images[1])
        valid = np.logical_and.reduce([np.stack([ok for _, ok in tiles]) for tiles in dates])
        gsd = np.array([self.gsd_of(box) for box in boxes], np.float32)
        return (images[0] if len(images) == 1 else np.stack(images, axis=1)), valid, gsd

    def gsd_of(self, box: TileBounds) -> float:
        """GSD at a tile's own place, which in a geographic CRS is not that of the scene's center."""
        down, right = self.steps
        top, left = int(box.top * down), int(box.left * right)
        height = min(max(1, round(box.height * down)), self.header.height - top)
        width = min(max(1, round(box.width * right)), self.header.width - left)
        return self.scene.gsd(PixelWindow(left, top, width, height)) * math.sqrt(down * right)


def open_model_view(
    headers: Sequence[SceneHeader],
    sensor: Sensor,
    contract: Contract,
    options: PredictionOptions,
    gsd: float | None = None,
) -> ModelView:
    """How a model looks at a scene, or at a pair.

    Args:
        headers: Of the scene; or of the dates, before and after.
        sensor: The model's.
        contract: The model's.
        options: Resolved.
        gsd: Metres per pixel that a table states for this scene.

    Raises:
        ImageryError: Another sensor, an unknown GSD, or grids that differ; with the fix.
    """
    stated, kept = _stated_gsd(headers[0], options, gsd)
    scenes = [
        match_scene_to_sensor(header, sensor, gsd=stated, offset_dn=options.offset_dn)
        for header in headers[:1]
    ]
    scenes += [
        match_scene_to_sensor(header, sensor, gsd="relative", offset_dn=options.offset_dn)
        for header in headers[1:]
    ]
    first = scenes[0]
    native = first.gsd()
    header = first.header
    wanted, notes = _wanted_gsd(native, contract, options, header.path)
    notes += kept
    height, width = header.height, header.width
    if wanted != native:
        height, width = (max(1, round(side * native / wanted)) for side in (height, width))
    if header.transform is None:
        notes.append("no georeference: results are in pixel coordinates, x to the right and y down")
    elif header.crs is None:
        notes.append("no coordinate reference system in the file, so none in the results")
    look = ModelView(
        height, width, (NativeSceneReader(first, height, width),), first, wanted, native, tuple(notes)
    )
    if len(scenes) == 1:
        return look
    second: SceneDateReader
    if same_grid(header, scenes[1].header):
        second = NativeSceneReader(scenes[1], height, width)
    elif not options.coregister:
        other = scenes[1].header
        raise ImageryError(
            f"{other.path}: has another grid ({other.width} x {other.height}) than {header.path} "
            f"({header.width} x {header.height}), so their pixels do not show the same ground. "
            "With --coregister it is brought onto that grid by its georeference"
        )
    else:
        second = _aligned(look, scenes[1])
        notes.append("the second date was brought onto the grid of the first")
    return replace(look, views=(look.views[0], second), notes=tuple(notes))


def _aligned(look: ModelView, scene: SensorScene) -> CoregisteredReader:
    crs, transform = look.header.crs, look.transform
    for header in (look.header, scene.header):
        if header.crs is None or header.transform is None:
            raise ImageryError(f"{header.path}: has no georeference, so the dates cannot be aligned by it")
    assert crs is not None
    assert transform is not None
    return CoregisteredReader(scene, crs, transform)


def _stated_gsd(
    header: SceneHeader, options: PredictionOptions, gsd: float | None
) -> tuple[float | str | None, list[str]]:
    """What is stated of a scene's GSD: by a table for it alone; for all scenes where one does not tell."""
    if gsd is not None and options.gsd != "relative":
        return f"{OVERRIDE}{gsd}", []
    if header.gsd is None or options.gsd is None or isinstance(options.gsd, str):
        return options.gsd, []
    stated = options.gsd
    if abs(stated / header.gsd - 1) <= NATIVE_WITHIN:
        return None, []
    return None, [
        f"has a GSD of {header.gsd:.4g} m by its georeference, which counts; the stated {stated:.4g} m is "
        "for scenes that do not tell theirs"
    ]


def _wanted_gsd(
    native: float, contract: Contract, options: PredictionOptions, where: str
) -> tuple[float, list[str]]:
    """GSD to look at, and what there is to say about it."""
    unit = "m per pixel" if contract.gsd_mode == "metres" else "times its native resolution"
    if options.target_gsd == "native":
        return native, []
    if not isinstance(options.target_gsd, str):
        return options.target_gsd, _said(native, options.target_gsd, unit, "as asked for")
    if contract.gsd_range is None:
        return native, []
    low, high = contract.gsd_range
    if low * (1 - NATIVE_WITHIN) <= native <= high * (1 + NATIVE_WITHIN):
        return native, []
    trained = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    wanted = low if native < low else high
    if native > LARGEST_ENLARGEMENT * wanted:
        raise ImageryError(
            f"{where}: has {native:.4g} {unit}, and the model was trained on {trained}: enlarged "
            f"{native / wanted:.0f} times it would show nothing of what the model knows. Give a scene that "
            "is fine enough; or look at it as it is, for what that is worth, with --read-gsd native"
        )
    return wanted, _said(native, wanted, unit, f"the model was trained on {trained}")


def _said(native: float, wanted: float, unit: str, why: str) -> list[str]:
    if wanted == native:
        return []
    kind = "finer than the file, so nothing is gained in detail" if wanted < native else "coarser"
    return [f"is looked at with {wanted:.4g} {unit} instead of {native:.4g} ({why}; {kind})"]


def match_view_radiometry(view: ModelView) -> ModelView:
    """The look at a pair whose later date is brought to the radiometry of the earlier one.

    Both dates are read once for it, in blocks, whatever their size.
    """
    moments = RadiometryStatistics(view.scene.sensor)
    for top in range(0, view.height, _BLOCK):
        for left in range(0, view.width, _BLOCK):
            box = TileBounds(top, left, min(_BLOCK, view.height - top), min(_BLOCK, view.width - left))
            images, valid, _ = view.read([box])
            moments.add(images[0, 0], images[0, 1], valid[0])
    return replace(view, match=moments.match())


def check_registration(view: ModelView) -> list[str]:
    """A note where the dates of a pair do not lie on each other, judged by the middle of the scene."""
    side = min(512, view.height, view.width)
    box = TileBounds((view.height - side) // 2, (view.width - side) // 2, side, side)
    images, valid, _ = view.read([box])
    if side < 32 or valid.mean() < 0.5:
        return []
    before, after = (np.where(valid[0], image.astype(np.float32), 0) for image in images[0])
    down, right, trust = phase_correlation_shift(before, after)
    if trust < _TRUSTED or max(abs(down), abs(right)) < 1:
        return []
    return [
        f"the second date lies {down:+.1f} rows and {right:+.1f} columns beside the first; shifted edges "
        "look like change"
    ]
