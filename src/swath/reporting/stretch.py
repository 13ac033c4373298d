"""Chips as colors on a screen: which bands are shown, and how their values are stretched to 0 to 255.

Red, green and blue where the sensor has them; of radar VV, VH and VV - VH in decibels; else the first three
bands, else the first in gray. A `Stretch` is taken over many images of one sensor together and then applied
to each, so that images can be compared: each band from the 2nd to the 98th percentile; 8-bit color by all
bands at once from the 0.5th to the 99.5th, which keeps its hues. What is not valid is transparent.

Contact sheets, the images and the map of `swath serve` all show imagery so.

Legend: C bands shown, 1 or 3; H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swath.errors import SwathError
from swath.rasters.header import SceneHeader
from swath.sensors.matching import match_bands
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor

_PERCENTILES, _PERCENTILES_8_BIT = (2.0, 98.0), (0.5, 99.5)


@dataclass(frozen=True, slots=True)
class DisplayBands:
    """What of a file is shown.

    Attributes:
        bands: 0-based bands of the file: three, one, or VV and VH of radar.
        radar: "dB" or "linear" where they are VV and VH, else None.
    """

    bands: tuple[int, ...]
    radar: str | None = None

    def values(self, stored: NDArray[np.generic]) -> NDArray[np.float32]:
        """Stored values [len(bands), H, W] as what is stretched, [C, H, W]."""
        pixels = stored.astype(np.float32)
        if self.radar is None:
            return pixels
        if self.radar == "linear":
            pixels = 10 * np.log10(np.maximum(pixels, 1e-6))
        return np.concatenate([pixels, pixels[:1] - pixels[1:]])


def choose_display_bands(
    header: SceneHeader, name: str, sensors: Mapping[str, Sensor] | None = None
) -> DisplayBands:
    """Which bands of a file of the sensor `name` are shown.

    Args:
        header: Of the file.
        name: The sensor; one that is registered nowhere any more can still be shown, by its first bands.
        sensors: Sensors that are not registered, by name.

    Raises:
        ImageryError: The file does not have the sensor's bands.
    """
    known = (sensors or {}).get(name)
    if known is None:
        try:
            known = get_sensor(name)
        except SwathError:
            return DisplayBands((0, 1, 2) if header.bands >= 3 else (0,))
    placed = match_bands(known, header.descriptions, header.path)
    common = [band.common_name for band in known.bands]
    if all(color in common for color in ("red", "green", "blue")):
        return DisplayBands(tuple(placed[common.index(color)] for color in ("red", "green", "blue")))
    names = [band.name.upper() for band in known.bands]
    if "VV" in names and "VH" in names:
        return DisplayBands(tuple(placed[names.index(band)] for band in ("VV", "VH")), known.unit)
    return DisplayBands(tuple(placed[:3]) if len(placed) >= 3 else (placed[0],))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Values that become 0 and 255, of each band or (one pair) of all."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(
        cls, images: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]], eight_bit: bool
    ) -> Stretch | None:
        """The stretch of images ([C, H, W], valid [H, W]) of one sensor together; None if all are empty."""
        pixels = np.concatenate([values[:, valid] for values, valid in images], axis=1)
        if not pixels.size:
            return None
        each = pixels.reshape(1, -1) if eight_bit else pixels
        low, high = np.percentile(each, _PERCENTILES_8_BIT if eight_bit else _PERCENTILES, axis=1)
        return cls(tuple(low.tolist()), tuple(np.maximum(high, low + 1e-6).tolist()))


def to_rgba(
    pixels: NDArray[np.float32], valid: NDArray[np.bool_], stretch: Stretch | None
) -> NDArray[np.uint8]:
    """RGBA [H, W, 4] of [C, H, W]; without a stretch values are taken for 0 to 255."""
    if stretch is not None:
        low, high = (
            np.array(image_size, np.float32)[:, None, None] for image_size in (stretch.low, stretch.high)
        )
        pixels = (pixels - low) / (high - low) * 255
    color = np.clip(np.nan_to_num(pixels), 0, 255).astype(np.uint8)
    alpha = np.where(valid, 255, 0).astype(np.uint8)[None]
    stacked = np.concatenate([np.broadcast_to(color, (3, *valid.shape)), alpha])
    return np.ascontiguousarray(stacked.transpose(1, 2, 0))
