"""Which photometric changes a sensor's unit allows, and how strong they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from swath.errors import RecipeError, suggest
from swath.sensors.sensor import Band, Sensor


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
        0.0, ge=0, le=1, description="Share of the mean over bands that replaces each band (gray at 1)."
    )
    band_drop: float = Field(
        0.0, ge=0, lt=1, description="Chance of each band to be missing: its mean everywhere. Never all."
    )
    solarize: float = Field(0.0, ge=0, le=1, description="Chance that values from 128 on are inverted.")
    speckle: float = Field(
        0.0, ge=0, description="Number of looks L of speckle put on top; small is strong, 0 is none."
    )
    calibration: float = Field(0.0, ge=0, description="Offset of all bands of a radar image, in dB.")

    def requested(self) -> list[str]:
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


# Nominal centers in nm of STAC's common names, for bands that state no wavelength.
_NOMINAL = {"coastal": 443, "blue": 480, "green": 560, "yellow": 600, "red": 655, "nir": 850, "nir08": 865}


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
    colors = sorted(band.common_name or "" for band in sensor.bands)
    return sensor.unit == "uint8" and colors == ["blue", "green", "red"]


def _units(sensor: Sensor) -> str:
    return " and ".join(sorted({band.unit for band in sensor.bands}))
