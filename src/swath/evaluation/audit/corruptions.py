"""What imagery suffers, at stated strengths: haze, noise, stripes, lost bands, blur, holes, turns, speckle.

Each degradation works on images as they come, in their sensor's unit, before any model has normalized them.
A strength is a physical number where there is one (optical depth, looks, pixels, degrees) and otherwise a
share of the band's own spread. What makes no sense for a sensor is refused with the reason: radar sees
through haze, and suffers speckle instead of additive noise.

All randomness is keyed by the sample, and does not depend on the strength: a stronger degradation is the same
noise, larger, and the same hole, grown. So a curve over strengths compares like with like.

Legend: B images, C bands, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swath.augmentations.blur import gaussian_blur
from swath.augmentations.photometric_options import wavelength
from swath.augmentations.speckle import speckle_db
from swath.datasets.chip import Batch
from swath.errors import SwathError, suggest
from swath.keyed_random import normal, uniform
from swath.sensors.sensor import Sensor

FORMAT = 1  # raised when a degradation changes what it does, so that cached features of it are not found
_RADAR = ("dB", "linear")
_OPTICAL = ("reflectance", "radiance", "DN", "uint8")


@dataclass(frozen=True, slots=True)
class Corruption:
    """One way in which imagery gets worse.

    Attributes:
        name: On the command line.
        measure: What its strength is, with the unit.
        severities: Ascending; the clean image is none of them.
        change: (images [B, C, H, W] float32 in the unit, valid [B, H, W], keys [B], sensor, strength) ->
            (images, valid).
        units: Units of bands that it makes sense for; others are refused.
    """

    name: str
    measure: str
    severities: tuple[float, ...]
    change: Callable[[Tensor, Tensor, Tensor, Sensor, float], tuple[Tensor, Tensor]]
    units: tuple[str, ...]

    def refusal(self, sensor: Sensor) -> str | None:
        """Why a sensor cannot suffer this; None if it can."""
        foreign = sorted({band.unit for band in sensor.bands if band.unit not in self.units})
        if foreign:
            instead = " (speckle is its noise)" if self.name == "noise" and foreign[0] in _RADAR else ""
            return f"{self.name} has no meaning in {' or '.join(foreign)}{instead}"
        if self.name == "haze":
            unknown = [band.name for band in sensor.bands if wavelength(band) is None]
            if unknown:
                return f"haze depends on the wavelength, and band {', '.join(unknown)} states none"
        if self.name in ("haze", "noise", "stripes", "missing-bands") and not sensor.has_statistics:
            return (
                f"{self.name} is measured in the bands' spread, and sensor {sensor.name!r} has no statistics"
            )
        if self.name == "missing-bands" and len(sensor.bands) == 1:
            return "missing-bands needs several bands, and there is one"
        return None

    def levels(self, sensor: Sensor) -> list[float]:
        """Strengths that differ for a sensor: bands are lost in whole numbers, and one is left."""
        if self.name != "missing-bands":
            return list(self.severities)
        count = len(sensor.bands)
        lost = {min(count - 1, max(1, round(fraction * count))) for fraction in self.severities}
        return [number / count for number in sorted(lost)]

    def __call__(self, batch: Batch, sensor: Sensor, strength: float) -> Batch:
        """The batch with worse images; type and range of 8-bit images are kept."""
        image = batch["image"]
        valid = batch.get("valid")
        if valid is None:
            valid = torch.ones(len(image), *image.shape[2:], dtype=torch.bool)
        shown = image.float().masked_fill(~valid[:, None], 0.0)
        changed, seen = self.change(shown, valid, batch["key"], sensor, strength)
        if image.dtype == torch.uint8:
            changed = changed.round().clamp(0, 255).to(torch.uint8)
        elif sensor.unit == "uint8":
            changed = changed.clamp(0, 255)
        return {**batch, "image": changed, "valid": seen}


def _haze(image: Tensor, valid: Tensor, key: Tensor, sensor: Sensor, depth: float) -> tuple[Tensor, Tensor]:
    """Koschmieder: x t + a (1 - t), t = exp(-depth (550 nm / wavelength)^1.3) in each band.

    The air's own light a is that of a bright cloud: two standard deviations above the band's mean.
    """
    waves = torch.tensor([float(wavelength(band) or 550.0) for band in sensor.bands])
    through = torch.exp(-depth * (550.0 / waves) ** 1.3).view(-1, 1, 1)
    air = (_column(sensor.mean) + 2 * _column(sensor.std)).view(-1, 1, 1)
    return image * through + air * (1 - through), valid


def _noise(
    image: Tensor, valid: Tensor, key: Tensor, sensor: Sensor, fraction: float
) -> tuple[Tensor, Tensor]:
    field = normal(key, "degradation/noise", math.prod(image.shape[1:])).view_as(image)
    return image + fraction * _column(sensor.std) * field, valid


def _stripes(
    image: Tensor, valid: Tensor, key: Tensor, sensor: Sensor, fraction: float
) -> tuple[Tensor, Tensor]:
    """Each column of a push-broom sensor has a detector of its own, whose offset is wrong."""
    bands, width = image.shape[1], image.shape[3]
    offset = normal(key, "degradation/stripes", bands * width).view(-1, bands, 1, width)
    return image + fraction * _column(sensor.std) * offset, valid


def _missing(
    image: Tensor, valid: Tensor, key: Tensor, sensor: Sensor, fraction: float
) -> tuple[Tensor, Tensor]:
    """Bands are lost and filled with their mean, which says nothing; each image loses its own."""
    order = uniform(key, "degradation/missing", image.shape[1]).argsort(dim=1).argsort(dim=1)
    lost = order < round(fraction * image.shape[1])
    return torch.where(lost[..., None, None], _column(sensor.mean).expand_as(image), image), valid


def _blur(image: Tensor, valid: Tensor, key: Tensor, sensor: Sensor, sigma: float) -> tuple[Tensor, Tensor]:
    width = torch.full((len(image), 1, 1, 1), sigma)
    return gaussian_blur(image, width, valid[:, None]).masked_fill(~valid[:, None], 0.0), valid


def _holes(
    image: Tensor, valid: Tensor, key: Tensor, sensor: Sensor, fraction: float
) -> tuple[Tensor, Tensor]:
    """Cloud-shaped holes: where a smooth random field is lowest; a larger share holds the smaller one."""
    coarse = normal(key, "degradation/holes", 36).view(-1, 1, 6, 6)
    field = F.interpolate(coarse, size=image.shape[2:], mode="bicubic", align_corners=True)[:, 0]
    limit = torch.quantile(field.flatten(1), fraction, dim=1)[:, None, None]
    kept = valid & (field > limit)
    return image.masked_fill(~kept[:, None], 0.0), kept


def _turn(image: Tensor, valid: Tensor, key: Tensor, sensor: Sensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Rotated about the center, bilinear; beyond the border the image is mirrored, so nothing is lost."""
    sense = torch.where(uniform(key, "degradation/turn")[:, 0] < 0.5, 1.0, -1.0)
    angle = math.radians(degrees) * sense
    aspect = image.shape[2] / image.shape[3]
    zero = torch.zeros_like(angle)
    rows = [angle.cos(), -angle.sin() * aspect, zero, angle.sin() / aspect, angle.cos(), zero]
    grid = F.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(image.shape), align_corners=False)
    weight = F.grid_sample(valid[:, None].float(), grid, padding_mode="reflection", align_corners=False)
    moved = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
    seen = weight > 0.5
    return torch.where(seen, moved / weight.clamp_min(0.5), 0.0), seen[:, 0]


