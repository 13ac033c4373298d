"""Sensors as data: which bands, in which order, unit and scale, with which statistics.

A `Sensor` is a list of `Band`s and travels with the weights of every model trained on it. The built-in ones
are the YAML files in ``builtin_sensors/``; a user's own sensor is a file of the same form::

    name: my_drone
    title: Multispectral drone, 5 bands
    defaults: {unit: reflectance, scale: 0.0001, nodata: 0, gsd: 0.08}   # optional, for all bands
    bands:
      - {name: blue, wavelength: 475}
      - {name: green, wavelength: 560, mean: 0.061, std: 0.034}

Values in the unit are ``(stored + offset_dn) * scale + offset``. `offset_dn` belongs to the scene, not to the
sensor (Sentinel-2's processing baseline, see `swath.sensors.sentinel2_offset`) and is 0 unless somebody
states it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from swath.errors import ImageryError, suggest

if TYPE_CHECKING:
    pass

# What a value of the image means. A model refuses imagery whose unit is another one.
UNITS = {
    "reflectance": "share of light reflected, 1 = all (may be slightly below 0 or above 1)",
    "radiance": "W / (m2 sr um)",
    "kelvin": "brightness or surface temperature",
    "dB": "radar backscatter, 10 log10 of the linear power ratio",
    "linear": "radar backscatter, power ratio",
    "metres": "heights",
    "uint8": "display values 0 to 255",
    "DN": "raw digital numbers without physical meaning",
}


class Band(BaseModel):
    """One band of a sensor.

    Attributes:
        name: As the provider names it ("B8A", "VV").
        common_name: The STAC EO extension's name ("nir08"), where there is one.
        wavelength: Center wavelength in nanometres.
        gsd: Native ground sample distance in metres.
        unit: Meaning of a value once scaled, one of `UNITS`.
        scale: ``value = (stored + offset_dn) * scale + offset``.
        offset: See `scale`; in the unit.
        nodata: *Stored* value that means "no data" where the file itself does not say so.
        mean: Mean over the training data, in the unit; None where unknown.
        std: Standard deviation over the training data, in the unit; None where unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)
    common_name: str | None = None
    wavelength: float | None = Field(default=None, gt=0)
    gsd: float | None = Field(default=None, gt=0)
    unit: str
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    mean: float | None = None
    std: float | None = Field(default=None, gt=0)

    @field_validator("unit")
    @classmethod
    def _known_unit(cls, unit: str) -> str:
        if unit not in UNITS:
            raise ValueError(f"unknown unit {unit!r}.{suggest(unit, list(UNITS))}")
        return unit

    @field_validator("scale")
    @classmethod
    def _invertible(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("a scale of 0 makes every value the same; leave it out for 1")
        return scale

    @model_validator(mode="after")
    def _whole_statistics(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std come together: give both, or neither")
        return self


class Sensor(BaseModel):
    """A named, ordered set of bands. Immutable and hashable.

    Attributes:
        name: What it is registered as: lower-case letters, digits and underscores.
        title: For people, one line.
        description: Traps and conventions worth knowing.
        orbit: For radar, the orbit direction that the imagery is from.
        statistics_source: Where the means and standard deviations come from.
        bands: In the order in which images have them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str = ""
    description: str = ""
    orbit: str | None = Field(default=None, pattern="^(ascending|descending|both)$")
    statistics_source: str | None = None
    bands: tuple[Band, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct_bands(self) -> Self:
        names = [band.name for band in self.bands]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"band names must differ; twice: {', '.join(twice)}")
        return self

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in order."""
        return tuple(band.name for band in self.bands)

    @property
    def unit(self) -> str:
        """The unit that all bands share, or "mixed"."""
        units = {band.unit for band in self.bands}
        return units.pop() if len(units) == 1 else "mixed"

    @property
    def has_statistics(self) -> bool:
        """Whether every band has a mean and a standard deviation."""
        return all(band.mean is not None for band in self.bands)

    @property
    def mean(self) -> list[float]:
        """Mean of each band in its unit.

        Raises:
            ImageryError: A band has no statistics.
        """
        return self._statistics("mean")

    @property
    def std(self) -> list[float]:
        """Standard deviation of each band in its unit; raises as `mean` does."""
        return self._statistics("std")

    def _statistics(self, which: str) -> list[float]:
        missing = [band.name for band in self.bands if getattr(band, which) is None]
        if missing:
            raise ImageryError(
                f"sensor {self.name!r} has no {which} for band {', '.join(missing)}. Estimate it from your "
                "archive (`swath inspect DIR --statistics`), or select() the bands that have one."
            )
        return [getattr(band, which) for band in self.bands]

    def index(self, name: str) -> int:
        """Position of the band with this name, or with this common name where only one band has it.

        Raises:
            ImageryError: No such band; the message suggests the nearest name.
        """
        if name in self.band_names:
            return self.band_names.index(name)
        common = [i for i, band in enumerate(self.bands) if band.common_name == name]
        if len(common) == 1:
            return common[0]
        known = list(self.band_names)
        raise ImageryError(f"sensor {self.name!r} has no band {name!r}.{suggest(name, known)}")

    def select(self, names: Sequence[str]) -> Sensor:
        """The sensor with only these bands (names or common names), in this order."""
        if isinstance(names, str):
            raise TypeError("select() takes a list of band names, not one string")
        return self.model_copy(update={"bands": tuple(self.bands[self.index(name)] for name in names)})

    def with_statistics(self, mean: Sequence[float], std: Sequence[float], source: str) -> Sensor:
        """A copy with these means and standard deviations ([C] each, in the unit) and their source."""
        bands = [
            {**band.model_dump(), "mean": float(m), "std": float(s)}
            for band, m, s in zip(self.bands, mean, std, strict=True)
        ]
        return Sensor.from_dict({**self.to_dict(), "bands": bands, "statistics_source": source})

    def to_dict(self) -> dict[str, Any]:
        """As plain, JSON-safe data (goes into a model's config.json)."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: Any, where: str = "sensor") -> Sensor:
        """Build and check.

        Args:
            data: As `to_dict` gives or a YAML file holds; `defaults` fills in fields of all bands.
            where: Named in messages (a file's path).

        Raises:
            ImageryError: A key is unknown, missing or wrong; the message lists every one with its path.
        """
        if not isinstance(data, dict):
            raise ImageryError(f"{where}: a sensor is a mapping with `name` and `bands`, not {data!r:.60}")
        data = dict(data)
        defaults = data.pop("defaults", None)
        if defaults is not None:
            if not isinstance(defaults, dict):
                raise ImageryError(
                    f"{where}: defaults: a mapping of band fields is wanted, not {defaults!r:.60}"
                )
            for key in defaults:
                if key not in Band.model_fields or key == "name":
                    raise ImageryError(f"{where}: defaults.{key}: unknown.{suggest(str(key), _band_keys())}")
            bands = data.get("bands")
            if isinstance(bands, list):
                data["bands"] = [{**defaults, **band} if isinstance(band, dict) else band for band in bands]
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            found = error.errors()
            # pydantic drops wrong bands first and then finds none left; only the former is news.
            shown = [p for p in found if p["type"] != "too_short"] or found
            problems = "\n".join(f"  {_explain(problem)}" for problem in shown)
            raise ImageryError(f"{where}: not a valid sensor:\n{problems}") from None


def _band_keys() -> list[str]:
    return [key for key in Band.model_fields if key != "name"]


def _explain(problem: Any) -> str:
    """One pydantic problem as `bands[3].wavelenght: unknown key. Did you mean 'wavelength'?`."""
    place = ""
    for part in problem["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    place = place or "sensor"
    if problem["type"] == "extra_forbidden":
        inside_band = len(problem["loc"]) > 1
        known = [*Band.model_fields] if inside_band else [*Sensor.model_fields, "defaults"]
        return f"{place}: unknown key.{suggest(str(problem['loc'][-1]), known)}"
    if problem["type"] == "missing":
        return f"{place}: missing; add it"
    if problem["type"] == "string_pattern_mismatch":
        wanted = (
            "lower-case letters, digits and underscores" if place == "name" else problem["ctx"]["pattern"]
        )
        return f"{place}: {problem['input']!r} will not do; wanted: {wanted}"
    message = problem["msg"].removeprefix("Value error, ")
    shown = problem["input"]
    return f"{place}: {message}" + ("" if isinstance(shown, dict) else f" (it is {shown!r:.60})")


# ---------------------------------------------------------------------------------------- finding sensors


# ------------------------------------------------------------------------------------- matching and units
