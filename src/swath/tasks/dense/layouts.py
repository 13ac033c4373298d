"""Images with their masks: which files belong together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from swath.datasets.csv_table import read_csv
from swath.datasets.folders import find_images
from swath.errors import ImageryError, suggest
from swath.tasks.dense.config import SegmentationDataConfig
from swath.tasks.dense.masks import mask_size

_MASKS = ("masks", "mask", "labels", "label")


@dataclass(frozen=True)
class LabeledImage:
    """One image (or pair) and its mask: files, split and stated GSD; and rows and columns, of a tile."""

    images: tuple[str, ...]
    mask: str
    split: str | None = None
    gsd: float | None = None
    tile: tuple[slice, slice] = (slice(None), slice(None))

    @property
    def files(self) -> tuple[str, ...]:
        """What tiles of one image (or pair) share."""
        return *self.images, self.mask


def split_into_tiles(item: LabeledImage, tile: int) -> Iterator[LabeledImage]:
    """An image in tiles of nearly one size, at least `tile` pixels a side where the image has as many.

    Raises:
        ImageryError: The mask cannot be read.
    """
    height, width = mask_size(item.mask)
    rows, columns = (np.linspace(0, n, max(1, n // tile) + 1).round().astype(int) for n in (height, width))
    for top, bottom in pairwise(rows.tolist()):
        for left, right in pairwise(columns.tolist()):
            yield replace(item, tile=(slice(top, bottom), slice(left, right)))


def find_labeled_images(path: Path, data: SegmentationDataConfig, dates: int) -> Iterator[LabeledImage]:
    """Images with their masks, in a fixed order.

    Raises:
        ImageryError: The layout is not recognized, or files are missing.
    """
    if data.layout == "csv" or (data.layout == "auto" and path.suffix.lower() == ".csv"):
        yield from _from_table(path, data, dates)
        return
    if not path.is_dir():
        raise ImageryError(
            f"{path}: there is no such folder" if not path.exists() else f"{path}: is no folder"
        )
    masks = next((path / name for name in _MASKS if (path / name).is_dir()), None)
    if data.layout == "folders" or (data.layout == "auto" and masks is not None):
        names = (("images", "image"),) if dates == 1 else (BEFORE, AFTER)
        folders = [next((path / name for name in some if (path / name).is_dir()), None) for some in names]
        if masks is None or None in folders:
            wanted = "images/ and masks/" if dates == 1 else "A/, B/ and masks/"
            raise ImageryError(f"{path}: the layout `folders` wants {wanted} in it")
        stems = [{p.stem: p for p in find_images(folder)} for folder in (*folders, masks) if folder]
        for stem in sorted(stems[0]):
            lacking = [i for i, files in enumerate(stems) if stem not in files]
            if lacking:
                where = [*folders, masks][lacking[0]]
                raise ImageryError(f"{stems[0][stem]}: has no file of the same name in {where}")
            *images, mask = (str(files[stem]) for files in stems)
            yield LabeledImage(tuple(images), mask)
        return
    for place in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")):
        by_stem = {p.stem: str(p) for p in find_images(place)}
        wanted_names = ("image", "mask") if dates == 1 else ("date1", "date2", "mask")
        if "mask" in by_stem:
            lacking_names = [name for name in wanted_names if name not in by_stem]
            if lacking_names:
                raise ImageryError(f"{place}: has a mask but no {lacking_names[0]}.* beside it")
            yield LabeledImage(tuple(by_stem[name] for name in wanted_names[:-1]), by_stem["mask"])


def _from_table(path: Path, data: SegmentationDataConfig, dates: int) -> Iterator[LabeledImage]:
    header, rows = read_csv(path)
    columns = ("image", "mask") if dates == 1 else ("before", "after", "mask")
    for column in columns:
        if column not in header:
            raise ImageryError(f"{path}: has no column {column!r}.{suggest(column, header)}")
    split = next((name for name in ("split", "fold") if name in header), None)
    scale = data.gsd if isinstance(data.gsd, str) and data.gsd in header else None
    scale = scale or next((name for name in ("gsd", "gsd_m") if name in header and data.gsd is None), None)
    for line, row in rows:
        files = [str(path.parent / row[column]) for column in columns]
        for file in files:
            if not Path(file).is_file():
                raise ImageryError(f"{path}, line {line}: there is no file {file}")
        try:
            gsd = float(row[scale]) if scale else None
        except ValueError:
            raise ImageryError(f"{path}, line {line}: {scale} is {row[str(scale)]!r}, not a number") from None
        yield LabeledImage(tuple(files[:-1]), files[-1], row[split] if split else None, gsd)


BEFORE, AFTER = ("A", "before", "T1", "t1"), ("B", "after", "T2", "t2")
