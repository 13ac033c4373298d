"""A data set seen otherwise, without being read otherwise: some of its bands, other labels, other units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.protocol import ImageDataset, Sample
from swath.sensors.matching import band_indices
from swath.sensors.sensor import Sensor


class SensorView:
    """The same images under another sensor's name, with its bands; a `swath.datasets.protocol.ImageDataset`.

    Args:
        dataset: What is looked at.
        sensor: Of a subset of the bands, in any order, in the same unit; found by their names. Statistics may
            differ: values do not change. None for the data set's own.
        gsd_factor: What GSDs are multiplied by: 1 / native to count scale relative to the native resolution.
        labels: [N] class indices or [N, K] of 0 and 1, instead of the data set's own.

    Raises:
        ImageryError: A band is not there, or in another unit.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        sensor: Sensor | None = None,
        *,
        gsd_factor: float = 1.0,
        labels: NDArray[Any] | None = None,
    ) -> None:
        self._of, self._factor = dataset, gsd_factor
        self.sensor = sensor or dataset.sensor
        self._indices = band_indices(dataset.sensor, self.sensor)
        self.classes = dataset.classes
        self.labels: NDArray[Any] | None = dataset.labels if labels is None else labels
        self.paths, self.problems = dataset.paths, dataset.problems

    def __len__(self) -> int:
        return len(self._of)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the data set beneath."""
        self._of.set_epoch(epoch)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`."""
        sample = cast(Sample, {**self._of[index], "sensor": self.sensor.name})
        if "image" in sample:
            sample["image"] = sample["image"][self._indices]
            sample["gsd"] = sample["gsd"] * self._factor
            if self.labels is not None:
                label = self.labels[index]
                sample["label"] = int(label) if self.labels.ndim == 1 else torch.from_numpy(label.copy())
        else:
            sample["shape"] = (len(self._indices), *sample["shape"][1:])
        return sample

    def get_batch(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Batch:
        """The samples at `indices` as one batch."""
        batch: Any = dict(self._of.get_batch(indices))
        batch["image"] = batch["image"][:, self._indices]
        batch["gsd"] = batch["gsd"] * self._factor
        batch["sensor"] = self.sensor.name
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[batch["index"].numpy()])
        return cast(Batch, batch)
