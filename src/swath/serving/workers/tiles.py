"""The imagery of the archive as PNG: chips, and tiles of a web map.

A tile (z, x, y) in the usual scheme (Web Mercator, 256 pixels, y from the north) is a mosaic of the files
whose chips touch it, newest on top, drawn until no pixel is empty. Only files that the archive names are
read, through `swath.rasters`; a request names chips, sensors and times, never files.

Values are mapped to colors by one `Stretch` per sensor, computed from a fixed sample of the archive's chips,
so that tiles match at their edges and a chip has the same colors on the map and in the results. It is
computed again when the number of chips of the sensor has doubled.
"""

from __future__ import annotations

import io
import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.archive.index.columns import NO_TIME, ChipColumns
from swath.archive.query.filters import Filter
from swath.archive.query.results import SearchResult, results_from_rows
from swath.errors import ImageryError
from swath.geo.grid import PixelGrid
from swath.rasters.header import SceneHeader, read_header
from swath.rasters.read import read_window
from swath.rasters.warp import read_preview
from swath.reporting.stretch import Stretch, choose_display_bands, to_rgba
from swath.serving.http.errors import ApiError
from swath.serving.workers.archive_handle import ArchiveHandle
from swath.serving.workers.image_cache import ImageCache

TILE = 256  # height and width in pixels
MAX_ZOOM = 24
_WORLD = 2 * math.pi * 6378137.0  # width of Web Mercator in metres
_SAMPLE, _SAMPLE_SIZE = 32, 64  # chips per sensor for its stretch, and their size in pixels

Box = tuple[float, float, float, float]


class TileRenderer:
    """Renders chips and tiles; thread-safe.

    Args:
        archive: The archive.
        cache: Cache of rendered images.
        max_sources: Maximum number of files drawn into one tile.
    """

    def __init__(self, archive: ArchiveHandle, cache: ImageCache, max_sources: int) -> None:
        self.archive = archive
        self.cache = cache
        self.max_sources = max_sources
        self._stretches: dict[tuple[str, bool, int], Stretch | None] = {}
        self._lock = threading.Lock()

    # --- one chip ---------------------------------------------------------------------------------------

    def chip(self, name: str, size: int) -> bytes:
        """A chip as PNG of at most `size` pixels in height and width.

        Raises:
            ApiError: 404 for an unknown id, 410 if its file can no longer be read.
        """
        chip = self.archive.chip(name)
        key = ("chip", name, size, chip.source, chip.window, _stamp(chip.files or (chip.source,)))
        cached, content = self.cache.get(key)
        if cached and content is not None:
            return content
        try:
            header = _header(chip)
            scale = min(1.0, size / max(chip.window.width, chip.window.height))
            shape = tuple(max(1, round(length * scale)) for length in (chip.window.height, chip.window.width))
            display = choose_display_bands(header, chip.sensor, self.archive.sensors)
            stored, valid = read_window(header, chip.window, bands=display.bands, out_shape=shape)  # type: ignore[arg-type]
        except ImageryError as error:
            raise ApiError(
                410,
                "the source file of this chip can no longer be read",
                "Searches still work; only its image is missing.",
            ) from error
        stretch = self._stretch(chip.sensor, header.dtype == "uint8")
        content = encode_png(to_rgba(display.values(stored), valid, stretch))
        self.cache.put(key, content)
        return content

    # --- a tile -----------------------------------------------------------------------------------------

    def tile(self, z: int, x: int, y: int, where: Filter) -> bytes | None:
        """A tile of the matching chips as PNG; None where the archive has no imagery."""
        chips = self.archive.chips()
        sources = self._sources(chips, replace(where, bbox=tile_box(z, x, y)))
        if not sources:
            return None
        key = ("tile", z, x, y, tuple((s.path, s.sensor, s.box, _stamp(s.files)) for s in sources))
        cached, content = self.cache.get(key)
        if cached:
            return content
        image = np.zeros((TILE, TILE, 4), np.uint8)
        for source in sources:
            self._draw(source, z, x, y, image)
            if image[..., 3].all():
                break
        content = encode_png(image) if image[..., 3].any() else None
        self.cache.put(key, content)
        return content

    def _sources(self, chips: ChipColumns, where: Filter) -> list[_Source]:
        """Files of the matching chips, newest first."""
        passing = where.mask(chips)
        rows = np.arange(len(chips)) if passing is None else np.flatnonzero(passing)
        if not len(rows):
            return []
        # Grouping by file takes time for each chip; the newest are enough for a tile of a continent.
        newest = rows[np.argsort(-_sortable(chips.times[rows]), kind="stable")][: 50 * self.max_sources]
        sources: dict[tuple[str, ...], _Source] = {}
        for chip in results_from_rows(chips, newest, np.ones(len(newest), np.float32)):
            files = chip.files or (chip.source,)
            box = chip.bbox
            assert box is not None
            if files not in sources:
                if len(sources) == self.max_sources:
                    break
                sources[files] = _Source(chip.source, files, chip.sensor, box)
            else:
                sources[files] = sources[files].union(box)
        return list(sources.values())

    def _draw(self, source: _Source, z: int, x: int, y: int, image: NDArray[np.uint8]) -> None:
        """Fill the empty pixels of a tile from a file; a file that cannot be read is skipped."""
        for columns, rows in source.within(z, x, y):
            part = image[rows, columns]
            if part[..., 3].all():
                continue
            step = _WORLD / 2**z / TILE
            grid = PixelGrid(
                "EPSG:3857",
                (step, 0.0, -_WORLD / 2 + (x * TILE + columns.start) * step,
                 0.0, -step, _WORLD / 2 - (y * TILE + rows.start) * step),
                columns.stop - columns.start,
                rows.stop - rows.start,
            )  # fmt: skip
            try:
                header = read_header(list(source.files) if len(source.files) > 1 else source.files[0])
                display = choose_display_bands(header, source.sensor, self.archive.sensors)
                stored, valid = read_preview(header, grid, display.bands)
            except ImageryError:
                continue
            if not valid.any():
                continue
            drawn = to_rgba(
                display.values(stored), valid, self._stretch(source.sensor, header.dtype == "uint8")
            )
            empty = part[..., 3] == 0
            part[empty] = drawn[empty]

    # --- colors -----------------------------------------------------------------------------------------

    def _stretch(self, sensor: str, eight_bit: bool) -> Stretch | None:
        """The stretch of a sensor, computed from chips that are spread evenly over the archive."""
        chips = self.archive.chips()
        rows = np.flatnonzero(_is(chips, sensor))
        size = int(math.log2(max(1, len(rows))))
        key = (sensor, eight_bit, size)
        with self._lock:  # other threads need the same one
            if key not in self._stretches:
                step = max(1, len(rows) // _SAMPLE)
                some = rows[step // 2 :: step][:_SAMPLE]
                self._stretches[key] = self._compute_stretch(
                    results_from_rows(chips, some, np.ones(len(some), np.float32)), eight_bit
                )
            return self._stretches[key]

    def _compute_stretch(self, chips: Sequence[SearchResult], eight_bit: bool) -> Stretch | None:
        parts = []
        for chip in chips:
            try:
                header = _header(chip)
                if (header.dtype == "uint8") != eight_bit:
                    continue
                shape = (min(_SAMPLE_SIZE, chip.window.height), min(_SAMPLE_SIZE, chip.window.width))
                display = choose_display_bands(header, chip.sensor, self.archive.sensors)
                stored, valid = read_window(header, chip.window, bands=display.bands, out_shape=shape)
            except ImageryError:
                continue
            parts.append((display.values(stored), valid))
        return Stretch.of(parts, eight_bit) if parts else None


@dataclass(frozen=True, slots=True)
class _Source:
    """A file and the bounds of its matching chips."""

    path: str
    files: tuple[str, ...]
    sensor: str
    box: Box

    def union(self, other: Box) -> _Source:
        """Extended by the bounds of another chip; east exceeds 180 across the antimeridian."""
        west, south, east, north = self.box
        east = east + 360 if east < west else east
        w, s, e, n = other
        e = e + 360 if e < w else e
        turn = 360 * round((west - w) / 360)
        return _Source(
            self.path, self.files, self.sensor,
            (min(west, w + turn), min(south, s), max(east, e + turn), max(north, n)),
        )  # fmt: skip

    def within(self, z: int, x: int, y: int) -> list[tuple[slice, slice]]:
        """Columns and rows of the tile that the bounds cover, for each copy of the world."""
        west, south, east, north = self.box
        east = east + 360 if east < west else east
        top, bottom = (_row(latitude) * 2**z * TILE - y * TILE for latitude in (north, south))
        rows = slice(max(0, math.floor(top)), min(TILE, math.ceil(bottom)))
        parts = []
        for turn in (-360, 0, 360):
            left, right = (((edge + turn + 180) / 360) * 2**z * TILE - x * TILE for edge in (west, east))
            columns = slice(max(0, math.floor(left)), min(TILE, math.ceil(right)))
            if columns.stop > columns.start and rows.stop > rows.start:
                parts.append((columns, rows))
        return parts


def tile_box(z: int, x: int, y: int) -> Box:
    """West, south, east, north of a tile in degrees."""
    width = 360 / 2**z
    north, south = (math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * at / 2**z)))) for at in (y, y + 1))
    return x * width - 180, south, (x + 1) * width - 180, north


