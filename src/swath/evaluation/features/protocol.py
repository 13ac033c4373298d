"""Anything that turns images into one vector each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.errors import Problem
from swath.evaluation.data.subset import EvalSubset

if TYPE_CHECKING:
    pass

Progress = Callable[[int, int], None]  # (images done, images in all)


GsdMode = Literal["metres", "relative"]


class FeatureExtractor(Protocol):
    """Anything that describes images by vectors: a model, or a baseline that needs no training.

    Attributes:
        name: In tables and files; unique in an evaluation.
        min_image_size: Sides must be multiples of it.
        settings: What its features depend on, JSON-safe; goes into the configuration's hash.

    Two further attributes let its features be cached (`swath.evaluation.features.cache`); without them they
    are computed every time:

    - ``identity``: a string that differs whenever the features of the same image may, such as a hash of the
      weights (settings need not be repeated in it);
    - ``learns``: whether `fit` looks at images (taken to be true where it is not said).
    """

    name: str
    min_image_size: int
    settings: dict[str, Any]

    def fit(self, part: EvalSubset, image_size: int) -> None:
        """Look at images of the train split (never of the queries) where features depend on data."""
        ...

    def __call__(self, batch: Batch) -> Tensor:
        """[B, D] float features of a batch in the sensor's unit."""
        ...


@dataclass(slots=True)
class FeatureSet:
    """Features of one part.

    Attributes:
        features: (feature extractor name, side) -> [N, D] float32, N the images that could be read.
        labels: [N] int64 class indices, or [N, K] float32 of 0 and 1.
        indices: [N] their positions in the data set.
        problems: (file, reason) of images that could not be read.
    """

    features: dict[tuple[str, int], Tensor]
    labels: Tensor
    indices: NDArray[np.int64]
    problems: list[Problem] = field(default_factory=list)
