"""Which bands of a file are which bands of a sensor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swath.errors import ImageryError
from swath.sensors.sensor import Sensor

if TYPE_CHECKING:
    pass


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


def band_indices(available: Sensor, requested: Sensor) -> list[int]:
    """Where the bands of one sensor are among those of another, by name.

    Raises:
        ImageryError: One is not there, or in another unit.
    """
    names = list(available.band_names)
    absent = [band.name for band in requested.bands if band.name not in names]
    if absent:
        raise ImageryError(
            f"these images are of sensor {available.name!r} ({', '.join(names)}): they lack band "
            f"{', '.join(absent)} of sensor {requested.name!r}"
        )
    indices = [names.index(name) for name in requested.band_names]
    for index, band in zip(indices, requested.bands, strict=True):
        if available.bands[index].unit != band.unit:
            raise ImageryError(
                f"band {band.name} is in {available.bands[index].unit} here, but in {band.unit} for sensor "
                f"{requested.name!r}"
            )
    return indices
