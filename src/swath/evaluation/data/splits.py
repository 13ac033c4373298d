"""The train split (what a probe learns from) and the queries: read from the data, or made.

In this order: a split column of a table, or the official splits of BigEarthNet; ``train`` and ``val`` (or
``test``) folders of class folders; else a stratified split by seed. Images that show the same ground (a
group column) are kept on one side of a split that is made here; a split of the data's own that parts them is
refused, because its scores are inflated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.datasets.folders import ClassFolder
from swath.datasets.image_files import Gsd
from swath.datasets.opening import open_dataset
from swath.datasets.protocol import ImageDataset
from swath.errors import ImageryError, Problem, suggest
from swath.evaluation.data.labeled import LabeledDataset, LabelKind, open_labeled
from swath.evaluation.data.subset import EvalSubset
from swath.sensors.sensor import Sensor

_QUERY_NAMES = ("val", "test", "valid", "validation")
_SPLIT_COLUMNS = ("split", "fold")
GROUP_COLUMN = "overlap_group"


@dataclass(slots=True)
class TrainTestSplit:
    """Bank and queries, and what a reader of the scores should know about them.

    Attributes:
        train: Labeled images that probes learn from.
        test: Labeled images that are classified.
        origin: Where the split comes from, in words.
        notes: Worth printing beside the scores.
        native_gsd: Median GSD of the images as they are, where a CSV table has it.
    """

    train: EvalSubset
    test: EvalSubset
    origin: str
    notes: list[str] = field(default_factory=list)
    native_gsd: float | None = None

    @property
    def hash(self) -> str:
        """12 hex digits that identify who is on which side: folder, name and label of the files."""
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            for path, label in sorted(zip(part.paths, part.labels.tolist(), strict=True)):
                digest.update(f"{Path(path).parent.name}/{Path(path).name}\t{label}\n".encode())
            digest.update(b"--\n")
        return digest.hexdigest()[:12]


def open_split(
    path: str | Path,
    *,
    sensor: str | Path | Sensor,
    gsd: Gsd | str = None,
    train_split: str = "train",
    test_split: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    labels: LabelKind | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    allow_overlap: bool = False,
    test_fraction: float = 0.2,
    seed: int = 0,
    **options: Any,
) -> TrainTestSplit:
    """Open labeled images and divide them.

    Args:
        path: Class folder, folder of train/val class folders, CSV manifest, Parquet table of chips, or
            BigEarthNet.
        sensor: As for `open_dataset`.
        gsd: As for `open_dataset`.
        train_split: Name (or folder) of the train split.
        test_split: Split (or folder) of the queries; by default val or test, whichever there is.
        label_column: Tables: column of the classes; default ``class`` or ``label``. Several with commas
            between: a column a label, 0 or 1.
        label_separator: CSV: the column holds several labels with this between.
        labels: BigEarthNet: ``multi`` (the default), or ``single`` for the places with one label only.
        split_column: Tables: column of the splits; default ``split`` or ``split`` if there is one.
        group_column: Tables: images with the same (non-empty) value show the same ground; default
            ``overlap_group`` if there is one.
        allow_overlap: Go on, with a note, where a group stands on both sides of the data's own split.
        test_fraction: Share of queries of each class, where the data has no split of its own.
        seed: Of that split.
        options: Further ones of `open_dataset`.

    Raises:
        ImageryError: No labels, fewer than two classes, an empty side, a split that is not there, groups on
            both sides.
    """
    path = Path(path)
    if path.is_dir() and (path / train_split).is_dir():
        if label_column or split_column or group_column or label_separator or labels:
            raise ImageryError(f"{path}: is a folder; columns can be named of tables only")
        split = _folders(path, sensor, gsd, train_split, test_split, options)
        _check(split, str(path))
        return split
    opened = open_labeled(
        path,
        sensor=sensor,
        gsd=gsd,
        label_column=label_column,
        label_separator=label_separator,
        labels=labels,
        **options,
    )
    if isinstance(opened.dataset, ClassFolder):
        _refuse_empty_classes(path, opened.dataset)
    return split_labeled(
        opened,
        train_split=train_split,
        test_split=test_split,
        split_column=split_column,
        group_column=group_column,
        allow_overlap=allow_overlap,
        test_fraction=test_fraction,
        seed=seed,
    )


def split_labeled(
    opened: LabeledDataset,
    *,
    train_split: str = "train",
    test_split: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    allow_overlap: bool = False,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> TrainTestSplit:
    """By the data's own splits, or else by seed; arguments and errors as for `open_split`."""
    dataset, columns, where = opened.dataset, opened.columns, opened.where
    split_column = _column(where, columns, split_column, _SPLIT_COLUMNS)
    group_column = _column(where, columns, group_column, (GROUP_COLUMN,))
    if group_column is None and split_column is None:
        group_column = opened.scene_column
    groups = np.array(columns[group_column] if group_column else [""] * len(dataset))
    if split_column is not None:
        split = _by_column(
            where, dataset, np.array(columns[split_column]), split_column, train_split, test_split
        )
    elif test_split is not None:
        raise ImageryError(
            f"{where}: has no split column and no folder {train_split!r}, so there are no "
            f"{test_split!r} images; "
            "leave --test-split out for a split by seed"
        )
    else:
        chosen, how = _drawn(dataset, groups, test_fraction, seed)
        split = TrainTestSplit(
            EvalSubset(dataset, np.flatnonzero(~chosen), "train"),
            EvalSubset(dataset, np.flatnonzero(chosen), "test"),
            f"made here: {how} are queries, seed {seed}",
            [f"the data has no split of its own: {how} are queries (seed {seed})"],
        )
    split.notes[:0] = opened.notes
    _check_groups(where, split, groups, group_column, allow_overlap)
    if group_column is not None:
        split.train, split.test = (
            replace(part, groups=groups[part.indices]) for part in (split.train, split.test)
        )
    metres = next((columns[name] for name in ("gsd_m", "gsd") if name in columns), None)
    if metres is not None:
        split.native_gsd = float(np.median([float(value) for value in metres]))
    _check(split, where)
    return split


