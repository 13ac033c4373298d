"""Images with a class for every pixel: pairs of files, or two dates and what changed between them.

Layouts of a folder, told by what is there:

=============  =============================================================================================
segmentation   ``images/`` and ``masks/`` (or ``labels/``), files of one image by their stem
change         ``A/`` or ``before/``, ``B/`` or ``after/``, and ``masks/`` (``mask/``, ``label/``), by stem
change         a folder a place, with ``date1.*``, ``date2.*`` and ``mask.*`` (OSCD, SZTAKI as laid out here)
both           a CSV table: columns ``image`` and ``mask``, or ``before``, ``after`` and ``mask``; optionally
               ``split`` and ``gsd`` (metres per pixel)
=============  =============================================================================================

In training a sample is a random crop, resized by a random zoom: its GSD follows. Else it is a whole image.
Of a few large images, a share of the labels is better drawn as ground than as images: `tile` parts them.

Legend: N images, T dates, C bands, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.collation import collate
from swath.datasets.image_reading import read_header_any, read_image_file
from swath.datasets.protocol import Epoch, Sample
from swath.errors import ImageryError, Problem
from swath.keyed_random import sample_keys, uniform
from swath.rasters.read import SceneHeader
from swath.rasters.resampling import resample
from swath.rasters.sensor_scene import OVERRIDE, match_scene_to_sensor, resolve_gsd
from swath.sensors.sensor import Sensor
from swath.tasks.change.phase_correlation import phase_correlation_shift
from swath.tasks.change.radiometric_match import match_radiometry
from swath.tasks.dense.config import SegmentationDataConfig
from swath.tasks.dense.layouts import LabeledImage, find_labeled_images, split_into_tiles
from swath.tasks.dense.losses import IGNORE
from swath.tasks.dense.masks import MaskValues, infer_mask_classes, mask_size
from swath.tasks.splits import DataSplits

Array = NDArray[Any]
T = TypeVar("T")
R = TypeVar("R")
_CHECKED = 3  # pairs whose registration is looked at
_TRUSTED = 8.0  # see `shift_between`
_LISTED = 10  # problems that an error tells


class SegmentationDataset:
    """Images with masks as a data set.

    Args:
        items: What there is.
        sensor: What the images were taken with.
        values: What the masks mean.
        data: Options.
        seed: Of random decisions.
        train: Whether samples are random crops; else whole images.
        match: Whether the later date is brought to the radiometry of the earlier one.

    Attributes:
        paths: File of each image (of its first date).
        classes: Names.
        gsds: [N] native GSD.
        crops: Samples of an image in an epoch.
        tile: Side of what a network sees at once, in pixels of what it looks at.
        zoom: At which whole images are looked at: the one nearest to 1 that training crops have.

    Raises:
        ImageryError: Sizes that differ, an unknown GSD, another sensor; names every such file.
    """

    labels = None

    def __init__(
        self,
        items: Sequence[LabeledImage],
        sensor: Sensor,
        values: MaskValues,
        data: SegmentationDataConfig,
        seed: int,
        *,
        train: bool,
        match: bool = False,
    ) -> None:
        self.items, self.sensor, self.values, self.data = list(items), sensor, values, data
        self.classes = list(values.names)
        self.seed, self.train, self.match = seed, train, match
        self.crops_per_image = data.crops_per_image if train else 1
        self.tile = data.crop_size
        self.zoom = min(max(1.0, data.scale_range[0]), data.scale_range[1])
        self.paths = [item.images[0] for item in self.items]
        self.problems: list[Problem] = []
        distinct = {(item.files, item.gsd): item for item in self.items}
        checked = dict(
            zip(distinct, map_collecting_errors(self._checked, list(distinct.values())), strict=True)
        )
        self.gsds = np.array([checked[item.files, item.gsd] for item in self.items])
        self._epoch = Epoch()
        self._cache: dict[tuple[str, ...], tuple[Array, NDArray[np.bool_], NDArray[np.uint8]]] = {}

    def __len__(self) -> int:
        return len(self.items) * self.crops_per_image

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that random crops belong to."""
        self._epoch.set(epoch)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`: image [C, H, W] or [2, C, H, W], valid and mask [H, W]; or its `problem`."""
        index = range(len(self))[index]
        number = index // self.crops_per_image
        key = sample_keys(self.seed, self._epoch.get(), torch.tensor([index]))
        try:
            image, valid, mask = self.read(number)
        except ImageryError as error:
            side = self.data.crop_size if self.train else 1
            shape = (len(self.sensor.bands), side, side)
            return {
                "index": index, "problem": (self.paths[number], str(error)), "sensor": self.sensor.name,
                "shape": shape,
            }  # fmt: skip
        gsd = float(self.gsds[number])
        if self.train:
            image, valid, mask, factor = self._cropped(image, valid, mask, key)
            gsd *= factor
        sample: Any = {
            "image": torch.from_numpy(np.ascontiguousarray(image)),
            "gsd": gsd,
            "valid": torch.from_numpy(np.ascontiguousarray(valid)),
            "mask": torch.from_numpy(np.ascontiguousarray(mask)),
            "sensor": self.sensor.name,
            "index": index,
            "key": int(key),
        }
        return sample  # type: ignore[no-any-return]

    def get_batch(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Batch:
        """The samples at `indices` as one batch; in training all have one size."""
        return collate([self[int(i)] for i in indices])

    def read(self, number: int) -> tuple[Array, NDArray[np.bool_], NDArray[np.uint8]]:
        """Image `number` as it is: [C, H, W] (or [2, C, H, W]) in the unit, valid and mask [H, W]."""
        item = self.items[number]
        if item.files not in self._cache:
            whole = self._whole(item)
            if self.data.cache != "memory":
                return _of_tile(item, *whole)
            self._cache[item.files] = whole
        return _of_tile(item, *self._cache[item.files])

    # ---- pieces

    def _whole(self, item: LabeledImage) -> tuple[Array, NDArray[np.bool_], NDArray[np.uint8]]:
        mask = self.values.read(item.mask)
        dates = [read_image_file(item.images[0], self.sensor, offset_dn=self.data.offset_dn)]
        for path in item.images[1:]:
            dates.append(self._second(item.images[0], path))
        valid = np.logical_and.reduce([v for _, v in dates])
        images = [x for x, _ in dates]
        if self.match:
            images[1] = match_radiometry(images[0], images[1], valid, self.sensor)
        image = images[0] if len(images) == 1 else np.stack(images)
        return image, valid, mask

    def _checked(self, item: LabeledImage) -> float:
        """What headers tell of an item is in order; returns its GSD."""
        header = read_header_any(item.images[0])
        size = (header.height, header.width)
        if mask_size(item.mask) != size:
            high, wide = mask_size(item.mask)
            raise ImageryError(
                f"{item.mask}: {wide} x {high} pixels, but its image {item.images[0]} has {size[1]} x "
                f"{size[0]}; they must show the same pixels"
            )
        for path in item.images:
            match_scene_to_sensor(
                read_header_any(path), self.sensor, gsd="relative", offset_dn=self.data.offset_dn
            )
        for path in item.images[1:]:
            other = read_header_any(path)
            if not same_grid(header, other) and not self.data.coregister:
                raise ImageryError(
                    f"{path}: has another grid ({other.width} x {other.height}) than {item.images[0]} "
                    f"({header.width} x {header.height}), so their pixels do not show the same ground. With "
                    "data.coregister=true it is brought onto that grid by its georeference"
                )
        stated = self.data.gsd if item.gsd is None else f"{OVERRIDE}{item.gsd}"  # of a table: of it alone
        return resolve_gsd(stated, header.gsd, item.images[0]) or float(header.gsd or 0)

    def _second(self, first: str, path: str) -> tuple[Array, NDArray[np.bool_]]:
        header, other = read_header_any(first), read_header_any(path)
        if same_grid(header, other) or not self.data.coregister:
            return read_image_file(path, self.sensor, offset_dn=self.data.offset_dn)
        from swath.geo.grid import PixelGrid
        from swath.rasters.warp import read_on_grid
        from swath.sensors.units import to_unit

        if header.crs is None or header.transform is None:
            raise ImageryError(f"{first}: has no georeference, so {path} cannot be aligned to it")
        scene = match_scene_to_sensor(other, self.sensor, gsd="relative", offset_dn=self.data.offset_dn)
        grid = PixelGrid(header.crs, header.transform, header.width, header.height)
        stored, valid = read_on_grid(scene, grid)
        in_unit = all(band.unit == "dB" for band in self.sensor.bands)
        return (stored if in_unit else to_unit(stored, self.sensor, scene.offset_dn)), valid

    def _cropped(self, image: Array, valid: Any, mask: Any, key: Tensor) -> tuple[Array, Any, Any, float]:
        """A keyed crop, resized to the recipe's size; and native pixels per new pixel."""
        size, (low, high) = self.data.crop_size, self.data.scale_range
        height, width = mask.shape
        u = uniform(key, "dense/crop", 6)[0].double().tolist()
        zoom = low * (high / low) ** u[0]
        side = min(max(1, round(size / zoom)), height, width)
        top, left = int(u[1] * (height - side + 1)), int(u[2] * (width - side + 1))
        if u[3] < self.data.foreground_fraction:
            present = [k for k in np.unique(mask) if k != IGNORE]
            if present:
                places = np.flatnonzero(mask == present[int(u[4] * len(present))])
                y, x = divmod(int(places[int(u[5] * len(places))]), width)
                # Anywhere in the crop, not in its middle: a network could learn where to look.
                top = min(max(0, y - int(u[1] * side)), height - side)
                left = min(max(0, x - int(u[2] * side)), width - side)
        rows, columns = slice(top, top + side), slice(left, left + side)
        image, valid, mask = image[..., rows, columns], valid[rows, columns], mask[rows, columns]
        if side == size:
            return image, valid, mask, 1.0
        kernel: Literal["area", "bilinear"] = "area" if size < side else "bilinear"
        span = (0.0, float(side))
        shape = image.shape
        flat, _ = resample(image.reshape(-1, side, side), valid, span, span, (size, size), kernel)
        nearest, known = resample(mask[None], valid, span, span, (size, size), "nearest")
        return flat.reshape(*shape[:-2], size, size), known, nearest[0].astype(np.uint8), side / size


def _of_tile(
    item: LabeledImage, image: Array, valid: NDArray[np.bool_], mask: NDArray[np.uint8]
) -> tuple[Array, NDArray[np.bool_], NDArray[np.uint8]]:
    return image[(..., *item.tile)], valid[item.tile], mask[item.tile]


def same_grid(a: SceneHeader, b: SceneHeader) -> bool:
    """Whether two headers state one grid; files without georeference are taken by their size alone."""
    if (a.height, a.width) != (b.height, b.width):
        return False
    if a.transform is None or b.transform is None:
        return True
    return a.crs == b.crs and bool(np.allclose(a.transform, b.transform, rtol=0, atol=1e-9))


# ---------------------------------------------------------------------------------------------------- layouts


def open_segmentation(
    data: SegmentationDataConfig,
    path: str | Path,
    sensor: Sensor,
    seed: int,
    dates: int = 1,
    classes: tuple[str, ...] = (),
    *,
    match: bool = False,
) -> DataSplits:
    """The splits of a data set of images with masks.

    Args:
        data: Options.
        path: A folder or a table, see the module.
        sensor: What the images were taken with.
        seed: Of random decisions.
        dates: 2 for change.
        classes: Names to insist on, in their order.
        match: Of two dates, whether the later is brought to the radiometry of the earlier.

    Raises:
        ImageryError: Nothing usable; files that do not belong together; a mask that means nothing.
        RecipeError: Splits that are empty or overlap.
    """
    path = Path(path)
    items = list(find_labeled_images(path, data, dates))
    if not items:
        raise ImageryError(f"{path}: no image with its mask was found; see the layouts in the documentation")
    base = path if path.is_dir() else path.parent
    names = [Path(item.images[0]).relative_to(base).as_posix() for item in items]
    column = [item.split or "" for item in items] if any(item.split for item in items) else None
    if data.colors is not None:
        values = MaskValues.of_colors(data.colors, data.ignore_colors)
    else:
        values = MaskValues(
            data.classes or infer_mask_classes([item.mask for item in items]), data.ignore_values
        )
    if classes and values.names != classes:
        raise ImageryError(
            f"{path}: its classes are {', '.join(values.names)}, but the head is for {', '.join(classes)}. "
            "data.classes states the masks' values by other names or in another order; or leave "
            "task.options.classes out"
        )
    found = data.draw(
        data.split_indices(str(path), names, column), [0] * len(items), seed, labels=data.tile is None
    )
    training = [items[i] for i in found["train"]]
    if data.tile is not None:
        parts = [(of, part) for of, item in enumerate(training) for part in split_into_tiles(item, data.tile)]
        drawn = data.labeled(list(range(len(parts))), [of for of, _ in parts], seed)
        training = [parts[i][1] for i in drawn]

    def split(chosen: Sequence[LabeledImage], crops: bool = False) -> SegmentationDataset | None:
        return (
            SegmentationDataset(chosen, sensor, values, data, seed, train=crops, match=match)
            if chosen
            else None
        )

    learned = split(training, crops=True)
    watched, tested = (split([items[i] for i in found[name]]) for name in ("val", "test"))
    assert learned is not None
    # Every mask is read now, also of the test split: a value that means nothing is not met after the
    # training. Once each, however many tiles it has.
    held = [item for one in (learned, watched, tested) if one is not None for item in one.items]
    tiles: dict[str, list[tuple[slice, slice]]] = {item.mask: [] for item in held}
    for item in learned.items:
        tiles[item.mask].append(item.tile)

    def class_counts(mask: str) -> NDArray[np.int64]:
        """How many pixels of each class are learned from."""
        classes_of = values.read(mask)
        seen = np.concatenate([classes_of[:0].ravel(), *(classes_of[tile].ravel() for tile in tiles[mask])])
        return np.bincount(seen[seen != IGNORE], minlength=len(values.names))

    counts = np.sum(map_collecting_errors(class_counts, list(tiles)), axis=0)
    notes = [f"{values.names[k]} has no training pixel" for k in np.flatnonzero(counts == 0)]
    notes += _registration(learned) if dates == 2 else []
    return DataSplits(learned, watched, tested, values.names, counts, notes)


def map_collecting_errors(function: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """What a function says of each; or one error with all of theirs, so that nobody mends files one by one.

    Raises:
        ImageryError: Of one file or of several, of which the first are listed.
    """
    found, problems = [], []
    for thing in things:
        try:
            found.append(function(thing))
        except ImageryError as error:
            problems.append(str(error))
    if not problems:
        return found
    if len(problems) == 1:
        raise ImageryError(problems[0])
    more = f"\n  ... and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    listed = "".join(f"\n  {problem}" for problem in problems[:_LISTED])
    raise ImageryError(f"{len(problems)} files are of no use:{listed}{more}")


def _registration(dataset: SegmentationDataset) -> list[str]:
    """A note for each of the first pairs whose dates are shifted by a pixel or more."""
    notes = []
    firsts = {item.files: number for number, item in reversed(list(enumerate(dataset.items)))}
    for number in sorted(firsts.values())[:_CHECKED]:
        image, _, _ = dataset.read(number)
        down, right, trust = phase_correlation_shift(image[0], image[1])
        if trust >= _TRUSTED and max(abs(down), abs(right)) >= 1:
            notes.append(
                f"{dataset.items[number].images[1]}: lies {down:+.1f} rows and {right:+.1f} columns beside "
                "its first date; shifted edges look like change"
            )
    return notes
