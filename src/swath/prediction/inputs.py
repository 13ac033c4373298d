"""Which scenes, or pairs, a prediction is of: files, folders, products, STAC, catalogs, tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swath.catalog.catalog import Catalog, header_of
from swath.catalog.scene_files import SceneFiles, find_scenes
from swath.datasets.csv_table import read_csv
from swath.datasets.folders import find_images
from swath.datasets.image_reading import is_raster, read_header_any
from swath.errors import ImageryError, suggest
from swath.rasters.header import SceneHeader
from swath.sensors.sensor import Sensor
from swath.tasks.dense.layouts import AFTER, BEFORE


@dataclass(frozen=True)
class SceneInput:
    """A scene, or a pair of them.

    Attributes:
        name: How the names of its results begin; may have folders. One of a kind.
        scenes: One found scene, or before and after.
        gsd: Metres per pixel that a table states.
    """

    name: str
    scenes: tuple[SceneFiles, ...]
    gsd: float | None = None

    @property
    def label(self) -> str:
        """What to call it."""
        return " and ".join(found.path for found in self.scenes)

    def headers(self) -> list[SceneHeader]:
        """What its files say about themselves.

        Raises:
            ImageryError: One of them is of no use; names it.
        """
        headers = []
        for found in self.scenes:
            if found.problem is not None:
                raise ImageryError(found.problem)
            # A picture is decoded whole, as in training; anything else is read by windows.
            picture = len(found.files) == 1 and found.stac is None and not is_raster(found.files[0])
            headers.append(read_header_any(found.files[0]) if picture else header_of(found))
        return headers

    def stamps(self) -> list[tuple[str, int, int]]:
        """Name, size and time of change of each file: what tells that a scene is another one."""
        return [
            (os.path.realpath(file), (about := Path(file).stat()).st_size, about.st_mtime_ns)
            for found in self.scenes
            for file in found.files
        ]


def find_scene_inputs(scenes: Sequence[str | Path], sensor: Sensor, dates: int) -> list[SceneInput]:
    """The scenes (or, of two dates, pairs) at some places, in a fixed order.

    Args:
        scenes: Image files, folders (in which band files become products), STAC files, catalogs, or CSV
            tables. Tables have the column ``scene`` (or ``file``, ``image``), or ``before`` and ``after``,
            and may have ``gsd`` and ``name``; files are relative to the table. Pairs are in tables, in
            folders with A/ and B/ (or before/, after/; by the files' names), or in a folder a place with
            date1.* and date2.*.
        sensor: What the images were taken with.
        dates: 1, or 2 for pairs.

    Raises:
        ImageryError: Nothing is there, or a table lacks what it needs.
    """
    found: list[SceneInput] = []
    for place in map(Path, scenes):
        if not place.exists():
            raise ImageryError(f"{place}: there is no such file or folder")
        if place.suffix.lower() == ".csv":
            here = list(_table(place, dates))
        elif dates == 2:
            here = list(_pairs(place))
        else:
            here = list(_single(place, sensor))
        if not here:
            kind = "pair of scenes" if dates == 2 else "scene"
            raise ImageryError(
                f"{place}: no {kind} was found there; see the layouts in `swath predict --help`"
            )
        found += here
    return _named(found)


def scene_pair(before: str | Path, after: str | Path) -> SceneInput:
    """Two files of one place."""
    for path in (before, after):
        if not Path(path).is_file():
            raise ImageryError(f"{path}: there is no such file")
    name = f"{Path(before).stem}_{Path(after).stem}"
    return SceneInput(name, (_file(before), _file(after)))


def _file(path: str | Path) -> SceneFiles:
    return SceneFiles(str(path), (str(path),))


def _single(place: Path, sensor: Sensor) -> Iterator[SceneInput]:
    if place.suffix.lower() in (".parquet", ".geoparquet"):
        for entry in Catalog.read(place).entries:
            yield SceneInput(
                Path(entry.path).stem, (SceneFiles(entry.path, entry.files, problem=entry.problem),)
            )
        return
    for scene in find_scenes(place, sensor):
        at = Path(scene.path)
        below = at.relative_to(place) if place.is_dir() and at.is_relative_to(place) else Path(at.name)
        is_file = len(scene.files) == 1 and scene.path == scene.files[0]
        name = below.with_suffix("") if is_file else below
        yield SceneInput(name.as_posix() if str(name) != "." else place.name, (scene,))


def _pairs(place: Path) -> Iterator[SceneInput]:
    if not place.is_dir():
        raise ImageryError(
            f"{place}: is one file, and this model compares two dates: give --before and --after, a table "
            "with these columns, or a folder of pairs"
        )
    folders = [
        next((place / name for name in names if (place / name).is_dir()), None) for names in (BEFORE, AFTER)
    ]
    if folders[0] is not None and folders[1] is not None:
        first, second = ({path.stem: path for path in find_images(folder)} for folder in folders if folder)
        for stem in sorted(first | second):
            lacking = None
            if stem not in first or stem not in second:
                there = (first if stem in first else second)[stem]
                lacking = f"{there}: has no file of the same name in {folders[stem in first]}"
            pair = tuple(replace(_file(files.get(stem, stem)), problem=lacking) for files in (first, second))
            yield SceneInput(stem, pair)
        return
    for folder in sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith(".")):
        by_stem = {path.stem: path for path in find_images(folder)}
        if "date1" in by_stem and "date2" in by_stem:
            yield SceneInput(folder.name, (_file(by_stem["date1"]), _file(by_stem["date2"])))


def _table(path: Path, dates: int) -> Iterator[SceneInput]:
    header, rows = read_csv(path)
    columns: tuple[str, ...] = ("before", "after")
    if dates == 1:
        columns = (next((name for name in ("scene", "file", "image") if name in header), "scene"),)
    for column in columns:
        if column not in header:
            raise ImageryError(f"{path}: has no column {column!r}.{suggest(column, header)}")
    scale = next((name for name in ("gsd", "gsd_m") if name in header), None)
    for line, row in rows:
        files = [path.parent / row[column] for column in columns]
        try:
            gsd = float(row[scale]) if scale and row[scale] else None
        except ValueError:
            raise ImageryError(f"{path}, line {line}: {scale} is {row[str(scale)]!r}, not a number") from None
        name = row.get("name") or "_".join(
            Path(row[column]).with_suffix("").as_posix() for column in columns[:1]
        )
        yield SceneInput(name, tuple(_file(file) for file in files), gsd)


def _named(sources: Sequence[SceneInput]) -> list[SceneInput]:
    """Names that stay below the out folder, and are one of a kind."""
    taken: set[str] = set()
    result = []
    for source in sources:
        parts = [part for part in Path(source.name).parts if part not in ("..", ".", "/", os.sep)]
        name = base = "/".join(parts) or "scene"
        number = 2
        while name.casefold() in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name.casefold())
        result.append(replace(source, name=name))
    return result
