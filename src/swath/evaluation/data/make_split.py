"""Making splits that do not leak: by blocks of ground, by groups, or at random; written as a CSV table.

Neighboring images resemble each other, so a random split asks for places that the train split nearly holds.
Three ways, from loose to strict:

- ``random``: single images, each class in the same shares. For images that are far apart, or as the
  optimistic end of a comparison.
- ``group``: whole groups (scene, city, sequence) by a column of the table.
- ``block``: whole blocks of ground of a stated side in metres, by georeference or columns of longitude and
  latitude; images nearer than a buffer to another split are put in no split.

Units are dealt out so that every split gets its share of every class as nearly as whole units allow.

Legend: N images, U units (images, groups or blocks), K classes.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swath.datasets.csv_table import CsvManifest
from swath.datasets.protocol import ImageDataset
from swath.errors import ImageryError, suggest
from swath.files import atomic_path

By = Literal["random", "group", "block"]
NOWHERE = "buffer"  # split of images that are too near to another split
_RADIUS = 6_371_008.8  # metres: mean radius of the Earth
Degrees = NDArray[np.float64]


@dataclass(slots=True)
class SplitAssignment:
    """Who is in which split, and why.

    Attributes:
        dataset: The images.
        split_names: [N] split of each image; "buffer" for those in none.
        units: [N] the unit that each image was dealt out with.
        origin: How the split was made, in words.
        notes: What a reader should know.
    """

    dataset: ImageDataset
    split_names: list[str]
    units: list[str]
    origin: str
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, Counter[str]]:
        """Split -> class -> images."""
        names, labels = self.dataset.classes or [], self.dataset.labels
        found: dict[str, Counter[str]] = {}
        for i, split in enumerate(self.split_names):
            label = names[int(labels[i])] if labels is not None else "all"
            found.setdefault(split, Counter())[label] += 1
        return found

    def write(self, path: str | Path) -> Path:
        """A CSV table that `swath evaluate` reads: file, class, split, unit, and the data's own other
        columns.

        Files are given relative to the table where they lie below its folder. A column ``overlap_group`` of
        the data stays, so that evaluation refuses a split that parts a group.
        """
        target = Path(path)
        own = self.dataset.columns if isinstance(self.dataset, CsvManifest) else {}
        file_column = next((name for name in ("file", "path") if name in own), None)
        taken = {"file", "class", "label", "fold", "split", "split_unit", file_column}
        extra = [name for name in own if name not in taken]
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["file", "class", "split", "split_unit", *extra])
        names, labels = self.dataset.classes or [], self.dataset.labels
        for i, file in enumerate(self.dataset.paths):
            label = names[int(labels[i])] if labels is not None else ""
            row = [_relative(file, target.parent), label, self.split_names[i], self.units[i]]
            writer.writerow(row + [own[name][i] for name in extra])
        with atomic_path(target) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
        return target


def make_split(
    dataset: ImageDataset,
    *,
    strategy: By = "random",
    fractions: Mapping[str, float] | None = None,
    group_column: str | None = None,
    block_metres: float = 1000.0,
    buffer_metres: float = 0.0,
    coordinates: tuple[str, str] | None = None,
    seed: int = 0,
) -> SplitAssignment:
    """Deal images out to splits.

    Args:
        dataset: With labels, one an image.
        strategy: What is kept together.
        fractions: Split -> share of each class; default train 0.8, val 0.2. They add up to 1.
        group_column: For ``group``: column of the table; images with an empty value are units of their own.
        block_metres: For ``block``: side of a block on the ground.
        buffer_metres: For ``block``: images of different splits are at least so far apart, edge to edge;
            those of the larger split that are not are left out.
        coordinates: For ``block``: columns of longitude and latitude in degrees, where the files have no
            georeference of their own.
        seed: Of the order in which units are dealt out.

    Raises:
        ImageryError: No labels, an option of another way, unknown places, fewer units than splits, shares
            that do not add up.
    """
    requested = dict(fractions or {"train": 0.8, "val": 0.2})
    if len(requested) < 2 or min(requested.values()) <= 0 or abs(sum(requested.values()) - 1) > 1e-6:
        raise ImageryError(
            f"shares of two splits or more, above 0, that add up to 1 are needed, not {requested}"
        )
    if NOWHERE in requested:
        raise ImageryError(f"{NOWHERE!r} is what images in no split are called; name the split otherwise")
    if dataset.labels is None or np.asarray(dataset.labels).ndim != 1:
        raise ImageryError("a split in which each split has its share of each class needs one label an image")
    if strategy == "group":
        units = _groups(dataset, group_column)
        origin = f"whole groups of column {group_column}"
        rings = None
    elif strategy == "block":
        rings = _rings(dataset, coordinates)
        units = _blocks(rings, block_metres)
        origin = f"blocks of {block_metres:g} m, {buffer_metres:g} m apart"
    elif strategy == "random":
        units, rings, origin = [str(i) for i in range(len(dataset))], None, "single images"
    else:
        raise ImageryError(f"a split is made by random, group or block, not {strategy!r}")
    if strategy != "group" and group_column is not None:
        raise ImageryError("a group column means nothing unless the split is made by group")
    if strategy != "block" and (buffer_metres or coordinates):
        raise ImageryError("a buffer or coordinates mean nothing unless the split is made by block")
    labels = np.asarray(dataset.labels, dtype=np.int64)
    dealt = assign_groups(units, labels, requested, seed=seed)
    split_names = [dealt[unit] for unit in units]
    made = SplitAssignment(dataset, split_names, units, f"{origin}, seed {seed}")
    if rings is not None and buffer_metres > 0:
        split_names = made.split_names = _with_buffer(rings, split_names, requested, buffer_metres)
        lost = split_names.count(NOWHERE)
        made.notes.append(
            f"{lost:,} of {len(split_names):,} images lie within {buffer_metres:g} m of another split "
            "and are in "
            "none"
        )
    _look(made, requested, labels)
    return made


def assign_groups(
    units: Sequence[str], labels: NDArray[np.int64], fractions: Mapping[str, float], *, seed: int = 0
) -> dict[str, str]:
    """Unit -> split, such that every split gets its share of every class as nearly as whole units allow.

    The largest units go first, each to the split that lacks most of what it holds; equals are ordered by the
    seed.

    Args:
        units: [N] unit of each image.
        labels: [N] class of each image.
        fractions: Split -> share.
        seed: Of the order.

    Raises:
        ImageryError: Fewer units than splits.
    """
    names, where = np.unique(np.asarray(units, dtype=object), return_inverse=True)
    if len(names) < len(fractions):
        raise ImageryError(
            f"{len(names)} units (groups or blocks) cannot be divided among {len(fractions)} splits; "
            "choose smaller blocks or another column"
        )
    held = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(held, (where, labels), 1)
    split_names = list(fractions)
    total = held.sum(axis=0)
    goal = np.array([[fractions[split]] for split in split_names]) * total  # [splits, K]
    got = np.zeros_like(goal)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-held[order].sum(axis=1), kind="stable")]
    weight = 1 / np.maximum(total, 1)  # a class of few images counts as much as one of many
    result, empty = {}, set(range(len(split_names)))
    for turn, unit in enumerate(order.tolist()):
        candidates = list(range(len(split_names)))
        if len(order) - turn <= len(empty):
            candidates = sorted(empty)  # no split is left without a unit
        before = ((got - goal) * weight) ** 2
        after = ((got + held[unit] - goal) * weight) ** 2
        change = (after - before).sum(axis=1)
        best = min(candidates, key=lambda split: (change[split], split))
        got[best] += held[unit]
        empty.discard(best)
        result[str(names[unit])] = split_names[best]
    return result


def _groups(dataset: ImageDataset, column: str | None) -> list[str]:
    columns = dataset.columns if isinstance(dataset, CsvManifest) else {}
    if not columns:
        raise ImageryError("groups are read of a column of a CSV table; write the images into one")
    if column is None:
        raise ImageryError(f"which column holds the groups? There are {', '.join(columns)}")
    if column not in columns:
        raise ImageryError(f"there is no column {column!r}.{suggest(column, list(columns))}")
    return [value or f"image {i}" for i, value in enumerate(columns[column])]


def _rings(dataset: ImageDataset, coordinates: tuple[str, str] | None) -> list[Degrees]:
    """[corners, 2] longitude and latitude of each image; a single point where columns say the place."""
    if coordinates is not None:
        columns = dataset.columns if isinstance(dataset, CsvManifest) else {}
        for name in coordinates:
            if name not in columns:
                raise ImageryError(
                    f"there is no column {name!r}.{suggest(name, list(columns) or ['(none)'])}"
                )
        try:
            points = np.array([[float(v) for v in columns[name]] for name in coordinates]).T
        except ValueError as error:
            raise ImageryError(f"column {coordinates[0]} or {coordinates[1]}: {error}") from None
        if np.abs(points[:, 1]).max() > 90 or np.abs(points[:, 0]).max() > 360:
            raise ImageryError(
                f"columns {coordinates[0]} and {coordinates[1]} are no degrees of longitude and latitude"
            )
        return [point[None] for point in points]
    from swath.evaluation.audit.footprint_overlap import read_footprints

    found = read_footprints(dataset.paths)
    unknown = [path for path, ring in zip(dataset.paths, found, strict=True) if ring is None]
    if unknown:
        raise ImageryError(
            f"{unknown[0]}: has no georeference ({len(unknown)} of {len(found)} files), so it is in no "
            "block; name columns of longitude and latitude with --coordinates, or split by group"
        )
    return [np.array(ring) for ring in found]


def _blocks(rings: Sequence[Degrees], metres: float) -> list[str]:
    """Name of the block that each image's center lies in.

    Blocks are rows of equal height in latitude, each cut into pieces that are as long on the ground as high.
    """
    if not metres > 0:
        raise ImageryError(f"the side of a block is a positive number of metres, not {metres:g}")
    high = math.degrees(metres / _RADIUS)
    names = []
    for ring in rings:
        longitude, latitude = _center(ring)
        row = math.floor(latitude / high)
        wide = high / max(1e-6, math.cos(math.radians((row + 0.5) * high)))
        names.append(f"r{row}c{math.floor(longitude / wide)}")
    return names


def _with_buffer(
    rings: Sequence[Degrees], split_names: Sequence[str], fractions: Mapping[str, float], metres: float
) -> list[str]:
    """Splits, with those images taken out that are too near to an image of a smaller split.

    Distances are between centers on the sphere, less both images' half diagonals: never more than the true
    distance of their edges.
    """
    centers = np.array([_center(ring) for ring in rings])
    places = _on_sphere(centers)
    radius = np.array(
        [_chord(_on_sphere(ring), place).max() for ring, place in zip(rings, places, strict=True)]
    )
    rank = {split: i for i, split in enumerate(sorted(fractions, key=lambda name: (fractions[name], name)))}
    own = np.array([rank[split] for split in split_names])
    result = list(split_names)
    for i in range(len(rings)):
        near = _chord(places, places[i]) - radius - radius[i] < metres
        if bool((near & (own < own[i])).any()):
            result[i] = NOWHERE
    return result


def _center(ring: Degrees) -> tuple[float, float]:
    corners = ring[:-1] if len(ring) > 1 else ring
    longitudes = corners[:, 0]
    if np.ptp(longitudes) > 180:  # across the antimeridian
        longitudes = np.where(longitudes < 0, longitudes + 360, longitudes)
    longitude = (float(longitudes.mean()) + 180) % 360 - 180
    return longitude, float(corners[:, 1].mean())


def _on_sphere(degrees: Any) -> NDArray[np.float64]:
    """[n, 3] metres from the Earth's center."""
    longitude, latitude = np.radians(np.asarray(degrees, dtype=np.float64)).T
    flat = np.cos(latitude)
    return _RADIUS * np.stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)], axis=1)


