"""BigEarthNet-MM, versions 1 and 2, as it is published.

What may lie in the folder (and below it, four levels deep):

- v1: one folder a patch with GeoTIFFs and ``*_labels_metadata.json``, Sentinel-1 and Sentinel-2 apart;
  ``train.csv``, ``val.csv``, ``test.csv`` of the official splits (first column Sentinel-2, second, if there,
  Sentinel-1), also as ``.csv.bz2``; ``s1_s2_name_country_season.csv`` for countries.
- v2: ``BigEarthNet-S2/<scene>/<patch>``, ``BigEarthNet-S1/<scene>/<patch>`` and ``metadata.parquet`` with
  labels, the geographic split, countries, and which Sentinel-1 patch belongs to which Sentinel-2 patch.
- either as an LMDB database, with the tables beside it: safetensors (rico-hdl), or patches of
  bigearthnet_encoder, whose Sentinel-2 entries may hold both satellites and the labels.

The labels are multi-hot over 19 classes (43 on request, from v1's JSON files), in alphabetical order.
"""

from __future__ import annotations

import bz2
import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from swath.datasets.bigearthnet.labels import CLASSES_19, CLASSES_43, labels_19, labels_43
from swath.datasets.bigearthnet.patch_names import ben14k, is_ben14k, parse_patch_name
from swath.datasets.bigearthnet.readers import PatchFolders, PatchLmdb, PatchReader, PatchSource, sentinel_of
from swath.errors import ImageryError, Problem, suggest
from swath.sensors.sensor import Sensor

__all__ = ["BigEarthNet", "ben14k", "find_bigearthnet", "is_bigearthnet"]

Subset = Literal["ben14k"]
_DEPTH = 4
_SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
_MAPPINGS = ("s1_s2_name_country_season", "s1_s2_mapping")


@dataclass(slots=True)
class _Patch:
    """A place: names of its patches, and what the tables say."""

    s2: str
    s1: str | None = None
    split: str | None = None
    country: str | None = None
    labels: tuple[str, ...] | None = None


@dataclass(slots=True)
class BigEarthNet:
    """Places of BigEarthNet in one folder, sorted by their Sentinel-2 names.

    Attributes:
        s2, s1: [N] names of the patches; `s1` is "" where only Sentinel-2 was asked for.
        labels: [N, K] multi-hot, or None without metadata.
        classes: The K classes.
        splits: [N] "train", "val" or "test", or None without splits.
        countries: [N], or None.
        problems: What was left out, and why.
    """

    s2: list[str]
    s1: list[str]
    classes: tuple[str, ...]
    labels: np.ndarray[Any, np.dtype[np.float32]] | None
    splits: list[str] | None
    countries: list[str] | None
    problems: list[Problem]
    _sources: dict[int, PatchSource]

    def reader(self, sensor: Sensor, size: tuple[int, int] | None = None) -> PatchReader:
        """The pixels of one sensor at these places."""
        sentinel = sentinel_of(sensor)
        names = self.s2 if sentinel == 2 else self.s1
        # In a database of both, Sentinel-1 goes by the name of Sentinel-2, which does not tell its time.
        times = np.array([_time(name, sentinel) for name in names])
        return PatchReader(sensor, names, self._sources[sentinel], times, size)

    @property
    def groups(self) -> list[str]:
        """[N] the scene of each place (Sentinel-2's): neighbors in space and time."""
        return [patch.scene if (patch := parse_patch_name(name)) else name for name in self.s2]


def is_bigearthnet(path: Path) -> bool:
    """Whether a folder looks like BigEarthNet; looks at names only."""
    if not path.is_dir():
        return False
    found = _find(path, enough=1)
    return bool(found.folders[1] or found.folders[2] or _of_patches(found))


