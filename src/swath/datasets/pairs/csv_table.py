"""Places and the files that show them: what a layout of paired imagery boils down to, and the CSV table.

    id,sentinel1_grd,sentinel2_l2a,labels,split,group
    p1,s1/p1.tif,s2/p1.tif,Pastures;Mixed forest,train,29UPU
    p2,s1/p2.tif,s2/p2,Pastures,test,33UUP            # a folder holds one file a band

Columns: `id` (optional), one column a sensor *name*, and where there is something to say `class` (one name)
or `labels` (names with semicolons), `split`, `group`, ``time_<sensor>`` (ISO 8601), ``offset_dn_<sensor>``
(Sentinel-2's processing baseline). Files are relative to the table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swath.errors import ImageryError, Problem, suggest
from swath.rasters.pillow_reader import IMAGE_SUFFIXES
from swath.sensors.matching import match_band_by_filename
from swath.sensors.sensor import Sensor

Labels = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PairRecord:
    """One place: files of each sensor, and what is known about it.

    Attributes:
        id: For people, and to tell places apart.
        files: Sensor name -> its file, or one file a band in the sensor's order.
        label: Names of its classes; one where `PairTable.several` is False; None where it has none.
        split: "train", "val", "test", ...
        group: Scene or tile.
        times: Sensor name -> acquisition time, where it is known from elsewhere than the file.
        offset_dn: Sensor name -> offset of the digital numbers, see `swath.sensors.sentinel2_offset`.
        bands: Sensor name -> names of the file's bands, where the layout knows them and the file does not.
        where: Where it was said, for messages.
    """

    id: str
    files: Mapping[str, tuple[str, ...]]
    label: tuple[str, ...] | None = None
    split: str | None = None
    group: str | None = None
    times: Mapping[str, datetime] = field(default_factory=dict)
    offset_dn: Mapping[str, float] = field(default_factory=dict)
    bands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    where: str = ""


@dataclass(slots=True)
class PairTable:
    """What a layout has found.

    Attributes:
        places: The usable ones so far.
        problems: (place or file, reason) of the others.
        several: Whether a place may have several classes (multi-hot labels).
        classes: All classes, where the layout defines them; None to take those that occur, sorted.
    """

    records: list[PairRecord] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    several: bool = False
    classes: Sequence[str] | None = None


_FIXED = ("id", "class", "labels", "fold", "split", "group")


def read_pair_csv(path: Path, sensors: Sequence[Sensor]) -> PairTable:
    """Read a table as described at the head of the module.

    Raises:
        ImageryError: No column for a sensor, both `class` and `labels`, a time that is none, an id twice.
    """
    from swath.datasets.csv_table import read_csv

    header, rows = read_csv(path)
    named = [name for name in header if name not in _FIXED and not name.startswith(("time_", "offset_dn_"))]
    for sensor in sensors:
        if sensor.name not in header:
            raise ImageryError(
                f"{path}: has no column {sensor.name!r}, which holds that sensor's files."
                f"{suggest(sensor.name, named) if named else ''} Columns are: {', '.join(header)}"
            )
    if "class" in header and "labels" in header:
        raise ImageryError(f"{path}: has `class` (one a place) and `labels` (several); keep one of them")
    found = PairTable(several="labels" in header)
    split = next((name for name in ("split", "fold") if name in header), None)
    seen: dict[str, int] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        name = row.get("id") or _common_name([row[sensor.name] for sensor in sensors]) or f"line {line}"
        if name in seen and "id" in header:
            raise ImageryError(f"{where}: the id {name!r} is that of line {seen[name]} already")
        seen[name] = line
        missing = [sensor.name for sensor in sensors if not row[sensor.name].strip()]
        if missing:
            found.problems.append((name, f"{where}: {name} has no file of {', '.join(missing)}"))
            continue
        try:
            files = {
                sensor.name: _files(path.parent, row[sensor.name].strip(), sensor, where)
                for sensor in sensors
            }
        except ImageryError as error:
            found.problems.append((name, str(error)))
            continue
        label = None
        if found.several:
            label = tuple(part.strip() for part in row["labels"].split(";") if part.strip())
        elif "class" in header:
            label = (row["class"],)
        found.records.append(
            PairRecord(
                id=name,
                files=files,
                label=label,
                split=row[split] if split else None,
                group=row.get("group"),
                times={s.name: t for s in sensors if (t := _time(row.get(f"time_{s.name}"), where))},
                offset_dn={
                    s.name: _number(text, where)
                    for s in sensors
                    if (text := row.get(f"offset_dn_{s.name}", "").strip())
                },
                where=where,
            )
        )
    return found


def _common_name(files: Sequence[str]) -> str:
    """What the files are called, or the folder that they are in, if that is the same; else the first file."""
    stems, folders = {Path(file).stem for file in files}, {str(Path(file).parent) for file in files}
    if len(stems) == 1:
        return stems.pop()
    return folders.pop() if len(folders) == 1 else str(Path(files[0]).with_suffix(""))


def _files(base: Path, text: str, sensor: Sensor, where: str) -> tuple[str, ...]:
    path = Path(os.path.normpath(base / text))
    if path.is_dir():
        return band_files(path, sensor)
    if not path.exists():
        raise ImageryError(f"{where}: {path}: there is no such file of {sensor.name}")
    return (str(path),)


def band_files(folder: Path, sensor: Sensor) -> tuple[str, ...]:
    """The files of a folder that hold one band each, in the sensor's order.

    Raises:
        ImageryError: A band has no file, or two; or the folder has images of none.
    """
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if not entry.name.startswith(".") and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES
    )
    of_band: dict[int, str] = {}
    for name in names:
        band = match_band_by_filename(sensor, name)
        if band is None:
            continue
        if band in of_band:
            raise ImageryError(
                f"{folder}: {of_band[band]} and {name} both look like band {sensor.band_names[band]} of "
                f"{sensor.name}. Name one file, or take one of them out"
            )
        of_band[band] = name
    absent = [band for i, band in enumerate(sensor.band_names) if i not in of_band]
    if absent:
        raise ImageryError(
            f"{folder}: has no file for band {', '.join(absent)} of sensor {sensor.name!r} "
            f"({len(names)} images there{': ' + ', '.join(names[:3]) if names else ''}). Complete the "
            "folder, or use a sensor without these bands (a YAML of your own)"
        )
    return tuple(str(folder / of_band[i]) for i in range(len(sensor.bands)))


def _time(text: str | None, where: str) -> datetime | None:
    if not text or not text.strip():
        return None
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ImageryError(
            f"{where}: {text!r} is no time; write ISO 8601, such as 2017-06-13T10:10:31Z"
        ) from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ImageryError(f"{where}: {text!r} is not a number") from None


# ----------------------------------------------------------------------------------------------------- labels


def encode_labels(
    table: PairTable, classes: Sequence[str] | None, nomenclature: str = ""
) -> tuple[list[str] | None, Labels | None]:
    """Classes, and labels [N] (index) or [N, K] (multi-hot), of places that all have one or all have none.

    Args:
        table: What a layout has found.
        classes: The user's order of the classes; None for the layout's, or those that occur, sorted.
        nomenclature: What the known classes are called, for messages.

    Raises:
        ImageryError: A label is none of the classes (the nearest is suggested), or some places have none.
    """
    with_label = [place for place in table.records if place.label is not None]
    if not with_label:
        if classes is not None:
            raise ImageryError(
                "classes were given, but the places have no labels (columns `class`, `labels`)"
            )
        return None, None
    if len(with_label) < len(table.records):
        bare = next(place for place in table.records if place.label is None)
        raise ImageryError(f"{bare.where or bare.id}: has no label, while {with_label[0].id} has one")
    given = classes if classes is not None else table.classes
    names = list(given) if given is not None else sorted({n for p in with_label for n in p.label or ()})
    index = {name: i for i, name in enumerate(names)}
    if len(index) != len(names):
        raise ImageryError("a class is named twice")
    multi = np.zeros((len(with_label), len(names)), dtype=np.float32)
    for row, place in enumerate(with_label):
        for name in place.label or ():
            if name not in index:
                known = nomenclature or f"the {len(names)} classes of this data set"
                raise ImageryError(
                    f"{place.where or place.id}: label {name!r} is none of {known}.{suggest(name, names)}"
                )
            multi[row, index[name]] = 1
    if table.several:
        return names, multi
    return names, multi.argmax(axis=1).astype(np.int64)
