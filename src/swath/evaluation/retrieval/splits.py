"""Which places of a paired data set ask and which answer: by split, or by whole groups of places.

CSMAE's protocol asks with the split ``val`` and searches the split ``test``. Where the data has no splits,
groups (scenes, tiles) are divided by a seed; never single chips, because chips of one scene know one another.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.protocol import PairedDataset
from swath.errors import ImageryError, suggest
from swath.evaluation.measures.label_overlap import as_multi_hot

ALL = "all"  # the name that stands for every place


@dataclass(slots=True)
class RetrievalSplit:
    """Places that ask and places that answer.

    Attributes:
        dataset: With labels.
        queries: [Q] positions in it.
        gallery: [N] positions in it.
        names: What the two are called.
        origin: Where the split comes from, in words.
        notes: Worth printing beside the scores.
        exclude_same_group: Whether queries are in the archive too, and so never see the places of their own
            group (leave one group out).
    """

    dataset: PairedDataset
    queries: NDArray[np.int64]
    gallery: NDArray[np.int64]
    names: tuple[str, str]
    origin: str
    notes: list[str] = field(default_factory=list)
    exclude_same_group: bool = False

    @property
    def hash(self) -> str:
        """12 hex digits that identify who is on which side, with which labels."""
        digest = hashlib.sha256()
        labels = np.asarray(self.dataset.labels)
        for image_size in (self.queries, self.gallery):
            for name, label in sorted(
                (self.dataset.paths[i], labels[i].tolist()) for i in image_size.tolist()
            ):
                digest.update(f"{name}\t{label}\n".encode())
            digest.update(b"--\n")
        return digest.hexdigest()[:12]

    def groups(self, rows: NDArray[np.int64]) -> list[str]:
        """The group of each place; its own id where the data has no groups."""
        known = self.dataset.groups
        return [known[i] if known is not None and known[i] else self.dataset.paths[i] for i in rows.tolist()]

    def hidden(self, queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> Tensor | None:
        """[Q, E] positions in `archive` that must not answer each of `queries`; None where nothing is."""
        if not self.exclude_same_group:
            return None
        members: dict[str, list[int]] = {}
        for position, group in enumerate(self.groups(gallery)):
            members.setdefault(group, []).append(position)
        rows = [members.get(group, []) for group in self.groups(queries)]
        width = max((len(row) for row in rows), default=0)
        return torch.tensor([row + [-1] * (width - len(row)) for row in rows], dtype=torch.int64).reshape(
            len(rows), width
        )


def split_retrieval(
    dataset: PairedDataset,
    *,
    query_split: str | None = None,
    gallery_split: str | None = None,
    allow_overlap: bool = False,
    fraction: float = 0.2,
    seed: int = 0,
) -> RetrievalSplit:
    """Divide a paired data set into queries and archive.

    Args:
        dataset: With labels.
        query_split: Split of the queries, or ``all``; by default ``val`` where there are splits.
        gallery_split: Split of the archive, or ``all``; by default ``test`` where there are splits. If
            queries and archive are the same, each query searches all groups but its own.
        allow_overlap: Go on, with a note, where a group stands on both sides of the data's own splits, or
            where neither splits nor groups are known.
        fraction: Share of the groups that ask, where the data has no splits.
        seed: Of that split.

    Raises:
        ImageryError: No labels, fewer than two sensors, a split that is not there, groups on both sides,
            nothing to split by.
    """
    names = [sensor.name for sensor in dataset.sensors]
    if len(names) < 2:
        raise ImageryError(
            f"these places are seen by {', '.join(names) or 'no sensor'} only; retrieval across sensors "
            "needs two or more. Open the pairs with all their sensors (one column a sensor in pairs.csv)."
        )
    if dataset.labels is None:
        raise ImageryError(
            "these pairs have no labels, and retrieval is scored by the labels that query and answer share; "
            "add a column `class` or `labels` to the table"
        )
    as_multi_hot(dataset.labels, what="places")  # refuses places without a label
    every = np.arange(len(dataset), dtype=np.int64)
    if dataset.splits is None and query_split is None and gallery_split is None:
        return _by_group(dataset, fraction, seed, allow_overlap)
    named = (query_split or "val", gallery_split or "test")
    image_sizes = [
        _fold(dataset, name, option) for name, option in zip(named, ("queries", "gallery"), strict=True)
    ]
    if named[0] == named[1]:
        split = RetrievalSplit(
            dataset, image_sizes[0], image_sizes[1], named, f"{named[0]}: leave one group out"
        )
        split.exclude_same_group = True
        hidden = "groups" if dataset.groups is not None else "place (no groups are known)"
        split.notes.append(f"queries search the archive that they are of, without their own {hidden}")
        if len(set(split.groups(every))) < 2:
            raise ImageryError("all places are of one group, so nothing is left to answer; give the groups")
        return split
    if set(image_sizes[0].tolist()) & set(image_sizes[1].tolist()):
        raise ImageryError(
            f"queries {named[0]!r} and archive {named[1]!r} share places; name two splits, or the same twice "
            "to leave the own group out"
        )
    split = RetrievalSplit(
        dataset, image_sizes[0], image_sizes[1], named, f"splits {named[0]} and {named[1]}"
    )
    _check_groups(split, allow_overlap)
    return split


def _fold(dataset: PairedDataset, name: str, option: str) -> NDArray[np.int64]:
    """Places of a split."""
    if name == ALL:
        return np.arange(len(dataset), dtype=np.int64)
    if dataset.splits is None:
        raise ImageryError(
            f"there are no splits, so no {option} {name!r}; omit --query-split and --gallery-split for a "
            "split by group, or give both as `all` to leave each query's own group out"
        )
    rows = np.flatnonzero(np.array(dataset.splits) == name).astype(np.int64)
    if not len(rows):
        counts = Counter(dataset.splits)
        known = ", ".join(f"{split} ({count:,})" for split, count in sorted(counts.items()))
        raise ImageryError(
            f"no place is of split {name!r} ({option}); the splits are "
            f"{known}.{suggest(name, sorted(counts))} "
            "Name them with --query-split and --gallery-split."
        )
    return rows


def _by_group(dataset: PairedDataset, fraction: float, seed: int, allow_overlap: bool) -> RetrievalSplit:
    """Whole groups on either side, by a seed."""
    if dataset.groups is None and not allow_overlap:
        raise ImageryError(
            "the places have neither splits nor groups. Chips of one scene must not stand on both sides: add "
            "a column `split`, or `group` (the scene or tile of each place), to the table; if every place is "
            "a scene by itself, say so with --allow-overlap."
        )
    split = RetrievalSplit(dataset, np.arange(0), np.arange(0), ("queries", "gallery"), "")
    every = np.arange(len(dataset), dtype=np.int64)
    groups = np.array(split.groups(every))
    units = np.unique(groups)
    if len(units) < 2:
        raise ImageryError(f"all places are of one group ({units[0]!r}), which cannot be divided; add groups")
    count = min(len(units) - 1, max(1, round(fraction * len(units))))
    chosen = np.random.default_rng(seed).permutation(units)[:count]
    asks = np.isin(groups, chosen)
    split.queries, split.gallery = every[asks], every[~asks]
    kind = "groups" if dataset.groups is not None else "places"
    split.origin = f"made here: {count} of {len(units)} {kind} ask, seed {seed}"
    split.notes.append(f"the data has no splits: {count} of {len(units)} {kind} ask (seed {seed})")
    if dataset.groups is None:
        split.notes.append("no groups are known: places of one scene may stand on both sides")
    return split


def _check_groups(split: RetrievalSplit, allow_overlap: bool) -> None:
    """A group of places stands on one side only."""
    if split.dataset.groups is None:
        split.notes.append("no groups are known: places of one scene may stand on both sides")
        return
    query_sensor, gallery_sensor = split.groups(split.queries), split.groups(split.gallery)
    shared = set(query_sensor) & set(gallery_sensor)
    if not shared:
        return
    count = _count(query_sensor, shared)
    message = (
        f"{len(shared)} groups (scenes, tiles; such as {min(shared)!r}) stand on both sides of the splits; "
        f"the scores of {count:,} of {len(query_sensor):,} queries are inflated by neighbors of their "
        "own scene"
    )
    if not allow_overlap:
        raise ImageryError(
            f"{message}. Use splits by scene, or go on with --allow-overlap (as the paper's protocol on "
            "BigEarthNet v1 needs, whose splits interleave)."
        )
    split.notes.append("leak: " + message)


def _count(values: Sequence[Any], requested: set[Any]) -> int:
    return sum(value in requested for value in values)