def _chord(points: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] straight distances in metres; over tens of kilometres those on the ground."""
    return np.asarray(np.linalg.norm(points - place, axis=1))


def _look(made: SplitAssignment, fractions: Mapping[str, float], labels: NDArray[np.int64]) -> None:
    """Refuse what cannot be scored, and note where whole units missed the shares."""
    names = made.dataset.classes or []
    split_names = np.array(made.split_names)
    for split, fraction in fractions.items():
        here = labels[split_names == split]
        if not len(here):
            raise ImageryError(
                f"split {split!r} is empty; choose smaller blocks, a smaller buffer or another seed"
            )
        missing = sorted(set(labels.tolist()) - set(here.tolist()))
        if missing:
            summary = ", ".join(names[i] if names else str(i) for i in missing)
            made.notes.append(f"split {split!r} has no image of class {summary}")
        reached = len(here) / max(1, int((split_names != NOWHERE).sum()))
        if abs(reached - fraction) > 0.05:
            made.notes.append(
                f"split {split!r} holds {reached:.0%} of the images, not {fraction:.0%}: units are large"
            )


def _relative(file: str, folder: Path) -> str:
    path, base = Path(file).resolve(), folder.resolve()
    return str(path.relative_to(base)) if path.is_relative_to(base) else os.fspath(path)
