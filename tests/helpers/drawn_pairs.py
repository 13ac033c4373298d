"""Places that two sensors see, drawn in memory: a class decides what each sensor sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.collation import collate
from swath.datasets.protocol import Sample
from swath.errors import Problem
from swath.evaluation.data.subset import EvalSubset
from swath.sensors.registry import get_sensor

S1, S2 = "sentinel1_grd", "sentinel2_l2a"
CLASSES = ("water", "forest", "fields", "town")


class DrawnPairs:
    """A `PairedDataset` in memory: `images` maps sensor name -> [N, C, H, W]."""

    def __init__(
        self,
        images: dict[str, Tensor],
        labels: Any = None,
        *,
        splits: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        unreadable: Sequence[int] = (),
        gsd: float = 10.0,
    ) -> None:
        self.images, self.gsd, self.unreadable = images, gsd, set(unreadable)
        self.sensors = tuple(get_sensor(name) for name in images)
        count = len(next(iter(images.values())))
        self.labels = None if labels is None else np.asarray(labels)
        self.classes = list(CLASSES) if labels is not None else None
        self.paths = [f"place_{i:03}" for i in range(count)]
        self.splits = None if splits is None else list(splits)
        self.groups = None if groups is None else list(groups)
        self.problems: list[Problem] = []

    def __len__(self) -> int:
        return len(self.paths)

    def only(self, sensor: str) -> OneDrawn:
        return OneDrawn(self, sensor)


class OneDrawn:
    def __init__(self, pairs: DrawnPairs, sensor: str) -> None:
        self.pairs, self.sensor = pairs, get_sensor(sensor)
        self.labels, self.classes, self.paths = pairs.labels, pairs.classes, pairs.paths
        self.problems: list[Problem] = []

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        image = self.pairs.images[self.sensor.name][index]
        if index in self.pairs.unreadable and self.sensor.name == S1:
            problem = (self.paths[index], "cut short")
            return {"index": index, "problem": problem, "shape": image.shape, "sensor": self.sensor.name}  # type: ignore[typeddict-item]
        return {
            "image": image,
            "gsd": self.pairs.gsd,
            "valid": torch.ones(image.shape[1:], dtype=torch.bool),
            "sensor": self.sensor.name,
            "index": index,
            "key": index,
        }

    def get_batch(self, indices: Any) -> Batch:
        return collate([self[int(index)] for index in indices])


def draw_pairs(
    count: int = 60, *, image_size: int = 16, seed: int = 0, several: bool = False, **more: Any
) -> DrawnPairs:
    """Every class has a level and a texture in each sensor; splits train, val, test and ten groups."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, len(CLASSES), count)
    noise = random.standard_normal((count, 14, image_size, image_size))
    level = np.linspace(0, 1, len(CLASSES))[kind][:, None, None, None]
    s1 = torch.from_numpy((-22 + 14 * level + noise[:, :2]).astype(np.float32))
    s2 = torch.from_numpy((0.05 + 0.4 * level + 0.02 * noise[:, 2:]).clip(0.001, 1).astype(np.float32))
    labels: Any = kind.astype(np.int64)
    if several:
        labels = np.eye(len(CLASSES), dtype=np.float32)[kind]
        labels[np.arange(0, count, 2), (kind[::2] + 1) % len(CLASSES)] = 1
    options = {
        "splits": [("train", "val", "test")[i % 3] for i in range(count)],
        "groups": [f"scene_{i % 3}_{i % 7}" for i in range(count)],
        **more,
    }
    return DrawnPairs({S1: s1, S2: s2}, labels, **options)


class ByFunction:
    """A featurizer made of a function of the batch."""

    min_image_size = 1

    def __init__(self, name: str, function: Any, min_image_size: int = 1) -> None:
        self.name, self._function, self.min_image_size = name, function, min_image_size
        self.settings: dict[str, Any] = {"function": name}
        self.images = 0
        self.fitted: list[str] = []

    def fit(self, part: EvalSubset, image_size: int) -> None:
        self.fitted.append(f"{part.name} {len(part.indices)} {image_size}")

    def __call__(self, batch: Batch) -> Tensor:
        self.images += len(batch["image"])
        result: Tensor = self._function(batch)
        return result
