"""Data sets of places that several sensors see: co-registered pairs, triples, ...

    pairs = open_pairs("archive/pairs.csv", sensors=["sentinel1_grd", "sentinel2_l2a"], cache="memory")
    pairs[0]["sensors"]["sentinel1_grd"]["image"]           # [2, H, W] dB
    pairs.get_batch([0, 1])["sensors"]["sentinel2_l2a"]     # a batch of that sensor
    pairs.only("sentinel1_grd")                             # one sensor's view

The sensors of a place share its footprint, not their pixel size. A sample depends on (seed, epoch, index)
only, and all its sensors have the same key.

Legend: N places, B samples, C bands, H x W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import ImageryError, suggest
from swath.imagery.chip import Batch
from swath.imagery.image_files import check_memory
from swath.imagery.pair_readers import PairFit, PairReader, check_unit
from swath.imagery.pair_table import Labels, Places
from swath.imagery.paired_layouts import TOLERANCE, detect_published, read_published
from swath.imagery.samples import Epoch, PairedDataset, PairedSample, Problem, Sample, collate
from swath.imagery.sensors import Sensor, get_sensor
from swath.keyed_random import sample_keys

__all__ = ["OneSensor", "PairedDataset", "Pairs", "open_pairs"]

Indices = Sequence[int] | NDArray[np.int64] | Tensor
Layout = Literal["auto", "pairs", "bigearthnet", "sen12ms", "ssl4eo", "sen1floods11"]
Known = Literal["pairs", "bigearthnet", "sen12ms", "ssl4eo", "sen1floods11"]
_PROBED = 8  # places whose values are looked at when a data set is opened


class _Pixels:
    """Every sensor's pixels of N places: read when asked for, or all in memory as they are stored."""

    def __init__(self, readers: Sequence[PairReader]) -> None:
        self.readers = {reader.sensor.name: reader for reader in readers}
        self._held: dict[str, tuple[list[NDArray[Any]], NDArray[np.bool_] | None]] = {}

    @property
    def held(self) -> bool:
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

    def batch(self, sensor: str, places: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] and valid [B, H, W] of places in memory."""
        reader = self.readers[sensor]
        groups, valid = self._held[sensor]
        images = reader.finish([group[places] for group in groups], places)
        if valid is None:
            return images, torch.ones((), dtype=torch.bool).expand(len(places), *reader.shape).clone()
        return images, torch.from_numpy(valid[places])

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


class Pairs:
    """Places seen by several sensors; see the module. Made by `open_pairs`.

    Args:
        readers: One a sensor, of the same places in the same order.
        ids: [N] a name of each place.
        labels: [N] class indices or [N, K] multi-hot.
        classes: Their names.
        folds: [N] fold of each place.
        groups: [N] scene or tile of each place.
        cache: ``memory`` reads everything now, and keeps it as it is stored.
        seed: Of the samples' keys.
        problems: What was left out before.

    Attributes:
        sensors, classes, labels, paths, groups, folds, problems: As `swath.imagery.samples.PairedDataset`.

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
        folds: Sequence[str] | None = None,
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
        self.folds = list(folds) if folds is not None else None
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
        if not self._pixels.held:
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

    def subset(self, indices: Indices) -> Pairs:
        """Only these places, in this order; pixels in memory are shared, indices start again at 0.

        Raises:
            IndexError: An index that is not there.
        """
        chosen = np.asarray(torch.as_tensor(indices, dtype=torch.int64))
        part = object.__new__(Pairs)
        part.__dict__.update(self.__dict__)
        part._epoch = Epoch()
        part._epoch.set(self._epoch.get())
        part.problems = list(self.problems)
        part._keep(chosen)
        return part

    def select(self, *, fold: str) -> Pairs:
        """Only the places of one fold.

        Raises:
            ImageryError: There are no folds, or none of this name.
        """
        if self.folds is None:
            raise ImageryError(f"fold={fold!r}: this data set has no folds; split it with subset(indices)")
        chosen = [i for i, name in enumerate(self.folds) if name == fold]
        if not chosen:
            raise ImageryError(f"fold={fold!r}: no place is of it.{suggest(fold, sorted(set(self.folds)))}")
        return self.subset(chosen)

    def only(self, sensor: str) -> OneSensor:
        """What one sensor sees of the same places.

        Raises:
            ImageryError: Not one of the sensors.
        """
        return OneSensor(self, self._sensor(sensor))

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
        self.folds = None if self.folds is None else [self.folds[i] for i in picked]
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


class OneSensor:
    """One sensor's view of pairs: an `swath.imagery.samples.ImageDataset`.

    Attributes:
        sensor: The sensor.
        paths: [N] its file of each place, or the folder of its band files.
        places: [N] the id of each place, the same for every sensor of the pairs.
        classes, labels, groups, folds, problems: Those of the pairs.
    """

    def __init__(self, pairs: Pairs, sensor: Sensor) -> None:
        reader = pairs._pixels.readers[sensor.name]
        self.sensor = sensor
        self.classes = pairs.classes
        self.labels: Any = pairs.labels
        self.groups, self.folds, self.problems = pairs.groups, pairs.folds, pairs.problems
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
        if not self._pairs._pixels.held:
            return collate([self[int(row)] for row in rows])
        keys = sample_keys(self._pairs.seed, self._epoch.get(), rows)
        batch = self._pairs._batch(self.sensor, rows, keys)
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[rows.numpy()])
        return batch


