"""Opening places that several sensors see: from tables, and from the layouts that people have.

`open_pairs` finds out what a path is, reads what it says of places, grids, labels and splits, and makes the
data set of it (`swath.datasets.pairs.dataset`). A few places are looked at before it is handed out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from swath.datasets.pairs.csv_table import PairTable
from swath.datasets.pairs.dataset import PairedImageDataset
from swath.datasets.pairs.published import TOLERANCE, detect_published, read_published
from swath.datasets.pairs.readers import PairFit
from swath.errors import ImageryError, Problem, suggest
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor

__all__ = ["detect_pair_layout", "open_pairs"]

Layout = Literal["auto", "pairs", "bigearthnet", "sen12ms", "ssl4eo", "sen1floods11"]
Known = Literal["pairs", "bigearthnet", "sen12ms", "ssl4eo", "sen1floods11"]
_PROBED = 8  # places whose values are looked at when a data set is opened


def open_pairs(
    path: str | Path,
    *,
    sensors: Sequence[str | Path | Sensor],
    layout: Layout = "auto",
    split: str | None = None,
    size: int | tuple[int, int] | None = None,
    resize_mode: PairFit = "center_crop",
    cache: Literal["none", "memory"] = "none",
    seed: int = 0,
    gsd: float | Literal["relative"] | Mapping[str, float] | None = None,
    offset_dn: float | Mapping[str, float] | None = None,
    classes: Sequence[str] | None = None,
    tolerance: float | None = None,
    subset: str | None = None,
    workers: int | None = None,
) -> PairedImageDataset:
    """Open imagery of places that several sensors see.

    Args:
        path: A table of pairs (``pairs.csv``, see `swath.datasets.pairs.csv_table`, or what ``swath inspect
            --pair`` has written), or a folder with a ``pairs.csv`` or in a published layout.
        sensors: What the images were taken with, at least one: names, YAML paths or `Sensor`s.
        layout: ``pairs`` is a table; ``bigearthnet`` see `swath.datasets.bigearthnet.dataset`; ``sen12ms``,
            ``ssl4eo`` and ``sen1floods11`` see `swath.datasets.pairs.published`; ``auto`` finds out.
        split: Keep the places of this split only.
        size: Pixels (one side, or height and width) of the *first* sensor's images; None keeps what is there,
            which then has to be one size a sensor.
        resize_mode: How images get to `size`: ``center_crop`` (the other sensors are cropped to the same
            ground) or ``resize`` (all sensors to `size`; the GSD follows).
        cache: ``memory`` reads everything now, and keeps it as it is stored.
        seed: Of the samples' keys.
        gsd: Metres per pixel: one for all sensors, one a sensor, ``"relative"``, or None to measure it by the
            georeference.
        offset_dn: Sentinel-2's offset (see `swath.sensors.sentinel2_offset`), for all or by sensor name.
        classes: Order of the classes; default: the layout's, or those that occur, sorted. BigEarthNet has its
            own: give its 43 classes (`swath.datasets.bigearthnet.labels.CLASSES_43`) to get them.
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
        if resize_mode != "center_crop":
            refused.append("resize_mode")
        if refused:
            raise ImageryError(f"layout='bigearthnet': {', '.join(refused)} means nothing here; leave it out")
        pairs = _bigearthnet(path, wanted, split, size, cache, seed, classes, subset, workers)
        return _looked_at(pairs, cache)
    if subset is not None:
        raise ImageryError(f"subset={subset!r} belongs to layout='bigearthnet'; this is {kind!r}")
    options: dict[str, Any] = {
        "size": (size, size) if isinstance(size, int) else size,
        "resize_mode": resize_mode,
        "gsd": gsd,
        "offset_dn": offset_dn,
        "tolerance": TOLERANCE.get(kind, 0.5) if tolerance is None else tolerance,
        "workers": workers,
    }
    if kind == "pairs" and path.suffix.lower() in (".parquet", ".geoparquet"):
        from swath.datasets.pairs.parquet import open_pair_table

        if gsd is not None or tolerance is not None:
            raise ImageryError(f"{path}: its grids say GSD and place; leave gsd= and tolerance= out")
        pairs = open_pair_table(
            path,
            wanted,
            split=split,
            classes=classes,
            cache=cache,
            seed=seed,
            **{name: options[name] for name in ("size", "resize_mode", "offset_dn", "workers")},
        )
        return _looked_at(pairs, cache)
    if kind == "pairs":
        from swath.datasets.pairs.csv_table import read_pair_csv

        table = path / "pairs.csv" if path.is_dir() else path
        found = read_pair_csv(table, wanted)
    else:
        found = read_published(path, kind, wanted)
    return _looked_at(_pairs_of(found, wanted, split, classes, cache, seed, options), cache)


