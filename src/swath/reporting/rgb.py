"""Images as people see them, for reports."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from swath.datasets.chip import Batch
from swath.evaluation.retrieval.figures import composite
from swath.sensors.sensor import Sensor


def to_rgb(batch: Any, sensor: Sensor) -> NDArray[np.uint8]:
    """The first image of a batch (in the sensor's unit) as uint8 [H, W, 3]: 8-bit colour as it is, all else
    stretched.
    """
    image = batch["image"]
    if sensor.unit == "uint8" and image.shape[1] == 3:
        plain = image[0].clamp(0, 255).byte().permute(1, 2, 0).numpy()
        return cast(NDArray[np.uint8], plain.copy())
    return composite(cast(Batch, batch), sensor)[0].copy()
