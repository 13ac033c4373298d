"""Annotated images as the splits of a run: training crops, and whole images to be looked at.

In training a sample is a random crop, resized by a random zoom: its boxes and its GSD follow. Else it is a
whole image, however large, that is looked at by the zoom nearest to 1 that training has shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from swath.errors import ImageryError, Problem, RecipeError, suggest
from swath.geo.grid import PixelWindow
from swath.keyed_random import sample_keys, uniform
from swath.sensors.sensor import Sensor
from swath.tasks.detection.data.annotations import Layout
from swath.tasks.detection.data.augmentation import rescale
from swath.tasks.detection.data.dataset import DetectionDataset, DetectionSample, collate_detections
from swath.tasks.splits import DatasetSubset, DataSplits, TaskDataConfig


class DetectionDataConfig(TaskDataConfig):
    """How annotated images are read.

    Attributes:
        layout: ``auto``, ``coco``, ``yolo``, ``dota`` or ``voc``; see
            `swath.tasks.detection.data.annotations`.
        image_dir: Folder of the images, where it is not the layout's own.
        classes: Class names in their order; left out: those that the annotations name.
        split_field: Which of the images' fields tells their split, such as ``site``; left out: ``split`` or
            ``split`` where there is one. Else splits are patterns of the images' paths.
        crop_size: Side of a training crop in pixels.
        scale_range: Range of the zoom of training crops; 0.5 shows twice the ground, at twice the GSD.
        crops_per_image: Crops of each image in an epoch.
        foreground_fraction: Share of the crops that are laid around a box of a class drawn evenly among the
            image's.
        min_visibility: Share of a box's area that a crop has to show to be learned from; where less is seen,
            the object is ignored.
        invalid_boxes: What to do about boxes that make no sense: ``error`` or ``repair``.
    """

    layout: Layout = "auto"
    image_dir: str | None = None
    classes: tuple[str, ...] | None = None
    split_field: str | None = None
    crop_size: int = Field(default=512, gt=0)
    scale_range: tuple[float, float] = (1.0, 1.0)
    crops_per_image: int = Field(default=1, gt=0)
    foreground_fraction: float = Field(default=0.0, ge=0, le=1)
    min_visibility: float = Field(default=0.5, gt=0, le=1)
    invalid_boxes: Literal["error", "repair"] = "error"

    @model_validator(mode="after")
    def _ordered(self) -> DetectionDataConfig:
        if not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise ValueError(
                f"scale is a range of positive numbers, the smaller one first, not {self.scale_range}"
            )
        return self


class DetectionImages(DatasetSubset):
    """Some images with their boxes, whole; samples and batches as of `DetectionDataset`.

    Args:
        dataset: All images.
        positions: Those of the split.
        zoom: At which they are looked at; samples are as the files have them.
    """

    def __init__(self, dataset: DetectionDataset, positions: Sequence[int], zoom: float = 1.0) -> None:
        super().__init__(dataset, positions)
        self.zoom = zoom

    def truth(self, index: int) -> dict[str, Tensor]:
        """The boxes of image `index`, without its pixels."""
        found: dict[str, Tensor] = self.whole.truth(self.positions[index])  # type: ignore[attr-defined]
        return found


class DetectionCrops:
    """Random crops of annotated images, as a data set.

    Args:
        dataset: Whole images.
        positions: Those that are learned from.
        data: Options.
        seed: Of random decisions.

    Attributes:
        paths: The image of every sample.
    """

    labels = None
    collate = staticmethod(collate_detections)

    def __init__(
        self, dataset: DetectionDataset, positions: Sequence[int], data: DetectionDataConfig, seed: int
    ) -> None:
        self.whole, self.positions, self.data, self.seed = dataset, list(positions), data, seed
        self.sensor, self.classes = dataset.sensor, dataset.classes
        self.paths = [dataset.paths[i] for i in self.positions]
        self.problems: list[Problem] = dataset.problems

    def __len__(self) -> int:
        return len(self.positions) * self.data.crops_per_image

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that random crops belong to."""
        self.whole.set_epoch(epoch)

    def __getitem__(self, index: int) -> DetectionSample:
        """Sample `index`, see `DetectionSample`."""
        index = range(len(self))[index]
        number = self.positions[index // self.data.crops_per_image]
        key = int(sample_keys(self.seed, self.whole.epoch, torch.tensor([index])))
        window, zoom = self._window(number, key)
        sample = self.whole.sample(number, window, index=index, key=key, min_visible=self.data.min_visibility)
        return sample if zoom == 1 or "problem" in sample else rescale(sample, zoom)

    def get_batch(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> dict[str, Any]:
        """The samples at `indices` as one batch."""
        return collate_detections([self[int(i)] for i in indices])

    def _window(self, number: int, key: int) -> tuple[PixelWindow, float]:
        """A keyed window of image `number`, and by how much it is enlarged."""
        size, (low, high) = self.data.crop_size, self.data.scale_range
        header, boxes = self.whole.scenes[number].header, self.whole.boxes[number]
        u = uniform(torch.tensor([key]), "detect/crop", 6)[0].double().tolist()
        side = max(1, round(size / (low * (high / low) ** u[0])))
        wide, tall = min(side, header.width), min(side, header.height)
        left, top = int(u[1] * (header.width - wide + 1)), int(u[2] * (header.height - tall + 1))
        easy = (~boxes["difficult"]).nonzero()[:, 0]
        if u[3] < self.data.foreground_fraction and len(easy):
            labels = boxes["label"][easy]
            present = torch.unique(labels)
            same = easy[labels == present[int(u[4] * len(present))]]
            x, y = boxes["obb"][same[int(u[5] * len(same))], :2].tolist()
            # Anywhere in the crop, not in its middle: a network could learn where to look.
            left = min(max(0, int(x) - int(u[1] * wide)), header.width - wide)
            top = min(max(0, int(y) - int(u[2] * tall)), header.height - tall)
        return PixelWindow(left, top, wide, tall), size / side


def open_detection(
    data: DetectionDataConfig, path: str | Path, sensor: Sensor, seed: int, classes: tuple[str, ...] = ()
) -> DataSplits:
    """The splits of an annotated data set.

    Args:
        data: Options.
        path: COCO's file (or a folder with one), or the folder of another layout.
        sensor: What the images were taken with.
        seed: Of random decisions.
        classes: Names to insist on, in their order.

    Raises:
        ImageryError: Nothing usable; boxes that make no sense; classes that are not those of the head.
        RecipeError: Splits that are empty or overlap; no box to learn from.
    """
    path = _file_of(Path(path), data.layout)
    dataset = DetectionDataset(
        path, sensor, data.gsd, layout=data.layout, images=data.image_dir, classes=data.classes,
        invalid_boxes=data.invalid_boxes, cache=data.cache, seed=seed, offset_dn=data.offset_dn,
    )  # fmt: skip
    if classes and tuple(dataset.classes) != classes:
        raise ImageryError(
            f"{path}: its classes are {', '.join(dataset.classes)}, but the head is for "
            f"{', '.join(classes)}. data.classes states the data's in another order"
        )
    if not dataset.classes:
        raise ImageryError(f"{path}: names no class, so there is nothing to learn")
    base = path if path.is_dir() else path.parent
    names = [_below(name, base) for name in dataset.paths]
    found = data.split_indices(str(path), names, _column(data, dataset.fields, path))
    found = data.draw(found, [0] * len(names), seed)
    train, val = found["train"], found["val"]
    counts = _boxes_of(dataset, train)
    if not counts.sum():
        raise RecipeError(f"{path}: the {len(train)} training images have no box to learn from")
    zoom = min(max(1.0, data.scale_range[0]), data.scale_range[1])
    return DataSplits(
        DetectionCrops(dataset, train, data, seed),
        DetectionImages(dataset, val, zoom) if val else None,
        DetectionImages(dataset, found["test"], zoom) if found["test"] else None,
        tuple(dataset.classes),
        counts,
        _notes(dataset, {"training": train, "validation": val, "test": found["test"]}, counts),
    )


def _file_of(path: Path, layout: str) -> Path:
    """COCO's file, where a folder is named that holds it and nothing else of the kind."""
    if path.is_dir() and layout in ("auto", "coco"):
        files = sorted(path.glob("*.json"))
        if len(files) == 1:
            return files[0]
    return path


def _below(name: str, base: Path) -> str:
    path = Path(name)
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name


def _column(data: DetectionDataConfig, fields: Sequence[Mapping[str, Any]], path: Path) -> list[str] | None:
    """The split of each image, where its annotations tell."""
    known = {key for one in fields for key in one}
    name = data.split_field or next((key for key in ("split", "fold") if key in known), None)
    if name is None:
        return None
    if name not in known:
        raise RecipeError(
            f"data.split: no image in {path} has a field {name!r}.{suggest(name, sorted(known))}"
        )
    return [str(one.get(name, "")) for one in fields]


def _boxes_of(dataset: DetectionDataset, numbers: Sequence[int]) -> NDArray[np.int64]:
    """Boxes of each class that count in some images."""
    labels = [dataset.boxes[i]["label"][~dataset.boxes[i]["difficult"]] for i in numbers]
    every = torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64)
    return np.bincount(every.numpy(), minlength=len(dataset.classes)).astype(np.int64)


def _notes(
    dataset: DetectionDataset, splits: Mapping[str, Sequence[int]], counts: NDArray[np.int64]
) -> list[str]:
    """What people should know of the data."""
    notes = [f"{dataset.classes[k]} has no training box" for k in np.flatnonzero(counts == 0)]
    for name, numbers in splits.items():
        if name != "training" and numbers and not _boxes_of(dataset, numbers).sum():
            notes.append(f"the {name} split has no box: its scores are not defined")
    bare = sum(1 for i in splits["training"] if not len(dataset.boxes[i]["label"]))
    if bare:
        notes.append(f"{bare} of {len(splits['training'])} training images have no boxes: background only")
    repairs: Counter[str] = dataset.repairs
    if repairs:
        counted = ", ".join(f"{count} {kind}" for kind, count in repairs.most_common())
        notes.append(f"boxes that make no sense: {counted} (skipped.jsonl lists them)")
    return notes
