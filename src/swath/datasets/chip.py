"""What flows through the house: a chip (one window of one scene) and a batch of samples.

A **chip** is made by the imagery room. A **sample** is a chip as tensors under the keys that TorchGeo uses
(`image`, `mask`, `label`, `bbox_xyxy`) and ours (`gsd`, `sensor`, `valid`, `time`, `key`). A **batch** is
samples of *one* sensor stacked along a first dimension; a batch of co-registered sensors is a mapping
sensor name -> batch under the key `sensors`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from swath.geo.grid import PixelWindow


@dataclass(frozen=True, slots=True)
class Chip:
    """One window of one scene, in the units of its sensor.

    Attributes:
        image: [C, H, W] array, bands in the sensor's order and unit (reflectance, dB, ...). float32, or uint8
            where the sensor's unit is uint8 and nothing had to be converted.
        gsd: Effective ground sample distance of *this* array, in metres per pixel (after any resampling);
            in relative mode the ratio to the model's reference.
        sensor: Registered sensor name.
        valid: [H, W] bool, False where any band is nodata, masked, transparent or not finite.
        source: Path or URL of the scene as the user gave it.
        window: Where the chip lies on the scene's native grid.
        footprint: Closed ring of (longitude, latitude) corners in OGC:CRS84, or None without georeference.
        time: Acquisition time (timezone-aware), or None if unknown.
        label: Class index where the data set has labels.
    """

    image: np.ndarray[Any, Any]
    gsd: float
    sensor: str
    valid: np.ndarray[Any, Any]
    source: str
    window: PixelWindow
    footprint: tuple[tuple[float, float], ...] | None = None
    time: datetime | None = None
    label: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Batch(TypedDict, total=False):
    """Samples of one sensor, stacked. B samples, C bands, H x W pixels.

    In the sensor's unit as it comes from a loader; normalized (zero mean, unit variance by the contract's
    statistics, invalid pixels 0, GSD in units of the reference GSD) once `Contract.normalize` has seen it.
    """

    image: Tensor  # [B, C, H, W] float32 or uint8
    gsd: Tensor  # [B] float32, metres per pixel (or ratio to the reference in relative mode)
    valid: Tensor  # [B, H, W] bool
    sensor: str  # one sensor for the whole batch
    time: Tensor  # [B] float64, seconds since 1970 UTC; NaN where unknown
    label: Tensor  # [B] int64 class index, or [B, K] multi-hot
    mask: Tensor  # [B, H, W] uint8 class of each pixel, 255 where unknown
    key: Tensor  # [B] int64, keys for swath.keyed_random
    index: Tensor  # [B] int64, position in the data set
    window: Tensor  # chips: [B, 4] int64, column, row, width, height on the scene's native grid
    scene: Tensor  # chips: [B] int64, position of the scene in the data set's `scenes`
    sensors: dict[str, Batch]  # pairs: each sensor's batch of the same places; then no image, gsd, ... here
    problems: list[tuple[str, str]]  # (path, reason) of files left out of this batch; absent where none