# --------------------------------------------------------------------------------------------------- opening


def open_pairs(
    path: str | Path,
    *,
    sensors: Sequence[str | Path | Sensor],
    layout: Layout = "auto",
    fold: str | None = None,
    size: int | tuple[int, int] | None = None,
    fit: PairFit = "centre_crop",
    cache: Literal["none", "memory"] = "none",
    seed: int = 0,
    gsd: float | Literal["relative"] | Mapping[str, float] | None = None,
    offset_dn: float | Mapping[str, float] | None = None,
    classes: Sequence[str] | None = None,
    tolerance: float | None = None,
    subset: str | None = None,
    workers: int | None = None,
) -> Pairs:
    """Open imagery of places that several sensors see.

    Args:
        path: A table of pairs (``pairs.csv``, see `swath.imagery.pair_table`, or what ``swath inspect
            --pair`` has written), or a folder with a ``pairs.csv`` or in a published layout.
        sensors: What the images were taken with, at least one: names, YAML paths or `Sensor`s.
        layout: ``pairs`` is a table; ``bigearthnet`` see `swath.imagery.bigearthnet`; ``sen12ms``,
            ``ssl4eo`` and ``sen1floods11`` see `swath.imagery.paired_layouts`; ``auto`` finds out.
        fold: Keep the places of this fold only.
        size: Pixels (one side, or height and width) of the *first* sensor's images; None keeps what is there,
            which then has to be one size a sensor.
        fit: How images get to `size`: ``centre_crop`` (the other sensors are cropped to the same ground) or
            ``resize`` (all sensors to `size`; the GSD follows).
        cache: ``memory`` reads everything now, and keeps it as it is stored.
        seed: Of the samples' keys.
        gsd: Metres per pixel: one for all sensors, one a sensor, ``"relative"``, or None to measure it by the
            georeference.
        offset_dn: Sentinel-2's offset (see `swath.imagery.baseline`), for all or by sensor name.
        classes: Order of the classes; default: the layout's, or those that occur, sorted. BigEarthNet has its
            own: give its 43 classes (`swath.imagery.bigearthnet_labels.CLASSES_43`) to get them.
        tolerance: How far the footprints of a pair may differ, in pixels of the coarser one; default 0.5
            (5 for ``ssl4eo``).
        subset: ``"ben14k"`` of BigEarthNet.
        workers: Threads that read headers; None for as many as there are CPUs.

    Raises:
        ImageryError: With what is wrong, where, and the fix: grids that differ, a sensor missing, bands
            absent, values of another unit, labels of another nomenclature, nothing usable.
    """
    path = Path(path)
    if not path.exists():
        raise ImageryError(f"{path}: there is no such file or folder")
    wanted = [get_sensor(sensor) for sensor in sensors]
    names = [sensor.name for sensor in wanted]
    if not names or len(set(names)) != len(names):
        raise ImageryError(f"sensors={names}: at least one, and each once")
    if layout not in get_args(Layout):
        raise ImageryError(f"layout={layout!r}:{suggest(str(layout), list(get_args(Layout)))}")
    kind: Known = detect_pair_layout(path) if layout == "auto" else layout
    if kind == "bigearthnet":
        foreign = {"gsd": gsd, "offset_dn": offset_dn, "tolerance": tolerance}
        refused = [name for name, value in foreign.items() if value is not None]
        if fit != "centre_crop":
            refused.append("fit")
        if refused:
            raise ImageryError(f"layout='bigearthnet': {', '.join(refused)} means nothing here; leave it out")
        pairs = _bigearthnet(path, wanted, fold, size, cache, seed, classes, subset, workers)
        return _looked_at(pairs, cache)
    if subset is not None:
        raise ImageryError(f"subset={subset!r} belongs to layout='bigearthnet'; this is {kind!r}")
    options: dict[str, Any] = {
        "size": (size, size) if isinstance(size, int) else size,
        "fit": fit,
        "gsd": gsd,
        "offset_dn": offset_dn,
        "tolerance": TOLERANCE.get(kind, 0.5) if tolerance is None else tolerance,
        "workers": workers,
    }
    if kind == "pairs" and path.suffix.lower() in (".parquet", ".geoparquet"):
        from swath.imagery.pair_parquet import open_pair_table

        if gsd is not None or tolerance is not None:
            raise ImageryError(f"{path}: its grids say GSD and place; leave gsd= and tolerance= out")
        pairs = open_pair_table(
            path,
            wanted,
            fold=fold,
            classes=classes,
            cache=cache,
            seed=seed,
            **{name: options[name] for name in ("size", "fit", "offset_dn", "workers")},
        )
        return _looked_at(pairs, cache)
    if kind == "pairs":
        from swath.imagery.pair_table import read_pair_csv

        table = path / "pairs.csv" if path.is_dir() else path
        found = read_pair_csv(table, wanted)
    else:
        found = read_published(path, kind, wanted)
    return _looked_at(_pairs_of(found, wanted, fold, classes, cache, seed, options), cache)


