"""The catalog of an archive: what every scene's header says, gathered once, as GeoParquet.

    catalog = build_catalog("archive/", sensor="sentinel2_l2a")
    catalog.write("archive/catalog.parquet")      # opens in geopandas, DuckDB, QGIS
    Catalog.read("archive/catalog.parquet").scenes

A scene is a file, or the files of a product that has one a band (``..._B02.tif``, ``..._B03.tif``), or a STAC
item. Whatever cannot be used is a row with the reason in `problem`.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Self

from swath.catalog.products.dates import time_from_name
from swath.catalog.scene_files import SceneFiles, find_scenes
from swath.catalog.stac import PARQUET_SUFFIXES, STAC_NAMES, is_stac_geoparquet
from swath.catalog.table import FORMAT_VERSION, CatalogEntry, from_row, to_table
from swath.errors import ImageryError, Problem, UnstatedError
from swath.rasters.pillow_reader import IMAGE_SUFFIXES
from swath.rasters.read import SceneHeader, read_header
from swath.rasters.remote import is_remote
from swath.rasters.sensor_scene import match_scene_bands, match_scene_to_sensor
from swath.sensors.registry import get_sensor, list_sensors
from swath.sensors.sensor import Sensor

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_MANY = 2000  # from here on headers are read by processes: opening a file is mostly Python, under one lock


@dataclass(slots=True)
class Catalog:
    """The scenes of an archive, usable ones and others, in the order of their paths."""

    entries: list[CatalogEntry] = field(default_factory=list)

    @property
    def scenes(self) -> list[SceneHeader]:
        """Headers of the usable scenes."""
        return [entry.header for entry in self.entries if entry.header is not None and entry.problem is None]

    @property
    def problems(self) -> list[Problem]:
        """(path, reason) of the others."""
        return [(entry.path, entry.problem) for entry in self.entries if entry.problem is not None]

    def summary(self) -> list[tuple[str, ...]]:
        """Rows of text, most frequent first: (count, sensor, bands and type, GSD, CRS, sizes, dates)."""
        dates: dict[tuple[str, ...], list[str]] = defaultdict(list)
        sizes: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
        systems: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for entry in self.entries:
            header = entry.header
            if header is None or entry.problem is not None:
                continue
            crs = header.crs or "none"
            if not re.fullmatch(r"[A-Za-z]+:\w+", crs):
                named = re.match(r'\w+\["([^"]*)"', crs)
                crs = named[1] if named else crs[:30]
            bands = f"{header.bands} x {header.dtype}"
            key: tuple[str, ...] = (entry.sensor or "?", bands, format_gsd(header.gsd))
            sizes[key].append((header.width, header.height))
            systems[key][crs] += 1
            dates[key] += [f"{header.time:%Y-%m-%d}"] if header.time is not None else []
        rows: list[tuple[str, ...]] = []
        for key, found in sorted(sizes.items(), key=lambda item: (-len(item[1]), item[0])):
            low, high = (f"{w} x {h}" for w, h in (min(found), max(found)))
            crs = systems[key].most_common(1)[0][0]
            crs += f" and {len(systems[key]) - 1} more" if len(systems[key]) > 1 else ""
            first, last = (min(dates[key]), max(dates[key])) if dates[key] else ("unknown", "unknown")
            span = first if first == last else f"{first} to {last}"
            rows.append((str(len(found)), *key, crs, low if low == high else f"{low} to {high}", span))
        return rows

    def write(self, path: str | Path) -> None:
        """Write GeoParquet 1.1, whole or not at all.

        Paths below the file's folder are stored relative to it (archive and catalog can move together),
        others absolute.
        """
        import pyarrow.parquet as pq

        from swath.files import atomic_path

        table = to_table(self.entries, Path(path).absolute().parent)
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read what `write` has written.

        Raises:
            ImageryError: Not a Parquet file, or not a catalog of this version.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise ImageryError(f"{path}: cannot be read as Parquet ({error})") from None
        version = (table.schema.metadata or {}).get(b"swath:catalogue")
        if version != str(FORMAT_VERSION).encode():
            what = "is no catalog" if version is None else f"is of format {version!r}"
            raise ImageryError(f"{path}: {what}; make one with `swath inspect DIR --out {Path(path).name}`")
        base = Path(path).absolute().parent
        return cls([from_row(row, base) for row in table.drop_columns(["geometry", "bbox"]).to_pylist()])


def build_catalog(
    root: str | Path,
    *,
    sensor: str | Path | Sensor | None = None,
    pattern: str | None = None,
    workers: int | None = None,
    remote: bool = False,
    progress: Progress | None = None,
) -> Catalog:
    """Read the header of everything below `root`.

    Args:
        root: A folder (hidden files and folders are passed over; where a folder has a STAC ``catalog.json``
            or ``collection.json``, that says what is in it), a STAC file (JSON or stac-geoparquet), or one
            image.
        sensor: What the scenes were taken with. Scenes that do not fit it become problems. Without it, a
            scene's sensor is known only where its band descriptions are exactly those of one known sensor.
        pattern: Take only files whose path below `root` matches, such as ``*/s2.tif``.
        workers: Threads (processes, for thousands of files); None for as many as there are CPUs.
        remote: Whether what STAC names may be fetched from elsewhere (see `swath.rasters.remote`).
        progress: Called with (headers read, headers in all).

    Raises:
        ImageryError: No such path, or no image at all.
    """
    root = Path(root)
    if not root.exists():
        raise ImageryError(f"{root}: there is no such file or folder")
    wanted = None if sensor is None else get_sensor(sensor)
    found = find_scenes(root, wanted, pattern, remote=remote)
    if not found:
        below = f" that matches {pattern!r}" if pattern else ""
        raise ImageryError(
            f"{root}: no image{below} in it or below it (suffixes: {', '.join(sorted(IMAGE_SUFFIXES))}; "
            f"STAC: {', '.join(STAC_NAMES)})"
        )
    known = [wanted] if wanted is not None else [get_sensor(name) for name in list_sensors()]
    entries: list[CatalogEntry] = []
    read = partial(_entry, sensors=known, given=wanted is not None)
    with _executor(len(found), workers or os.cpu_count() or 1) as pool:
        options = {"chunksize": 64} if isinstance(pool, ProcessPoolExecutor) else {}
        for entry in pool.map(read, found, **options):
            entries.append(entry)
            if progress is not None:
                progress(len(entries), len(found))
    catalog = Catalog(_each_file_once(entries))
    if wanted is not None and wanted.name == "sentinel2_l2a":
        cirrus = [s.path for s in catalog.scenes if "B10" in (text.upper() for text in s.descriptions)]
        if cirrus:
            logger.warning(
                "%s: has band B10, which no Level-2A product has (%d scenes); is it Level-1C? Then give "
                "--sensor sentinel2_l1c", cirrus[0], len(cirrus)
            )  # fmt: skip
    return catalog


def check_scenes(
    catalog: Catalog, sensor: Sensor, *, offset_dn: float | None = None, workers: int | None = None
) -> list[Problem]:
    """Hold a block of every scene against the sensor's unit; what cannot be in it becomes a problem.

    Remote scenes are not read.

    Returns:
        (path, reason) of the scenes that lack a statement of the user: Sentinel-2's offset.
    """

    def check(entry: CatalogEntry) -> tuple[CatalogEntry, Problem | None]:
        if entry.header is None or entry.problem is not None or any(map(is_remote, entry.files)):
            return entry, None
        unstated: Problem | None = None
        try:
            try:
                scene = match_scene_to_sensor(entry.header, sensor, gsd="relative", offset_dn=offset_dn)
            except UnstatedError as error:
                unstated = (entry.path, str(error))
                scene = match_scene_to_sensor(entry.header, sensor, gsd="relative", offset_dn=0)
            scene.check_values()
        except ImageryError as error:
            return dataclasses.replace(entry, problem=str(error)), None
        return entry, unstated

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        checked = list(pool.map(check, catalog.entries))
    catalog.entries = [entry for entry, _ in checked]
    return [unstated for _, unstated in checked if unstated is not None]


def open_catalog(
    path: str | Path,
    *,
    sensor: Sensor,
    pattern: str | None = None,
    workers: int | None = None,
    remote: bool = False,
) -> tuple[list[SceneHeader], list[Problem]]:
    """Usable scenes and problems of a catalog, a folder, a STAC file, one image or the URL of one."""
    if is_remote(os.fspath(path)):  # named by the user himself
        entry = _entry(SceneFiles(str(path), (str(path),)), [sensor], given=True)
        catalog = Catalog([entry])
    elif Path(path).suffix.lower() not in PARQUET_SUFFIXES or is_stac_geoparquet(Path(path)):
        catalog = build_catalog(path, sensor=sensor, pattern=pattern, workers=workers, remote=remote)
    else:
        read = Catalog.read(path)
        checked = [_checked(entry if remote else _at_hand(entry), sensor) for entry in read.entries]
        catalog = Catalog([e for e in checked if pattern is None or fnmatch(e.path, pattern)])
        return catalog.scenes, catalog.problems
    if not catalog.scenes and len(catalog.problems) == 1:
        raise ImageryError(catalog.problems[0][1])
    return catalog.scenes, catalog.problems


def _at_hand(entry: CatalogEntry) -> CatalogEntry:
    """The entry, or with the problem that it is not on a disk of this machine."""
    if entry.problem is not None or not any(map(is_remote, entry.files)):
        return entry
    return dataclasses.replace(
        entry, problem=f"{entry.path}: is not on the local disk; let it be fetched (--remote), or download it"
    )


# -------------------------------------------------------------------------------------------- reading headers


def header_of(scene: SceneFiles) -> SceneHeader:
    """The header of what was found, with what STAC and the files' names say besides.

    Raises:
        ImageryError: A file cannot be read.
    """
    header = read_header(scene.files[0] if len(scene.files) == 1 else list(scene.files))
    time = time_from_name(scene.files[0]) or header.time
    header = dataclasses.replace(header, cloud_layer=scene.cloud_layer, time=time)
    if scene.bands and len(scene.bands) == header.bands:
        header = dataclasses.replace(header, descriptions=scene.bands)
    if scene.stac is not None:
        stac = scene.stac
        header = dataclasses.replace(
            header,
            time=stac.time or header.time,
            gsd=header.gsd if header.gsd is not None else stac.gsd,
            tags={**stac.properties, **header.tags},
        )
    return header


def _entry(found: SceneFiles, sensors: Sequence[Sensor], given: bool) -> CatalogEntry:
    """Open what was found; never raises for what a file may hold."""
    if found.problem is not None:
        return CatalogEntry(found.path, found.files, problem=found.problem)
    try:
        header = header_of(found)
    except ImageryError as error:
        return CatalogEntry(found.path, found.files, problem=str(error))
    entry = CatalogEntry(header.path, header.files, header=header)
    if given:
        return _checked(entry, sensors[0])
    names = tuple(sorted(text.upper() for text in header.descriptions))
    same = [one.name for one in sensors if tuple(sorted(n.upper() for n in one.band_names)) == names]
    return dataclasses.replace(entry, sensor=same[0] if len(same) == 1 else None)


def _checked(entry: CatalogEntry, sensor: Sensor) -> CatalogEntry:
    """The entry as one of `sensor`, or with the problem that it is not."""
    if entry.header is None or entry.problem is not None:
        return entry
    try:
        header = _only_bands(entry.header, match_scene_bands(entry.header, sensor))
    except ImageryError as error:
        return dataclasses.replace(entry, problem=str(error))
    return dataclasses.replace(entry, sensor=sensor.name, header=header, files=header.files)


def _only_bands(header: SceneHeader, bands: Sequence[int]) -> SceneHeader:
    """The scene of these band files alone; its grid is that of the finest among them."""
    if len(header.files) == 1 or len(bands) == header.bands:
        return header
    part = read_header([header.files[index] for index in bands])
    return dataclasses.replace(
        part,
        path=header.path,
        descriptions=tuple(header.descriptions[index] for index in bands),
        time=header.time or part.time,
        gsd=header.gsd if part.gsd is None else part.gsd,
        tags={**part.tags, **header.tags},
        cloud_layer=header.cloud_layer,
    )


def _each_file_once(entries: Iterable[CatalogEntry]) -> list[CatalogEntry]:
    """A file that is reached twice (links, STAC items) counts once."""
    first: dict[str, str] = {}
    result = []
    for entry in entries:
        real = [file if is_remote(file) else os.path.realpath(file) for file in entry.files]
        before = next((first[file] for file in real if file in first), None)
        if before is not None and entry.problem is None:
            entry = dataclasses.replace(
                entry,
                problem=f"{entry.path}: is the same file as {before}, which is in the catalog already",
            )
        for file in real:
            first.setdefault(file, entry.path)
        result.append(entry)
    return result


def _executor(count: int, workers: int) -> Executor:
    if count >= _MANY and workers > 1 and sys.platform == "linux":
        import multiprocessing

        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))
    return ThreadPoolExecutor(workers)


def format_gsd(gsd: float | None) -> str:
    """Metres per pixel for people, in two or three digits."""
    return "unknown" if gsd is None else f"{gsd:.0f} m" if gsd >= 10 else f"{gsd:.2g} m"
