"""Labeled images drawn in memory and on disk, and featurizers whose score is known beforehand."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.csv_table import CsvManifest
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset

CLASSES = ("dark", "gray", "light", "spots")


def draw(kind: str, random: np.random.Generator, image_size: int = 32) -> NDArray[np.uint8]:
    """[side, side, 3] image: noise around a level, or black and white blocks of 4 pixels."""
    if kind == "spots":
        blocks = random.integers(0, 2, (image_size // 4, image_size // 4, 1)) * 200.0
        image = np.kron(blocks, np.ones((4, 4, 3))) + random.normal(20, 5, (image_size, image_size, 3))
    else:
        level = {"dark": 60, "gray": 120, "light": 190}[kind] + random.normal(0, 6)
        image = random.normal(level, 12, (image_size, image_size, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def write_scenes(
    folder: Path, *, train: int = 12, test: int = 5, image_size: int = 32, classes: Sequence[str] = CLASSES
) -> Path:
    """Images in class folders and `index.csv` (file, class, gsd_m, split); returns the table."""
    random = np.random.default_rng(0)
    rows = []
    for kind in classes:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(train + test):
            file = f"{kind}/{i:03}.png"
            Image.fromarray(draw(kind, random, image_size)).save(folder / file)
            rows.append([file, kind, "0.5", "train" if i < train else "val", ""])
    return write_table(folder / "index.csv", rows)


def write_table(
    path: Path, rows: Sequence[Sequence[str]], header: str = "file,class,gsd_m,split,overlap_group"
) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def read_table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def split_of(table: Path, **options: Any) -> TrainTestSplit:
    dataset = CsvManifest(table, "rgb_aerial", **options)
    split_names = np.array(dataset.columns["split"])
    return TrainTestSplit(
        EvalSubset(dataset, np.flatnonzero(split_names == "train"), "train"),
        EvalSubset(dataset, np.flatnonzero(split_names == "val"), "val"),
        "column split: train and val",
    )


class Fake:
    """A featurizer made of a function of the batch."""

    min_image_size = 1

    def __init__(self, name: str, function: Any, min_image_size: int = 1) -> None:
        self.name, self._function, self.min_image_size = name, function, min_image_size
        self.settings: dict[str, Any] = {"fake": name}
        self.fitted_on: list[tuple[str, int]] = []
        self.image_sizes: set[int] = set()

    def fit(self, part: EvalSubset, image_size: int) -> None:
        self.fitted_on.append((part.name, image_size))

    def __call__(self, batch: Batch) -> Tensor:
        self.image_sizes.add(batch["image"].shape[-1])
        result: Tensor = self._function(batch)
        return result


def constant(batch: Batch) -> Tensor:
    return torch.full((len(batch["image"]), 8), 3.7)


def color(batch: Batch) -> Tensor:
    image = batch["image"].float().flatten(2)
    return torch.cat([image.mean(2), image.std(2), torch.full((len(image), 1), 50.0)], dim=1)


def rich_noise(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Features that know each image but nothing of its class."""
    generator = torch.Generator()
    rows = []
    for index in batch["index"].tolist():
        rows.append(torch.randn(32, generator=generator.manual_seed(index)))
    return torch.stack(rows)


class Labeled:
    """Many images of a few classes, of no content."""

    def __init__(self, count: int, classes: int) -> None:
        from swath.sensors.registry import get_sensor

        self.sensor = get_sensor("rgb_aerial")
        self.classes: list[str] = [f"class {i}" for i in range(classes)]
        self.labels = np.arange(count) % classes
        self.paths = [f"class/{i}.png" for i in range(count)]
        self.problems: list[tuple[str, str]] = []

    def get_batch(self, indices: object) -> dict[str, object]:
        rows = torch.as_tensor(indices)
        return {
            "image": torch.zeros(len(rows), 3, 8, 8, dtype=torch.uint8),
            "gsd": torch.ones(len(rows)),
            "valid": torch.ones(len(rows), 8, 8, dtype=torch.bool),
            "sensor": "rgb_aerial",
            "index": rows,
        }


def many(count: int = 2000, test: int = 1000, classes: int = 5) -> TrainTestSplit:
    dataset = Labeled(count + test, classes)
    positions = np.arange(count + test)
    return TrainTestSplit(
        EvalSubset(dataset, positions[:count], "train"),  # type: ignore[arg-type]
        EvalSubset(dataset, positions[count:], "val"),  # type: ignore[arg-type]
        "drawn",
    )


# ---- known scores