def _speckle(
    image: Tensor, valid: Tensor, key: Tensor, sensor: Sensor, strength: float
) -> tuple[Tensor, Tensor]:
    """More speckle on top, of 1 / strength looks: a factor of power, so a sum in dB."""
    z = normal(key, "degradation/speckle", math.prod(image.shape[1:])).view_as(image)
    decibel = speckle_db(z, 1 / strength)
    return (image + decibel if sensor.unit == "dB" else image * 10 ** (decibel / 10)), valid


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values)).view(1, -1, 1, 1)


_ANY = (*_OPTICAL, *_RADAR, "kelvin", "metres")
_NOT_RADAR = (*_OPTICAL, "kelvin", "metres")
DEGRADATIONS = {
    d.name: d
    for d in (
        Corruption("haze", "optical depth at 550 nm", (0.1, 0.25, 0.5, 1.0, 2.0), _haze, _OPTICAL),
        Corruption("noise", "sigma, standard deviations", (0.05, 0.1, 0.2, 0.4, 0.8), _noise, _NOT_RADAR),
        Corruption("speckle", "1 / looks", (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0), _speckle, _RADAR),
        Corruption("stripes", "sigma, standard deviations", (0.05, 0.1, 0.2, 0.4, 0.8), _stripes, _OPTICAL),
        Corruption("missing-bands", "share of bands", (0.1, 0.25, 0.5, 0.75), _missing, _ANY),
        Corruption("blur", "sigma, pixels", (0.5, 1.0, 2.0, 4.0, 8.0), _blur, _NOT_RADAR),
        Corruption("holes", "share of the area", (0.05, 0.1, 0.2, 0.4, 0.6), _holes, _ANY),
        Corruption("rotation", "degrees", (10.0, 20.0, 45.0, 90.0, 180.0), _turn, _ANY),
    )
}


def corruptions_for(sensor: Sensor, names: Sequence[str] | None = None) -> tuple[list[Corruption], list[str]]:
    """Degradations that make sense for a sensor, and the reasons why others do not.

    Args:
        sensor: What the images were taken with.
        names: Which ones; default all that make sense.

    Raises:
        SwathError: One that was named does not exist, or makes no sense for the sensor.
    """
    for name in names or ():
        if name not in DEGRADATIONS:
            raise SwathError(f"unknown degradation {name!r}.{suggest(name, list(DEGRADATIONS))}")
        reason = DEGRADATIONS[name].refusal(sensor)
        if reason is not None:
            raise SwathError(f"{name}: not for sensor {sensor.name!r}: {reason}")
    chosen = [DEGRADATIONS[name] for name in names] if names else list(DEGRADATIONS.values())
    refused = [f"{d.name}: {reason}" for d in chosen if (reason := d.refusal(sensor)) is not None]
    return [d for d in chosen if d.refusal(sensor) is None], refused
