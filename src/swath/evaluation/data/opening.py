"""Whatever a user names as labeled data, opened and divided: the same for every verb and for suites.

    scenes/index.csv          a path: class folders, tables, BigEarthNet (see `labeled` beside this)
    eurosat                   a set known by name, looked for below --data-root (`swath datasets list`)
    torchgeo:EuroSAT          a classification set of TorchGeo, below --data-root

A path that is there comes first. A known set is opened with the sensor that it was taken with; a model that
knows other bands of the same satellite takes its own from it by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from swath.datasets.benchmarks.catalog import LocalBenchmark, get_benchmark, is_benchmark, list_benchmarks
from swath.datasets.csv_table import read_csv
from swath.datasets.image_files import Gsd, ImageFileDataset
from swath.datasets.protocol import ImageDataset
from swath.datasets.sensor_view import SensorView
from swath.datasets.torchgeo import PREFIX, open_torchgeo, sensor_of_torchgeo
from swath.errors import ImageryError, suggest
from swath.evaluation.data.labeled import LabeledDataset
from swath.evaluation.data.splits import TrainTestSplit, open_split, split_labeled
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.protocol import GsdMode
from swath.rasters.sensor_scene import OVERRIDE
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor

__all__ = ["is_benchmark_name", "locate_dataset", "native_sensor", "open_eval_data"]

_TABLE_OPTIONS = ("label_column", "label_separator", "labels", "split_column", "group_column", "filter")


def is_benchmark_name(text: str | Path) -> bool:
    """Whether this is the name of a set and no path that is there."""
    return not Path(text).exists() and (str(text).startswith(PREFIX) or is_benchmark(str(text)))


def open_eval_data(
    text: str | Path,
    *,
    sensor: str | Sensor,
    root: str | Path | None = None,
    gsd: Gsd | str = None,
    gsd_mode: GsdMode | None = None,
    train_split: str = "train",
    test_split: str | None = None,
    size: int | None = None,
    allow_overlap: bool = False,
    test_fraction: float | None = None,
    seed: int = 0,
    offset_dn: float | None = None,
    **options: Any,
) -> TrainTestSplit:
    """Open labeled data and divide it.

    Args:
        text: See the module.
        sensor: What the images have to be for whoever looks at them.
        root: Folder of data sets, for names.
        gsd: Metres per pixel, a column, or ``"relative"``; None for what the data says.
        gsd_mode: How scale is given; ``relative`` is the same as gsd="relative". None where nobody looks
            at scale.
        train_split: Name of the train split.
        test_split: Split of the queries.
        size: Side that images are brought to first; known sets have their own.
        allow_overlap: See `open_split`.
        test_fraction: Share of queries where a split has to be made; default 0.2, or as usual for a known
            set.
        seed: Of that split.
        offset_dn: See `swath.sensors.sentinel2_offset`.
        options: Those of tables, see `open_split`.

    Raises:
        ImageryError: Not there, with where it can be had; or as `open_split`.
    """
    if gsd_mode == "relative":
        gsd = "relative"
    if not is_benchmark_name(text):
        return _of_path(
            Path(text), sensor=sensor, gsd=gsd, train_split=train_split, test_split=test_split, size=size,
            seed=seed, test_fraction=0.2 if test_fraction is None else test_fraction,
            allow_overlap=allow_overlap, offset_dn=offset_dn, blind=gsd_mode is None, **options,
        )  # fmt: skip
    name = str(text)
    for option in _TABLE_OPTIONS:
        if options.get(option) is not None:
            raise ImageryError(f"{name}: is a set known by name, where {option}= means nothing; leave it out")
    if root is None:
        raise ImageryError(
            f"{name}: is a set known by name; say below which folder it lies (--data-root DIR)"
        )
    requested = get_sensor(sensor)
    if name.startswith(PREFIX):
        if gsd is None and gsd_mode is None:
            gsd = "relative"
        return _torchgeo(name, Path(root), requested, gsd, train_split, test_split, test_fraction, seed)
    found = get_benchmark(name).find(root)
    if found.has_splits:
        return _by_folders(found, requested, gsd, gsd_mode, train_split, test_split, size, seed)
    opened = open_benchmark(
        found, requested, gsd, size=size, seed=seed, offset_dn=offset_dn, blind=gsd_mode is None
    )
    return split_labeled(
        opened,
        train_split=train_split,
        test_split=test_split,
        allow_overlap=allow_overlap,
        test_fraction=found.benchmark.split.test_fraction if test_fraction is None else test_fraction,
        seed=seed,
    )


def locate_dataset(text: str | Path, root: str | Path | None = None) -> Path:
    """Where the data lies.

    Raises:
        SwathError: It is not there; says where it can be had.
    """
    name = str(text)
    if not is_benchmark_name(text):
        if not Path(text).exists():
            raise ImageryError(f"{text}: there is no such file or folder")
        return Path(text)
    if root is None:
        raise ImageryError(
            f"{name}: is a set known by name; say below which folder it lies (--data-root DIR)"
        )
    if name.startswith(PREFIX):
        open_torchgeo(name, root, gsd="relative")
        return Path(root)
    return get_benchmark(name).find(root).folder


def native_sensor(text: str | Path) -> str | None:
    """What the images of a set known by name were taken with; None for paths, which do not say."""
    if not is_benchmark_name(text):
        return None
    name = str(text)
    return sensor_of_torchgeo(name) if name.startswith(PREFIX) else get_benchmark(name).sensor


def open_benchmark(
    local: LocalBenchmark,
    sensor: Sensor,
    gsd: Gsd | str = None,
    *,
    folder: str = "",
    size: int | None = None,
    seed: int = 0,
    offset_dn: float | None = None,
    blind: bool = False,
) -> LabeledDataset:
    """The images of a known set (of one of its split folders), all of one size, seen as `sensor`."""
    known, base = local.benchmark, local.folder / folder
    own = get_sensor(known.sensor)
    notes = list(local.notes)
    if gsd is None:
        if blind:
            gsd = "relative"
        elif known.assumed_gsd is None:
            raise ImageryError(
                f"{known.name}: nothing says the GSD of its images; state one (--gsd 0.5), or tell the model "
                "scale relative to them (--gsd-mode relative)"
            )
        else:
            gsd = f"{OVERRIDE}{known.assumed_gsd}"  # as published, whatever the files say
            if known.gsd is None:
                low, high = known.gsd_range or (0, 0)
                notes.append(
                    f"the images' GSD varies from {low:g} to {high:g} m and no file says how: "
                    f"{known.assumed_gsd:.3g} m is assumed for all"
                )
    index = {name: i for i, name in enumerate(known.classes)}
    listed: list[tuple[str, int]] = []
    for name, label in sorted(local.folders.items()):
        files = (path for path in (base / name).iterdir() if _is_image(path, known.suffixes))
        listed += [(str(path), index[label]) for path in sorted(files)]
    image_size = size or known.image_size
    dataset: ImageDataset = ImageFileDataset(
        [path for path, _ in listed],
        sensor=own,
        gsd=gsd,  # type: ignore[arg-type]  # a string is "relative" here
        labels=[label for _, label in listed],
        classes=known.classes,
        size=image_size,
        resize_mode="resize",
        seed=seed,
        offset_dn=known.offset_dn if offset_dn is None else offset_dn,
    )
    columns = _folds_of(dataset.paths, local, notes)
    if columns:
        # Images that no list names are not in any split.
        keep = np.flatnonzero(np.array(columns["split"]) != "")
        if len(keep) < len(dataset):
            notes.append(f"{len(dataset) - len(keep)} images are in none of the lists; left out")
    if len(listed) != known.images and not local.notes and not folder:
        notes.append(f"{len(listed):,} images are here; {known.images:,} are published")
    return LabeledDataset(_seen_as(dataset, own, sensor, known.name, notes), known.name, columns, notes=notes)


def _seen_as(dataset: ImageDataset, own: Sensor, sensor: Sensor, name: str, notes: list[str]) -> ImageDataset:
    """The images under the sensor that a model knows, if it is another than they were taken with."""
    if own.name == sensor.name:
        return dataset
    try:
        view = SensorView(dataset, sensor)
    except ImageryError as error:
        others = [other for other in list_benchmarks() if get_benchmark(other).sensor == sensor.name]
        also = f" Sets of {sensor.name}: {', '.join(others)}." if others else ""
        raise ImageryError(f"{name}: {error}.{also}") from None
    notes.append(
        f"the images are of sensor {own.name} and are shown as {sensor.name}: the same bands by name, but "
        "perhaps of another processing level"
    )
    return view


def _folds_of(paths: list[str], found: LocalBenchmark, notes: list[str]) -> dict[str, list[str]]:
    """The split of each image by published lists beside the set; nothing without."""
    if not found.lists:
        return {}
    split_names: dict[str, str] = {}
    for split, path in found.lists.items():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                split_names[Path(line.strip()).stem] = (
                    split  # lists of images serve GeoTIFFs of the same name
                )
    notes.append(f"split by the lists {', '.join(path.name for path in found.lists.values())}")
    return {"split": [split_names.get(Path(path).stem, "") for path in paths]}


def _is_image(path: Path, suffixes: tuple[str, ...]) -> bool:
    from swath.rasters.pillow_reader import IMAGE_SUFFIXES

    suffix = path.suffix.lower()
    return not path.name.startswith(".") and suffix in (suffixes or IMAGE_SUFFIXES)


def _by_folders(
    found: LocalBenchmark,
    sensor: Sensor,
    gsd: Gsd | str,
    gsd_mode: GsdMode | None,
    train_split: str,
    test_split: str | None,
    size: int | None,
    seed: int,
) -> TrainTestSplit:
    """Train and val or test folders, as some copies come."""
    there = [name for name in ("val", "validation", "test") if (found.folder / name).is_dir()]
    name = test_split or there[0]
    for requested in (train_split, name):
        if not (found.folder / requested).is_dir():
            raise ImageryError(
                f"{found.folder}: has no folder {requested!r}; there are train, {', '.join(there)}"
            )
    options: dict[str, Any] = {"size": size, "seed": seed, "blind": gsd_mode is None}
    first = open_benchmark(found, sensor, gsd, folder=train_split, **options)
    second = open_benchmark(found, sensor, gsd, folder=name, **options)
    return TrainTestSplit(
        EvalSubset(first.dataset, np.arange(len(first.dataset)), train_split),
        EvalSubset(second.dataset, np.arange(len(second.dataset)), name),
        f"folders {train_split} and {name}",
        list(dict.fromkeys([*first.notes, *second.notes])),
    )


def _torchgeo(
    name: str,
    root: Path,
    sensor: Sensor,
    gsd: Gsd | str,
    train_split: str,
    test_split: str | None,
    test_fraction: float | None,
    seed: int,
) -> TrainTestSplit:
    if isinstance(gsd, str) and gsd != "relative":
        raise ImageryError(f"{name}: has no column {gsd!r}; a number of metres, or relative, is wanted")
    split_names = open_torchgeo(name, root, gsd=gsd, seed=seed)  # type: ignore[arg-type]
    notes = [f"read by TorchGeo, {next(iter(split_names.values())).__len__():,} images in its first part"]
    seen = {
        split: _seen_as(dataset, dataset.sensor, sensor, name, notes if i == 0 else [])
        for i, (split, dataset) in enumerate(split_names.items())
    }
    if "all" in seen:
        opened = LabeledDataset(seen["all"], name, notes=notes)
        return split_labeled(
            opened,
            train_split=train_split,
            test_split=test_split,
            test_fraction=0.2 if test_fraction is None else test_fraction,
            seed=seed,
        )
    second = test_split or "val"
    for requested in (train_split, second):
        if requested not in seen:
            raise ImageryError(f"{name}: has the splits {', '.join(seen)}, not {requested!r}")
    return TrainTestSplit(
        EvalSubset(seen[train_split], np.arange(len(seen[train_split])), train_split),
        EvalSubset(seen[second], np.arange(len(seen[second])), second),
        f"TorchGeo's {train_split} and {second}",
        notes,
    )


def _tells_gsd(path: Path) -> bool:
    """Whether a table has the GSD of its images, which costs nothing to take along."""
    if path.suffix.lower() == ".csv":
        return bool({"gsd_m", "gsd"} & set(read_csv(path)[0]))
    return path.suffix.lower() in (".parquet", ".geoparquet")


def _of_path(
    path: Path, *, sensor: str | Sensor, gsd: Gsd | str, size: int | None, blind: bool, **options: Any
) -> TrainTestSplit:
    if not path.exists():
        near = suggest(str(path), list_benchmarks())
        raise ImageryError(
            f"{path}: there is no such file or folder, and no data set is known as that.{near}"
        )
    if gsd is None and blind and not _tells_gsd(path):
        gsd = "relative"  # nobody looks at scale
    resize_mode = "resize" if size else None
    return open_split(path, sensor=sensor, gsd=gsd, size=size, resize_mode=resize_mode, **options)
