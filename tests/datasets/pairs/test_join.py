"""Two archives joined: which scenes, on which grid, and what could not be paired."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.pair_files import S1, S2, S2_BANDS
from helpers.rasters import write_tiff
from swath.datasets.pairs.join import PairJoinResult, join_catalogs
from swath.datasets.pairs.opening import open_pairs
from swath.datasets.pairs.parquet import is_pair_table, write_pairs
from swath.errors import ImageryError
from swath.geo.crs import utm_crs
from swath.geo.grid import PixelGrid, crs_transformer
from swath.geo.transform import window_transform
from swath.rasters.read import read_header
from swath.rasters.sensor_scene import match_scene_to_sensor
from swath.rasters.warp import read_on_grid, to_pixels
from swath.sensors.sensor import Sensor

UTM33 = "EPSG:32633"
WAVELENGTH = 400.0  # metres


def landscape(crs: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth scene that is a function of the place alone, between 0 and 1."""
    east, north = (x, y) if crs == UTM33 else crs_transformer(crs, UTM33).transform(x, y)
    return 0.5 + 0.25 * np.sin(2 * np.pi * east / WAVELENGTH) + 0.25 * np.cos(2 * np.pi * north / WAVELENGTH)


def seen(crs: str, transform: Any, height: int, width: int, samples: int = 1) -> np.ndarray:
    """What a sensor on this grid sees of it: the mean over each pixel."""
    a, b, c, d, e, f = transform[:6]
    parts = (np.arange(samples) + 0.5) / samples
    column = (np.arange(width)[:, None] + parts).ravel()
    row = (np.arange(height)[:, None] + parts).ravel()
    x = a * column[None] + b * row[:, None] + c
    y = d * column[None] + e * row[:, None] + f
    values = landscape(crs, x, y)
    mean: np.ndarray = values.reshape(height, samples, width, samples).mean(axis=(1, 3))
    return mean


LAYERS = Sensor.from_dict(
    {
        "name": "layers",
        "bands": [{"name": "one", "unit": "reflectance"}, {"name": "two", "unit": "reflectance"}],
    }
)


def write_landscape(path: Path, crs: str, transform: Any, height: int, width: int, samples: int = 1) -> Path:
    from rasterio.transform import Affine

    values = seen(crs, transform, height, width, samples).astype(np.float32)
    image = np.stack([values, 1 - values])
    return write_tiff(path, image, crs=crs, transform=Affine(*transform), descriptions=("one", "two"))


def shift_in_pixels(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """By how much an image is displaced against another, to first order (Lucas and Kanade, one step).

    Interpolation smooths, too. To first order smoothing adds a multiple of the second derivatives, which over
    a part of a wave are not at right angles to the gradient: unless both are fitted, smoothing of waves 13
    pixels long looks like a shift of up to 0.14 pixels. The rim is left out, where derivatives are one-sided.
    """
    down, right = np.gradient(wanted)
    terms = (right, down, np.gradient(right, axis=1), np.gradient(down, axis=0), np.ones_like(wanted))
    inner = np.s_[2:-2, 2:-2]
    matrix = np.stack([term[inner].ravel() for term in terms], axis=1)
    shift, *_ = np.linalg.lstsq(matrix, (wanted - found)[inner].ravel(), rcond=None)
    return float(shift[0]), float(shift[1])


# ------------------------------------------------------------------------------------------ reading on a grid


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pixel=st.sampled_from([5.0, 10.0, 13.0, 20.0, 30.0]),
    target=st.sampled_from([10.0, 20.0, 23.0, 40.0]),
    east=st.floats(0, 40),
    north=st.floats(0, 40),
    zone=st.sampled_from([UTM33, "EPSG:32634", "EPSG:3857", "EPSG:4326"]),
)
def test_a_known_scene_on_two_grids_comes_to_lie_on_itself(
    tmp_path: Path, pixel: float, target: float, east: float, north: float, zone: str
) -> None:
    # The file: 1.7 km around a place in UTM 33, on a grid of its own CRS.
    x, y = crs_transformer(UTM33, zone).transform(600_000.0, 5_200_000.0)
    there = pixel
    if zone == "EPSG:4326":
        there = pixel / 111_000
    elif zone == "EPSG:3857":
        there = pixel * 1.46  # 1 / cos(latitude)
    count = int(1700 / pixel)
    path = write_landscape(
        tmp_path / "scene.tif",
        zone,
        (there, 0, x - count * there / 2, 0, -there, y + count * there / 2),
        count,
        count,
        2,
    )
    left, top = 600_000 - 12 * target + east, 5_200_000 + 10 * target + north
    grid = PixelGrid(UTM33, (target, 0, left, 0, -target, top), 24, 20)
    scene = match_scene_to_sensor(read_header(path), LAYERS)
    image, valid = read_on_grid(scene, grid)
    assert valid.all()
    wanted = seen(UTM33, grid.transform, grid.height, grid.width, 4)
    # Between samples h apart, linear interpolation of a wave of number k errs by k^2 h^2 f (1 - f) / 2, where
    # f is how far on the place lies. Smoothing by its mean is fitted; what is left looks at a point like a
    # shift of k h^2 / 12 at most, changes its sign twice within h, and nearly cancels over many h.
    h = max(pixel, target)
    most = 0.01 + 2 * np.pi / WAVELENGTH * h**2 / 12 / 4 / target
    dx, dy = shift_in_pixels(image[0].astype(np.float64), wanted)
    assert abs(dx) < most
    assert abs(dy) < most
    # Bilinear smoothing shrinks the amplitude where the file's pixels are coarse against the wave, no more.
    assert np.abs(image[0] - wanted).max() < 0.02 + (max(pixel, target) / WAVELENGTH * np.pi) ** 2 / 2


