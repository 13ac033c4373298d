"""From stored numbers to a sensor's unit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import ImageryError
from swath.sensors.sensor import Sensor

Array = NDArray[Any]
Array64 = NDArray[np.float64]
Valid = NDArray[np.bool_]


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


def stored_to_unit(stored: Array | Tensor, sensor: Sensor, offset_dn: Array64) -> Tensor:
    """As `swath.sensors.units.to_unit`, for a batch [B, C, H, W] whose places have their own offset [B].

    A tensor is changed in place, an array is not.
    """
    scale = np.array([band.scale for band in sensor.bands])
    offset = np.array([band.offset for band in sensor.bands])
    plain = bool((scale == 1).all() and (offset == 0).all() and (offset_dn == 0).all())
    if isinstance(stored, np.ndarray):
        if plain and sensor.unit == "uint8" and stored.dtype == np.uint8:
            return torch.from_numpy(stored)
        stored = torch.from_numpy(stored.astype(np.float32, copy=not plain))
    if plain:
        return stored
    stored *= torch.from_numpy(scale.astype(np.float32))[None, :, None, None]
    added = torch.from_numpy((offset_dn[:, None] * scale + offset).astype(np.float32))
    if bool(added.any()):
        stored += added[:, :, None, None]
    return stored
