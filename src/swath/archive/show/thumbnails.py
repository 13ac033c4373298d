"""Pixels of chips as thumbnails, all chips of a sensor with one stretch, so that they can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from swath.archive.query.results import SearchResult
from swath.errors import ImageryError
from swath.reporting.stretch import Stretch, choose_display_bands, to_rgba
from swath.sensors.sensor import Sensor

Pixels = tuple[NDArray[np.float32], NDArray[np.bool_], bool]  # [C, h, w], valid [h, w], whether it is 8-bit


def read_thumbnails(
    chips: Sequence[SearchResult], longest: int, sensors: Mapping[str, Sensor] | None = None
) -> list[NDArray[np.uint8] | str]:
    """RGBA [h, w, 4] of each chip, or why there is none: a file that is gone or unreadable stops nothing.

    Args:
        chips: For example results of a search.
        longest: Pixels of the longer side at most; smaller chips stay as they are.
        sensors: Sensors that are not registered, by name.
    """
    return stretch_by_sensor(chips, [_pixels(chip, longest, sensors or {}) for chip in chips])


def stretch_by_sensor(
    chips: Sequence[SearchResult], pixels: Sequence[Pixels | str]
) -> list[NDArray[np.uint8] | str]:
    """RGBA [h, w, 4] of each chip, all chips of a sensor with one stretch."""
    kinds: dict[tuple[str, bool], list[tuple[NDArray[np.float32], NDArray[np.bool_]]]] = {}
    for chip, part in zip(chips, pixels, strict=True):
        if not isinstance(part, str):
            kinds.setdefault((chip.sensor, part[2]), []).append(part[:2])
    stretches = {kind: Stretch.of(shown, kind[1]) for kind, shown in kinds.items()}
    return [
        part if isinstance(part, str) else to_rgba(part[0], part[1], stretches[chip.sensor, part[2]])
        for chip, part in zip(chips, pixels, strict=True)
    ]


def _pixels(chip: SearchResult, longest: int, sensors: Mapping[str, Sensor]) -> Pixels | str:
    """What is shown of a chip, read at no more than the requested size, or the reason why it is missing."""
    from swath.rasters.read import read_header, read_window

    if not chip.source:
        return "the archive names no file"
    try:
        header = read_header(list(chip.files) if chip.files else chip.source)
        window = chip.window
        scale = min(1.0, longest / max(window.width, window.height))
        shape = (max(1, round(window.height * scale)), max(1, round(window.width * scale)))
        shown = choose_display_bands(header, chip.sensor, sensors)
        stored, valid = read_window(header, window, bands=shown.bands, out_shape=shape)
    except ImageryError as error:
        return str(error)
    return shown.values(stored), valid, header.dtype == "uint8"