def test_aligned_grids_copy_stored_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 4000, (12, 40, 50)).astype(np.uint16)
    path = write_tiff(tmp_path / "a.tif", values, descriptions=S2_BANDS, nodata=0)
    header = read_header(path)
    scene = match_scene_to_sensor(
        header, Sensor.from_dict({"name": "s", "bands": [{"name": n, "unit": "DN"} for n in S2_BANDS]})
    )
    assert header.transform is not None
    image, valid = read_on_grid(scene, PixelGrid(UTM33, window_transform(header.transform, 7, 9), 20, 16))
    assert image.dtype == np.uint16
    assert valid.all()
    assert (image == values[:, 9:25, 7:27]).all()


def test_coarser_grid_in_phase_is_the_exact_mean(tmp_path: Path) -> None:
    from rasterio.transform import Affine

    values = np.random.default_rng(0).random((2, 60, 60)).astype(np.float32)
    path = write_tiff(tmp_path / "a.tif", values, descriptions=("one", "two"))
    scene = match_scene_to_sensor(read_header(path), LAYERS)
    image, valid = read_on_grid(
        scene, PixelGrid(UTM33, tuple(Affine(30, 0, 500_090, 0, -30, 4_999_910))[:6], 12, 10)
    )  # type: ignore[arg-type]
    assert valid.all()
    wanted = values[:, 9:39, 9:45].reshape(2, 10, 3, 12, 3).mean(axis=(2, 4))
    assert np.allclose(image, wanted, atol=1e-5)


def test_decibels_are_averaged_as_power(tmp_path: Path) -> None:
    power = np.tile(np.array([[1.0, 0.01]], dtype=np.float32), (40, 20))
    path = write_tiff(tmp_path / "a.tif", np.stack([10 * np.log10(power)] * 2), descriptions=("VV", "VH"))
    scene = match_scene_to_sensor(read_header(path), __import__("swath").get_sensor(S1))
    image, _ = read_on_grid(scene, PixelGrid(UTM33, (20, 0, 500_100, 0, -20, 4_999_900), 8, 8))
    assert np.allclose(image, 10 * np.log10(0.505), atol=1e-4)  # the mean of the decibels would be -10


def test_no_data_and_the_outside_are_invalid_and_never_bleed(tmp_path: Path) -> None:
    values = np.full((2, 40, 40), 0.5, dtype=np.float32)
    values[:, :, :10] = -9999
    path = write_tiff(tmp_path / "a.tif", values, descriptions=("one", "two"), nodata=-9999)
    scene = match_scene_to_sensor(read_header(path), LAYERS)
    image, valid = read_on_grid(scene, PixelGrid(UTM33, (10, 0, 500_003, 0, -10, 5_000_057), 40, 40))
    assert not valid[:5].any()
    assert not valid[:, :9].any()
    assert valid[7:, 11:39].all()
    assert np.allclose(image[:, valid], 0.5)
    with pytest.raises(ImageryError, match="does not reach"):
        read_on_grid(scene, PixelGrid(UTM33, (10, 0, 510_000, 0, -10, 5_000_000), 40, 40))


