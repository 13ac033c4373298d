"""Short names of sensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

_SHORT = {"sentinel1": "S1", "sentinel2": "S2"}


def short_sensor_names(sensors: Sequence[str]) -> dict[str, str]:
    """Sensor name -> what to call it in a table: S1 and S2 where that is no riddle, else its name."""
    found = {name: _SHORT.get(name.split("_")[0], name) for name in sensors}
    return found if len(set(found.values())) == len(found) else {name: name for name in sensors}
