"""Photometric changes that the physics of a sensor allows: light, air, optics and noise; for radar, speckle.

A photograph's color jitter means nothing to a radar, and little to thirteen reflectances. What may change
about the picture of a place while the place stays the same depends on how it was measured:

==========  ==============================================================================================
optical     The sun is stronger or weaker (`gain`), a band's calibration is off (`band_gain`), air scatters
            light into the sensor, short wavelengths most (`haze`), the light is more or less diffuse
            (`contrast`), optics blur (`blur`), electronics are noisy (`noise`), bands are broader
            (`panchromatic`) or missing (`band_drop`). `solarize` is no physics but a habit with photographs
            of 8 bits, and is for them only.
radar       Coherent waves interfere (`speckle`), calibration is off (`calibration`), a polarization is
            missing (`band_drop`).
others      Heights and temperatures have optics and noise, but no sun (`blur`, `noise`, `band_drop`).
==========  ==============================================================================================

What a sensor's unit does not allow is refused. Strengths of 0 change nothing. Everything is computed on the
batch's device, from the samples' keys alone; batches are normalized, so changes that are defined in the unit
(a gain has its zero there) are carried over by the sensor's mean and standard deviation.

Legend: B samples, C bands, H x W pixels; x a value in the unit, n = (x - mean) / std.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from swath.augmentations.blur import gaussian_blur
from swath.augmentations.photometric_options import (
    _KIND,
    Photometric,
    PhotometricStrengths,
    _units,
    allowed_photometric,
    default_strengths,
    wavelength,
    why_not_allowed,
)
from swath.augmentations.speckle import speckle_db
from swath.datasets.chip import Batch
from swath.errors import RecipeError
from swath.keyed_random import normal, uniform
from swath.sensors.sensor import Sensor

Change = Callable[[Batch, str], Batch]


_GRAY_FROM = 128.0  # solarization's threshold


def make_photometric(option: Photometric, sensor: Sensor) -> Change | None:
    """What an option means for a sensor.

    Args:
        option: ``none``; ``auto``, all that the sensor's physics allows at moderate strength; ``paper``, what
            CMID's authors do to RGB photographs (`swath.augmentations.color_jitter`); or
            `PhotometricStrengths`.
        sensor: What the batches, normalized by its statistics, are from.

    Returns:
        ``change(batch, stream) -> batch``; None for ``none``.

    Raises:
        RecipeError: Something is asked for that the sensor's physics does not allow.
    """
    if option == "none":
        return None
    if option == "paper":
        from swath.augmentations.color_jitter import RgbColorJitter

        return RgbColorJitter(sensor)
    if option == "auto":
        return PhotometricAugmentation(sensor, default_strengths(sensor))
    return PhotometricAugmentation(sensor, option)


class PhotometricBySensor:
    """An option and what it means for each sensor: how an objective keeps it.

    Args:
        option: See `photometric_change`.
        where: The option's key in a recipe, for messages.
    """

    def __init__(self, option: Photometric, where: str = "photometric") -> None:
        self.option = option
        self._where = where
        self._changes: dict[str, Change] = {}

    def know(self, sensors: Sequence[Sensor]) -> None:
        """Make the changes of these sensors ready; raises as `photometric_change`, naming the key."""
        for sensor in sensors:
            try:
                change = make_photometric(self.option, sensor)
            except RecipeError as error:
                raise RecipeError(f"{self._where.removesuffix('photometric')}{error}") from None
            if change is not None:
                self._changes[sensor.name] = change

    def __call__(self, batch: Batch, stream: str = "photometric") -> Batch:
        """Change a normalized batch of one sensor.

        Raises:
            RecipeError: Its sensor was never made known.
        """
        if self.option == "none":
            return batch
        name = batch.get("sensor")
        if name not in self._changes:
            raise RecipeError(
                f"{self._where}: what may change depends on the sensor, and {name!r} is not known; call the "
                "objective's know_sensors([sensor]) first, or choose none"
            )
        return self._changes[name](batch, stream)


class PhotometricAugmentation:
    """Random changes of normalized images that a sensor's physics allows.

    Args:
        sensor: Whose mean and standard deviation the images were normalized with.
        strengths: Of each change.

    Raises:
        RecipeError: The sensor does not allow one of them; the message names those that it does.
    """

    def __init__(self, sensor: Sensor, strengths: PhotometricStrengths) -> None:
        for name in strengths.requested():
            if reason := why_not_allowed(sensor, name):
                raise RecipeError(
                    f"photometric.{name}: not for sensor {sensor.name!r} ({_units(sensor)}): {reason}. "
                    f"It allows {', '.join(allowed_photometric(sensor)) or 'nothing'}."
                )
        self.sensor = sensor
        self.strengths = strengths
        mean, std = torch.tensor(sensor.mean), torch.tensor(sensor.std)
        self._zero = mean / std  # how far the unit's zero lies below the mean, in standard deviations
        self._std = std
        if strengths.haze:
            waves = torch.tensor([cast(float, wavelength(band)) for band in sensor.bands])
            first = int(waves.argmin())
            self._shorter = torch.log(waves[first] / waves)  # log of the shortest over each, 0 or less
            self._hazy = std[first] / std

    def __call__(self, batch: Batch, stream: str = "photometric") -> Batch:
        """Change a normalized batch.

        Args:
            batch: With `image` [B, C, H, W], `key` and, optionally, `valid`; it is left as it is.
            stream: Name of the decision; two changes of one sample need two names.

        Returns:
            The batch with another `image`, 0 where not valid.
        """
        image, key = batch["image"].float(), batch["key"].to(batch["image"].device)
        valid = batch.get("valid")
        shown = None if valid is None else valid.unsqueeze(1)
        draw = _Draw(key, stream)
        ask = self.strengths
        kind = _KIND[self.sensor.bands[0].unit]
        if kind == "radar":
            image = self._radar(image, draw)
        elif ask.gain or ask.band_gain or ask.haze or ask.contrast:
            image = self._light(image, draw, shown)
        if ask.blur:
            image = gaussian_blur(image, ask.blur * draw("blur"), shown)
        if ask.noise:
            sigma = ask.noise * draw("noise")
            image = torch.addcmul(image, draw.field("noise/pixels", image.shape), sigma)
        if ask.panchromatic:
            image = image.lerp(image.mean(dim=1, keepdim=True), ask.panchromatic * draw("panchromatic"))
        if ask.band_drop:
            image = image * band_dropout_mask(draw("band_drop", image.shape[1])[..., 0, 0], ask.band_drop)
        if self.sensor.unit == "uint8":
            image = self._eight_bits(image, draw)
        if shown is not None:
            image = image.masked_fill(~shown, 0.0)
        return {**batch, "image": image}

    def _light(self, image: Tensor, draw: _Draw, shown: Tensor | None) -> Tensor:
        """Sun, air and diffuse light: one factor and one offset for each band, x -> factor x + offset."""
        ask, zero = self.strengths, self._on(self._zero, image)
        gain = 1 + ask.gain * draw.around("gain") + ask.band_gain * draw.around("band_gain", image.shape[1])
        offset = (gain - 1) * zero
        if ask.haze:
            steepness = 1 + 3 * draw("haze/steepness")
            spectrum = torch.exp(self._on(self._shorter, image) * steepness)
            offset = offset + ask.haze * draw("haze") * spectrum * self._on(self._hazy, image)
        if ask.contrast:
            contrast = 1 + ask.contrast * draw.around("contrast")
            offset = offset + (1 - contrast) * gain * _mean(image, shown)
            gain = contrast * gain
        return torch.addcmul(offset, image, gain)

    def _radar(self, image: Tensor, draw: _Draw) -> Tensor:
        """Speckle and calibration: factors of power, so sums in dB."""
        ask, std = self.strengths, self._on(self._std, image)
        decibel = ask.calibration * draw.around("calibration")
        if ask.speckle:
            decibel = decibel + speckle_db(draw.field("speckle", image.shape), ask.speckle)
        if self.sensor.unit == "dB":
            return image + decibel / std
        factor = torch.pow(10.0, decibel / 10)
        return image * factor + (factor - 1) * self._on(self._zero, image)

    def _eight_bits(self, image: Tensor, draw: _Draw) -> Tensor:
        """Display values end at 0 and 255; solarization where asked for."""
        zero, std = self._on(self._zero, image), self._on(self._std, image)
        low, high = -zero, 255 / std - zero
        if self.strengths.solarize:
            inverted = low + high - image
            which = (draw("solarize") < self.strengths.solarize) & (image >= _GRAY_FROM / std - zero)
            image = torch.where(which, inverted, image)
        return torch.clamp(image, low, high)

    @staticmethod
    def _on(values: Tensor, image: Tensor) -> Tensor:
        """[C] -> [C, 1, 1] on the image's device."""
        return values.to(image.device).view(-1, 1, 1)