def detect_pair_layout(path: Path) -> Known:
    """What `layout="auto"` takes `path` for.

    Raises:
        ImageryError: Nothing that is known.
    """
    from swath.imagery.bigearthnet import is_bigearthnet
    from swath.imagery.pair_parquet import is_pair_table

    if is_pair_table(path):
        return "pairs"
    if (path.is_file() and path.suffix.lower() == ".csv") or (path / "pairs.csv").is_file():
        return "pairs"
    if is_bigearthnet(path):
        return "bigearthnet"
    published = detect_published(path)
    if published is not None:
        return published
    raise ImageryError(
        f"{path}: no pairs are known here. Write a table `pairs.csv` (a column `id` and one a sensor, with "
        "the files' paths), or join two folders: swath inspect --pair A B"
    )


def _pairs_of(
    found: Places,
    sensors: Sequence[Sensor],
    fold: str | None,
    classes: Sequence[str] | None,
    cache: Literal["none", "memory"],
    seed: int,
    options: Mapping[str, Any],
) -> Pairs:
    """The data set of the places that a layout has found."""
    from swath.imagery.pair_grids import scene_readers
    from swath.imagery.pair_table import encode_labels

    # Before the fold is chosen, so that all folds agree on the classes.
    names, labels = encode_labels(found, classes)
    keep = list(range(len(found.places)))
    if fold is not None:
        folds = [place.fold for place in found.places]
        keep = [i for i, name in enumerate(folds) if name == fold]
        if not keep:
            known = sorted({name for name in folds if name})
            raise ImageryError(
                f"fold={fold!r}: no place is of it."
                + (suggest(fold, known) if known else " There are no folds (column `fold`).")
            )
    if not keep:
        reason = f"; the first of {len(found.problems)} problems: {found.problems[0][1]}"
        raise ImageryError("no usable place" + (reason if found.problems else " was found"))
    places = [found.places[i] for i in keep]
    readers, usable, problems = scene_readers(places, sensors, **options)
    kept = np.array(keep, dtype=np.int64)[usable]
    chosen = [found.places[i] for i in kept.tolist()]
    return Pairs(
        readers,
        [place.id for place in chosen],
        labels=None if labels is None else labels[kept],
        classes=names,
        folds=None if any(place.fold is None for place in chosen) else [str(p.fold) for p in chosen],
        groups=None if any(place.group is None for place in chosen) else [str(p.group) for p in chosen],
        cache=cache,
        seed=seed,
        problems=[*found.problems, *problems],
    )


def _bigearthnet(
    path: Path,
    sensors: Sequence[Sensor],
    fold: str | None,
    size: int | tuple[int, int] | None,
    cache: Literal["none", "memory"],
    seed: int,
    classes: Sequence[str] | None,
    subset: str | None,
    workers: int | None,
) -> Pairs:
    from swath.imagery.bigearthnet import find_bigearthnet
    from swath.imagery.bigearthnet_labels import CLASSES_19, CLASSES_43

    if classes is not None and tuple(classes) not in (CLASSES_19, CLASSES_43):
        raise ImageryError(
            "classes: BigEarthNet has two nomenclatures, CLASSES_19 and CLASSES_43 of "
            "swath.imagery.bigearthnet_labels, in alphabetical order; give one, or leave it out for 19"
        )
    found = find_bigearthnet(
        path,
        sensors,
        fold=fold,
        subset=subset,  # type: ignore[arg-type]  # checked there
        nomenclature=43 if classes is not None and len(classes) == 43 else 19,
        workers=workers,
    )
    shape = (size, size) if isinstance(size, int) else size
    return Pairs(
        [found.reader(sensor, shape) for sensor in sensors],
        found.s2,
        labels=found.labels,
        classes=found.classes if found.labels is not None else None,
        folds=found.folds,
        groups=found.groups,
        cache=cache,
        seed=seed,
        problems=found.problems,
    )


def _looked_at(pairs: Pairs, cache: Literal["none", "memory"]) -> Pairs:
    """Look at a few places, so that a wrong unit is an error now and not a problem of every sample later.

    With everything in memory all of them have been looked at.
    """
    if cache == "memory":
        return pairs
    seen: list[Problem] = []
    for index in np.unique(np.linspace(0, len(pairs) - 1, _PROBED).astype(int)).tolist():
        sample = pairs[index]
        if "problem" not in sample:
            return pairs
        seen.append(sample["problem"])
    raise ImageryError(
        f"{seen[0][1]} (of {len(pairs)} places, none of the {len(seen)} looked at can be used)"
    )
