"""Images as people see them, for reports."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from swath.datasets.chip import Batch
from swath.sensors.sensor import Sensor


def to_rgb(batch: Any, sensor: Sensor) -> NDArray[np.uint8]:
    """The first image of a batch (in the sensor's unit) as uint8 [H, W, 3]: 8-bit color as it is, all else
    stretched.
    """
    image = batch["image"]
    if sensor.unit == "uint8" and image.shape[1] == 3:
        plain = image[0].clamp(0, 255).byte().permute(1, 2, 0).numpy()
        return cast(NDArray[np.uint8], plain.copy())
    return composite(cast(Batch, batch), sensor)[0].copy()


def composite(batch: Batch, sensor: Sensor) -> list[NDArray[np.uint8]]:
    """Images of a batch as [H, W, 3] uint8 each, stretched together; nodata is white."""
    image = batch["image"].detach().float().cpu()
    bands = {band.name.upper(): i for i, band in enumerate(sensor.bands)}
    if {"VV", "VH"} <= set(bands):
        pair = image[:, [bands["VV"], bands["VH"]]]
        if sensor.unit == "linear":
            pair = 10 * pair.clamp_min(1e-6).log10()
        shown = torch.cat([pair, pair[:, :1] - pair[:, 1:]], dim=1)
    else:
        shown = image[:, display_bands(sensor)]
    valid = torch.isfinite(shown).all(dim=1)
    if "valid" in batch:
        valid &= batch["valid"].cpu()
    pixels = shown.permute(1, 0, 2, 3)[:, valid].numpy()
    if pixels.shape[1]:
        low, high = np.percentile(pixels, [2, 98], axis=1)
    else:
        low, high = np.zeros(3), np.ones(3)
    scaled = (shown.numpy() - low[:, None, None]) / np.maximum(high - low, 1e-6)[:, None, None]
    tiles = np.clip(np.nan_to_num(scaled) * 255, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    tiles[~valid.numpy()] = 255
    return list(tiles)


def display_bands(sensor: Sensor) -> list[int]:
    """Indices of the red, green and blue band; of one band three times where there is no such triple."""
    common = [band.common_name for band in sensor.bands]
    if all(name in common for name in ("red", "green", "blue")):
        return [common.index(name) for name in ("red", "green", "blue")]
    return [0, 1, 2] if len(common) == 3 else [0, 0, 0]