def _folders(
    path: Path,
    sensor: str | Path | Sensor,
    gsd: Gsd | str,
    train_split: str,
    test_split: str | None,
    options: dict[str, Any],
) -> TrainTestSplit:
    there = [name for name in _QUERY_NAMES if (path / name).is_dir()]
    name = test_split or (there[0] if there else None)
    if name is None or not (path / name).is_dir():
        folders = ", ".join(sorted(folder.name for folder in path.iterdir() if folder.is_dir()))
        raise ImageryError(
            f"{path}: has a folder {train_split!r} but none called "
            f"{test_split or ' or '.join(_QUERY_NAMES)} for the "
            f"queries; there are {folders}. Name it with --test-split."
        )
    first = open_dataset(path / train_split, sensor=sensor, gsd=gsd, layout="class_folder", **options)
    _refuse_empty_classes(path / train_split, first)
    second = open_dataset(
        path / name, sensor=sensor, gsd=gsd, layout="class_folder", classes=first.classes, **options
    )
    notes = []
    if test_split is None and len(there) > 1:
        notes.append(f"of the folders {', '.join(there)}, {name} is queried; choose with --test-split")
    return TrainTestSplit(
        EvalSubset(first, np.arange(len(first)), train_split),
        EvalSubset(second, np.arange(len(second)), name),
        f"folders {train_split} and {name}",
        notes,
    )


def _refuse_empty_classes(folder: Path, dataset: ImageDataset) -> None:
    """A class folder without images is a class that went missing: without it the task is an easier one."""
    empty = [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name not in (dataset.classes or []) and path.name[0] not in "._@"
    ]
    if empty:
        raise ImageryError(
            f"{folder / empty[0]}: is a class folder without a single image ({len(empty)} such in all); put "
            "its images there, or take the folder away"
        )


def _column(
    where: str, columns: Mapping[str, list[str]], named: str | None, usual: Sequence[str]
) -> str | None:
    if named is None:
        return next((column for column in usual if column in columns), None)
    if named not in columns:
        if not columns:
            raise ImageryError(f"{where}: is not a CSV table, so it has no column {named!r}")
        raise ImageryError(f"{where}: has no column {named!r}.{suggest(named, list(columns))}")
    return named


def _by_column(
    filter: str,
    dataset: ImageDataset,
    split_names: NDArray[Any],
    column: str,
    train_split: str,
    test_split: str | None,
) -> TrainTestSplit:
    values = sorted(set(split_names.tolist()))
    name = test_split or next((n for n in _QUERY_NAMES if n in values), None)
    for requested in (train_split, name):
        if requested is None or requested not in values:
            raise ImageryError(
                f"{filter}: column {column!r} has the values {', '.join(map(repr, values[:12]))}, not "
                f"{requested or 'val or test'!r}; name the sides with --train-split and --test-split"
            )
    assert name is not None
    if name == train_split:
        raise ImageryError(f"{filter}: bank and queries are both {train_split!r}; that score says nothing")
    return TrainTestSplit(
        EvalSubset(dataset, np.flatnonzero(split_names == train_split), train_split),
        EvalSubset(dataset, np.flatnonzero(split_names == name), name),
        f"column {column}: {train_split} and {name}",
    )


def _drawn(
    dataset: ImageDataset, groups: NDArray[Any], test_fraction: float, seed: int
) -> tuple[NDArray[np.bool_], str]:
    """[N] bool, True for queries, and in words who they are."""
    if np.asarray(dataset.labels).ndim == 1:
        return _stratified(dataset, groups, test_fraction, seed), f"{test_fraction:.0%} of each class"
    # Of several labels there is no class to be fair to: whole groups are drawn.
    unit = np.array([group or f"\0{i}" for i, group in enumerate(groups.tolist())])
    members = np.unique(unit)
    if len(members) < 2:
        raise ImageryError("a single image (or scene) cannot be on both sides of a split; add images")
    count = min(len(members) - 1, max(1, round(test_fraction * len(members))))
    drawn = np.random.default_rng(seed).permutation(members)[:count]
    return np.isin(unit, drawn), f"{test_fraction:.0%} of the images" if len(members) == len(unit) else (
        f"{test_fraction:.0%} of the {len(members)} scenes"
    )


