"""Tiles show the right ground in the right colors: checked with files whose content is known."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import served as served
from swath.archive.archive import Archive
from swath.archive.query.filters import Filter
from swath.archive.table.rows import schema
from swath.geo.grid import PixelGrid
from swath.rasters.header import read_header
from swath.rasters.warp import read_preview
from swath.reporting.stretch import Stretch, to_rgba
from swath.serving.settings import ServerSettings
from swath.serving.workers.archive_handle import ArchiveHandle, bounds_across_antimeridian
from swath.serving.workers.image_cache import ImageCache
from swath.serving.workers.tiles import TileRenderer, tile_box

WORLD = 2 * math.pi * 6378137.0


def tile_grid(z: int, x: int, y: int) -> PixelGrid:
    step = WORLD / 2**z / 256
    corner = (-WORLD / 2 + x * 256 * step, WORLD / 2 - y * 256 * step)
    return PixelGrid("EPSG:3857", (step, 0, corner[0], 0, -step, corner[1]), 256, 256)


def at(longitude: float, latitude: float, z: int) -> tuple[int, int]:
    row = (1 - math.asinh(math.tan(math.radians(latitude))) / math.pi) / 2
    return int((longitude + 180) / 360 * 2**z), int(row * 2**z)


def lonlat_scene(path: Path, pixels: np.ndarray, west: float, north: float, step: float) -> Path:
    import rasterio
    from rasterio.transform import from_origin

    with rasterio.open(
        path, "w", driver="GTiff", width=pixels.shape[2], height=pixels.shape[1], count=3, dtype=pixels.dtype,
        crs="EPSG:4326", transform=from_origin(west, north, step, step),
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


@pytest.mark.parametrize("z", [8, 11, 14])
def test_a_tile_shows_the_ground_that_it_says(tmp_path: Path, z: int) -> None:
    """A ramp of longitude and latitude: the value of every pixel of the tile is known."""
    width, step, west, north = 600, 0.001, 10.0, 50.3
    columns, rows = np.meshgrid(np.arange(width), np.arange(width))
    ramp = np.stack([columns, rows, columns]).astype(np.float32)
    header = read_header(lonlat_scene(tmp_path / "ramp.tif", ramp, west, north, step))
    x, y = at(10.3, 50.0, z)
    shown, valid = read_preview(header, tile_grid(z, x, y), (0, 1))
    left, _, right, _ = tile_box(z, x, y)
    share = (np.arange(256) + 0.5) / 256
    longitude = left + share * (right - left)
    mercator = y + share
    latitude = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * mercator / 2**z))))
    column, row = (longitude - west) / step - 0.5, (north - latitude) / step - 0.5
    inside = (column[None] > 1) & (column[None] < width - 2) & (row[:, None] > 1) & (row[:, None] < width - 2)
    margin = 4 * (right - left) / 256 / step  # where a reduced pixel lies half outside
    deep = (
        (column[None] > margin) & (column[None] < width - margin)
        & (row[:, None] > margin) & (row[:, None] < width - margin)
    )  # fmt: skip
    assert valid[deep & inside].all()
    outside = (column[None] < -margin) | (column[None] > width + margin)
    assert not valid[np.broadcast_to(outside, valid.shape)].any()
    tolerance = 0.6 if z == 14 else 1.0  # enlarged, pixels stay pixels; 14 has half a pixel of the file
    error = max(0.05, (right - left) / 256 / step * 0.1, tolerance)
    assert np.abs(shown[0] - column[None])[deep].max() < error
    assert np.abs(shown[1] - row[:, None])[deep].max() < error


def test_neighboring_tiles_have_no_seam(tmp_path: Path) -> None:
    pixels = served.pixels_of(3).repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)
    header = read_header(lonlat_scene(tmp_path / "a.tif", pixels, 10.0, 50.3, 0.001))
    z = 10
    x, y = at(10.19, 50.11, z)
    step = WORLD / 2**z / 256
    wide = PixelGrid("EPSG:3857", tile_grid(z, x, y).transform, 512, 256)
    whole, whole_valid = read_preview(header, wide, (0,))
    parts = [read_preview(header, tile_grid(z, x + turn, y), (0,)) for turn in (0, 1)]
    joined = np.concatenate([part[0] for part in parts], axis=2)
    both = whole_valid & np.concatenate([part[1] for part in parts], axis=1)
    assert both.sum() > 1000
    assert step > 0
    assert np.abs(joined - whole)[:, both].max() < 2  # of a range of 215: positions agree to a hundredth


def test_a_scene_across_the_antimeridian_is_drawn_on_both_sides(tmp_path: Path) -> None:
    pixels = np.full((3, 100, 100), 200, np.uint8)
    header = read_header(lonlat_scene(tmp_path / "a.tif", pixels, 179.5, 0.5, 0.01))
    z = 8
    east, west = 2**z - 1, 0
    for x in (east, west):
        _, valid = read_preview(header, tile_grid(z, x, 2 ** (z - 1)), (0,))
        assert valid.any(), x


def archive_of(
    folder: Path, scenes: list[tuple[Path, tuple[float, float, float, float], str]]
) -> ArchiveHandle:
    """An archive whose chips are whole files with these bounds."""
    import pyarrow as pa
    from shapely import box, to_wkb

    archive = Archive.create(folder / "archive", "m-1", 4)
    wanted = schema(4)
    rows = []
    for number, (path, bounds, day) in enumerate(scenes):
        header = read_header(path)
        rows.append(
            {
                "id": f"{number:032x}",
                "embedding": np.eye(4, dtype=np.float32)[number % 4].tolist(),
                "geometry": to_wkb(box(*bounds)),
                "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True)),
                "datetime": datetime.fromisoformat(day).replace(tzinfo=UTC),
                "sensor": "rgb_aerial",
                "gsd": 10.0,
                "source": str(path),
                "window": {"column": 0, "row": 0, "width": header.width, "height": header.height},
                "valid_fraction": 1.0,
                "model_id": "m-1",
                "preprocessing": "{}",
                "fingerprint": "f",
            }
        )
    archive.upsert(pa.Table.from_pylist(rows, schema=wanted))
    return ArchiveHandle(str(folder / "archive"), None, ServerSettings())


def opened(content: bytes | None) -> np.ndarray:
    assert content is not None
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def test_the_newest_lies_on_top_and_what_is_empty_shows_the_older(tmp_path: Path) -> None:
    bounds = (10.0, 50.0, 10.1, 50.1)
    old = np.full((3, 100, 100), 60, np.uint8)
    new = np.full((3, 100, 100), 200, np.uint8)
    new[:, :, :50] = 0  # no data, said in the file
    first = lonlat_scene(tmp_path / "old.tif", old, 10.0, 50.1, 0.001)
    second = lonlat_scene(tmp_path / "new.tif", new, 10.0, 50.1, 0.001)
    import rasterio

    with rasterio.open(second, "r+") as file:
        file.nodata = 0
    archive = archive_of(tmp_path, [(first, bounds, "2020-01-01"), (second, bounds, "2021-01-01")])
    renderer = TileRenderer(archive, ImageCache(2**20), 8)
    z = 12
    x, y = at(10.05, 50.05, z)
    both = opened(renderer.tile(z, x, y, Filter()))
    column = (10.05 - tile_box(z, x, y)[0]) / (tile_box(z, x, y)[2] - tile_box(z, x, y)[0]) * 256
    left, right = both[128, int(column) - 20], both[128, int(column) + 20]
    assert right[0] > left[0] > -1
    assert left[3] == right[3] == 255
    until = Filter(datetime=(datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 6, 1, tzinfo=UTC)))
    older = opened(renderer.tile(z, x, y, until))
    assert (older[128, int(column) - 20] == older[128, int(column) + 20]).all()
    assert renderer.tile(z, x + 40, y, Filter()) is None
    hits = renderer.cache.hits
    renderer.tile(z, x, y, Filter())
    assert renderer.cache.hits == hits + 1
    # A file that is written anew is drawn anew; one that is gone is passed over.
    lonlat_scene(tmp_path / "new.tif", np.full((3, 100, 100), 90, np.uint8), 10.0, 50.1, 0.001)
    assert (opened(renderer.tile(z, x, y, Filter())) != both).any()
    second.unlink()
    assert opened(renderer.tile(z, x, y, Filter())) is not None


def test_one_stretch_for_all_tiles_of_a_sensor(tmp_path: Path) -> None:
    """A dark and a bright scene keep their difference, in whichever tile they are alone."""
    scenes = []
    for number, value in enumerate((50, 220)):
        west = 10.0 + number
        pixels = np.full((3, 64, 64), value, np.uint8)
        pixels[:, :2] = (30, 250)[number]
        path = lonlat_scene(tmp_path / f"{number}.tif", pixels, west, 50.064, 0.001)
        scenes.append((path, (west, 50.0, west + 0.064, 50.064), "2020-01-01"))
    renderer = TileRenderer(archive_of(tmp_path, scenes), ImageCache(2**20), 8)
    values = []
    for number in range(2):
        tile = opened(renderer.tile(13, *at(10.03 + number, 50.03, 13), Filter()))
        values.append(int(np.median(tile[tile[..., 3] > 0][:, 0])))
    assert values[1] - values[0] > 150
    assert opened(renderer.chip(f"{0:032x}", 32)).shape[:2] == (32, 32)


def test_stretch_of_nothing_and_of_one_value() -> None:
    pixels, valid = np.full((3, 4, 4), 7, np.float32), np.ones((4, 4), bool)
    assert Stretch.of([(pixels, ~valid)], True) is None
    shown = to_rgba(pixels, valid, Stretch.of([(pixels, valid)], False))
    assert shown.shape == (4, 4, 4)
    assert (shown[..., 3] == 255).all()


def test_bounds_take_the_narrow_way_around() -> None:
    def bounds(*boxes: tuple[float, float, float, float]) -> object:
        return bounds_across_antimeridian(np.array(boxes, np.float64).reshape(-1, 4))

    assert bounds() is None
    assert bounds((1, 2, 3, 4), (-5, 0, -4, 1)) == (-5, 0, 3, 4)
    assert bounds((179, 0, -179, 1)) == (179, 0, -179, 1)
    assert bounds((178, 0, 179, 1), (-179, 0, -178, 1)) == (178, 0, -178, 1)
    assert bounds((-180, -90, 180, 90)) == (-180, -90, 180, 90)


def test_the_cache_stays_within_its_bytes() -> None:
    cache = ImageCache(10_000)
    for number in range(1000):
        cache.put(number, b"x" * (number % 3000))
        assert cache.size <= 10_000
    assert cache.get(999) == (True, b"x" * 999)
    assert cache.get(0) == (False, None)
    cache.put("none", None)
    assert cache.get("none") == (True, None)
    cache.put("large", b"x" * 20_000)
    assert cache.get("large") == (False, None)
