"""Images in HDF5 files, as large collections are kept where a file system has trouble with a million files.

Two forms, in one file or in a folder of files:

- *stacked*: a data set [N, H, W, C] (or [N, C, H, W]; [N, H, W] of one band), the images resized to one size
  before, and perhaps a data set of N class indices beside it;
- *groups*: every image a data set of its own, [H, W, C]; the groups that they lie in are their classes.

An image is read when it is wanted: keep files in chunks of one image (``chunks=(1, H, W, C)``), or each will
cost its whole chunk. Only plain numbers in the file itself are read: links are not followed, and data sets
that refer to other files are refused. h5py is needed (``pip install '.[hdf5]'``).

Legend: N images, C bands, H x W pixels.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swath.datasets.image_files import Gsd, ImageFileDataset
from swath.errors import ImageryError, Problem
from swath.rasters.read import SceneHeader
from swath.rasters.safe_open import REAL_TYPES
from swath.rasters.sensor_scene import match_scene_to_sensor
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.sensors.units import Array, Valid, to_unit

SUFFIXES = frozenset({".h5", ".hdf5", ".he5"})
_LABELS = ("labels", "label", "targets", "y")  # what a data set of class indices is called by default
_OPEN = 16  # files kept open in a process


class _Form(NamedTuple):
    """Shape and type of an image."""

    height: int
    width: int
    bands: int
    dtype: str


class Hdf5Images(ImageFileDataset):
    """Images in HDF5 files.

    `paths` name them as ``file.h5::images[17]`` or ``file.h5::class/name``.

    Args:
        path: A file, or a folder of files.
        sensor: What the images were taken with; tells which axis holds the bands.
        gsd: As in `ImageFileDataset`; files state none.
        hdf5_group: The data set or the group that holds the images, such as ``train/images``; default: all.
        label_column: Of stacked images, the data set of class indices; default: one called labels, label,
            targets or y beside the images, if there is one.
        options: As in `ImageFileDataset`.

    Raises:
        ImageryError: h5py is not installed; a file is damaged; nothing in it is an image.
    """

    def __init__(
        self,
        path: str | Path,
        sensor: str | Path | Sensor,
        gsd: Gsd = None,
        *,
        hdf5_group: str | None = None,
        label_column: str | None = None,
        **options: Any,
    ) -> None:
        found = _Contents(get_sensor(sensor), hdf5_group, label_column)
        for file in hdf5_files(Path(path)):
            found.read_file(str(file))
        self._forms = found.forms
        problems = [*found.problems, *options.pop("problems", ())]
        if not found.paths:
            reason = f"; the first problem: {problems[0][1]}" if problems else ""
            raise ImageryError(
                f"{path}: holds no images{f' below {hdf5_group!r}' if hdf5_group else ''}{reason}"
            )
        labels, classes = found.classes()
        super().__init__(
            found.paths, sensor=sensor, gsd=gsd, labels=labels, classes=classes, problems=problems, **options
        )

    def _header(self, path: str) -> SceneHeader:
        form = self._forms[path.partition("[")[0] if path not in self._forms else path]
        if form.width * form.height > self._max_pixels:
            raise ImageryError(
                f"{path}: {form.width} x {form.height} pixels are more than the limit of {self._max_pixels:,}"
            )
        return SceneHeader(
            path, (path,), "HDF5", form.width, form.height, form.bands, form.dtype, ("",) * form.bands
        )

    def _read(self, index: int) -> tuple[Array, Valid]:
        path = self.paths[index]
        scene = match_scene_to_sensor(
            self._header(path), self.sensor, gsd="relative", offset_dn=self.offset_dn
        )
        form = self._header(path)
        stored = np.asarray(read_pixels(path))
        if stored.ndim == 2:
            stored = stored[None]
        elif _bands_last(stored.shape, len(self.sensor.bands)):
            stored = np.moveaxis(stored, -1, 0)
        if stored.shape != (form.bands, form.height, form.width):
            raise ImageryError(f"{path}: the file has changed since the data set was made")
        valid = np.ones(stored.shape[1:], dtype=np.bool_)
        if stored.dtype.kind == "f":
            valid &= np.isfinite(stored).all(axis=0)
        if scene.header.nodata is not None:
            empty = stored == scene.header.nodata
            # As in rasters: in 8 bits the value is also an ordinary dark or saturated one.
            valid &= ~(empty.all(axis=0) if stored.dtype == np.uint8 else empty.any(axis=0))
        image = to_unit(np.ascontiguousarray(stored[list(scene.bands)]), self.sensor, scene.offset_dn)
        return image, valid


def hdf5_files(path: Path) -> list[Path]:
    """The file, or the HDF5 files in the folder.

    Raises:
        ImageryError: There is none.
    """
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise ImageryError(f"{path}: no HDF5 file in it ({', '.join(sorted(SUFFIXES))})")
    return files


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 files do."""
    try:
        with path.open("rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError:
        return False


class _Contents:
    """What is found in the files: the name, form and class of each image."""

    def __init__(self, sensor: Sensor, group: str | None, label: str | None) -> None:
        self.bands = len(sensor.bands)
        self.group, self.label = group, label
        self.paths: list[str] = []
        self.forms: dict[str, _Form] = {}
        self.problems: list[Problem] = []
        self._marks: list[str | int | None] = []  # of each path: its class's name, index, or neither

    def read_file(self, file: str) -> None:
        """Add a file's images."""
        with open_hdf5(file) as handle:
            root = handle if self.group is None else handle.get(self.group)
            if root is None:
                raise ImageryError(
                    f"{file}: has no {self.group!r}; there are {', '.join(sorted(handle)[:12])}"
                )
            stacks = [one for one in _data_sets(root) if one.ndim == 4 or self._is_stack_of_one_band(one)]
            if len(stacks) > 1:
                names = ", ".join(one.name for one in stacks)
                raise ImageryError(f"{file}: holds several data sets of images ({names}); choose one: group=")
            if stacks:
                self._stacked(file, stacks[0])
            else:
                self._single(file, root)

    def _is_stack_of_one_band(self, one: Any) -> bool:
        return bool(self.bands == 1 and one.ndim == 3 and one.shape[-1] != 1)

    def _stacked(self, file: str, stack: Any) -> None:
        place = f"{file}::{stack.name.strip('/')}"
        form = self._form(stack, stack.shape[1:], place)
        if isinstance(form, str):
            raise ImageryError(form)
        labels = self._labels(file, stack)
        self.forms[place] = form
        self.paths += [f"{place}[{row}]" for row in range(len(stack))]
        self._marks += [None] * len(stack) if labels is None else labels

    def _labels(self, file: str, stack: Any) -> list[str | int | None] | None:
        beside = stack.parent
        names = (self.label,) if self.label else tuple(name for name in _LABELS if name in beside)
        if not names:
            return None
        found = beside.get(names[0], stack.file.get(names[0]))
        if found is None:
            raise ImageryError(f"{file}: has no data set {names[0]!r} of labels")
        values = np.asarray(found[()])
        if values.shape != (len(stack),) or values.dtype.kind not in "iu" or (values < 0).any():
            raise ImageryError(
                f"{file}: {names[0]} {values.shape} of {values.dtype} are not {len(stack)} class indices "
                "from 0"
            )
        return [int(value) for value in values]

    def _single(self, file: str, root: Any) -> None:
        for one in _data_sets(root):
            place = f"{file}::{one.name.strip('/')}"
            form = self._form(one, one.shape, place)
            if isinstance(form, str):
                self.problems.append((place, form))
                continue
            self.forms[place] = form
            self.paths.append(place)
            inside = one.name.removeprefix(root.name).strip("/").split("/")
            self._marks.append(inside[0] if len(inside) > 1 else None)

    def _form(self, one: Any, shape: tuple[int, ...], place: str) -> _Form | str:
        """Of an image of this shape, or why it is none."""
        if one.is_virtual or one.external:
            return f"{place}: its numbers lie in other files, which is not followed; copy them into one file"
        if one.dtype.name not in REAL_TYPES:
            return f"{place}: holds {one.dtype}, not numbers (decode compressed pictures before storing them)"
        if len(shape) == 2:
            shape = (*shape, 1)
        if len(shape) != 3 or 0 in shape:
            return f"{place}: {shape} is not the shape of an image, [H, W, {self.bands}]"
        last = _bands_last(shape, self.bands)
        height, width, bands = shape if last else (*shape[1:], shape[0])
        return _Form(height, width, bands, one.dtype.name)

    def classes(self) -> tuple[list[int] | None, list[str] | None]:
        """Class indices and names, or neither where not every image has one."""
        if not self._marks or any(mark is None for mark in self._marks):
            return None, None
        if all(isinstance(mark, int) for mark in self._marks):
            indices = [mark for mark in self._marks if isinstance(mark, int)]
            return indices, [str(index) for index in range(max(indices) + 1)]
        names = sorted({str(mark) for mark in self._marks})
        index = {name: i for i, name in enumerate(names)}
        return [index[str(mark)] for mark in self._marks], names


def _bands_last(shape: tuple[int, ...], bands: int) -> bool:
    """Whether of a shape of three axes the last holds the bands; the first only where it alone fits."""
    return shape[-1] == bands or shape[0] != bands


def _data_sets(root: Any) -> Iterator[Any]:
    """All data sets at or below `root`, each once, in the order of their names; links are not followed."""
    import h5py

    if isinstance(root, h5py.Dataset):
        yield root
        return
    names: list[str] = []
    root.visititems(lambda name, one: names.append(name) if isinstance(one, h5py.Dataset) else None)
    for name in sorted(names):
        yield root[name]


# ------------------------------------------------------------------------------------------- open files
# Handles belong to a process: they are closed before it forks, and a child opens its own.

_handles: OrderedDict[str, Any] = OrderedDict()
_lock = threading.RLock()


def read_pixels(path: str) -> NDArray[Any]:
    """The stored numbers of an image named as in `Hdf5Images.paths`.

    Raises:
        ImageryError: The file is gone or damaged.
    """
    file, _, place = path.partition("::")
    match = re.fullmatch(r"(.+)\[(\d+)\]", place)
    name, row = (match[1], int(match[2])) if match else (place, None)
    with _lock:
        handle = _handle(file)
        try:
            pixels: NDArray[Any] = handle[name][() if row is None else row]
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise ImageryError(
                f"{path}: cannot be read, the file is damaged or has changed ({error})"
            ) from None
    return pixels


class open_hdf5:  # noqa: N801 - reads as `with opened(file) as handle`
    """An open file for a short look, in this process; raises `ImageryError` where it is none."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __enter__(self) -> Any:
        self._handle = _open(self._file)
        return self._handle

    def __exit__(self, *_: object) -> None:
        self._handle.close()


def _handle(file: str) -> Any:
    if file in _handles:
        _handles.move_to_end(file)
        return _handles[file]
    while len(_handles) >= _OPEN:
        _handles.popitem(last=False)[1].close()
    _handles[file] = _open(file)
    return _handles[file]


def _open(file: str) -> Any:
    try:
        import h5py
    except ImportError:
        raise ImageryError(f"{file}: reading HDF5 needs the package h5py: pip install '.[hdf5]'") from None
    try:
        return h5py.File(file, "r")
    except OSError as error:
        if not Path(file).exists():
            raise ImageryError(f"{file}: there is no such file") from None
        raise ImageryError(f"{file}: is not a whole HDF5 file ({error}); copy it again") from None


def _close_all() -> None:
    _lock.acquire()
    while _handles:
        _handles.popitem()[1].close()


os.register_at_fork(before=_close_all, after_in_parent=_lock.release, after_in_child=_lock.release)
