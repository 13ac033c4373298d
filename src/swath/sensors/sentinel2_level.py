"""Processing levels of Sentinel-2: top of atmosphere (Level-1C) is not surface reflectance (Level-2A)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath

_KEYS = {"PROCESSING_LEVEL", "PRODUCT_TYPE", "S2:PRODUCT_TYPE", "PROCESSING:LEVEL", "PRODUCT_URI"}
_SENSORS = {"sentinel2_l1c": "1C", "sentinel2_l2a": "2A"}


def detect_level(tags: Mapping[str, str], path: str) -> tuple[str, str] | None:
    """("1C" or "2A", by what it is known) of a Sentinel-2 scene, by its tags, STAC properties or name."""
    for key, value in tags.items():
        if key.upper() in _KEYS:
            found = re.search(r"(?:Level-?|MSIL?|\bL)(1C|2A)", value, re.IGNORECASE)
            if found:
                return found[1].upper(), f"{key} = {value}"
    for part in reversed(PurePath(path).parts):
        found = re.search(r"S2[A-D]_MSIL(1C|2A)_", part)
        if found:
            return found[1], f"the product's name {part}"
    return None


def level_conflict(sensor_name: str, tags: Mapping[str, str], path: str) -> str | None:
    """Why a scene is not imagery of a built-in Sentinel-2 sensor: it states the other level; or None."""
    wanted, stated = _SENSORS.get(sensor_name), detect_level(tags, path)
    if wanted is None or stated is None or stated[0] == wanted:
        return None
    other = next(name for name, level in _SENSORS.items() if level == stated[0])
    return f"{path}: is Sentinel-2 Level-{stated[0]} ({stated[1]}), not Level-{wanted}; give --sensor {other}"
