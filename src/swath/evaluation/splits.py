"""Which images are the bank (what a probe may learn from) and which the queries: read from the data, or made.

In this order: a fold column of a CSV manifest; ``train`` and ``val`` (or ``test``) folders of class folders;
else a stratified split by seed. Images that show the same ground (a group column) are kept on one side of a
split that is made here; a split of the data's own that parts them is refused, because its scores are
inflated.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.errors import ImageryError, suggest
from swath.evaluation.features import Part
from swath.imagery.datasets import CsvManifest, open_dataset
from swath.imagery.image_files import Gsd
from swath.imagery.samples import ImageDataset, Problem
from swath.imagery.sensors import Sensor

_QUERY_NAMES = ("val", "test", "valid", "validation")
_FOLD_COLUMNS = ("fold", "split")
GROUP_COLUMN = "overlap_group"


@dataclass(slots=True)
class Split:
    """Bank and queries, and what a reader of the scores should know about them.

    Attributes:
        bank: Labelled images that probes learn from.
        queries: Labelled images that are classified.
        origin: Where the split comes from, in words.
        notes: Worth printing beside the scores.
        native_metres: Median GSD of the images as they are, where a CSV table has it.
    """

    bank: Part
    queries: Part
    origin: str
    notes: list[str] = field(default_factory=list)
    native_metres: float | None = None

    @property
    def hash(self) -> str:
        """12 hex digits that identify who is on which side: folder, name and label of the files."""
        digest = hashlib.sha256()
        for part in (self.bank, self.queries):
            for path, label in sorted(zip(part.paths, part.labels.tolist(), strict=True)):
                digest.update(f"{Path(path).parent.name}/{Path(path).name}\t{label}\n".encode())
            digest.update(b"--\n")
        return digest.hexdigest()[:12]


def open_split(
    path: str | Path,
    *,
    sensor: str | Path | Sensor,
    gsd: Gsd | str = None,
    bank: str = "train",
    queries: str | None = None,
    label_column: str | None = None,
    fold_column: str | None = None,
    group_column: str | None = None,
    allow_overlap: bool = False,
    share: float = 0.2,
    seed: int = 0,
    **options: Any,
) -> Split:
    """Open labelled images and divide them.

    Args:
        path: Class folder, folder of train/val class folders, or CSV manifest.
        sensor: As for `open_dataset`.
        gsd: As for `open_dataset`.
        bank: Fold (or folder) of the bank.
        queries: Fold (or folder) of the queries; by default val or test, whichever there is.
        label_column: CSV: column of the classes; default ``class`` or ``label``.
        fold_column: CSV: column of the folds; default ``fold`` or ``split`` if there is one.
        group_column: CSV: images with the same (non-empty) value show the same ground; default
            ``overlap_group`` if there is one.
        allow_overlap: Go on, with a note, where a group stands on both sides of the data's own split.
        share: Share of queries of each class, where the data has no split of its own.
        seed: Of that split.
        options: Further ones of `open_dataset`.

    Raises:
        ImageryError: No labels, fewer than two classes, an empty side, a fold that is not there, groups on
            both sides.
    """
    path = Path(path)
    if path.is_dir() and (path / bank).is_dir():
        if label_column or fold_column or group_column:
            raise ImageryError(f"{path}: is a folder; columns can be named of CSV tables only")
        split = _folders(path, sensor, gsd, bank, queries, options)
    else:
        if path.suffix.lower() == ".csv" or label_column:
            options["label"] = label_column or _label_column(path)
        dataset = open_dataset(path, sensor=sensor, gsd=gsd, **options)
        if dataset.labels is None:
            raise ImageryError(
                f"{path}: has no labels; evaluation needs class folders, or a CSV with a class column"
            )
        columns = dataset.columns if isinstance(dataset, CsvManifest) else {}
        fold_column = _column(path, columns, fold_column, _FOLD_COLUMNS)
        group_column = _column(path, columns, group_column, (GROUP_COLUMN,))
        groups = np.array(columns[group_column] if group_column else [""] * len(dataset))
        if fold_column is not None:
            split = _by_column(path, dataset, np.array(columns[fold_column]), fold_column, bank, queries)
        elif queries is not None:
            raise ImageryError(
                f"{path}: has no fold column and no folder {bank!r}, so there are no {queries!r} images; "
                "leave --queries out for a split by seed"
            )
        else:
            chosen = _stratified(dataset, groups, share, seed)
            split = Split(
                Part(dataset, np.flatnonzero(~chosen), "bank"),
                Part(dataset, np.flatnonzero(chosen), "queries"),
                f"made here: {share:.0%} of each class are queries, seed {seed}",
                [f"the data has no split of its own: {share:.0%} of each class are queries (seed {seed})"],
            )
        _check_groups(path, split, groups, group_column, allow_overlap)
        metres = next((columns[name] for name in ("gsd_m", "gsd") if name in columns), None)
        if metres is not None:
            split.native_metres = float(np.median([float(value) for value in metres]))
    _check(path, split)
    return split


def _label_column(path: Path) -> str | None:
    """``class`` or ``label``, whichever the table has; None leaves it to `open_dataset` to complain."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError):
        return None
    return next((column for column in ("class", "label") if column in header), None)


