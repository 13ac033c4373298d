"""Data sets of places that several sensors see: co-registered pairs, triples, ...

    pairs = open_pairs("archive/pairs.csv", sensors=["sentinel1_grd", "sentinel2_l2a"], cache="memory")
    pairs[0]["sensors"]["sentinel1_grd"]["image"]           # [2, H, W] dB
    pairs.get_batch([0, 1])["sensors"]["sentinel2_l2a"]     # a batch of that sensor
    pairs.only("sentinel1_grd")                             # one sensor's view

Opened from tables and published layouts by `swath.datasets.pairs.opening`.

The sensors of a place share its footprint, not their pixel size. A sample depends on (seed, epoch, index)
only, and all its sensors have the same key.

Legend: N places, B samples, C bands, H x W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.collation import collate
from swath.datasets.memory import check_memory
from swath.datasets.pairs.csv_table import Labels
from swath.datasets.pairs.readers import PairReader, check_unit
from swath.datasets.protocol import Epoch, PairedDataset, PairedSample, Sample
from swath.errors import ImageryError, Problem, suggest
from swath.keyed_random import sample_keys
from swath.sensors.sensor import Sensor

__all__ = ["PairedDataset", "PairedImageDataset", "SingleSensorView"]

Indices = Sequence[int] | NDArray[np.int64] | Tensor


class _Pixels:
    """Every sensor's pixels of N places: read when asked for, or all in memory as they are stored."""

    def __init__(self, readers: Sequence[PairReader]) -> None:
        self.readers = {reader.sensor.name: reader for reader in readers}
        self._held: dict[str, tuple[list[NDArray[Any]], NDArray[np.bool_] | None]] = {}

    @property
    def in_memory(self) -> bool:
        """Whether everything is in memory."""
        return bool(self._held)

    def finished(self, sensor: str, place: int) -> tuple[Tensor, Tensor]:
        """Image [C, H, W] in the unit and valid [H, W] of one place."""
        if self._held:
            image, valid = self.batch(sensor, np.array([place]))
            return image[0], valid[0]
        reader = self.readers[sensor]
        groups, ok = reader.read(place)
        image = reader.finish([group[None] for group in groups], np.array([place]))[0]
        valid = torch.from_numpy(np.ascontiguousarray(ok))
        check_unit(reader.sensor, image, valid, reader.names[place])
        return image, valid

    def batch(self, sensor: str, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] and valid [B, H, W] of places in memory."""
        reader = self.readers[sensor]
        groups, valid = self._held[sensor]
        images = reader.finish([group[rows] for group in groups], rows)
        if valid is None:
            return images, torch.ones((), dtype=torch.bool).expand(len(rows), *reader.shape).clone()
        return images, torch.from_numpy(valid[rows])

    def hold(self, rows: NDArray[np.int64], ids: Sequence[str]) -> tuple[NDArray[np.int64], list[Problem]]:
        """Read everything; returns the rows that could be read, and why the others could not."""
        from concurrent.futures import ThreadPoolExecutor

        def load(place: int) -> dict[str, tuple[list[NDArray[Any]], NDArray[np.bool_]]] | ImageryError:
            try:
                loaded = {}
                for name, reader in self.readers.items():
                    groups, valid = reader.read(place)
                    image = reader.finish([group[None] for group in groups], np.array([place]))[0]
                    check_unit(reader.sensor, image, torch.from_numpy(valid), reader.names[place])
                    loaded[name] = (groups, valid)
                return loaded
            except ImageryError as error:
                return error

        held: dict[str, tuple[list[NDArray[Any]], NDArray[np.bool_]]] = {}
        count = int(rows.max()) + 1 if len(rows) else 0
        good: list[int] = []
        problems: list[Problem] = []
        with ThreadPoolExecutor() as pool:
            for row, loaded in zip(rows.tolist(), pool.map(load, rows.tolist()), strict=True):
                if isinstance(loaded, ImageryError):
                    problems.append((ids[row], str(loaded)))
                    continue
                for name, (groups, valid) in loaded.items():
                    if name not in held:  # the first one tells sizes and types
                        wanted = sum(group.nbytes for group in groups) + valid.nbytes
                        check_memory(wanted * count * len(self.readers))
                        empty = [np.zeros((count, *group.shape), group.dtype) for group in groups]
                        held[name] = (empty, np.zeros((count, *valid.shape), bool))
                    wide, seen = held[name]
                    for i, group in enumerate(groups):
                        if group.dtype != wide[i].dtype:
                            wide[i] = wide[i].astype(np.result_type(wide[i], group), copy=False)
                        wide[i][row] = group
                    seen[row] = valid
                good.append(row)
        if not good:
            raise ImageryError(f"no place could be read; the first problem is: {problems[0][1]}")
        kept = np.array(good, dtype=np.int64)
        for name, (groups, valid) in held.items():
            self._held[name] = (groups, None if bool(valid[kept].all()) else valid)
        return kept, problems


class PairedImageDataset:
    """Places seen by several sensors; see the module. Made by `open_pairs`.

    Args:
        readers: One a sensor, of the same places in the same order.
        ids: [N] a name of each place.
        labels: [N] class indices or [N, K] multi-hot.
        classes: Their names.
        splits: [N] split of each place.
        groups: [N] scene or tile of each place.
        cache: ``memory`` reads everything now, and keeps it as it is stored.
        seed: Of the samples' keys.
        problems: What was left out before.

    Attributes:
        sensors, classes, labels, paths, groups, splits, problems: As `swath.datasets.protocol.PairedDataset`.

    Raises:
        ImageryError: With ``cache="memory"``: too little memory, or nothing that can be read.
    """

    def __init__(
        self,
        readers: Sequence[PairReader],
        ids: Sequence[str],
        *,
        labels: Labels | None = None,
        classes: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        cache: Literal["none", "memory"] = "none",
        seed: int = 0,
        problems: Sequence[Problem] = (),
    ) -> None:
        if cache not in ("none", "memory"):
            raise ImageryError(f"cache={cache!r}:{suggest(str(cache), ['none', 'memory'])}")
        self.sensors: tuple[Sensor, ...] = tuple(reader.sensor for reader in readers)
        self.classes = list(classes) if classes is not None else None
        self.labels = labels
        self.paths = list(ids)
        self.splits = list(splits) if splits is not None else None
        self.groups = list(groups) if groups is not None else None
        self.problems = list(problems)
        self.seed = seed
        self._epoch = Epoch()
        self._pixels = _Pixels(readers)
        self._rows = np.arange(len(self.paths), dtype=np.int64)  # the readers' places of mine
        if cache == "memory":
            kept, unreadable = self._pixels.hold(self._rows, self.paths)
            self._keep(kept)
            self.problems += unreadable

    def __len__(self) -> int:
        return len(self._rows)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that keys belong to."""
        self._epoch.set(epoch)

    def __getitem__(self, index: int) -> PairedSample:
        """Place `index`; without `sensors`, but with a `problem`, where it cannot be read."""
        index = range(len(self))[index]
        key = int(sample_keys(self.seed, self._epoch.get(), torch.tensor([index])))
        inner: dict[str, Sample] = {}
        for sensor in self.sensors:
            sample = self._sample(sensor, index, key)
            if "problem" in sample:
                shapes = {
                    name: (len(reader.sensor.bands), *reader.shape)
                    for name, reader in self._pixels.readers.items()
                }
                return {"index": index, "problem": sample["problem"], "shapes": shapes}
            inner[sensor.name] = sample
        paired: PairedSample = {"sensors": inner, "index": index, "key": key}
        if self.labels is not None:
            paired["label"] = self._label(index)
        return paired

    def get_batch(self, indices: Indices) -> Batch:
        """The places at `indices` as one paired batch: without a loop where they are in memory."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        if not self._pixels.in_memory:
            return collate([self[int(row)] for row in rows])
        keys = sample_keys(self.seed, self._epoch.get(), rows)
        batch: Batch = {
            "sensors": {sensor.name: self._batch(sensor, rows, keys) for sensor in self.sensors},
            "index": rows,
            "key": keys,
        }
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[rows.numpy()])
        return batch

    def subset(self, indices: Indices) -> PairedImageDataset:
        """Only these places, in this order; pixels in memory are shared, indices start again at 0.

        Raises:
            IndexError: An index that is not there.
        """
        chosen = np.asarray(torch.as_tensor(indices, dtype=torch.int64))
        part = object.__new__(PairedImageDataset)
        part.__dict__.update(self.__dict__)
        part._epoch = Epoch()
        part._epoch.set(self._epoch.get())
        part.problems = list(self.problems)
        part._keep(chosen)
        return part

    def select(self, *, split: str) -> PairedImageDataset:
        """Only the places of one split.

        Raises:
            ImageryError: There are no splits, or none of this name.
        """
        if self.splits is None:
            raise ImageryError(f"split={split!r}: this data set has no splits; split it with subset(indices)")
        chosen = [i for i, name in enumerate(self.splits) if name == split]
        if not chosen:
            raise ImageryError(
                f"split={split!r}: no place is of it.{suggest(split, sorted(set(self.splits)))}"
            )
        return self.subset(chosen)

    def only(self, sensor: str) -> SingleSensorView:
        """What one sensor sees of the same places.

        Raises:
            ImageryError: Not one of the sensors.
        """
        return SingleSensorView(self, self._sensor(sensor))

    # ---- of the views below

    def _sensor(self, name: str) -> Sensor:
        names = [sensor.name for sensor in self.sensors]
        if name not in names:
            raise ImageryError(f"sensor {name!r} is not in these pairs.{suggest(name, names)}")
        return self.sensors[names.index(name)]

    def _keep(self, chosen: NDArray[np.int64]) -> None:
        self._rows = self._rows[chosen]
        picked = chosen.tolist()
        self.paths = [self.paths[i] for i in picked]
        self.labels = None if self.labels is None else self.labels[chosen]
        self.splits = None if self.splits is None else [self.splits[i] for i in picked]
        self.groups = None if self.groups is None else [self.groups[i] for i in picked]

    def _label(self, index: int) -> int | Tensor:
        assert self.labels is not None
        label = self.labels[index]
        return torch.from_numpy(label.copy()) if self.labels.ndim == 2 else int(label)

    def _sample(self, sensor: Sensor, index: int, key: int) -> Sample:
        reader, row = self._pixels.readers[sensor.name], int(self._rows[index])
        try:
            image, valid = self._pixels.finished(sensor.name, row)
        except ImageryError as error:
            return {
                "index": index,
                "problem": (self.paths[index], str(error)),
                "sensor": sensor.name,
                "shape": (len(sensor.bands), *reader.shape),
            }
        sample: Sample = {
            "image": image,
            "gsd": float(reader.gsds[row]),
            "valid": valid,
            "sensor": sensor.name,
            "index": index,
            "key": key,
        }
        if not math.isnan(time := float(reader.times[row])):
            sample["time"] = time
        return sample

    def _batch(self, sensor: Sensor, indices: Tensor, keys: Tensor) -> Batch:
        reader, rows = self._pixels.readers[sensor.name], self._rows[indices.numpy()]
        image, valid = self._pixels.batch(sensor.name, rows)
        batch: Batch = {
            "image": image,
            "gsd": torch.from_numpy(reader.gsds[rows].astype(np.float32)),
            "valid": valid,
            "sensor": sensor.name,
            "index": indices,
            "key": keys,
        }
        times = reader.times[rows]
        if not np.isnan(times).all():
            batch["time"] = torch.from_numpy(times)
        return batch


class SingleSensorView:
    """One sensor's view of pairs: an `swath.datasets.protocol.ImageDataset`.

    Attributes:
        sensor: The sensor.
        paths: [N] its file of each place, or the folder of its band files.
        places: [N] the id of each place, the same for every sensor of the pairs.
        classes, labels, groups, splits, problems: Those of the pairs.
    """

    def __init__(self, pairs: PairedImageDataset, sensor: Sensor) -> None:
        reader = pairs._pixels.readers[sensor.name]
        self.sensor = sensor
        self.classes = pairs.classes
        self.labels: Any = pairs.labels
        self.groups, self.splits, self.problems = pairs.groups, pairs.splits, pairs.problems
        self.paths = [reader.names[row] for row in pairs._rows.tolist()]
        self.places = list(pairs.paths)
        self._pairs = pairs
        self._epoch = Epoch()
        self._epoch.set(pairs._epoch.get())

    def __len__(self) -> int:
        return len(self.paths)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that keys belong to."""
        self._epoch.set(epoch)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`; only ``index`` and ``problem`` in it where the file cannot be read."""
        index = range(len(self))[index]
        key = int(sample_keys(self._pairs.seed, self._epoch.get(), torch.tensor([index])))
        sample = self._pairs._sample(self.sensor, index, key)
        if self.labels is not None and "image" in sample:
            sample["label"] = self._pairs._label(index)
        return sample

    def get_batch(self, indices: Indices) -> Batch:
        """The samples at `indices` as one batch."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        if not self._pairs._pixels.in_memory:
            return collate([self[int(row)] for row in rows])
        keys = sample_keys(self._pairs.seed, self._epoch.get(), rows)
        batch = self._pairs._batch(self.sensor, rows, keys)
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[rows.numpy()])
        return batch
