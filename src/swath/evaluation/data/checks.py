"""Input that would make every score meaningless is refused; what a reader of scores must know is said.

`check_split` looks at a `TrainTestSplit` however it was made, before anything is computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.errors import ImageryError
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset


def check_split(split: TrainTestSplit) -> list[str]:
    """Notes for the reader of scores on this split.

    Raises:
        ImageryError: A side without images, images without labels, an image twice on one side, or a train
            split of a single class.
    """
    for part in (split.train, split.test):
        if len(part.indices) == 0:
            raise ImageryError(f"there are no {part.name} images, so there is nothing to score")
        _check_labels(part)
        _check_duplicates(part)
    train, test = split.train.labels, split.test.labels
    if train.ndim != test.ndim or (train.ndim == 2 and train.shape[1] != test.shape[1]):
        raise ImageryError("the labels of bank and queries are not of one kind; open both in the same way")
    notes = _shared(split)
    if train.ndim == 2:
        return notes + _rare_labels(split, train, test)
    if len(np.unique(train)) < 2:
        raise ImageryError(
            f"all {len(train)} images of {split.train.name} are of class {_name(split, train[0])!r}; "
            "a score needs two classes at least"
        )
    return notes


def count_classes(split: TrainTestSplit) -> int:
    """Number K of classes or labels: those that the data names, or those that occur."""
    if split.train.labels.ndim == 2:
        return int(split.train.labels.shape[1])
    names = split.train.dataset.classes or []
    return len(names) or int(max(split.train.labels.max(), split.test.labels.max())) + 1


def _check_labels(part: EvalSubset) -> None:
    labels = part.labels
    if labels.ndim == 2:
        bad = ~np.isin(labels, (0, 1)).all(axis=1)
    else:
        bad = labels < 0
    if bad.any():
        first = part.paths[int(np.flatnonzero(bad)[0])]
        raise ImageryError(
            f"{int(bad.sum())} of the {len(labels)} {part.name} images have no label, such as {first}; label "
            "them, or leave them out of the split"
        )


def _check_duplicates(part: EvalSubset) -> None:
    """An image counts once. (Chips of one scene share its path; their position tells them apart.)"""
    again = [path for path, _ in _repeated(part)]
    if again:
        raise ImageryError(
            f"{len(again)} {part.name} images are listed more than once, such as {again[0]}; each counts "
            "several times then, so list every image once"
        )


def _repeated(part: EvalSubset) -> list[tuple[str, int]]:
    keys = part.indices.tolist() if _is_chips(part) else [str(Path(path)) for path in part.paths]
    values, first, counts = np.unique(np.array(keys), return_index=True, return_counts=True)
    return [(part.paths[i], int(n)) for _, i, n in zip(values, first, counts, strict=True) if n > 1]


def _shared(split: TrainTestSplit) -> list[str]:
    """A note where queries are in the train split too."""
    train, test = split.train, split.test
    if train.dataset is test.dataset:
        inside = np.isin(test.indices, train.indices)
    elif _is_chips(train) or _is_chips(test):
        return []
    else:
        known = {str(Path(path)) for path in train.paths}
        inside = np.array([str(Path(path)) in known for path in test.paths])
    if not inside.any():
        return []
    first = test.paths[int(np.flatnonzero(inside)[0])]
    return [
        f"leak: {int(inside.sum())} of the {len(inside)} queries are in the bank too, such as {first}; the "
        "scores are inflated by it"
    ]


def _rare_labels(split: TrainTestSplit, train: NDArray[Any], test: NDArray[Any]) -> list[str]:
    notes = []
    for where, labels in (("train", train), ("query", test)):
        absent = np.flatnonzero(labels.sum(axis=0) == 0)
        if len(absent):
            names = ", ".join(_name(split, label) for label in absent)
            notes.append(f"no {where} image has label {names}")
    bare = int((test.sum(axis=1) == 0).sum())
    if bare:
        notes.append(f"{bare} of the {len(test)} queries have no label at all")
    return notes


def _name(split: TrainTestSplit, label: Any) -> str:
    names = split.train.dataset.classes
    return names[int(label)] if names else f"class {int(label)}"


def _is_chips(part: EvalSubset) -> bool:
    return hasattr(part.dataset, "scenes")