class _Draw:
    """Random numbers of one call: each decision's own, by the samples' keys."""

    def __init__(self, key: Tensor, stream: str) -> None:
        self._key, self._stream = key, stream

    def __call__(self, name: str, count: int = 1) -> Tensor:
        """Uniform in 0 to 1: [B, count, 1, 1]."""
        return uniform(self._key, f"{self._stream}/{name}", count)[..., None, None]

    def around(self, name: str, count: int = 1) -> Tensor:
        """Uniform in -1 to 1: [B, count, 1, 1]."""
        return self(name, count) * 2 - 1

    def field(self, name: str, shape: torch.Size) -> Tensor:
        """Standard normal, of this shape [B, C, H, W]."""
        return normal(self._key, f"{self._stream}/{name}", math.prod(shape[1:])).view(shape)


def _mean(image: Tensor, shown: Tensor | None) -> Tensor:
    """Mean of each band over valid pixels, [B, C, 1, 1]."""
    if shown is None:
        return image.mean(dim=(2, 3), keepdim=True)
    weight = shown.to(image.dtype)
    return (image * weight).sum(dim=(2, 3), keepdim=True) / weight.sum(dim=(2, 3), keepdim=True).clamp_min(1)


def band_dropout_mask(u: Tensor, chance: float) -> Tensor:
    """[B, C] uniform numbers -> [B, C, 1, 1] of 1 (kept) and 0 (dropped with `chance`), never all 0."""
    keep = (u >= chance) | (u == u.amax(dim=1, keepdim=True))
    return keep.float()[..., None, None]
