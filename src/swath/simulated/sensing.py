"""Any sensor looks at a landscape: optical by wavelength, radar by polarization, cameras in bytes.

Values come rounded as products store them (0.0001 of reflectance, 0.01 dB), so that a chip made in memory,
one read from a written file and one from a data set's cache are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Chip
from swath.datasets.image_reading import is_plain_uint8
from swath.errors import ImageryError
from swath.geo.grid import PixelWindow
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.simulated import optical, radar
from swath.simulated.landscape.rasterize import Landscape, check_request, simulate_landscape

SENSORS = ("sentinel1_ben", "sentinel2_ben")  # Sentinel-1 in dB and Sentinel-2's ten bands of 10 and 20 m
_DB_STEP = np.float32(0.01)

Gsd = float | Mapping[str, float]


def to_stored_values(landscape: Landscape, sensor: Sensor, *, cloud: float = 0.0) -> NDArray[Any]:
    """Numbers [C, H, W] as a product would store them.

    uint16 for reflectance (``round((value - offset) / scale)``, scale 0.0001 where the sensor states none),
    int16 hundredths for dB, float32 for linear power, uint8 for photographs.

    Raises:
        ImageryError: The sensor is of a kind that cannot be simulated.
    """
    if is_plain_uint8(sensor):
        return optical.render_rgb(landscape, sensor)
    if sensor.unit in ("dB", "linear"):
        power: NDArray[Any] = radar.render_radar(landscape, sensor)
        return np.rint(power / _DB_STEP).astype(np.int16) if sensor.unit == "dB" else power
    if sensor.unit == "reflectance":
        scale, offset = _scale(sensor)
        stored: NDArray[Any] = (optical.render_optical(landscape, sensor, cloud=cloud) - offset) / scale
        numbers: NDArray[Any] = np.rint(np.clip(stored, 1, 65535)).astype(np.uint16)
        return numbers
    raise ImageryError(
        f"sensor {sensor.name!r} is in {sensor.unit}: what can be simulated are reflectance, dB, linear "
        "power and uint8 photographs"
    )


def simulated_to_unit(stored: NDArray[Any], sensor: Sensor) -> Tensor:
    """What `measure` stored, [..., C, H, W], in the sensor's unit: float32, or uint8 as it is."""
    numbers = torch.from_numpy(stored)
    if stored.dtype == np.uint8 or stored.dtype == np.float32:
        return numbers
    if stored.dtype == np.int16:
        return numbers.to(torch.float32).mul_(float(_DB_STEP))
    scale, offset = _scale(sensor)
    return torch.addcmul(torch.from_numpy(offset), numbers.to(torch.float32), torch.from_numpy(scale))


def _scale(sensor: Sensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and offset [C, 1, 1] that reflectance is stored with."""
    scale = [band.scale if band.scale < 0.01 else 1e-4 for band in sensor.bands]
    offset = [band.offset for band in sensor.bands]
    return (np.array(scale, dtype=np.float32)[:, None, None],
            np.array(offset, dtype=np.float32)[:, None, None])  # fmt: skip


def render(landscape: Landscape, sensor: str | Path | Sensor, *, cloud: float = 0.0) -> Chip:
    """One sensor's image of a landscape.

    Args:
        landscape: The ground; its GSD and size are the image's.
        sensor: Reflectance with wavelengths, dB or linear power with polarisations, or uint8 with colors.
        cloud: Opacity of thin cloud over optical sensors, 0 to 1.

    Raises:
        ImageryError: The sensor is of a kind that cannot be simulated.
    """
    found = get_sensor(sensor)
    size = landscape.size
    return Chip(
        image=simulated_to_unit(to_stored_values(landscape, found, cloud=cloud), found).numpy(),
        gsd=landscape.gsd,
        sensor=found.name,
        valid=np.ones((size, size), dtype=bool),
        source=f"simulated:{landscape.seed}/{landscape.index}"
        + (f"/{landscape.date}" if landscape.date else ""),
        window=PixelWindow(0, 0, size, size),
    )


def sensor_grids(sensors: Sequence[Sensor], size: int, gsd: Gsd) -> dict[str, tuple[int, float]]:
    """Pixels a side and GSD of each sensor, all of one footprint.

    Args:
        sensors: Which.
        size: Pixels a side of the first one.
        gsd: Metres per pixel, one for all or by sensor name.

    Raises:
        ImageryError: A sensor has no GSD, or the footprint is no whole number of its pixels.
    """
    names = [sensor.name for sensor in sensors]
    if not names or len(set(names)) != len(names):
        raise ImageryError(f"sensors={names}: at least one, and each once")
    if isinstance(gsd, Mapping) and set(gsd) != set(names):
        raise ImageryError(f"gsd= names {sorted(gsd)}, but the sensors are {sorted(names)}: give one to each")
    metres = {name: float(gsd[name] if isinstance(gsd, Mapping) else gsd) for name in names}
    footprint = size * metres[names[0]]
    found = {}
    for name, value in metres.items():
        check_request(0, 0, size, value)
        pixels = round(footprint / value)
        if pixels < 1 or abs(pixels * value - footprint) > 1e-6 * footprint:
            raise ImageryError(
                f"{size} pixels of {metres[names[0]]:g} m are {footprint:g} m, which is no whole number of "
                f"{name}'s pixels of {value:g} m; choose a size= that divides for all sensors"
            )
        found[name] = (pixels, value)
    return found


def simulate_pair(
    seed: int,
    index: int,
    *,
    size: int = 120,
    gsd: Gsd = 10.0,
    sensors: Sequence[str | Path | Sensor] = SENSORS,
    cloud: float = 0.0,
) -> dict[str, Chip]:
    """One place as several sensors see it: sensor name -> chip.

    Args:
        seed: Names the series.
        index: Place in it.
        size: Pixels a side of the first sensor.
        gsd: Metres per pixel, one for all or by sensor name; the footprint is the same for all.
        sensors: Any that `observe` can simulate.
        cloud: As in `observe`.

    Raises:
        ImageryError: Numbers out of range, sensors that cannot be simulated, footprints that do not divide.
    """
    wanted = [get_sensor(sensor) for sensor in sensors]
    grid = sensor_grids(wanted, size, gsd)
    cells = set(grid.values())
    landscapes = {cell: simulate_landscape(seed, index, size=cell[0], gsd=cell[1]) for cell in cells}
    return {s.name: render(landscapes[grid[s.name]], s, cloud=cloud) for s in wanted}