def _row(latitude: float) -> float:
    """Fraction of the world map north of a latitude."""
    bounded = min(85.06, max(-85.06, latitude))
    return (1 - math.asinh(math.tan(math.radians(bounded))) / math.pi) / 2


def _is(chips: ChipColumns, sensor: str) -> NDArray[np.bool_]:
    if sensor not in chips.sensor_names:
        return np.zeros(len(chips), np.bool_)
    mask: NDArray[np.bool_] = chips.sensors == chips.sensor_names.index(sensor)
    return mask


def _sortable(times: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(times == NO_TIME, NO_TIME + 1, times)  # so that it can be negated


def _header(chip: SearchResult) -> SceneHeader:
    return read_header(list(chip.files) if chip.files else chip.source)


def _stamp(files: Sequence[str]) -> tuple[int, ...]:
    """Modification times and sizes of files; 0 for a missing file."""
    stamps = []
    for path in files:
        try:
            status = os.stat(path)  # noqa: PTH116 (runs for every request; Path takes twice as long)
            stamps += [status.st_mtime_ns, status.st_size]
        except OSError:
            stamps += [0, 0]
    return tuple(stamps)


@lru_cache(maxsize=1)
def _encoder() -> Any:
    from PIL import Image

    return Image


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """RGBA [H, W, 4] as PNG, without alpha where all of it is opaque."""
    image = _encoder().fromarray(
        pixels if not pixels[..., 3].all() else np.ascontiguousarray(pixels[..., :3])
    )
    into = io.BytesIO()
    image.save(into, format="PNG", compress_level=3)  # 6 takes twice as long for 4 % fewer bytes
    return into.getvalue()