def detect_pair_layout(path: Path) -> Known:
    """What `layout="auto"` takes `path` for.

    Raises:
        ImageryError: Nothing that is known.
    """
    from swath.datasets.bigearthnet.dataset import is_bigearthnet
    from swath.datasets.pairs.parquet import is_pair_table

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
    found: PairTable,
    sensors: Sequence[Sensor],
    split: str | None,
    classes: Sequence[str] | None,
    cache: Literal["none", "memory"],
    seed: int,
    options: Mapping[str, Any],
) -> PairedImageDataset:
    """The data set of the places that a layout has found."""
    from swath.datasets.pairs.alignment import open_pair_readers
    from swath.datasets.pairs.csv_table import encode_labels

    # Before the split is chosen, so that all splits agree on the classes.
    names, labels = encode_labels(found, classes)
    keep = list(range(len(found.records)))
    if split is not None:
        splits = [place.split for place in found.records]
        keep = [i for i, name in enumerate(splits) if name == split]
        if not keep:
            known = sorted({name for name in splits if name})
            raise ImageryError(
                f"split={split!r}: no place is of it."
                + (suggest(split, known) if known else " There are no splits (column `split`).")
            )
    if not keep:
        reason = f"; the first of {len(found.problems)} problems: {found.problems[0][1]}"
        raise ImageryError("no usable place" + (reason if found.problems else " was found"))
    places = [found.records[i] for i in keep]
    readers, usable, problems = open_pair_readers(places, sensors, **options)
    kept = np.array(keep, dtype=np.int64)[usable]
    chosen = [found.records[i] for i in kept.tolist()]
    return PairedImageDataset(
        readers,
        [place.id for place in chosen],
        labels=None if labels is None else labels[kept],
        classes=names,
        splits=None if any(place.split is None for place in chosen) else [str(p.split) for p in chosen],
        groups=None if any(place.group is None for place in chosen) else [str(p.group) for p in chosen],
        cache=cache,
        seed=seed,
        problems=[*found.problems, *problems],
    )


def _bigearthnet(
    path: Path,
    sensors: Sequence[Sensor],
    split: str | None,
    size: int | tuple[int, int] | None,
    cache: Literal["none", "memory"],
    seed: int,
    classes: Sequence[str] | None,
    subset: str | None,
    workers: int | None,
) -> PairedImageDataset:
    from swath.datasets.bigearthnet.dataset import find_bigearthnet
    from swath.datasets.bigearthnet.labels import CLASSES_19, CLASSES_43

    if classes is not None and tuple(classes) not in (CLASSES_19, CLASSES_43):
        raise ImageryError(
            "classes: BigEarthNet has two nomenclatures, CLASSES_19 and CLASSES_43 of "
            "swath.datasets.bigearthnet.labels, in alphabetical order; give one, or leave it out for 19"
        )
    found = find_bigearthnet(
        path,
        sensors,
        split=split,
        subset=subset,  # type: ignore[arg-type]  # checked there
        nomenclature=43 if classes is not None and len(classes) == 43 else 19,
        workers=workers,
    )
    shape = (size, size) if isinstance(size, int) else size
    return PairedImageDataset(
        [found.reader(sensor, shape) for sensor in sensors],
        found.s2,
        labels=found.labels,
        classes=found.classes if found.labels is not None else None,
        splits=found.splits,
        groups=found.groups,
        cache=cache,
        seed=seed,
        problems=found.problems,
    )


def _looked_at(pairs: PairedImageDataset, cache: Literal["none", "memory"]) -> PairedImageDataset:
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
