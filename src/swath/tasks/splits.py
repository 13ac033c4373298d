"""Which samples a run trains on, is watched on, and is scored on.

Legend: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.collation import collate
from swath.datasets.protocol import ImageDataset, Sample
from swath.errors import ImageryError, RecipeError
from swath.keyed_random import sample_keys
from swath.objectives.protocol import ObjectiveConfig

Names = str | list[str]


@dataclass
class DataSplits:
    """Data sets of a run.

    Attributes:
        train: What is learned from, with augmentation as far as data sets do it (crops).
        val: What the best checkpoint is chosen by, or None.
        test: What the result is scored on, or None: then `val` is, which is said in the report.
        classes: Names of the classes.
        weights: Places (images or pixels) of each class in `train` [K].
        notes: What people should know of the data.
    """

    train: Any
    val: Any
    test: Any
    classes: tuple[str, ...]
    weights: NDArray[np.int64]
    notes: list[str] = field(default_factory=list)


class TaskDataConfig(ObjectiveConfig):
    """Options that the data of all tasks have in common.

    Attributes:
        gsd: Metres per pixel, ``relative``, or a column of the CSV table; left out: from the files'
            georeference, or relative where the model counts so.
        cache: ``memory`` decodes every image once.
        offset_dn: Added to stored values before scaling (Sentinel-2 files that do not say their baseline).
        train: Split to learn from. Of a CSV table: values of its column ``split`` (or ``split``); of folders:
            patterns of paths below the folder, such as ``nantes/*``. Left out: all that is not in `val` and
            `test`.
        val: Split that chooses the best checkpoint.
        test: Split that the result is scored on.
        test_fraction: Where no `test` is named and no split is called test: share of the training samples
            that is held out for it, drawn by the seed, evenly over classes; before `val_share`. Samples that
            show the same ground may then be on both sides: name splits where that can be.
        val_fraction: Where no `val` is named and no split is called val: share of the training samples that
            is held out for it, drawn by the seed, evenly over classes.
        label_fraction: Share of the training samples whose labels are used, drawn by the seed, evenly over
            classes; a larger share holds all of a smaller one's.
    """

    gsd: float | str | None = None
    cache: Literal["none", "memory"] = "none"
    offset_dn: float | None = None
    train: Names | None = None
    val: Names | None = None
    test: Names | None = None
    test_fraction: float = 0.0
    val_fraction: float = 0.0
    label_fraction: float = 1.0

    def split_indices(
        self, where: str, names: Sequence[str], column: Sequence[str] | None
    ) -> dict[str, list[int]]:
        """Positions of the samples of train, val and test.

        Args:
            where: The data, for messages.
            names: Path of each sample below the data's folder.
            column: Split of each sample, where a table tells.

        Raises:
            RecipeError: A split is empty, or two share samples.
        """
        if not 0 < self.label_fraction <= 1 or not (
            0 <= self.val_fraction < 1 and 0 <= self.test_fraction < 1
        ):
            raise RecipeError("data: labels_share is in (0, 1], val_share and test_share in [0, 1)")
        asked: dict[str, Names | None] = {"train": self.train, "val": self.val, "test": self.test}
        if column is not None:  # splits of the usual names need not be named
            usual = {"train": ["train"], "val": ["val", "valid", "validation"], "test": ["test"]}
            for split, known in usual.items():
                if asked[split] is None:
                    free = [name for name in known if name in column and name not in asked.values()]
                    asked[split] = free[0] if free else None
        found: dict[str, list[int]] = {}
        for split in ("val", "test", "train"):
            wanted = asked[split]
            if wanted is None:
                taken = {i for other in found.values() for i in other}
                found[split] = [i for i in range(len(names)) if i not in taken] if split == "train" else []
                continue
            patterns = [wanted] if isinstance(wanted, str) else wanted
            of = names if column is None else column
            found[split] = [i for i, name in enumerate(of) if any(fnmatch(name, p) for p in patterns)]
            if not found[split]:
                known = sorted(set(of))[:12]
                raise RecipeError(f"data.{split}: nothing in {where} is in {wanted!r}; there are {known}")
        for a, b in (("train", "val"), ("train", "test")):
            both = set(found[a]) & set(found[b])
            if both:
                one = names[min(both)]
                raise RecipeError(f"data.{a} and data.{b} share {len(both)} samples, such as {one}")
        return found

    def draw(
        self, splits: Mapping[str, list[int]], strata: Sequence[Any], seed: int, *, labels: bool = True
    ) -> dict[str, list[int]]:
        """Splits as of `split_indices`, with the shares of the options drawn: of the test split, then of the
        validation split, then of the labels.

        Args:
            splits: Positions of the samples of train, val and test.
            strata: What each sample of the whole data set belongs to (its class).
            seed: Of the draws.
            labels: Whether the share of the labels is drawn too; else by `labeled`, later.
        """
        train, val, test = splits["train"], splits["val"], splits["test"]

        def take(of: list[int], fraction: float, epoch: int) -> tuple[list[int], list[int]]:
            return stratified_fraction(of, [strata[i] for i in of], fraction, seed, epoch=epoch)

        if not test and self.test_fraction:
            test, train = take(train, self.test_fraction, -4)
        if not val and self.val_fraction:
            val, train = take(train, self.val_fraction, -2)
        if not train:
            raise RecipeError("data.test_fraction and data.val_fraction leave no sample to learn from")
        if labels:
            train = self.labeled(train, [strata[i] for i in train], seed)
        return {"train": train, "val": val, "test": test}

    def labeled(self, train: list[int], strata: Sequence[Any], seed: int) -> list[int]:
        """Those of the training samples whose labels are used.

        Args:
            train: Their positions in their data set.
            strata: What each of them belongs to.
            seed: Of the draw.
        """
        if self.label_fraction == 1:
            return train
        return stratified_fraction(train, strata, self.label_fraction, seed, epoch=-3)[0]


def stratified_fraction(
    positions: Sequence[int], strata: Sequence[Any], fraction: float, seed: int, *, epoch: int
) -> tuple[list[int], list[int]]:
    """A keyed share of samples, drawn evenly over strata, and the rest.

    Every stratum gives its share, rounded, and at least one sample. What is drawn depends on the seed and a
    sample's position alone, so that a larger share holds all of a smaller one's.

    Args:
        positions: The samples, as positions in their data set.
        strata: What each belongs to (its class).
        fraction: In (0, 1].
        seed: Of the draw.
        epoch: Which draw it is, of several by one seed.
    """
    keys = sample_keys(seed, epoch, torch.tensor(positions, dtype=torch.int64)).tolist()
    groups: dict[Any, list[int]] = {}
    for place in sorted(range(len(positions)), key=lambda i: keys[i]):
        groups.setdefault(strata[place], []).append(positions[place])
    drawn = {i for group in groups.values() for i in group[: max(1, round(fraction * len(group)))]}
    return [i for i in positions if i in drawn], [i for i in positions if i not in drawn]


class DatasetSubset:
    """Some samples of a data set, as a data set; `index` counts within it, keys are the whole one's."""

    def __init__(self, dataset: Any, positions: Sequence[int]) -> None:
        if not len(positions):
            raise ImageryError("a split of the data has no samples")
        self.whole: ImageDataset = dataset
        self.positions = list(positions)
        self.sensor, self.classes = dataset.sensor, dataset.classes
        self.labels = None if dataset.labels is None else dataset.labels[self.positions]
        self.paths = [dataset.paths[i] for i in self.positions]
        self.problems = dataset.problems

    def __len__(self) -> int:
        return len(self.positions)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that random decisions belong to."""
        self.whole.set_epoch(epoch)

    def __getitem__(self, index: int) -> Sample:
        return {**self.whole[self.positions[index]], "index": range(len(self))[index]}

    def get_batch(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Batch:
        """The samples at `indices` as one batch."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        whole = torch.tensor(self.positions)[rows]
        batch = self.whole.get_batch(whole)
        if len(batch["index"]) != len(rows):
            return getattr(self.whole, "collate", collate)([self[int(i)] for i in rows])
        return {**batch, "index": rows}


def strata_of(labels: NDArray[Any]) -> list[Any]:
    """What samples are drawn evenly over: their class, or their set of labels' first."""
    if labels.ndim == 1:
        return [int(label) for label in labels]
    return [int(row.argmax()) if row.any() else -1 for row in labels]


def describe_splits(splits: Mapping[str, Any]) -> str:
    """How many samples each split has."""
    return ", ".join(f"{len(split)} {name}" for name, split in splits.items() if split is not None)