def _folders(
    path: Path,
    sensor: str | Path | Sensor,
    gsd: Gsd | str,
    bank: str,
    queries: str | None,
    options: dict[str, Any],
) -> Split:
    there = [name for name in _QUERY_NAMES if (path / name).is_dir()]
    name = queries or (there[0] if there else None)
    if name is None or not (path / name).is_dir():
        folders = ", ".join(sorted(folder.name for folder in path.iterdir() if folder.is_dir()))
        raise ImageryError(
            f"{path}: has a folder {bank!r} but none called {queries or ' or '.join(_QUERY_NAMES)} for the "
            f"queries; there are {folders}. Name it with --queries."
        )
    first = open_dataset(path / bank, sensor=sensor, gsd=gsd, layout="class_folder", **options)
    second = open_dataset(
        path / name, sensor=sensor, gsd=gsd, layout="class_folder", classes=first.classes, **options
    )
    notes = []
    if queries is None and len(there) > 1:
        notes.append(f"of the folders {', '.join(there)}, {name} is queried; choose with --queries")
    return Split(
        Part(first, np.arange(len(first)), bank),
        Part(second, np.arange(len(second)), name),
        f"folders {bank} and {name}",
        notes,
    )


def _column(path: Path, columns: dict[str, list[str]], named: str | None, usual: Sequence[str]) -> str | None:
    if named is None:
        return next((column for column in usual if column in columns), None)
    if named not in columns:
        if not columns:
            raise ImageryError(f"{path}: is not a CSV table, so it has no column {named!r}")
        raise ImageryError(f"{path}: has no column {named!r}.{suggest(named, list(columns))}")
    return named


def _by_column(
    path: Path, dataset: ImageDataset, folds: NDArray[Any], column: str, bank: str, queries: str | None
) -> Split:
    values = sorted(set(folds.tolist()))
    name = queries or next((n for n in _QUERY_NAMES if n in values), None)
    for wanted in (bank, name):
        if wanted is None or wanted not in values:
            raise ImageryError(
                f"{path}: column {column!r} has the values {', '.join(map(repr, values[:12]))}, not "
                f"{wanted or 'val or test'!r}; name the sides with --bank and --queries"
            )
    assert name is not None
    if name == bank:
        raise ImageryError(f"{path}: bank and queries are both {bank!r}; that score says nothing")
    return Split(
        Part(dataset, np.flatnonzero(folds == bank), bank),
        Part(dataset, np.flatnonzero(folds == name), name),
        f"column {column}: {bank} and {name}",
    )


def _stratified(dataset: ImageDataset, groups: NDArray[Any], share: float, seed: int) -> NDArray[np.bool_]:
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
        count = min(len(members) - 1, max(1, round(share * len(members))))
        query_units.update(generator.permutation(members)[:count].tolist())
    return np.isin(unit, sorted(query_units))


def _check_groups(
    path: Path, split: Split, groups: NDArray[Any], column: str | None, allow_overlap: bool
) -> None:
    """A group of images of the same ground stands on one side only."""
    shared = (set(groups[split.bank.indices].tolist()) & set(groups[split.queries.indices].tolist())) - {""}
    if not shared:
        return
    count = int(np.isin(groups[split.queries.indices], sorted(shared)).sum())
    message = (
        f"{len(shared)} groups of images of the same ground ({column}, such as {min(shared)!r}) stand on "
        f"both sides of the split; the scores of {count} queries are inflated by it"
    )
    if not allow_overlap:
        raise ImageryError(f"{path}: {message}. Mend the folds, or go on with --allow-overlap.")
    split.notes.append("leak: " + message)


def _check(path: Path, split: Split) -> None:
    """What makes every score meaningless, and what a reader must know."""
    for part in (split.bank, split.queries):
        if len(part.indices) == 0:
            raise ImageryError(f"{path}: there are no {part.name} images")
    names = split.bank.dataset.classes or []
    in_bank, in_queries = set(split.bank.labels.tolist()), set(split.queries.labels.tolist())
    if "" in names:
        raise ImageryError(f"{path}: some images have an empty class; give them one, or take them out")
    if len(in_bank) < 2:
        raise ImageryError(
            f"{path}: all images of the bank are of class {names[next(iter(in_bank))]!r}; a score needs two "
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
    if split.bank.dataset is not split.queries.dataset:
        first, second = ({Path(p).resolve() for p in part.paths} for part in (split.bank, split.queries))
        both = first & second
        if both:
            raise ImageryError(f"{path}: {len(both)} files stand on both sides, such as {min(both)}")
    problems: dict[int, list[Problem]] = {
        id(part.dataset): part.dataset.problems for part in (split.bank, split.queries)
    }
    left_out = [problem for found in problems.values() for problem in found]
    if left_out:
        split.notes.append(f"{len(left_out)} files left out, the first: {left_out[0][0]}: {left_out[0][1]}")
