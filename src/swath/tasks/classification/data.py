"""Labeled images for classification: class folders and tables, as `swath.datasets.opening` opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from swath.datasets.opening import open_dataset
from swath.errors import ImageryError
from swath.sensors.sensor import Sensor
from swath.tasks.splits import DatasetSubset, DataSplits, TaskDataConfig, strata_of


class ClassificationDataConfig(TaskDataConfig):
    """How labeled images are read.

    Attributes:
        layout: ``auto``, ``class_folder``, ``csv`` or ``hdf5``.
        size: Side of the images in pixels, or height and width.
        resize_mode: How they get there: center_crop, random_crop or resize.
        image_root: Folder that a table's file names are relative to.
        file_column: Column of file names.
        label_column: Column of classes.
        label_separator: What separates several labels in that column.
    """

    layout: Literal["auto", "class_folder", "csv", "hdf5"] = "auto"
    size: int | tuple[int, int] | None = None
    resize_mode: Literal["center_crop", "random_crop", "resize"] | None = None
    image_root: str | None = None
    file_column: str | None = None
    label_column: str | None = None
    label_separator: str | None = None


def open_classification(
    data: ClassificationDataConfig, path: str | Path, sensor: Sensor, seed: int, classes: tuple[str, ...] = ()
) -> DataSplits:
    """The splits of a labeled data set.

    Args:
        data: Options.
        path: A folder of class folders, or a table.
        sensor: What the images were taken with.
        seed: Of random decisions.
        classes: Names to insist on, in their order.

    Raises:
        ImageryError: No labels, or nothing usable.
        RecipeError: Splits that are empty or overlap.
    """
    path = Path(path)
    wanted = {
        k: getattr(data, k)
        for k in (
            "size",
            "resize_mode",
            "image_root",
            "file_column",
            "label_column",
            "label_separator",
            "offset_dn",
        )
    }
    if path.is_dir() and data.layout != "hdf5" and (path / "index.csv").is_file():
        path = path / "index.csv"
    dataset: Any = open_dataset(
        path, sensor=sensor, gsd=data.gsd, layout=data.layout, seed=seed, cache=data.cache, **wanted
    )
    if dataset.labels is None or dataset.classes is None:
        raise ImageryError(
            f"{path}: has no labels. Classification wants one folder a class, or a CSV table with the "
            "columns file and class (data.label_column names another one, data.label_separator "
            "separates several labels)"
        )
    if classes and tuple(dataset.classes) != classes:
        raise ImageryError(
            f"{path}: its classes are {', '.join(dataset.classes)}, but the head is for "
            f"{', '.join(classes)}. Leave task.options.classes out to have those of the data"
        )
    base = path if path.is_dir() else path.parent
    names = [_below(name, base) for name in dataset.paths]
    columns = getattr(dataset, "columns", {})
    split = columns.get("split", columns.get("fold"))
    found = data.split_indices(str(path), names, split)
    found = data.draw(found, strata_of(dataset.labels), seed)
    train, val = found["train"], found["val"]
    labels = dataset.labels[train]
    count = np.bincount(labels, minlength=len(dataset.classes)) if labels.ndim == 1 else labels.sum(axis=0)
    return DataSplits(
        DatasetSubset(dataset, train),
        DatasetSubset(dataset, val) if val else None,
        DatasetSubset(dataset, found["test"]) if found["test"] else None,
        tuple(dataset.classes),
        np.asarray(count, dtype=np.int64),
        [f"{dataset.classes[k]} has no training image" for k in np.flatnonzero(np.asarray(count) == 0)],
    )


def _below(name: str, base: Path) -> str:
    path = Path(name)
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name
