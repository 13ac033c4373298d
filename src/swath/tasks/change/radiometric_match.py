"""Bring the second date of a pair to the radiometry of the first: relative radiometric normalization.

Sun, haze and season brighten or darken a whole scene, and a network that compares two dates takes that for
change wherever it has not learned otherwise. Here each band of the later date is stretched and shifted such
that its mean and its standard deviation over the whole scene are those of the earlier one. What has truly
changed is a small part of a scene, so it hardly moves either; where most of a scene has changed, do not use
it. The simplest of the methods in Yuan and Elvidge (1996), "Comparison of relative radiometric normalization
techniques", ISPRS J. 51(3).

What then lies outside what a unit can hold is cut there: display values to 0 to 255; power, kelvin and
digital numbers to 0 and more. Reflectance is not (products hold slightly negative values themselves), nor
are decibels.

Legend: C bands, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.sensors.sensor import Sensor

Array = NDArray[Any]
Valid = NDArray[np.bool_]
_HOLDS = {"uint8": (0.0, 255.0), "linear": (0.0, np.inf), "kelvin": (0.0, np.inf), "DN": (0.0, np.inf)}


@dataclass(frozen=True)
class RadiometricMatch:
    """Each band times `gain`, plus `offset`.

    Attributes:
        gain: [C]
        offset: [C], in the sensor's unit.
        minimum: [C] smallest value that the unit can hold.
        maximum: [C] largest.
    """

    gain: NDArray[np.float64]
    offset: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]

    def __call__(self, after: Array) -> Array:
        """The later date [..., C, H, W] as if it had been taken under the light of the earlier one."""
        gain, offset, minimum, maximum = (
            each[:, None, None] for each in (self.gain, self.offset, self.minimum, self.maximum)
        )
        return (after * gain + offset).clip(minimum, maximum).astype(np.float32)


class RadiometryStatistics:
    """Mean and spread of both dates' bands over a scene that is seen piece by piece."""

    def __init__(self, sensor: Sensor) -> None:
        self._held = np.array([_HOLDS.get(band.unit, (-np.inf, np.inf)) for band in sensor.bands]).T
        self._count = 0
        self._sums = np.zeros((2, 2, len(sensor.bands)))  # of values and their squares, of each date

    def add(self, before: Array, after: Array, valid: Valid) -> None:
        """A piece of both dates [C, H, W], and where both are valid [H, W]."""
        self._count += int(valid.sum())
        for date, image in enumerate((before, after)):
            values = image[:, valid].astype(np.float64)
            self._sums[date] += values.sum(axis=1), np.square(values).sum(axis=1)

    def match(self) -> RadiometricMatch:
        """What brings the later date to the earlier one; nothing of a band that is constant at either."""
        (before, after), squares = self._sums[:, 0] / max(1, self._count), self._sums[:, 1]
        spread = np.sqrt((squares / max(1, self._count) - np.square([before, after])).clip(min=0))
        flat = (spread <= 1e-6 * np.abs([before, after]).clip(min=1e-12)).any(axis=0)
        gain = np.where(flat, 1.0, spread[0] / np.where(flat, 1.0, spread[1]))
        return RadiometricMatch(gain, np.where(flat, 0.0, before - gain * after), *self._held)


def match_radiometry(before: Array, after: Array, valid: Valid, sensor: Sensor) -> Array:
    """The later date of a whole scene [C, H, W], brought to the earlier one."""
    moments = RadiometryStatistics(sensor)
    moments.add(before, after, valid)
    return moments.match()(after)