def find_bigearthnet(
    path: str | Path,
    sensors: Sequence[Sensor],
    *,
    split: str | None = None,
    subset: Subset | None = None,
    nomenclature: Literal[19, 43] = 19,
    workers: int | None = None,
) -> BigEarthNet:
    """Find the places of BigEarthNet that all sensors see.

    Args:
        path: Its folder, see the module.
        sensors: Decide whether Sentinel-1, Sentinel-2 or both are needed.
        split: "train", "val" or "test" of the official splits.
        subset: "ben14k" for BEN-14K (needs the official splits and the countries).
        nomenclature: 19 classes, or v1's 43.
        workers: Threads that read JSON files.

    Raises:
        ImageryError: No patch there; no split or country where one is needed; labels of neither nomenclature.
    """
    root = Path(path)
    needed = sorted({sentinel_of(sensor) for sensor in sensors})
    if subset not in (None, "ben14k"):
        raise ImageryError(f"subset={subset!r}:{suggest(str(subset), ['ben14k'])}")
    if split is not None and split not in _SPLITS:
        raise ImageryError(f"split={split!r}:{suggest(split, sorted(set(_SPLITS.values())))}")
    found = _find(root)
    there, sources, merged = _sources(root, found)
    patches, problems, splits = _table(found, there, [2] if merged else needed)
    if merged:
        for patch in patches:
            patch.s1 = patch.s2
    if splits:
        outside = sum(1 for patch in patches if patch.split is None)
        if outside:
            problems.append((str(root), f"{outside} patches are in none of the official splits; left out"))
            patches = [patch for patch in patches if patch.split is not None]
    if split is not None or subset is not None:
        if not splits:
            raise ImageryError(
                f"{root}: split={split!r}, subset={subset!r} need the official splits, which are not "
                "here. Put "
                "train.csv, val.csv and test.csv (v1), or metadata.parquet (v2), into the folder"
            )
        if split is not None:
            patches = [patch for patch in patches if patch.split == _SPLITS[split]]
    if subset == "ben14k":
        patches = _ben14k(root, patches)
    patches, absent = _seen(patches, there, needed)
    problems += absent
    if not patches:
        reason = f"; the first of {len(problems)} problems: {problems[0][1]}" if problems else ""
        raise ImageryError(f"{root}: no place of BigEarthNet is left{reason}")
    patches.sort(key=lambda patch: patch.s2)
    database = sources[2] if isinstance(sources.get(2), PatchLmdb) else None
    classes, labels, patches = _labels(root, patches, found, database, nomenclature, workers, problems)
    return BigEarthNet(
        s2=[patch.s2 for patch in patches],
        s1=[patch.s1 or "" for patch in patches],
        classes=classes,
        labels=labels,
        splits=[str(patch.split) for patch in patches] if splits else None,
        countries=None if any(p.country is None for p in patches) else [str(p.country) for p in patches],
        problems=problems,
        _sources=sources,
    )


# ------------------------------------------------------------------------------------- what is in the folder


@dataclass(slots=True)
class _Found:
    """What lies in a folder: patch folders by satellite, databases, tables."""

    folders: dict[int, dict[str, str]] = field(default_factory=lambda: {1: {}, 2: {}})
    databases: list[str] = field(default_factory=list)
    tables: dict[str, Path] = field(default_factory=dict)


def _find(root: Path, enough: int | None = None) -> _Found:
    """Walk at most four levels deep; a patch's folder is not entered."""
    if not root.is_dir():
        raise ImageryError(f"{root}: is not a folder")
    found = _Found()
    level = [root]
    for _ in range(_DEPTH):
        below: list[Path] = []
        for folder in level:
            if (own := parse_patch_name(folder.name)) is not None:  # the folder given is a patch itself
                found.folders[own.sentinel][own.name] = str(folder)
                continue
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith("."):
                        continue
                    if entry.name == "data.mdb":
                        found.databases.append(str(folder))
                    elif entry.is_dir():
                        patch = parse_patch_name(entry.name)
                        if entry.name == "Reference_Maps":  # v2's land cover, in folders named like patches
                            continue
                        if patch is None:
                            below.append(Path(entry.path))
                        else:
                            found.folders[patch.sentinel][patch.name] = entry.path
                    elif entry.name.endswith((".csv", ".csv.bz2", ".parquet")):
                        found.tables.setdefault(entry.name.removesuffix(".bz2"), Path(entry.path))
            if enough is not None and sum(map(len, found.folders.values())) >= enough:
                return found
        level = below
    return found


def _of_patches(found: _Found) -> bool:
    """Whether a database holds patches of BigEarthNet, by its first key."""
    for path in found.databases:
        try:
            with PatchLmdb(path)._environment().begin() as transaction, transaction.cursor() as cursor:
                if cursor.first() and parse_patch_name(bytes(cursor.key()).decode("utf-8", "replace")):
                    return True
        except ImageryError:
            continue
    return False


