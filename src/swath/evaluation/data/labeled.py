"""Labeled images in every layout that people have, as a data set and what else is known of each image.

Class folders, CSV manifests (one class or several labels an image), Parquet tables of chips, and BigEarthNet.
`swath.evaluation.data.splits` divides them into train and test split; sets known by name are opened by
`swath.evaluation.data.opening`.

Legend: N images.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from swath.datasets.bigearthnet.dataset import is_bigearthnet
from swath.datasets.bigearthnet.readers import GSD
from swath.datasets.chip_table import ChipTable, is_chip_table
from swath.datasets.csv_table import CsvManifest
from swath.datasets.image_files import Gsd
from swath.datasets.opening import open_dataset
from swath.datasets.pairs.opening import open_pairs
from swath.datasets.protocol import ImageDataset
from swath.datasets.sensor_view import SensorView
from swath.errors import ImageryError
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor

LabelKind = Literal["multi", "single"]


@dataclass(slots=True)
class LabeledDataset:
    """Labeled images before they are divided, and what else is known of each.

    Attributes:
        dataset: With labels.
        where: What to call it in messages.
        columns: Name -> [N] strings, in the order of `dataset.paths`: splits, groups, whatever a table holds.
        scene_column: Column of the scene that images are cut from; kept on one side of a split made here.
        notes: What a reader of the scores should know.
    """

    dataset: ImageDataset
    where: str
    columns: Mapping[str, list[str]] = field(default_factory=dict)
    scene_column: str | None = None
    notes: list[str] = field(default_factory=list)


def open_labeled(
    path: str | Path,
    *,
    sensor: str | Path | Sensor,
    gsd: Gsd | str = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    labels: LabelKind | None = None,
    **options: Any,
) -> LabeledDataset:
    """Open labeled images in any layout, undivided.

    Arguments as for `swath.evaluation.data.splits.open_split`.

    Raises:
        ImageryError: No labels, or options of another layout.
    """
    path = Path(path)
    names = label_column.split(",") if label_column and "," in label_column else label_column
    if is_bigearthnet(path):
        given = {
            "label_column": label_column,
            "separator": label_separator,
            "gsd": gsd if gsd != "relative" else None,
        }
        given |= {name: options.get(name) for name in ("resize_mode", "offset_dn")}
        for name, value in given.items():
            if value is not None and (name, value) != ("resize_mode", "resize"):
                raise ImageryError(
                    f"{path}: is BigEarthNet, where {name}={value!r} means nothing; leave it out"
                )
        return _bigearthnet(
            path, get_sensor(sensor), labels or "multi", options.get("size"), gsd == "relative"
        )
    if labels is not None:
        raise ImageryError(f"{path}: labels={labels!r} belongs to BigEarthNet, which this is not")
    if is_chip_table(path):
        if label_separator or isinstance(names, list):
            raise ImageryError(f"{path}: several labels are a column of lists in a Parquet table")
        kept = {k: v for k, v in options.items() if v is not None and k != "resize_mode"}
        foreign = sorted(set(kept) - {"size", "seed", "offset_dn", "workers"})
        if foreign:
            raise ImageryError(
                f"{path}: is a table of chips, where {foreign[0]}= means nothing; leave it out"
            )
        chips = ChipTable(path, sensor, gsd, label=label_column, **kept)  # type: ignore[arg-type]
        return LabeledDataset(chips, str(path), chips.columns)
    if path.suffix.lower() == ".csv" or label_column:
        options["label_column"] = names or _label_column(path)
    if label_separator:
        options["label_separator"] = label_separator
    dataset = open_dataset(path, sensor=sensor, gsd=gsd, **options)
    if dataset.labels is None:
        raise ImageryError(
            f"{path}: has no labels; evaluation needs class folders, or a table with a class column"
        )
    return LabeledDataset(dataset, str(path), dataset.columns if isinstance(dataset, CsvManifest) else {})


def _bigearthnet(
    path: Path, sensor: Sensor, labels: LabelKind, size: int | None, relative: bool
) -> LabeledDataset:
    """Its places as one sensor sees them, with official splits where its tables lie there."""
    if labels not in ("multi", "single"):
        raise ImageryError(f"labels={labels!r}: 'multi' or 'single' is wanted")
    pairs = open_pairs(path, sensors=[sensor], layout="bigearthnet", size=size)
    if pairs.labels is None:
        raise ImageryError(
            f"{path}: BigEarthNet without labels: put metadata.parquet (v2), or the patches' "
            "*_labels_metadata.json (v1), into the folder"
        )
    notes = []
    if labels == "single":
        alone = np.flatnonzero(pairs.labels.sum(axis=1) == 1)
        if not len(alone):
            raise ImageryError(f"{path}: no place has a single label")
        notes.append(
            f"BigEarthNet as single-label: {len(alone):,} of {len(pairs):,} places have one label; the "
            "others are left out"
        )
        pairs = pairs.subset(alone)
    dataset = pairs.only(sensor.name)
    one = pairs.labels.argmax(axis=1) if labels == "single" and pairs.labels is not None else None
    columns = {}
    if pairs.splits is not None:
        columns["split"] = pairs.splits
    if pairs.groups is not None:
        columns["scene"] = pairs.groups
    seen = SensorView(dataset, gsd_factor=1 / GSD if relative else 1.0, labels=one)
    return LabeledDataset(seen, str(path), columns, "scene" if "scene" in columns else None, notes)


def _label_column(path: Path) -> str | None:
    """``class`` or ``label``, whichever the table has; None leaves it to `open_dataset` to complain."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError):
        return None
    return next((column for column in ("class", "label") if column in header), None)
