"""Sentinel-2's processing baseline, and the offset of its digital numbers.

From baseline 04.00 (25 January 2022) ESA adds 1000 to every digital number, so that dark surfaces need not be
clipped at 0: reflectance = (DN - 1000) / 10000 (RADIO_ADD_OFFSET of Level-1C, BOA_ADD_OFFSET of Level-2A).
The whole archive has since been reprocessed (Collection 1, baseline 05.00 and later), so the date of a scene
decides nothing. A GeoTIFF made from a product often keeps no trace of it, and a model that was trained with
the one and is fed the other sees all surfaces 0.1 brighter. Hence: stated, or found where a tag, the STAC
item or the product's name says it, or refused. Never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from swath.errors import ImageryError, UnstatedError
from swath.sensors.sensor import Sensor

SENTINEL2 = ("sentinel2_l1c", "sentinel2_l2a")  # built-in sensors with this offset
_OFFSET_KEYS = (
    "BOA_ADD_OFFSET",
    "RADIO_ADD_OFFSET",
    "BOA_ADD_OFFSET_VALUES_LIST",
    "RADIO_ADD_OFFSET_VALUES_LIST",
)
_BASELINE_KEYS = ("PROCESSING_BASELINE", "s2:processing_baseline", "processing:version")
# S2A_MSIL2A_20220212T101031_N0400_R022_T33UUP_20220212T140559: N0400 is baseline 04.00.
_PRODUCT = re.compile(r"S2[A-D]_(?:MSI|OPER_MSI_)?L(?:1C|2A)_\d{8}T\d{6}_N(\d{2})(\d{2})_")


def detect_offset_dn(
    *, tags: Mapping[str, str] | None = None, path: str = "", stac: Mapping[str, Any] | None = None
) -> tuple[float, str] | None:
    """The offset of a Sentinel-2 scene, where something says it.

    Args:
        tags: The file's metadata (`SceneHeader.tags`).
        path: The file's path; its parts are searched for a product's name.
        stac: Properties of the scene's STAC item.

    Returns:
        (offset in DN to add: -1000, 0 or what the tag says; by what it is known), or None if nothing says it.

    Raises:
        ImageryError: The file states different offsets for different bands, which a scene cannot have here.
    """
    tags, stac = tags or {}, stac or {}
    for key in _OFFSET_KEYS:
        if key in tags:
            values = {float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", tags[key])}
            if len(values) != 1:
                raise ImageryError(
                    f"{path or 'image'}: tag {key} is {tags[key]!r}; one offset for all is wanted"
                )
            return values.pop(), f"tag {key}"
    if stac.get("earthsearch:boa_offset_applied") is True:
        return 0.0, "STAC earthsearch:boa_offset_applied (the provider has subtracted it)"
    for name, source in (("tag", tags), ("STAC", stac)):
        for key in _BASELINE_KEYS:
            baseline = re.match(r"0?(\d+)\.(\d+)", str(source.get(key, "")))
            if baseline:
                return _by_baseline(int(baseline[1]), f"{name} {key} = {source[key]}")
    for part in reversed(PurePath(path).parts):
        product = _PRODUCT.search(part + "_")
        if product and product[1] != "99":  # N99xx is a test or own processing: it says nothing
            return _by_baseline(int(product[1]), f"product name {product[0].rstrip('_')}")
    return None


def _by_baseline(major: int, source: str) -> tuple[float, str]:
    return (-1000.0 if major >= 4 else 0.0), source


def is_sentinel2(sensor: Sensor) -> bool:
    """Whether it is Sentinel-2, under whatever name: digital numbers of 1/10000 in bands called as ESA's."""
    return sensor.name in SENTINEL2 or all(
        re.fullmatch(r"B(0[1-9]|1[0-2]|8A)", band.name) is not None
        and (band.unit, band.scale, band.offset) == ("reflectance", 0.0001, 0.0)
        for band in sensor.bands
    )


def resolve_offset_dn(
    sensor: Sensor,
    *,
    given: float | None = None,
    tags: Mapping[str, str] | None = None,
    path: str = "",
    stac: Mapping[str, Any] | None = None,
) -> tuple[float, str]:
    """What to add to a scene's digital numbers, and why.

    What the scene says comes first (`detect_offset_dn`), then what the user states. Sensors other than
    Sentinel-2 have no such offset: 0, or what is stated.

    Raises:
        UnstatedError: A Sentinel-2 scene of which nothing says it.
    """
    found = detect_offset_dn(tags=tags, path=path, stac=stac) if is_sentinel2(sensor) else None
    if found is not None:
        return found
    if given is not None:
        return float(given), "stated"
    if not is_sentinel2(sensor):
        return 0.0, f"sensor {sensor.name} has none"
    raise UnstatedError(
        f"{path or 'image'}: nothing says which Sentinel-2 processing baseline it is from. State `offset_dn` "
        "(--offset-dn; data.offset_dn in a recipe): -1000 from baseline 04.00 (products since 25 January "
        "2022 and reprocessed ones), 0 before or where it has been subtracted already. The darkest pixels "
        "tell: 1000 DN more with it"
    )