def _stratified(dataset: ImageDataset, groups: NDArray[Any], fraction: float, seed: int) -> NDArray[np.bool_]:
    """[N] bool, True for queries: `share` of each class (at least one image), whole groups."""
    labels = np.asarray(dataset.labels)
    unit = np.array([group or f"\0{i}" for i, group in enumerate(groups.tolist())])
    query_units: set[str] = set()
    generator = np.random.default_rng(seed)
    for label in np.unique(labels):
        members = np.unique(unit[labels == label])
        if len(members) < 2:
            name = dataset.classes[label] if dataset.classes else label
            raise ImageryError(
                f"class {name!r} has a single image (or group of the same ground), which cannot be on both "
                "sides of a split; add images, or leave the class out"
            )
        count = min(len(members) - 1, max(1, round(fraction * len(members))))
        query_units.update(generator.permutation(members)[:count].tolist())
    return np.isin(unit, sorted(query_units))


def _check_groups(
    where: str, split: TrainTestSplit, groups: NDArray[Any], column: str | None, allow_overlap: bool
) -> None:
    """A group of images of the same ground stands on one side only."""
    shared = (set(groups[split.train.indices].tolist()) & set(groups[split.test.indices].tolist())) - {""}
    if not shared:
        return
    count = int(np.isin(groups[split.test.indices], sorted(shared)).sum())
    message = (
        f"{len(shared)} groups of images of the same ground ({column}, such as {min(shared)!r}) stand on "
        f"both sides of the split; the scores of {count} queries are inflated by it"
    )
    if not allow_overlap:
        raise ImageryError(f"{where}: {message}. Mend the splits, or go on with --allow-overlap.")
    split.notes.append("leak: " + message)


def _check(split: TrainTestSplit, where: str) -> None:
    """What makes every score meaningless, and what a reader must know."""
    for part in (split.train, split.test):
        if len(part.indices) == 0:
            raise ImageryError(f"{where}: there are no {part.name} images")
    names = split.train.dataset.classes or []
    if split.train.labels.ndim == 2:
        _check_several(split, where, names)
        return
    in_bank, in_queries = set(split.train.labels.tolist()), set(split.test.labels.tolist())
    if "" in names:
        blank = _of_class(split, names.index(""))
        raise ImageryError(
            f"{where}: {len(blank)} images have an empty class, such as {blank[0]}; label them, or take "
            "their rows out"
        )
    if len(in_bank) < 2:
        raise ImageryError(
            f"{where}: all images of the bank are of class {names[next(iter(in_bank))]!r}; a score needs two "
            "classes at least"
        )
    only_queries = sorted(in_queries - in_bank)
    if only_queries:
        split.notes.append(
            f"no bank image of class {', '.join(names[i] for i in only_queries)}: its queries cannot be right"
        )
    only_bank = sorted(in_bank - in_queries)
    if only_bank:
        split.notes.append(f"no query of class {', '.join(names[i] for i in only_bank)}")
    if split.train.dataset is not split.test.dataset:
        first, second = ({Path(p).resolve() for p in part.paths} for part in (split.train, split.test))
        both = first & second
        if both:
            raise ImageryError(f"{where}: {len(both)} files stand on both sides, such as {min(both)}")
    _left_out(split, where)


def _of_class(split: TrainTestSplit, label: int) -> list[str]:
    """Files of that class, of all splits."""
    datasets = dict.fromkeys([split.train.dataset, split.test.dataset])
    return [d.paths[i] for d in datasets for i in np.flatnonzero(np.asarray(d.labels) == label).tolist()]


def _check_several(split: TrainTestSplit, where: str, names: Sequence[str]) -> None:
    """The same for images of several labels each."""
    in_bank, in_queries = split.train.labels.any(axis=0), split.test.labels.any(axis=0)
    if not in_bank.any():
        raise ImageryError(f"{where}: no image of the bank has any label")
    if not in_queries.any():
        raise ImageryError(f"{where}: none of the queries has any label")
    for title, absent in (("no bank image with label", ~in_bank), ("no query with label", ~in_queries)):
        if absent.any():
            split.notes.append(f"{title} {', '.join(names[i] for i in np.flatnonzero(absent).tolist())}")
    _left_out(split, where)


def _left_out(split: TrainTestSplit, where: str) -> None:
    """Damaged files are left out with a note; a split that names files which are not there is refused."""
    problems: dict[int, list[Problem]] = {
        id(part.dataset): part.dataset.problems for part in (split.train, split.test)
    }
    left_out = [problem for found in problems.values() for problem in found]
    absent = [path for path, _ in left_out if not Path(path).exists()]
    if absent:
        raise ImageryError(
            f"{where}: names {len(absent)} files that are not there, such as {absent[0]}. A score without "
            "them would be that of another split: complete the data, or take their rows out"
        )
    if left_out:
        split.notes.append(f"{len(left_out)} files left out, the first: {left_out[0][0]}: {left_out[0][1]}")
