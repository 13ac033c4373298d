"""What a data set hands out: samples, the batch that they make, and the promise behind both.

A *paired* sample is one place seen by several sensors, and a paired batch holds one batch a sensor.

Legend: B samples, C bands, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.errors import Problem
from swath.sensors.sensor import Sensor


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
    label: int | Tensor  # class index, or [K] float32 multi-hot
    mask: Tensor  # [H, W] uint8 class of each pixel, 255 where unknown
    time: float  # seconds since 1970 UTC, NaN where unknown
    window: tuple[int, int, int, int]  # chips: column, row, width, height on the scene's native grid
    scene: int  # chips: position of the scene in `dataset.scenes`
    problem: Problem  # (path, reason) of what could not be read for this sample
    shape: tuple[int, int, int]  # only without an image
    empty: bool  # chips, only without an image: whether nodata is the reason, and no damage


class PairedSample(TypedDict, total=False):
    """One place as several sensors see it.

    The sensors' images may differ in size and GSD, never in their footprint; all have one `key`, so that
    keyed augmentations agree. A place that cannot be read has no `sensors` but a `problem`, and the `shapes`
    that the images would have had.
    """

    sensors: dict[str, Sample]
    index: int
    key: int
    label: int | Tensor  # class index, or [K] float32 multi-hot
    problem: Problem  # (place or file, reason)
    shapes: dict[str, tuple[int, int, int]]  # only without images


@runtime_checkable
class ImageDataset(Protocol):
    """What training, evaluation and embedding need of a data set.

    Attributes:
        sensor: What the images were taken with.
        classes: Names of the classes, or None.
        labels: [N] int64 class indices, or [N, K] float32 multi-hot, or None.
        paths: File (or place) of each image, shown to people.
        problems: (file, reason) of what was left out.
    """

    sensor: Sensor
    classes: list[str] | None
    labels: NDArray[Any] | None
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


@runtime_checkable
class PairedDataset(Protocol):
    """What training and retrieval need of a data set whose places are seen by several sensors.

    Attributes:
        sensors: In the order that the user gave.
        classes: Names of the classes, or None.
        labels: [N] int64 class indices, or [N, K] float32 multi-hot, or None.
        paths: An id of each place, shown to people.
        groups: Scene or tile of each place, for splits that do not leak; None where unknown.
        splits: Official split of each place; None where there is none.
        problems: (place or file, reason) of what was left out.
    """

    sensors: tuple[Sensor, ...]
    classes: list[str] | None
    labels: NDArray[np.int64] | NDArray[np.float32] | None
    paths: list[str]
    groups: list[str] | None
    splits: list[str] | None
    problems: list[Problem]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> PairedSample: ...

    def get_batch(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Batch:
        """The places at `indices` as one paired batch."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that random decisions belong to; seen by running loader workers too."""
        ...

    def subset(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> PairedDataset:
        """Only these places, in this order; pixels in memory are shared."""
        ...

    def select(self, *, split: str) -> PairedDataset:
        """Only the places of one split."""
        ...

    def only(self, sensor: str) -> ImageDataset:
        """What one sensor sees of the same places, as a data set of that sensor."""
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
