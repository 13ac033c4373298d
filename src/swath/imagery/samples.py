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

from swath.errors import ImageryError
from swath.imagery.chip import Batch
from swath.imagery.sensors import Sensor

Problem = tuple[str, str]


class Sample(TypedDict, total=False):
    """One image as tensors.

    A sample whose pixels cannot be had (a damaged file, nothing but nodata) has no `image` but a `problem`,
    and the `shape` that the image would have had; `collate` leaves it out of the batch and hands the
    problem on.
    """

    image: Tensor  # [C, H, W] uint8 or float32, in the sensor's unit
    gsd: float  # metres per pixel, or 1.0 at native resolution in relative mode
    valid: Tensor  # [H, W] bool
    sensor: str
    index: int  # position in the data set
    key: int  # int64 for swath.keyed_random
    label: int
    time: float  # seconds since 1970 UTC, NaN where unknown
    window: tuple[int, int, int, int]  # chips: column, row, width, height on the scene's native grid
    scene: int  # chips: position of the scene in `dataset.scenes`
    problem: Problem  # (path, reason) of what could not be read for this sample
    shape: tuple[int, int, int]  # only without an image
    empty: bool  # chips, only without an image: whether nodata is the reason, and no damage


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

    Samples without an image (see `Sample`) are left out, so a batch may be shorter than asked for, and empty
    ([0, C, H, W]) where nothing of it could be read. What was left out, and why, is listed under
    ``problems``, a key that is only there when there is something in it.

    Raises:
        ImageryError: Two sensors, or two sizes.
    """
    good = [sample for sample in samples if "image" in sample]
    problems = [sample["problem"] for sample in samples if "problem" in sample]
    sensors = sorted({sample["sensor"] for sample in samples})
    if len(sensors) != 1:
        raise ImageryError(f"a batch holds images of one sensor, but these are of {sensors}")
    shapes = sorted({tuple(sample["image"].shape) for sample in good})
    if len(shapes) > 1:
        raise ImageryError(f"samples of different shapes {shapes} in one batch; choose one size with size=")
    bands, height, width = samples[0]["shape"] if not good else shapes[0]
    batch: Batch = {
        "image": _stack([sample["image"] for sample in good], (bands, height, width), torch.float32),
        "gsd": torch.tensor([sample["gsd"] for sample in good], dtype=torch.float32),
        "valid": _stack([sample["valid"] for sample in good], (height, width), torch.bool),
        "sensor": sensors[0],
        "index": torch.tensor([sample["index"] for sample in good], dtype=torch.int64),
        "key": torch.tensor([sample["key"] for sample in good], dtype=torch.int64),
    }
    if all("label" in sample for sample in good):
        batch["label"] = torch.tensor([sample["label"] for sample in good], dtype=torch.int64)
    if any("time" in sample for sample in good):
        times = [sample.get("time", float("nan")) for sample in good]
        batch["time"] = torch.tensor(times, dtype=torch.float64)
    if good and all("window" in sample for sample in good):
        batch["window"] = torch.tensor([sample["window"] for sample in good], dtype=torch.int64)
        batch["scene"] = torch.tensor([sample["scene"] for sample in good], dtype=torch.int64)
    if problems:
        batch["problems"] = problems
    return batch


def _stack(tensors: list[Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.stack(tensors) if tensors else torch.empty((0, *shape), dtype=dtype)
