"""What a data set hands out: samples, the batch that they make, and the promise behind both.

Legend: B samples, C bands, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from swath.errors import ImageryError
from swath.imagery.chip import Batch
from swath.imagery.sensors import Sensor

Problem = tuple[str, str]


class Sample(TypedDict, total=False):
    """One image as tensors.

    A sample whose pixels turned out to be unreadable has only `index` and `problem`; `collate` leaves it out
    of the batch and hands the problem on.
    """

    image: Tensor  # [C, H, W] uint8 or float32, in the sensor's unit
    gsd: float  # metres per pixel, or 1.0 at native resolution in relative mode
    valid: Tensor  # [H, W] bool
    sensor: str
    index: int  # position in the data set
    key: int  # int64 for swath.keyed_random
    label: int
    time: float  # seconds since 1970 UTC, NaN where unknown
    problem: Problem  # (path, reason) of a file that could not be read for this sample


@runtime_checkable
class ImageDataset(Protocol):
    """What training, evaluation and embedding need of a data set."""

    sensor: Sensor
    classes: list[str] | None
    labels: NDArray[np.int64] | None
    paths: list[str]
    problems: list[Problem]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def get_batch(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Batch:
        """The samples at `indices` as one batch; without a loop where the images are cached."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that random decisions belong to; seen by running loader workers too."""
        ...


class Epoch:
    """A number that a parent process sets and its loader workers, forked or spawned, read."""

    def __init__(self) -> None:
        self._value = torch.zeros((), dtype=torch.int64)
        self._value.share_memory_()  # type: ignore[no-untyped-call]

    def set(self, epoch: int) -> None:
        """Choose the epoch."""
        self._value.fill_(epoch)

    def get(self) -> int:
        """The epoch last chosen, here or in the parent process."""
        return int(self._value)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one sensor and one size into a batch.

    Unreadable samples (see `Sample`) are left out; what could not be read is listed under ``problems``, a key
    that is only there when there is something in it.

    Raises:
        ImageryError: No readable sample, two sensors, or two sizes.
    """
    problems = [sample["problem"] for sample in samples if "problem" in sample]
    good = [sample for sample in samples if "image" in sample]
    if not good:
        reason = f": {problems[0][1]}" if problems else ""
        raise ImageryError(f"not one of the {len(samples)} images of a batch could be read{reason}")
    sensors = sorted({sample["sensor"] for sample in good})
    if len(sensors) > 1:
        raise ImageryError(f"a batch holds one sensor, but these samples are of {', '.join(sensors)}")
    shapes = sorted({tuple(sample["image"].shape) for sample in good})
    if len(shapes) > 1:
        raise ImageryError(f"samples of different shapes {shapes} in one batch; choose one size with size=")
    batch: Batch = {
        "image": torch.stack([sample["image"] for sample in good]),
        "gsd": torch.tensor([sample["gsd"] for sample in good], dtype=torch.float32),
        "valid": torch.stack([sample["valid"] for sample in good]),
        "sensor": sensors[0],
        "index": torch.tensor([sample["index"] for sample in good], dtype=torch.int64),
        "key": torch.tensor([sample["key"] for sample in good], dtype=torch.int64),
    }
    if all("label" in sample for sample in good):
        batch["label"] = torch.tensor([sample["label"] for sample in good], dtype=torch.int64)
    if any("time" in sample for sample in good):
        times = [sample.get("time", float("nan")) for sample in good]
        batch["time"] = torch.tensor(times, dtype=torch.float64)
    if problems:
        batch["problems"] = problems
    return batch


def resize(image: Tensor, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, float]:
    """Resize one image, keeping what is not valid out of what is.

    Area average when shrinking, bilinear when enlarging; every output pixel is the mean of the valid input
    under it, and is valid where at least half of that was. uint8 stays uint8, rounded.

    Args:
        image: [C, H, W].
        valid: [H, W] bool.
        size: (height, width) wanted.

    Returns:
        image [C, height, width], valid [height, width], and the factor that the GSD grows by (geometric mean
        of both directions).
    """
    factor = float(np.sqrt(image.shape[1] / size[0] * image.shape[2] / size[1]))
    if tuple(image.shape[1:]) == tuple(size):
        return image, valid, factor
    everywhere = bool(valid.all())
    pixels = image.to(torch.float32)
    if not everywhere:
        weight = valid.to(torch.float32)
        pixels = torch.cat([torch.where(valid, pixels, 0.0), weight[None]])
    enlarge = size[0] > image.shape[1] or size[1] > image.shape[2]
    if enlarge:
        # With antialiasing a direction that shrinks is averaged while the other is interpolated.
        pixels = F.interpolate(pixels[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    else:
        pixels = F.interpolate(pixels[None], size, mode="area")[0]
    if everywhere:
        valid = torch.ones(size, dtype=torch.bool)
    else:
        weight = pixels[-1]
        pixels = pixels[:-1] / weight.clamp_min(1e-6)
        valid = weight >= 0.5
    if image.dtype == torch.uint8:
        pixels = pixels.round().clamp(0, 255).to(torch.uint8)
    return pixels, valid, factor