def test_pixels_of_points_are_those_of_the_transform(tmp_path: Path) -> None:
    header = read_header(write_tiff(tmp_path / "a.tif", np.ones((1, 8, 9), np.uint8)))
    column, row = to_pixels(header, UTM33, np.array([500_025.0]), np.array([4_999_985.0]))
    assert (column[0], row[0]) == (2.5, 1.5)


# --------------------------------------------------------------------------------------------------- joining

T0 = datetime(2020, 6, 1, 10, tzinfo=UTC)


def write_scene(
    folder: Path, name: str, sensor: str, east: float, north: float, *, size: int = 60, pixel: float = 10,
    days: float | None = 0, crs: str = UTM33,
) -> Path:  # fmt: skip
    from rasterio.transform import Affine

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    if sensor == S1:
        values = random.normal(-14, 3, (2, size, size)).astype(np.float32)
        bands = ("VV", "VH")
    else:
        values, bands = random.integers(200, 4000, (12, size, size)).astype(np.uint16), S2_BANDS
    tags = {} if days is None else {"ACQUISITION_DATE": (T0 + timedelta(days=days)).isoformat()}
    return write_tiff(
        folder / f"{name}.tif", values, crs=crs, descriptions=bands, tags=tags,
        transform=Affine(pixel, 0, 500_000 + east, 0, -pixel, 5_000_000 + north),
    )  # fmt: skip


def joined(folder: Path, **options: Any) -> PairJoinResult:
    return join_catalogs(folder / "a", folder / "b", **{"sensors": (S1, S2), "grid": S2, **options})


def test_scenes_that_overlap_are_paired_with_the_nearest_in_time(tmp_path: Path) -> None:
    write_scene(tmp_path / "a", "radar_near", S1, 55, 0, days=1)
    write_scene(tmp_path / "a", "radar_far", S1, 0, 0, days=4)
    write_scene(tmp_path / "a", "radar_elsewhere", S1, 90_000, 0)
    write_scene(tmp_path / "b", "optical_1", S2, 0, 0)
    write_scene(tmp_path / "b", "optical_2", S2, 580, 0)
    found = joined(tmp_path)
    assert [pair.id for pair in found.pairs] == ["radar_near+optical_1"]
    pair = found.pairs[0]
    assert pair.days == 1
    assert pair.overlap == pytest.approx(1 - 5.5 / 60, abs=0.001)
    assert (pair.grid.width, pair.grid.height) == (54, 60)  # whole pixels of the optical grid
    assert pair.grid.transform[2] == 500_060
    reasons = {Path(path).stem: why for _, path, why in found.unpaired}
    assert set(reasons) == {"radar_far", "radar_elsewhere", "optical_2"}
    assert "no scene of sentinel2_l2a overlaps" in reasons["radar_elsewhere"]
    assert "nearer in time" in reasons["radar_far"]
    assert "overlap of" in reasons["optical_2"]
    assert len(joined(tmp_path, all_partners=True).pairs) == 2


def test_written_table_opens_as_co_registered_pairs(tmp_path: Path) -> None:
    write_scene(tmp_path / "a", "radar", S1, 3, -4)
    optical = write_scene(tmp_path / "b", "optical", S2, 0, 0)
    found = joined(tmp_path, chip_size=16)
    assert len(found.pairs) == 9
    table = tmp_path / "out" / "pairs.parquet"
    report = write_pairs(found, table)
    assert is_pair_table(table)
    assert next(csv.reader(report.open())) == ["sensor", "path", "reason"]
    for cache in ("none", "memory"):
        pairs = open_pairs(table, sensors=(S1, S2), offset_dn={S2: 0.0}, cache=cache)  # type: ignore[arg-type]
        sample = pairs[4]["sensors"]
        assert sample[S1]["image"].shape == (2, 16, 16)
        assert sample[S1]["time"] == sample[S2]["time"] == T0.timestamp()
        assert sample[S2]["gsd"] == pytest.approx(10, rel=0.01)
    column, row = (int(text) for text in pairs.paths[4].split("@")[1].split(","))
    stored = np.random.default_rng(1).integers(200, 4000, (12, 60, 60))[
        :, row : row + 16, column : column + 16
    ]
    assert torch.allclose(sample[S2]["image"], torch.from_numpy(stored / 1e4).float(), atol=1e-6)
    assert pairs.groups == ["E015.0 N45.0"] * 9
    optical.unlink()
    with pytest.raises(ImageryError, match="no usable place"):
        open_pairs(table, sensors=(S1, S2), offset_dn=0.0)


