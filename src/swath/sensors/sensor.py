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

import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from swath.errors import ImageryError, suggest
from swath.registry import Registry

if TYPE_CHECKING:
    import numpy as np

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
        wavelength: Centre wavelength in nanometres.
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

sensors: Registry[Sensor] = Registry("sensor", "swath.sensors")


def register_sensor(sensor: Sensor) -> Sensor:
    """Make `sensor` known by its name in this process; returns it."""
    builtin_sensors()
    return sensors.register(sensor.name)(sensor)


def builtin_sensors() -> tuple[str, ...]:
    """Names of the sensors that come with Swath as YAML files; registers them when first asked for."""
    with _first_asked:  # of several threads that ask first, one registers them and the others wait
        return _registered()


_first_asked = Lock()


@cache
def _registered() -> tuple[str, ...]:
    folder = Path(__file__).parent / "builtin"
    found = [read_sensor(path) for path in sorted(folder.glob("*.yaml"))]
    for sensor in found:
        sensors.register(sensor.name)(sensor)
    return tuple(sensor.name for sensor in found)


def list_sensors() -> list[str]:
    """Names of all known sensors: built in, registered, and announced by installed packages."""
    builtin_sensors()
    return sensors.names()


def get_sensor(sensor: str | Path | Sensor) -> Sensor:
    """The sensor of this name, or that this YAML file describes, or itself.

    Raises:
        SwathError: Unknown name (the message suggests one), or the file is missing or wrong.
    """
    if isinstance(sensor, Sensor):
        return sensor
    if isinstance(sensor, Path) or sensor.endswith((".yaml", ".yml")) or "/" in sensor:
        return read_sensor(sensor)
    builtin_sensors()
    return sensors.get(sensor)


def read_sensor(path: str | Path) -> Sensor:
    """Read and check a sensor's YAML file.

    Raises:
        ImageryError: With the file, the path of each wrong key and how to put it right.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageryError(f"{path}: cannot read the sensor file: {error}") from None
    try:
        data = yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise ImageryError(f"{path}: not valid YAML: {error}") from None
    return Sensor.from_dict(data, where=str(path))


@cache
def _loader() -> Any:
    """PyYAML's safe loader, but a key given twice is an error instead of the last one winning."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            twice = sorted({str(key) for key in keys if keys.count(key) > 1})
            if twice:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key given twice: {', '.join(twice)}", node.start_mark
                )
            return super().construct_mapping(node, deep)

    return Loader


def write_sensor(sensor: Sensor, path: str | Path) -> None:
    """Write `sensor` as a YAML file that `read_sensor` reads back equal (atomically)."""
    import yaml

    from swath.files import atomic_path

    data = sensor.model_dump(mode="json", exclude_defaults=True)
    with atomic_path(path) as temporary:
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
        temporary.write_text(text, encoding="utf-8")


# ------------------------------------------------------------------------------------- matching and units


def _canonical(name: str) -> str:
    """Band names as people vary them: upper case, without a zero in front of the number (B02 = b2)."""
    return re.sub(r"(?<=[A-Z_])0+(?=\d)", "", name.strip().upper())


def match_bands(sensor: Sensor, descriptions: Sequence[str | None], where: str = "image") -> list[int]:
    """Which of a file's bands are the sensor's, in the sensor's order.

    Band descriptions decide where the file has them. Only a file without any description is taken by
    position, and then it must have exactly as many bands as the sensor.

    Args:
        sensor: What is wanted.
        descriptions: One a band of the file, None or "" where it has none.
        where: Named in messages.

    Returns:
        For each band of the sensor the 0-based index of the file's band.

    Raises:
        ImageryError: Not to be decided, with what was found and wanted.
    """
    names = [_canonical(text or "") for text in descriptions]
    wanted = [_canonical(name) for name in sensor.band_names]
    if all(names.count(name) == 1 for name in wanted):
        return [names.index(name) for name in wanted]
    common = [(band.common_name or "?").upper() for band in sensor.bands]
    if all(names.count(name) == 1 for name in common):
        return [names.index(name) for name in common]
    named = any(names) and not all(re.fullmatch(r"(BAND[ _]?)?\d*", name) for name in names)
    if not named and len(names) == len(wanted):
        return list(range(len(wanted)))
    have = f"{len(names)} bands" + (f" ({', '.join(str(text) for text in descriptions)})" if named else "")
    missing = (
        [n for n, key in zip(sensor.band_names, wanted, strict=True) if key not in names] if named else []
    )
    raise ImageryError(
        f"{where} has {have}, sensor {sensor.name!r} wants {len(wanted)}: {', '.join(sensor.band_names)}"
        + (f" (not found: {', '.join(missing)})" if missing else "")
        + ". Give the sensor that the file is from, a sensor with fewer bands (YAML), or band descriptions "
        "in the file."
    )


def match_band_by_filename(sensor: Sensor, name: str) -> int | None:
    """Which band a one-band file holds by its name, such as ``..._B02.tif`` or ``B8A_20m.tif``; None if none.

    The last part of the name that is a band's name decides.
    """
    known = {_canonical(band): i for i, band in enumerate(sensor.band_names)}
    stem = Path(name).name.split(".")[0]
    for part in reversed(re.split(r"[_\-\s]+", stem)):
        if _canonical(part) in known:
            return known[_canonical(part)]
    # Landsat's band names hold the separator themselves ("SR_B2").
    for band, i in known.items():
        if "_" in band and _canonical(stem).endswith("_" + band):
            return i
    return None


def to_unit(stored: np.ndarray[Any, Any], sensor: Sensor, offset_dn: float = 0.0) -> np.ndarray[Any, Any]:
    """Stored values to the sensor's unit: ``(stored + offset_dn) * scale + offset`` for each band.

    Args:
        stored: [C, H, W], bands in the sensor's order.
        sensor: Gives scale, offset and unit.
        offset_dn: Added to the stored values first; -1000 for Sentinel-2 from processing baseline 04.00.

    Returns:
        [C, H, W] float32; the same uint8 array where the unit is uint8 and there is nothing to convert.

    Raises:
        ImageryError: Number of bands, or values of another type than the unit allows.
    """
    import numpy as np

    if stored.ndim != 3 or stored.shape[0] != len(sensor.bands):
        raise ImageryError(
            f"an array [{len(sensor.bands)}, H, W] is wanted for sensor {sensor.name!r}, not {stored.shape}"
        )
    scale = np.array([band.scale for band in sensor.bands])
    offset = np.array([band.offset for band in sensor.bands])
    if not math.isfinite(offset_dn):
        raise ImageryError(f"offset_dn must be a finite number, not {offset_dn}")
    plain = bool((scale == 1).all() and (offset == 0).all() and offset_dn == 0)
    if sensor.unit == "uint8":
        if stored.dtype != np.uint8 and plain:
            raise ImageryError(
                f"sensor {sensor.name!r} holds display values (uint8) but the file holds {stored.dtype}. "
                "Use a sensor with the unit of the file, or state a `scale` in a sensor of your own (YAML)."
            )
        if plain:
            return stored
    if plain:
        return stored.astype(np.float32, copy=False)
    # One fused multiply-add in float32; the constants are combined in float64 first.
    added = (offset_dn * scale + offset).astype(np.float32)
    values = stored * scale.astype(np.float32)[:, None, None]
    values = values.astype(np.float32, copy=False)
    values += added[:, None, None]
    return values
