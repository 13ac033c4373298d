"""Published sets of Sentinel-1 and Sentinel-2 pairs, found by the names of their files and folders.

- ``sen12ms``, SEN12MS and SEN12MS-CR: ``ROIs1158_spring_s1_12_p30.tif`` beside ``..._s2_12_p30.tif``, 256 px,
  13 bands of Level-1C; the splits of ``train_list.txt`` and ``test_list.txt`` where they lie there. The
  cloudy images of SEN12MS-CR are passed over.
- ``ssl4eo``, SSL4EO-S12 v1.0: ``s1/0000200/<product>/VV.tif``, ``s2c`` (or ``s2_l1c``) and ``s2a`` (or
  ``s2_l2a``) with a file a band, 264 px, four dates a location; dates are paired with the nearest one. The
  published grids of the two satellites are 2 to 4 pixels apart, which is tolerated here; to have them
  co-registered, join the folders with ``swath inspect --pair``.
- ``sen1floods11``, Sen1Floods11 v1.1, hand-labeled: ``S1Hand/Bolivia_103757_S1Hand.tif`` and ``S2Hand/...``,
  512 px, 13 bands of Level-1C; the splits of ``flood_train_data.csv`` etc. where they lie there.

All are from before January 2022, so that Sentinel-2's digital numbers have no offset. The files of SEN12MS
and Sen1Floods11 do not name their bands; their order is the published one.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from swath.datasets.pairs.csv_table import PairRecord, PairTable, band_files
from swath.errors import ImageryError
from swath.sensors.sensor import Sensor

PublishedLayout = Literal["sen12ms", "ssl4eo", "sen1floods11"]

L1C_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
RADAR_BANDS = ("VV", "VH")
TOLERANCE: dict[str, float] = {"sen12ms": 0.5, "ssl4eo": 5.0, "sen1floods11": 0.5}
"""How far the footprints of a pair may differ, in pixels, where the user does not say."""

_SEN12MS = re.compile(r"(?P<season>ROIs\d+_[a-z]+)_(?P<kind>s1|s2|lc)_(?P<scene>\d+)_p(?P<patch>\d+)\.tiff?")
_FLOODS = re.compile(r"(?P<place>(?P<country>[A-Za-z-]+)_\d+)_S(?P<kind>[12])Hand\.tiff?")
_FLOOD_SPLITS = {"train": "train", "valid": "val", "test": "test", "bolivia": "bolivia"}
_SSL4EO = {"s1": "s1", "s1_grd": "s1", "s2c": "s2c", "s2_l1c": "s2c", "s2a": "s2a", "s2_l2a": "s2a"}
_TIME = re.compile(r"\d{8}T\d{6}")


def read_published(path: Path, layout: PublishedLayout, sensors: Sequence[Sensor]) -> PairTable:
    """The places of a published set.

    Raises:
        ImageryError: There is none, or the set does not have a sensor's bands.
    """
    readers = {"sen12ms": _sen12ms, "ssl4eo": _ssl4eo, "sen1floods11": _sen1floods11}
    found = readers[layout](path, sensors)
    if not found.records:
        first = (
            f"; the first of {len(found.problems)} problems: {found.problems[0][1]}" if found.problems else ""
        )
        raise ImageryError(f"{path}: no pair of the layout {layout} in it{first}")
    return found


def detect_published(path: Path) -> PublishedLayout | None:
    """Which of the sets a folder holds, by the first names that tell; None where none does."""
    if not path.is_dir():
        return None
    if _ssl4eo_folders(path).keys() >= {"s1"} and len(_ssl4eo_folders(path)) > 1:
        return "ssl4eo"
    for i, file in enumerate(_files(path)):
        if _SEN12MS.fullmatch(file.name):
            return "sen12ms"
        if _FLOODS.fullmatch(file.name):
            return "sen1floods11"
        if i > 1000:  # the names would have told by now
            break
    return None


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files))


def _kinds(sensors: Sequence[Sensor], layout: str) -> dict[str, str]:
    """Sensor name -> "s1" or "s2", for sets of VV, VH in dB and 13 bands of Level-1C."""
    kinds = {}
    for sensor in sensors:
        kind = "s1" if set(sensor.band_names) & set(RADAR_BANDS) else "s2"
        have = RADAR_BANDS if kind == "s1" else L1C_BANDS
        absent = [name for name in sensor.band_names if name not in have]
        if absent:
            raise ImageryError(
                f"layout {layout!r} has no band {', '.join(absent)} of sensor {sensor.name!r}; it has "
                f"{', '.join(have)}. Sensors that fit: sentinel1_grd, sentinel2_l1c"
            )
        kinds[sensor.name] = kind
    return kinds


def _together(
    files: dict[str, dict[str, Path]],
    kinds: dict[str, str],
    groups: dict[str, str],
    splits: dict[str, str],
) -> PairTable:
    """Places of files by place and kind."""
    found = PairTable()
    for name, of_kind in sorted(files.items()):
        lost = sorted({kind for kind in kinds.values() if kind not in of_kind})
        if lost:
            there = next(iter(of_kind.values()))
            found.problems.append((name, f"{there}: its pair ({', '.join(lost)}) is missing"))
            continue
        found.records.append(
            PairRecord(
                id=name,
                files={sensor: (str(of_kind[kind]),) for sensor, kind in kinds.items()},
                bands={sensor: RADAR_BANDS if kind == "s1" else L1C_BANDS for sensor, kind in kinds.items()},
                split=splits.get(name),
                group=groups[name],
                offset_dn={sensor: 0.0 for sensor, kind in kinds.items() if kind == "s2"},
            )
        )
    return found


def _sen12ms(path: Path, sensors: Sequence[Sensor]) -> PairTable:
    kinds = _kinds(sensors, "sen12ms")
    files: dict[str, dict[str, Path]] = defaultdict(dict)
    groups: dict[str, str] = {}
    splits: dict[str, str] = {}
    for file in _files(path):
        if file.name in ("train_list.txt", "test_list.txt"):
            listed = [_SEN12MS.search(line) for line in file.read_text(encoding="utf-8").splitlines()]
            splits |= {_sen12ms_place(m): file.name.removesuffix("_list.txt") for m in listed if m}
            continue
        match = _SEN12MS.fullmatch(file.name)
        if match is None or match["kind"] == "lc":
            continue
        files[_sen12ms_place(match)][match["kind"]] = file
        groups[_sen12ms_place(match)] = f"{match['season']}_{match['scene']}"
    return _together(files, kinds, groups, splits)


def _sen12ms_place(match: re.Match[str]) -> str:
    return f"{match['season']}_{match['scene']}_p{match['patch']}"


def _sen1floods11(path: Path, sensors: Sequence[Sensor]) -> PairTable:
    kinds = _kinds(sensors, "sen1floods11")
    files: dict[str, dict[str, Path]] = defaultdict(dict)
    groups: dict[str, str] = {}
    splits: dict[str, str] = {}
    for file in _files(path):
        table = re.fullmatch(r"flood_(train|valid|test|bolivia)_data\.csv", file.name)
        if table:
            rows = file.read_text(encoding="utf-8").splitlines()
            named = [match for row in rows if (match := _FLOODS.search(row))]
            splits |= {match["place"]: _FLOOD_SPLITS[table[1]] for match in named}
            continue
        match = _FLOODS.fullmatch(file.name)
        if match is not None:
            files[match["place"]][f"s{match['kind']}"] = file
            groups[match["place"]] = match["country"]
    return _together(files, kinds, groups, splits)


# ------------------------------------------------------------------------------------------------- SSL4EO-S12


def _ssl4eo_folders(path: Path) -> dict[str, Path]:
    """Kind -> its folder, in the folder given."""
    return {
        _SSL4EO[entry.name]: Path(entry.path)
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name)
        if entry.is_dir() and entry.name in _SSL4EO
    }


def _ssl4eo(path: Path, sensors: Sequence[Sensor]) -> PairTable:
    folders = _ssl4eo_folders(path)
    kinds: dict[str, str] = {}
    for sensor in sensors:
        if set(sensor.band_names) & set(RADAR_BANDS):
            kind = "s1"
        else:
            kind = "s2c" if "B10" in sensor.band_names or "s2a" not in folders else "s2a"
        if kind not in folders:
            wanted = [name for name, known in _SSL4EO.items() if known == kind]
            raise ImageryError(f"{path}: has no folder {' or '.join(wanted)}, which {sensor.name!r} needs")
        kinds[sensor.name] = kind
    found = PairTable()
    first = next(iter(kinds.values()))
    for location in sorted(entry.name for entry in os.scandir(folders[first]) if entry.is_dir()):
        dates = {kind: _ssl4eo_dates(folders[kind] / location) for kind in set(kinds.values())}
        empty = [kind for kind, there in dates.items() if not there]
        if empty:
            found.problems.append((location, f"{path}: location {location} has no image of {empty[0]}"))
            continue
        for date, chosen in _nearest_dates(dates, first):
            name = f"{location}_{date:%Y%m%d}"
            try:
                files = {s.name: band_files(chosen[kinds[s.name]][1], s) for s in sensors}
            except ImageryError as error:
                found.problems.append((name, str(error)))
                continue
            found.records.append(
                PairRecord(
                    id=name,
                    files=files,
                    group=location,
                    times={s: chosen[kind][0] for s, kind in kinds.items()},
                    offset_dn={s: 0.0 for s, kind in kinds.items() if kind != "s1"},
                )
            )
    return found


def _ssl4eo_dates(folder: Path) -> list[tuple[datetime, Path]]:
    if not folder.is_dir():
        return []
    dates = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        text = _TIME.search(entry.name)
        if entry.is_dir() and text:
            dates.append((datetime.strptime(text[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC), Path(entry.path)))
    return dates


def _nearest_dates(
    dates: dict[str, list[tuple[datetime, Path]]], first: str
) -> Iterator[tuple[datetime, dict[str, tuple[datetime, Path]]]]:
    """Each date of the first kind with the nearest of the others, every date used once."""
    left = {kind: list(there) for kind, there in dates.items() if kind != first}
    for date, folder in dates[first]:
        chosen = {first: (date, folder)}
        for kind, there in left.items():
            if there:
                nearest = min(there, key=lambda other: abs((other[0] - date).total_seconds()))
                there.remove(nearest)
                chosen[kind] = nearest
        if len(chosen) == len(dates):
            yield date, chosen
