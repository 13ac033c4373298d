"""Photometric changes that the physics of a sensor allows: light, air, optics and noise; for radar, speckle.

A photograph's colour jitter means nothing to a radar, and little to thirteen reflectances. What may change
about the picture of a place while the place stays the same depends on how it was measured:

==========  ==============================================================================================
optical     The sun is stronger or weaker (`gain`), a band's calibration is off (`band_gain`), air scatters
            light into the sensor, short wavelengths most (`haze`), the light is more or less diffuse
            (`contrast`), optics blur (`blur`), electronics are noisy (`noise`), bands are broader
            (`panchromatic`) or missing (`band_drop`). `solarize` is no physics but a habit with photographs
            of 8 bits, and is for them only.
radar       Coherent waves interfere (`speckle`), calibration is off (`calibration`), a polarisation is
            missing (`band_drop`).
others      Heights and temperatures have optics and noise, but no sun (`blur`, `noise`, `band_drop`).
==========  ==============================================================================================

What a sensor's unit does not allow is refused. Strengths of 0 change nothing. Everything is computed on the
batch's device, from the samples' keys alone; batches are normalised, so changes that are defined in the unit
(a gain has its zero there) are carried over by the sensor's mean and standard deviation.

Legend: B samples, C bands, H x W pixels; x a value in the unit, n = (x - mean) / std.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from torch import Tensor

from swath.augmentations.speckle import speckle_db
from swath.datasets.chip import Batch
from swath.errors import RecipeError, suggest
from swath.keyed_random import normal, uniform
from swath.sensors.sensor import Band, Sensor

Change = Callable[[Batch, str], Batch]


class PhotometricStrengths(BaseModel):
    """How strong each change is at most; 0 leaves it out. Each image draws its own strength up to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gain: float = Field(0.0, ge=0, lt=1, description="All bands times a number in 1 - gain to 1 + gain.")
    band_gain: float = Field(0.0, ge=0, lt=1, description="The same, a number for each band.")
    haze: float = Field(
        0.0,
        ge=0,
        description="Path radiance added to the band of the shortest wavelength, in its standard deviations; "
        "others get less, by wavelength^-1 (thick haze) to wavelength^-4 (clear air).",
    )
    contrast: float = Field(0.0, ge=0, lt=1, description="Distance from the image's own mean, as gain.")
    blur: float = Field(0.0, ge=0, le=20, description="Sigma of a Gaussian point spread, in pixels.")
    noise: float = Field(0.0, ge=0, description="Sigma of each pixel's noise, in standard deviations.")
    panchromatic: float = Field(
        0.0, ge=0, le=1, description="Share of the mean over bands that replaces each band (grey at 1)."
    )
    band_drop: float = Field(
        0.0, ge=0, lt=1, description="Chance of each band to be missing: its mean everywhere. Never all."
    )
    solarize: float = Field(0.0, ge=0, le=1, description="Chance that values from 128 on are inverted.")
    speckle: float = Field(
        0.0, ge=0, description="Number of looks L of speckle put on top; small is strong, 0 is none."
    )
    calibration: float = Field(0.0, ge=0, description="Offset of all bands of a radar image, in dB.")

    def asked(self) -> list[str]:
        """Names of the changes that are not left out."""
        return [name for name in type(self).model_fields if getattr(self, name)]


def _named_or_strengths(option: Any) -> Any:
    """Say plainly what is wrong with an option; pydantic tells of each member of the union."""
    if not isinstance(option, Mapping):
        if isinstance(option, PhotometricStrengths) or option in ("none", "auto", "paper"):
            return option
        raise ValueError(f"is none, auto, paper or a mapping of strengths, not {option!r:.60}")
    for key in option:
        if key not in PhotometricStrengths.model_fields:
            raise ValueError(
                f"no change is called {key!r}.{suggest(str(key), list(PhotometricStrengths.model_fields))}"
            )
    try:
        return PhotometricStrengths(**option)
    except ValidationError as error:
        said = [f"{p['loc'][0]}: {p['msg']}, but is {p['input']!r:.60}" for p in error.errors()]
        raise ValueError("; ".join(said)) from None


Photometric = Annotated[
    Literal["none", "auto", "paper"] | PhotometricStrengths, BeforeValidator(_named_or_strengths)
]

_KIND = {
    **dict.fromkeys(("reflectance", "radiance", "DN", "uint8"), "optical"),
    **dict.fromkeys(("dB", "linear"), "radar"),
    **dict.fromkeys(("kelvin", "metres"), "other"),
}
_ALLOWED = {
    "optical": ("gain", "band_gain", "haze", "contrast", "blur", "noise", "panchromatic", "band_drop"),
    "radar": ("speckle", "calibration", "band_drop"),
    "other": ("blur", "noise", "band_drop"),
}
# What "auto" takes, as far as a sensor allows it.
_AUTO: dict[str, dict[str, float]] = {
    "optical": {
        "gain": 0.3, "band_gain": 0.05, "haze": 0.3, "contrast": 0.3, "blur": 1.0, "noise": 0.05,
        "panchromatic": 0.3,
    },
    "radar": {"speckle": 8.0, "calibration": 1.0},
    "other": {"blur": 1.0, "noise": 0.05},
}  # fmt: skip

