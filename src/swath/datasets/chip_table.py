"""Labeled chips listed in a (Geo)Parquet table: windows of scenes, each with a label.

The columns that count, as exports of Swath's own archives have them (`swath.archive.exchange.geoparquet`) and
others easily can:

- ``source`` (or ``file``): the scene, relative to the table's folder or absolute; ``files`` where a scene is
  a file a band;
- ``window``: column, row, width and height on the scene's native grid, as a struct, or a list of four
  numbers; null or absent for the whole image;
- ``label`` (or ``class``): a name, or a list of names where a chip has several.

All other columns of text or numbers are kept: splits and groups for a split.

Legend: N chips, K classes, C bands, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.collation import collate
from swath.datasets.image_files import Gsd
from swath.datasets.protocol import Epoch, Sample
from swath.errors import ImageryError, Problem, suggest
from swath.geo.grid import PixelWindow
from swath.keyed_random import sample_keys
from swath.rasters.read import read_header
from swath.rasters.sensor_scene import SensorScene, match_scene_to_sensor
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor

_SOURCES, _LABELS = ("source", "file"), ("label", "class")
_WINDOW = ("column", "row", "width", "height")
SUFFIXES = (".parquet", ".geoparquet")


def is_chip_table(path: Path) -> bool:
    """Whether a file is a Parquet table with a column of scenes and one of labels; looks at its schema."""
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return False
    names = _schema(path)
    return any(name in names for name in _SOURCES) and any(name in names for name in _LABELS)


class ChipTable:
    """The chips of such a table: a `swath.datasets.protocol.ImageDataset`.

    Args:
        path: The table.
        sensor: What the scenes were taken with.
        gsd: Metres per pixel, ``"relative"``, or None to measure it by the scenes' georeference.
        label: Column of the labels.
        size: Side in pixels (or height and width) that chips are resampled to; needed where they differ.
        seed: Of the samples' keys.
        offset_dn: See `swath.sensors.sentinel2_offset`.
        workers: Threads that read headers.

    Attributes:
        paths: [N] the scene and, in brackets, the window of each chip.
        columns: Every plain column for the chips kept: name -> list of strings.

    Raises:
        ImageryError: Not such a table; windows of several sizes; scenes that do not fit the sensor.
    """

    def __init__(
        self,
        path: str | Path,
        sensor: str | Path | Sensor,
        gsd: Gsd = None,
        *,
        label: str | None = None,
        size: int | tuple[int, int] | None = None,
        seed: int = 0,
        offset_dn: float | None = None,
        workers: int | None = None,
    ) -> None:
        path = Path(path)
        self.sensor, self.seed = get_sensor(sensor), seed
        self.size = (size, size) if isinstance(size, int) else size
        self.problems: list[Problem] = []
        self._epoch = Epoch()
        rows = _rows(path)
        names = list(rows[0])
        source = next((name for name in _SOURCES if name in names), None)
        if source is None:
            raise ImageryError(
                f"{path}: has no column source (or file) of scenes; there are {', '.join(names)}"
            )
        label = label or next((name for name in _LABELS if name in names), None)
        if label is None or label not in names:
            known = f".{suggest(label, names)}" if label else f"; there are {', '.join(names)}"
            raise ImageryError(f"{path}: has no column {label or 'label'!r} of labels{known}")
        files = {_files(path, row, source) for row in rows}
        with ThreadPoolExecutor(workers) as pool:
            opened = dict(zip(files, pool.map(lambda f: self._scene(f, gsd, offset_dn), files), strict=True))
        kept: list[dict[str, Any]] = []
        self._chips: list[tuple[SensorScene, PixelWindow]] = []
        for number, row in enumerate(rows):
            scene = opened[_files(path, row, source)]
            if isinstance(scene, str):
                self.problems.append((str(row[source]), scene))
                continue
            if row[label] is None:
                self.problems.append((str(row[source]), f"{path}, row {number}: has no label"))
                continue
            self._chips.append((scene, _window(path, number, row.get("window"), scene)))
            kept.append(row)
        if not kept:
            first = f"; the first of {len(self.problems)} problems: {self.problems[0][1]}"
            raise ImageryError(f"{path}: no usable chip{first if self.problems else ''}")
        self._agree(path)
        classes, self._labels = _labels([row[label] for row in kept])
        self.classes: list[str] | None = classes
        self.labels: NDArray[Any] | None = self._labels
        self.paths = [
            f"{scene.header.path}[{w.column},{w.row},{w.width},{w.height}]" for scene, w in self._chips
        ]
        plain = [n for n in names if all(isinstance(row[n], str | int | float | None) for row in kept)]
        self.columns = {n: ["" if row[n] is None else str(row[n]) for row in kept] for n in plain}

    def __len__(self) -> int:
        return len(self._chips)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that keys belong to."""
        self._epoch.set(epoch)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`; only ``index`` and ``problem`` in it where the chip cannot be read."""
        index = range(len(self))[index]
        scene, window = self._chips[index]
        shape = self.size or (window.height, window.width)
        resampled = None if shape == (window.height, window.width) else shape
        try:
            image, valid = scene.read(window, resampled)
        except ImageryError as error:
            problem = (self.paths[index], str(error))
            full = (len(self.sensor.bands), *shape)
            return {"index": index, "problem": problem, "sensor": self.sensor.name, "shape": full}
        label = self._labels[index]
        sample: Sample = {
            "image": torch.from_numpy(image),
            "gsd": scene.gsd(window, resampled),
            "valid": torch.from_numpy(valid),
            "sensor": self.sensor.name,
            "index": index,
            "key": int(sample_keys(self.seed, self._epoch.get(), torch.tensor([index]))),
            "label": torch.from_numpy(label.copy()) if self._labels.ndim == 2 else int(label),
            "window": (window.column, window.row, window.width, window.height),
        }
        if scene.header.time is not None:
            sample["time"] = scene.header.time.timestamp()
        return sample

    def get_batch(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Batch:
        """The samples at `indices` as one batch."""
        return collate([self[int(index)] for index in indices])

    def _scene(self, files: tuple[str, ...], gsd: Gsd, offset_dn: float | None) -> SensorScene | str:
        """The scene, or why it cannot be had; one that does not fit the sensor is an error for all."""
        try:
            header = read_header(files[0] if len(files) == 1 else list(files))
        except ImageryError as error:
            return str(error)
        return match_scene_to_sensor(header, self.sensor, gsd=gsd, offset_dn=offset_dn)

    def _agree(self, path: Path) -> None:
        if self.size is not None:
            return
        sizes = sorted({(window.height, window.width) for _, window in self._chips})
        if len(sizes) > 1:
            raise ImageryError(
                f"{path}: chips of {len(sizes)} sizes, such as {sizes[0]} and {sizes[-1]}; choose one with "
                "size= (--size)"
            )


def _schema(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise ImageryError(f"{path}: cannot be read as Parquet ({error})") from None


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    unwanted = ("geometry", "bbox", "embedding")  # large, and of no use here
    try:
        names = [name for name in pq.read_schema(path).names if name not in unwanted]
        rows: list[dict[str, Any]] = pq.read_table(path, columns=names).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ImageryError(f"{path}: cannot be read as Parquet ({error})") from None
    if not rows:
        raise ImageryError(f"{path}: has no rows")
    return rows


def _files(path: Path, row: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """The scene's files: relative to the table's folder where they lie there, else as they are."""
    named = row.get("files") or [row[source]]
    found = []
    for name in named:
        beside = path.parent / str(name)
        found.append(str(beside if beside.exists() else name))
    return tuple(found)


def _window(path: Path, number: int, value: Any, scene: SensorScene) -> PixelWindow:
    header = scene.header
    if value is None:
        return PixelWindow(0, 0, header.width, header.height)
    numbers: list[Any] = [value.get(name) for name in _WINDOW] if isinstance(value, Mapping) else list(value)
    if len(numbers) != 4 or any(not isinstance(n, int) for n in numbers):
        raise ImageryError(f"{path}, row {number}: window {value!r:.80} is not {', '.join(_WINDOW)}")
    window = PixelWindow(*numbers)
    if not (
        window.column >= 0
        and window.row >= 0
        and window.width > 0
        and window.height > 0
        and window.column + window.width <= header.width
        and window.row + window.height <= header.height
    ):
        raise ImageryError(
            f"{path}, row {number}: window {numbers} lies outside of {header.path} "
            f"({header.width} x {header.height} pixels)"
        )
    return window


def _labels(values: Sequence[Any]) -> tuple[list[str], NDArray[Any]]:
    """Class names, and [N] indices or, of lists of labels, [N, K] of 0 and 1."""
    if isinstance(values[0], list):
        classes = sorted({str(name) for names in values for name in names})
        index = {name: i for i, name in enumerate(classes)}
        multi = np.zeros((len(values), len(classes)), dtype=np.float32)
        for row, names in enumerate(values):
            multi[row, [index[str(name)] for name in names]] = 1
        return classes, multi
    classes = sorted({str(value) for value in values})
    index = {name: i for i, name in enumerate(classes)}
    return classes, np.array([index[str(value)] for value in values], dtype=np.int64)