def test_table_opens_in_geopandas_with_footprints(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    write_scene(tmp_path / "a", "radar", S1, 0, 0)
    write_scene(tmp_path / "b", "optical", S2, 0, 0)
    write_pairs(joined(tmp_path), tmp_path / "pairs.parquet")
    frame = geopandas.read_parquet(tmp_path / "pairs.parquet")
    assert frame.geometry[0].area > 0
    assert tuple(frame.total_bounds.round(2)) == (15.0, 45.15, 15.01, 45.15)


@pytest.mark.parametrize(
    ("grid", "pixel", "east"), [(S1, 20.0, 500_040.0), (S2, 10.0, 500_040.0), (30.0, 30.0, 500_040.0)]
)
def test_grid_is_the_one_that_was_asked_for(tmp_path: Path, grid: Any, pixel: float, east: float) -> None:
    write_scene(tmp_path / "a", "radar", S1, 40, 0, pixel=20, size=60)
    write_scene(tmp_path / "b", "optical", S2, 0, 0, size=90)
    placed = joined(tmp_path, grid=grid).pairs[0].grid
    assert placed.crs == UTM33
    assert placed.transform[0] == pixel
    assert (placed.transform[2] - east) % pixel == pytest.approx(0)
    assert placed.gsd == pytest.approx(pixel, rel=0.001)


def test_metric_grid_meets_itself_across_scenes(tmp_path: Path) -> None:
    for i in range(2):
        write_scene(tmp_path / "a", f"radar_{i}", S1, 600 * i, 0)
        write_scene(tmp_path / "b", f"optical_{i}", S2, 600 * i, 0)
    found = joined(tmp_path, grid=20.0, chip_size=10)
    corners = {(pair.grid.transform[2], pair.grid.transform[5]) for pair in found.pairs}
    assert len(corners) == len(found.pairs)
    assert all(x % 200 == 0 and y % 200 == 0 for x, y in corners)


def test_scenes_of_two_zones_are_paired(tmp_path: Path) -> None:
    # 18 degrees east is the border of zones 33 and 34.
    x, y = crs_transformer(UTM33, "EPSG:32634").transform(736_000, 5_000_000)
    write_scene(tmp_path / "a", "radar", S1, 236_000, 0, size=100)
    write_scene(tmp_path / "b", "optical", S2, x - 500_000, y - 5_000_000, size=100, crs="EPSG:32634")
    found = joined(tmp_path, chip_size=32)
    assert {pair.grid.crs for pair in found.pairs} == {"EPSG:32634"}
    write_pairs(found, tmp_path / "pairs.parquet")
    pairs = open_pairs(tmp_path / "pairs.parquet", sensors=(S1, S2), offset_dn=0.0)
    assert all(bool(pairs[i]["sensors"][S1]["valid"].all()) for i in range(len(pairs)))


def test_empty_intersection_of_times_says_both_ranges_and_the_fix(tmp_path: Path) -> None:
    write_scene(tmp_path / "a", "radar", S1, 0, 0, days=40)
    write_scene(tmp_path / "b", "optical", S2, 0, 0)
    with pytest.raises(ImageryError) as caught:
        joined(tmp_path, max_days=3)
    text = str(caught.value)
    assert "sentinel1_grd from 2020-07-11 to 2020-07-11" in text
    assert "sentinel2_l2a from 2020-06-01 to 2020-06-01" in text
    assert "40.0 days apart" in text
    assert "--max-days 40" in text
    assert len(joined(tmp_path, max_days=40).pairs) == 1
    assert len(joined(tmp_path, max_days=None).pairs) == 1


def test_every_reason_is_told(tmp_path: Path) -> None:
    write_scene(tmp_path / "a", "radar_good", S1, 0, 0)
    write_scene(tmp_path / "b", "optical_good", S2, 0, 0)
    write_scene(tmp_path / "a", "radar_timeless", S1, 5000, 0, days=None)
    write_scene(tmp_path / "b", "optical_2", S2, 5000, 0)
    write_scene(tmp_path / "a", "radar_late", S1, 9000, 0, days=10)
    write_scene(tmp_path / "b", "optical_3", S2, 9000, 0)
    broken = write_scene(tmp_path / "a", "radar_broken", S1, 0, 0)
    broken.write_bytes(broken.read_bytes()[:700])
    write_scene(tmp_path / "b", "optical_small", S2, 14_000, 0, size=8)
    write_scene(tmp_path / "a", "radar_small", S1, 14_000, 0)
    write_tiff(
        tmp_path / "b" / "nowhere.tif", np.ones((12, 9, 9), np.uint16), crs=None, descriptions=S2_BANDS
    )
    found = joined(tmp_path, chip_size=16)
    reasons = {Path(path).stem: why for _, path, why in found.unpaired}
    assert "no acquisition time" in reasons["radar_timeless"]
    assert "10.0 days apart" in reasons["radar_late"]
    assert "truncated" in reasons["radar_broken"] or "damaged" in reasons["radar_broken"]
    assert "smaller than a chip of 16" in reasons["radar_small"]
    assert "no georeference" in reasons["nowhere"]
    assert {pair.scenes[0].path for pair in found.pairs} == {str(tmp_path / "a" / "radar_good.tif")}


def test_one_folder_with_both_sensors_will_do(tmp_path: Path) -> None:
    write_scene(tmp_path / "x", "s1", S1, 0, 0)
    write_scene(tmp_path / "x", "s2", S2, 0, 0)
    found = join_catalogs(tmp_path, tmp_path, sensors=(S1, S2), grid=S2)
    assert [pair.id for pair in found.pairs] == ["x/s1+x/s2"]
    assert found.unpaired == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sensors": (S1, S1)}, "a pair is of two"),
        ({"sensors": (S1,)}, "two sensors are wanted"),
        ({"grid": "sentinel2"}, "Did you mean 'sentinel2_l2a'"),
        ({"grid": -3.0}, "sensible number of metres"),
        ({"min_overlap": 0}, "share above 0"),
        ({"chip_size": 0}, "at least 1 pixel"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageryError, match=message):
        joined(tmp_path, **options)


def test_opening_asks_for_what_the_table_has(tmp_path: Path) -> None:
    write_scene(tmp_path / "a", "radar", S1, 0, 0)
    write_scene(tmp_path / "b", "optical", S2, 0, 0)
    write_scene(tmp_path / "a", "radar_2", S1, 3005, 0)
    write_scene(tmp_path / "b", "optical_2", S2, 3000, 0)
    table = tmp_path / "pairs.parquet"
    write_pairs(joined(tmp_path), table)
    with pytest.raises(ImageryError, match="has no sensor 'sentinel2_l1c'"):
        open_pairs(table, sensors=(S1, "sentinel2_l1c"))
    with pytest.raises(ImageryError, match="2 different sizes"):
        open_pairs(table, sensors=(S1, S2), offset_dn=0.0)
    assert open_pairs(table, sensors=(S1, S2), offset_dn=0.0, size=48)[1]["sensors"][S1]["image"].shape[
        1:
    ] == (48, 48)
    resized = open_pairs(table, sensors=(S1, S2), offset_dn=0.0, size=30, resize_mode="resize")
    assert resized[0]["sensors"][S2]["gsd"] == pytest.approx(20, rel=0.01)


def test_utm_zones() -> None:
    assert utm_crs(15, 45) == "EPSG:32633"
    assert utm_crs(-179.9, -10) == "EPSG:32701"
    assert utm_crs(181, 10) == "EPSG:32601"  # across the antimeridian longitudes go on
    assert utm_crs(0, 89) == "EPSG:32661"


def test_many_scenes_are_joined_quickly() -> None:
    """A thousand scenes a side, each with its partner: no look at all million combinations."""
    import time

    from swath.datasets.pairs.join import _Join
    from swath.rasters.header import SceneHeader
    from swath.sensors.registry import get_sensor

    def header(number: int, side: str) -> SceneHeader:
        east = 300_000 + 1200 * (number % 100)
        north = 5_000_000 + 1200 * (number // 100)
        to_lonlat = crs_transformer(UTM33, "OGC:CRS84").transform
        ring = [
            to_lonlat(east + dx, north - dy)
            for dx, dy in ((0, 0), (0, 1200), (1200, 1200), (1200, 0), (0, 0))
        ]
        return SceneHeader(
            f"{side}{number}.tif", (f"{side}{number}.tif",), "GTiff", 120, 120, 2, "float32", ("", ""),
            crs=UTM33, transform=(10, 0, east, 0, -10, north), gsd=10.0, footprint=tuple(ring), time=T0,
        )  # fmt: skip

    found = PairJoinResult((get_sensor(S1), get_sensor(S2)))
    a, b = ([header(i, side) for i in range(1000)] for side in "ab")
    began = time.process_time()
    _Join(found, a, b, S2, 7.0, 0.5, None, False).run(None)
    assert len(found.pairs) == 1000
    assert time.process_time() - began < 10