# Nominal centres in nm of STAC's common names, for bands that state no wavelength.
_NOMINAL = {"coastal": 443, "blue": 480, "green": 560, "yellow": 600, "red": 655, "nir": 850, "nir08": 865}
_GREY_FROM = 128.0  # solarisation's threshold


def make_photometric(option: Photometric, sensor: Sensor) -> Change | None:
    """What an option means for a sensor.

    Args:
        option: ``none``; ``auto``, all that the sensor's physics allows at moderate strength; ``paper``, what
            CMID's authors do to RGB photographs (`swath.augmentations.color_jitter`); or
            `PhotometricStrengths`.
        sensor: What the batches, normalised by its statistics, are from.

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


def default_strengths(sensor: Sensor) -> PhotometricStrengths:
    """The strengths that "auto" stands for with a sensor.

    Raises:
        RecipeError: Nothing is known that could change about such images.
    """
    kinds = {_KIND[band.unit] for band in sensor.bands}
    usual = _AUTO[min(kinds)] if len(kinds) == 1 else _AUTO["other"]
    chosen = {name: value for name, value in usual.items() if why_not_allowed(sensor, name) is None}
    if not chosen:
        raise RecipeError(
            f"photometric: auto knows no change that all bands of sensor {sensor.name!r} ({_units(sensor)}) "
            "allow; say photometric: none"
        )
    return PhotometricStrengths(**chosen)


def allowed_photometric(sensor: Sensor) -> list[str]:
    """Names of the changes that a sensor allows."""
    return [name for name in PhotometricStrengths.model_fields if why_not_allowed(sensor, name) is None]


def why_not_allowed(sensor: Sensor, name: str) -> str | None:
    """Why a sensor does not allow a change, or None if it does."""
    if name == "solarize":
        if is_rgb_photograph(sensor):
            return None
        return "solarize is no physics, but a habit with photographs in red, green and blue of 8 bits"
    foreign = sorted({band.unit for band in sensor.bands if name not in _ALLOWED[_KIND[band.unit]]})
    if foreign:
        return f"{name} has no meaning in {' or '.join(foreign)}"
    if name == "haze" and (unknown := [band.name for band in sensor.bands if wavelength(band) is None]):
        return f"haze depends on the wavelength, and band {', '.join(unknown)} states none"
    if name in ("panchromatic", "band_drop") and len(sensor.bands) == 1:
        return f"{name} needs several bands, and there is one"
    return None


def wavelength(band: Band) -> float | None:
    """A band's wavelength in nm, nominal where only its common name is known."""
    return band.wavelength or _NOMINAL.get(band.common_name or "")


def is_rgb_photograph(sensor: Sensor) -> bool:
    """Whether images are display values of 8 bits in red, green and blue (in any order)."""
    colours = sorted(band.common_name or "" for band in sensor.bands)
    return sensor.unit == "uint8" and colours == ["blue", "green", "red"]


def _units(sensor: Sensor) -> str:
    return " and ".join(sorted({band.unit for band in sensor.bands}))


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
        """Change a normalised batch of one sensor.

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
    """Random changes of normalised images that a sensor's physics allows.

    Args:
        sensor: Whose mean and standard deviation the images were normalised with.
        strengths: Of each change.

    Raises:
        RecipeError: The sensor does not allow one of them; the message names those that it does.
    """

    def __init__(self, sensor: Sensor, strengths: PhotometricStrengths) -> None:
        for name in strengths.asked():
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
        """Change a normalised batch.

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
        """Display values end at 0 and 255; solarisation where asked for."""
        zero, std = self._on(self._zero, image), self._on(self._std, image)
        low, high = -zero, 255 / std - zero
        if self.strengths.solarize:
            inverted = low + high - image
            which = (draw("solarize") < self.strengths.solarize) & (image >= _GREY_FROM / std - zero)
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


def gaussian_blur(image: Tensor, sigma: Tensor, shown: Tensor | None = None) -> Tensor:
    """Gaussian blur, each sample with its own width.

    Args:
        image: [B, C, H, W].
        sigma: [B, 1, 1, 1] in pixels; 0 leaves a sample as it is.
        shown: [B, 1, H, W] bool; other pixels lend nothing. Beyond the edge there is nothing either: weights
            are shared among the pixels that there are.
    """
    down, across = (_gaussian(side, sigma) for side in image.shape[-2:])
    spread = down @ image @ across.transpose(-1, -2)
    if shown is None or (shown.device.type == "cpu" and bool(shown.all())):
        return spread
    weight = shown.to(image.dtype)
    spread = down @ (image * weight) @ across.transpose(-1, -2)
    return spread / (down @ weight @ across.transpose(-1, -2)).clamp_min(1e-6)


def _gaussian(side: int, sigma: Tensor) -> Tensor:
    """[B, 1, side, side]: row i holds the weights of all pixels in the blurred pixel i."""
    place = torch.arange(side, dtype=torch.float32, device=sigma.device)
    distance = (place[:, None] - place) / sigma.clamp_min(1e-3)
    return torch.softmax(-0.5 * distance.square(), dim=-1)
