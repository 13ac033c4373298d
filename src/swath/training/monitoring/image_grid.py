"""What the objective sees and makes, as one PNG: a row a sample, a column a picture."""

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

LARGEST = 256  # pixels of a tile's side
BORDER = 4
LINE = 14  # pixels for a line of a column's name


def write_image_grid(path: Path, pictures: Mapping[str, Tensor], sensors: Sensor | Sequence[Sensor]) -> None:
    """Write `pictures` as a PNG, atomically.

    Values are in standard deviations about the sensor's mean, and shown from -2.5 (black) to 2.5 (white); so
    band-pass pictures, whose mean is zero, come out about gray.

    Args:
        path: The file.
        pictures: Name -> [B, C, h, w] normalized, or [B, 3, h, w] uint8, which is shown as it is; sizes may
            differ.
        sensors: Tell which bands are red, green and blue. With several, a picture's name begins with its
            sensor's: "sentinel1_grd: image".
    """
    from PIL import Image, ImageDraw

    side = min(LARGEST, max(max(picture.shape[-2:]) for picture in pictures.values()))
    columns = [
        _tiles(picture, side, display_bands(_sensor_of(name, sensors))) for name, picture in pictures.items()
    ]
    rows = len(columns[0])
    heads = [name.split(": ") for name in pictures]  # a sensor's name has a line of its own
    head = 4 + LINE * max(map(len, heads))
    grid = np.full(
        (head + rows * (side + BORDER), len(columns) * (side + BORDER) - BORDER, 3), 255, dtype=np.uint8
    )
    for x, column in enumerate(columns):
        for y, tile in enumerate(column):
            top, left = head + y * (side + BORDER), x * (side + BORDER)
            grid[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    image = Image.fromarray(grid)
    draw = ImageDraw.Draw(image)
    for x, lines in enumerate(heads):
        draw.text((x * (side + BORDER) + 2, 2), "\n".join(lines), fill=(0, 0, 0))
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _sensor_of(name: str, sensors: Sensor | Sequence[Sensor]) -> Sensor:
    if isinstance(sensors, Sensor):
        return sensors
    owner = name.split(":")[0]
    return next(sensor for sensor in sensors if sensor.name == owner)


def _tiles(picture: Tensor, side: int, bands: list[int]) -> NDArray[Any]:
    """[B, C, h, w] -> uint8 [B, side, side', 3], nearest neighbor so that no detail is invented."""
    as_it_is = picture.dtype == torch.uint8
    picture = picture.detach().float().cpu()
    scale = side / max(picture.shape[-2:])
    size = [max(1, round(length * scale)) for length in picture.shape[-2:]]
    if as_it_is:
        return F.interpolate(picture, size=size, mode="nearest-exact").byte().permute(0, 2, 3, 1).numpy()
    picture = F.interpolate(picture[:, bands], size=size, mode="nearest-exact")
    shown = ((picture / 5 + 0.5).clamp(0, 1).nan_to_num(0) * 255).round().to(torch.uint8)
    return shown.permute(0, 2, 3, 1).numpy()