def _sources(root: Path, found: _Found) -> tuple[dict[int, set[str]], dict[int, PatchSource], bool]:
    """Names of the patches by satellite, where their pixels come from, whether entries hold both."""
    there = {sentinel: set(found.folders[sentinel]) for sentinel in (1, 2)}
    sources: dict[int, PatchSource] = {n: PatchFolders(found.folders[n]) for n in (1, 2) if there[n]}
    for path in found.databases:
        database = PatchLmdb(path)
        for name in database.names():
            patch = parse_patch_name(name)
            if patch is not None and not isinstance(sources.get(patch.sentinel), PatchFolders):
                there[patch.sentinel].add(name)
                other = sources.setdefault(patch.sentinel, database)
                if isinstance(other, PatchLmdb) and other.path != database.path:
                    raise ImageryError(
                        f"{root}: patches of Sentinel-{patch.sentinel} are in two databases, {other.path} "
                        f"and {database.path}. Give the folder of one"
                    )
    if not sources:
        raise ImageryError(
            f"{root}: no patch of BigEarthNet in it or up to four levels below it (folders named like "
            "S2A_MSIL2A_20170613T101031_87_48, or an LMDB database with such keys)"
        )
    merged = False
    optical = sources.get(2)
    if not there[1] and isinstance(optical, PatchLmdb):
        merged = "VV" in optical.unpacked(min(there[2]))[0]
        if merged:
            there[1], sources[1] = there[2], optical
    return there, sources, merged


# ------------------------------------------------------------------------------------------- what tables say


def _table(
    found: _Found, there: Mapping[int, set[str]], needed: Sequence[int]
) -> tuple[list[_Patch], list[Problem], bool]:
    """Every place with its names, split and country; problems; and whether there are official splits."""
    parquet = [path for name, path in found.tables.items() if name == "metadata.parquet"]
    if parquet:
        return _from_parquet(parquet[0]), [], True
    countries: dict[str, str] = {}
    partner: dict[str, str] = {}
    for table in _MAPPINGS:
        for row in _rows(found.tables.get(f"{table}.csv")):
            if row and row[0] != "s1_name":
                partner[row[1]] = row[0]
                if len(row) > 2:
                    countries[row[1]] = row[2]
    splits: dict[str, str] = {}
    for name in ("train", "val", "test"):
        for row in _rows(found.tables.get(f"{name}.csv")):
            patch = parse_patch_name(row[0]) if row else None
            if patch is None or patch.sentinel != 2:
                continue
            splits[patch.name] = name
            if len(row) > 1 and (other := parse_patch_name(row[1])) and other.sentinel == 1:
                partner[patch.name] = other.name
    if 1 in needed and there[1]:
        unknown = there[1] - set(partner.values())
        partner |= _partners_by_json([found.folders[1][name] for name in unknown if name in found.folders[1]])
    if 2 not in needed:  # Sentinel-1 alone: its places are known by their partners all the same
        names = set(partner)
    else:
        names = set(there[2])
    patches = [_Patch(name, partner.get(name), splits.get(name), countries.get(name)) for name in names]
    problems: list[Problem] = []
    if 1 in needed and there[1] and not partner:
        raise ImageryError(
            "nothing says which Sentinel-1 patch belongs to which Sentinel-2 patch: no metadata.parquet, no "
            "s1_s2_name_country_season.csv, no second column in train.csv, and no *_labels_metadata.json. "
            "Put one of them into the folder"
        )
    return patches, problems, bool(splits)


def _from_parquet(path: Path) -> list[_Patch]:
    """Version 2's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ImageryError(f"{path}: cannot be read as Parquet ({error})") from None
    wanted = ("patch_id", "s1_name", "split", "labels")
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise ImageryError(
            f"{path}: has no column {', '.join(missing)}; BigEarthNet v2's metadata.parquet is wanted"
        )
    columns = {name: table[name].to_pylist() for name in wanted}
    countries = table["country"].to_pylist() if "country" in table.column_names else [None] * len(table)
    patches = []
    for i, name in enumerate(columns["patch_id"]):
        split = columns["split"][i]
        if split not in _SPLITS:
            raise ImageryError(f"{path}: split {split!r} of {name}:{suggest(str(split), sorted(_SPLITS))}")
        labels = tuple(columns["labels"][i])
        patches.append(_Patch(name, columns["s1_name"][i], _SPLITS[split], countries[i], labels))
    return patches


def _rows(path: Path | None) -> list[list[str]]:
    if path is None:
        return []
    try:
        data = path.read_bytes()
        text = (bz2.decompress(data) if path.suffix == ".bz2" else data).decode("utf-8-sig")
        return list(csv.reader(io.StringIO(text)))
    except (OSError, ValueError, UnicodeDecodeError, csv.Error) as error:
        raise ImageryError(f"{path}: cannot be read as a CSV table ({error})") from None


def _partners_by_json(folders: Sequence[str]) -> dict[str, str]:
    """Sentinel-2 name -> Sentinel-1 name, by the JSON beside Sentinel-1's bands."""

    def partner(folder: str) -> tuple[str, str] | None:
        data = _json_of(folder)
        other = None if data is None else data.get("corresponding_s2_patch")
        return (str(other), Path(folder).name) if other else None

    with ThreadPoolExecutor() as pool:
        return dict(pair for pair in pool.map(partner, folders) if pair is not None)


