"""One sensor's pixels of many places: stored values as they are read, and how they become the sensor's unit.

A reader keeps what a file holds (uint16 digital numbers, float32 dB) until a batch is wanted, because that is
what a memory cache can afford: half or a quarter of the converted size. Bands of different resolution stay
apart (`groups`) until then.

Legend: N places, B samples, C bands, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import ImageryError
from swath.geo.grid import PixelWindow
from swath.rasters.read import read_window
from swath.rasters.resampling import resample
from swath.rasters.sensor_scene import SensorScene
from swath.sensors.sensor import Sensor
from swath.sensors.units import Array, Array64, Valid, stored_to_unit

PairFit = Literal["center_crop", "resize"]


class PairReader(Protocol):
    """One sensor's pixels of N places.

    Attributes:
        sensor: What took them.
        names: [N] what to call each place's imagery in a message: a file, or the folder of band files.
        shape: (H, W) of a finished image.
        gsds: [N] metres per pixel of a finished image.
        times: [N] seconds since 1970 UTC, NaN where unknown.
    """

    sensor: Sensor
    names: list[str]
    shape: tuple[int, int]
    gsds: Array64
    times: Array64

    def read(self, place: int) -> tuple[list[Array], Valid]:
        """Stored values of one place, in groups of [c, h, w], and valid [H, W].

        Raises:
            ImageryError: The place cannot be read; names the file.
        """
        ...

    def finish(self, groups: Sequence[Array], rows: NDArray[np.int64]) -> Tensor:
        """Groups of [B, c, h, w] as [B, C, H, W] in the sensor's unit: float32, or uint8 as it is."""
        ...


class NativePairReader:
    """Whole scenes, or their centers, on their own grid.

    Args:
        scenes: One a place.
        shape: (H, W) of the result.
        fit: How a scene of another size gets to `shape`: its center, or resampled (area average when
            shrinking, bilinear when enlarging).
        corners: [N, 2] row and column of the upper left pixel of a center crop.
        times: Seconds since 1970 UTC, [N].
    """

    def __init__(
        self,
        scenes: Sequence[SensorScene],
        shape: tuple[int, int],
        fit: PairFit,
        corners: NDArray[np.int64],
        times: Array64,
    ) -> None:
        self.sensor = scenes[0].sensor
        self.names = [scene.header.path for scene in scenes]
        self.shape, self.times = shape, times
        self._scenes, self._fit, self._corners = list(scenes), fit, corners
        self._offsets = np.array([scene.offset_dn for scene in scenes])
        whole = [PixelWindow(0, 0, scene.header.width, scene.header.height) for scene in scenes]
        out = shape if fit == "resize" else None
        self.gsds = np.array([scene.gsd(w, out) for scene, w in zip(scenes, whole, strict=True)])

    def read(self, place: int) -> tuple[list[Array], Valid]:
        """See `PairReader`."""
        scene = self._scenes[place]
        header = scene.header
        if self._fit == "center_crop":
            top, left = (int(corner) for corner in self._corners[place])
            window = PixelWindow(left, top, self.shape[1], self.shape[0])
            stored, valid = read_window(header, window, bands=scene.bands)
        else:
            stored, valid = read_window(header, bands=scene.bands)
            size = (header.height, header.width)
            if size != self.shape:
                if self.sensor.unit != "uint8":
                    stored = stored.astype(np.float32)
                shrinks = self.shape[0] <= size[0] and self.shape[1] <= size[1]
                kernel: Literal["area", "bilinear"] = "area" if shrinks else "bilinear"
                stored, valid = resample(stored, valid, (0, size[0]), (0, size[1]), self.shape, kernel)
        return [stored], valid

    def finish(self, groups: Sequence[Array], rows: NDArray[np.int64]) -> Tensor:
        """See `PairReader`."""
        return stored_to_unit(groups[0], self.sensor, self._offsets[rows])


def check_unit(sensor: Sensor, image: Tensor, valid: Tensor, where: str) -> None:
    """Refuse values that cannot be in the sensor's unit (dB against linear power, reflectance against DN).

    Args:
        sensor: States the unit.
        image: [C, H, W] in the unit, as far as one knows.
        valid: [H, W]; other pixels are not looked at.
        where: Named in the message.

    Raises:
        ImageryError: With the range found and the fix.
    """
    for unit in dict.fromkeys(band.unit for band in sensor.bands):
        rows = [i for i, band in enumerate(sensor.bands) if band.unit == unit]
        values = image[rows][:, valid]
        if values.numel() == 0 or unit not in ("dB", "linear", "reflectance"):
            continue
        least, most = (float(edge) for edge in torch.aminmax(values))
        if least == most == 0:
            continue
        found = f"{where}: the values lie between {least:.4g} and {most:.4g}"
        if unit == "dB" and least >= 0:
            raise ImageryError(
                f"{found}, which is linear power, but sensor {sensor.name!r} is in dB (mostly negative). Use "
                f"the sensor with linear power ({_other(sensor.name, '_linear')}), or convert the files: "
                "10 log10 of the values, 0 being no data"
            )
        if unit == "linear" and least < -0.01:
            raise ImageryError(
                f"{found}, which is dB, but sensor {sensor.name!r} is in linear power (never negative). Use "
                f"the sensor in dB ({sensor.name.removesuffix('_linear')!r} if it is built in), or convert "
                "the files: 10 ** (values / 10)"
            )
        if unit == "reflectance" and float(values.median()) > 5:
            raise ImageryError(
                f"{found}, which are digital numbers, but sensor {sensor.name!r} is in reflectance and its "
                "bands state no scale. State it in the sensor's YAML, such as `scale: 0.0001`"
            )
        if (
            unit == "reflectance"
            and least >= 0
            and most < 5e-4
            and all(sensor.bands[i].scale < 0.01 for i in rows)
        ):
            raise ImageryError(
                f"{found} after the sensor's scale of {sensor.bands[rows[0]].scale:g}: the files hold "
                f"reflectance already. Use a copy of sensor {sensor.name!r} with `scale: 1`"
            )


def _other(name: str, ending: str) -> str:
    return f"{name + ending!r} if it is built in" if not name.endswith(ending) else repr(name)
