"""Views and reconstructions of an objective as one PNG: a row per sample, a column per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swath.files import atomic_path
from swath.reporting.rgb import display_bands
from swath.sensors.sensor import Sensor

LARGEST = 256  # pixels of a tile's longer edge
BORDER = 4
LINE = 14  # pixels for a line of a column's name


def write_image_grid(path: Path, images: Mapping[str, Tensor], sensors: Sensor | Sequence[Sensor]) -> None:
    """Write `images` as a PNG, atomically.

    Values are in standard deviations about the sensor's mean, and shown from -2.5 (black) to 2.5 (white); so
    band-pass images, whose mean is zero, come out gray.

    Args:
        path: The file.
        images: Name -> [B, C, h, w] normalized, or [B, 3, h, w] uint8, which is shown as it is; sizes may
            differ.
        sensors: Define which bands are red, green and blue. With several, an image's name begins with its
            sensor's: "sentinel1_grd: image".
    """
    from PIL import Image, ImageDraw

    size = min(LARGEST, max(max(image.shape[-2:]) for image in images.values()))
    columns = [
        _tiles(image, size, display_bands(_sensor_of(name, sensors))) for name, image in images.items()
    ]
    rows = len(columns[0])
    heads = [name.split(": ") for name in images]  # a sensor's name has a line of its own
    head = 4 + LINE * max(map(len, heads))
    grid = np.full(
        (head + rows * (size + BORDER), len(columns) * (size + BORDER) - BORDER, 3), 255, dtype=np.uint8
    )
    for x, column in enumerate(columns):
        for y, tile in enumerate(column):
            top, left = head + y * (size + BORDER), x * (size + BORDER)
            grid[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    image = Image.fromarray(grid)
    draw = ImageDraw.Draw(image)
    for x, lines in enumerate(heads):
        draw.text((x * (size + BORDER) + 2, 2), "\n".join(lines), fill=(0, 0, 0))
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _sensor_of(name: str, sensors: Sensor | Sequence[Sensor]) -> Sensor:
    if isinstance(sensors, Sensor):
        return sensors
    owner = name.split(":")[0]
    return next(sensor for sensor in sensors if sensor.name == owner)


def _tiles(image: Tensor, size: int, bands: list[int]) -> NDArray[Any]:
    """[B, C, h, w] -> uint8 [B, size, size', 3], nearest neighbor so that no detail is invented."""
    as_it_is = image.dtype == torch.uint8
    image = image.detach().float().cpu()
    scale = size / max(image.shape[-2:])
    shape = [max(1, round(length * scale)) for length in image.shape[-2:]]
    if as_it_is:
        return F.interpolate(image, size=shape, mode="nearest-exact").byte().permute(0, 2, 3, 1).numpy()
    image = F.interpolate(image[:, bands], size=shape, mode="nearest-exact")
    shown = ((image / 5 + 0.5).clamp(0, 1).nan_to_num(0) * 255).round().to(torch.uint8)
    return shown.permute(0, 2, 3, 1).numpy()