def _json_of(folder: str) -> dict[str, Any] | None:
    path = Path(folder, f"{Path(folder).name}_labels_metadata.json")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ImageryError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(data, dict):
        raise ImageryError(f"{path}: an object with `labels` is wanted")
    return data


# --------------------------------------------------------------------------------------- choosing and labels


def _seen(
    patches: Sequence[_Patch], there: Mapping[int, set[str]], needed: Sequence[int]
) -> tuple[list[_Patch], list[Problem]]:
    """The places whose patches are there; one problem for each kind of absence."""
    kept: list[_Patch] = []
    absent: dict[int, list[str]] = {1: [], 2: []}
    for patch in patches:
        lost = [n for n in needed if (patch.s2 if n == 2 else patch.s1) not in there[n]]
        if lost:
            absent[lost[0]].append(patch.s2)
        else:
            kept.append(patch)
    return kept, [
        (names[0], f"{len(names)} places have no patch of Sentinel-{n} here, the first is {names[0]}")
        for n, names in absent.items()
        if names
    ]


def _ben14k(root: Path, patches: Sequence[_Patch]) -> list[_Patch]:
    unknown = [patch for patch in patches if patch.country is None]
    if unknown:
        raise ImageryError(
            f"{root}: subset='ben14k' needs the country of each patch, which nothing says of {unknown[0].s2} "
            f"({len(unknown)} of {len(patches)} patches). Put s1_s2_name_country_season.csv (in the Python "
            "package bigearthnet_common) into the folder"
        )
    return [patch for patch in patches if is_ben14k(patch.s2, str(patch.country))]


def _labels(
    root: Path,
    patches: list[_Patch],
    found: _Found,
    database: PatchSource | None,
    nomenclature: int,
    workers: int | None,
    problems: list[Problem],
) -> tuple[tuple[str, ...], np.ndarray[Any, np.dtype[np.float32]] | None, list[_Patch]]:
    """Classes, multi-hot labels, and the places that have any."""
    if nomenclature not in (19, 43):
        raise ImageryError(f"nomenclature={nomenclature}: BigEarthNet has 19 classes, or 43 (v1)")
    classes = CLASSES_19 if nomenclature == 19 else CLASSES_43
    convert = labels_19 if nomenclature == 19 else labels_43

    def read(patch: _Patch) -> tuple[str, ...] | None:
        if patch.labels is not None:
            return convert(patch.labels, patch.s2)
        for folder in (found.folders[2].get(patch.s2), found.folders[1].get(patch.s1 or "")):
            data = None if folder is None else _json_of(folder)
            if data is not None and isinstance(data.get("labels"), list):
                return convert([str(label) for label in data["labels"]], str(folder))
        if isinstance(database, PatchLmdb) and not found.folders[2]:
            stored = database.unpacked(patch.s2)[1]
            return None if stored is None else convert(stored, database.where(patch.s2))
        return None

    with ThreadPoolExecutor(workers) as pool:
        named = list(pool.map(read, patches))
    without = [patch for patch, labels in zip(patches, named, strict=True) if labels is None]
    if len(without) == len(patches):
        return classes, None, patches
    if without:
        raise ImageryError(
            f"{root}: {len(without)} of {len(patches)} places have no labels (no *_labels_metadata.json, no "
            f"row of metadata.parquet), the first is {without[0].s2}"
        )
    bare = [patch.s2 for patch, labels in zip(patches, named, strict=True) if not labels]
    if bare:
        problems.append(
            (bare[0], f"{len(bare)} places have no label of the {len(classes)} classes; left out")
        )
    kept = [(patch, labels) for patch, labels in zip(patches, named, strict=True) if labels]
    if not kept:
        raise ImageryError(f"{root}: no place has a label of the {len(classes)} classes")
    index = {name: i for i, name in enumerate(classes)}
    multi = np.zeros((len(kept), len(classes)), dtype=np.float32)
    for row, (_, labels) in enumerate(kept):
        multi[row, [index[label] for label in labels]] = 1
    return classes, multi, [patch for patch, _ in kept]


def _time(name: str, sentinel: int) -> float:
    patch = parse_patch_name(name)
    return patch.time.timestamp() if patch is not None and patch.sentinel == sentinel else float("nan")
