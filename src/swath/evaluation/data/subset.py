"""A part of a labeled data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swath.datasets.protocol import ImageDataset
from swath.errors import ImageryError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class EvalSubset:
    """Some images of a labeled data set: the train split or the queries.

    Attributes:
        dataset: With labels.
        indices: [N] positions in it.
        name: What to call it in reports ("train", "val").
        groups: [N] names of the ground (scene, city, sequence) that images share; "" for one of its own.
            What is learned from this part never validates on a group that it was fitted to.
    """

    dataset: ImageDataset
    indices: NDArray[np.int64]
    name: str
    groups: NDArray[Any] | None = None

    @property
    def labels(self) -> NDArray[Any]:
        """[N] int64 class indices, or [N, K] float32 of 0 and 1 where images have several labels."""
        labels = self.dataset.labels
        if labels is None:
            raise ImageryError(
                f"the {self.name} images have no labels: use class folders or a CSV with a class column"
            )
        return np.asarray(labels)[self.indices]

    @property
    def paths(self) -> list[str]:
        """The images' files, in the order of `indices`."""
        return [self.dataset.paths[i] for i in self.indices]
