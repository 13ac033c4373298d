"""Statistics of an archive against numpy, with nodata, in any number of windows and scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.rasters import noise, write_tiff
from swath.catalog import band_statistics as statistics
from swath.catalog.band_statistics import (
    RunningStatistics,
    compute_band_statistics,
    write_sensor_with_statistics,
)
from swath.errors import ImageryError
from swath.rasters.read import read_header
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor


def sensor(bands: int, **more: object) -> Sensor:
    entries = [{"name": f"b{i}", "unit": "DN", **more} for i in range(bands)]
    return Sensor.from_dict({"name": "own", "bands": entries})


@settings(deadline=None)
@given(
    parts=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    mean=st.floats(-1e6, 1e6),
    scale=st.floats(1e-2, 1e4),
    seed=st.integers(0, 1000),
)
def test_merged_moments_equal_those_of_all_pixels(
    parts: list[int], mean: float, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = [rng.normal(mean, scale, (2, count)) for count in parts]
    merged = RunningStatistics.empty(2)
    for part in values:
        merged = merged.merge(RunningStatistics.of(part))
    whole = np.concatenate(values, axis=1)
    assert merged.count == whole.shape[1]
    if merged.count:
        np.testing.assert_allclose(merged.mean, whole.mean(axis=1), rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(merged.std, whole.std(axis=1), rtol=1e-8, atol=1e-9)
        assert np.array_equal(merged.low, whole.min(axis=1))
        assert np.array_equal(merged.high, whole.max(axis=1))


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(2, 90), st.integers(2, 90)), min_size=1, max_size=4),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    fraction=st.floats(0, 0.9),
    seed=st.integers(0, 1000),
)
def test_an_archive_of_scenes_equals_numpy(
    sizes: list[tuple[int, int]],
    dtype: type,
    fraction: float,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(seed)
    pixels = []
    headers = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "WINDOW", 32)
        for i, (height, width) in enumerate(sizes):
            values = rng.integers(1, 250, (2, height, width)).astype(dtype)
            empty = rng.random((height, width)) < fraction
            values[:, empty] = 0
            path = write_tiff(folder / f"{i}.tif", values, nodata=0, tiled=True, blockxsize=16, blockysize=16)
            headers.append(read_header(path))
            pixels.append(values[:, ~empty])
        whole = np.concatenate(pixels, axis=1).astype(np.float64)
        if whole.shape[1] < 2 or not (whole.std(axis=1) > 0).all():
            return
        found = compute_band_statistics(headers, sensor(2, scale=0.5, offset=3.0), workers=2)
    whole = whole * 0.5 + 3
    assert found.pixels == whole.shape[1]
    np.testing.assert_allclose(found.sensor.mean, whole.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.sensor.std, whole.std(axis=1), rtol=1e-5)
    assert np.array_equal(found.low, whole.min(axis=1))
    assert found.valid_fraction == pytest.approx(whole.shape[1] / sum(h * w for h, w in sizes))
    if whole.shape[1] > 500:  # all pixels are in the sample: percentiles are exact but for interpolation
        expected = np.percentile(whole, statistics.PERCENTILES, axis=1).T
        np.testing.assert_allclose(found.percentiles, expected, atol=2.5)


def test_percentiles_of_a_large_archive_stay_true_in_a_small_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_SAMPLE_LIMIT", 20_000)
    monkeypatch.setattr(statistics, "_SAMPLE_WINDOW", 4_000)
    monkeypatch.setattr(statistics, "WINDOW", 128)
    rng = np.random.default_rng(0)
    scenes = []
    pixels = []
    for i, size in enumerate((500, 60, 300)):  # of other size and brightness, so that weights matter
        values = rng.normal(100 * i, 10, (1, size, size)).astype(np.float32)
        scenes.append(read_header(write_tiff(tmp_path / f"{i}.tif", values)))
        pixels.append(values.ravel())
    found = compute_band_statistics(scenes, sensor(1))
    fractions = (1, 2, 50, 98, 99)
    exact = np.percentile(np.concatenate(pixels), fractions)
    np.testing.assert_allclose(found.percentiles[0], exact, atol=2.0)


def test_a_draw_of_windows_is_deterministic_and_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "WINDOW", 32)
    header = read_header(
        write_tiff(tmp_path / "x.tif", noise(1, 256, 256), tiled=True, blockxsize=32, blockysize=32)
    )
    some = [compute_band_statistics([header], sensor(1), windows_per_scene=3) for _ in range(2)]
    assert some[0].pixels == 3 * 32 * 32
    assert some[0].sensor == some[1].sensor
    assert compute_band_statistics([header], sensor(1), windows_per_scene=99).pixels == 256 * 256


def test_the_yaml_is_a_sensor_for_all_further_use(tmp_path: Path) -> None:
    header = read_header(write_tiff(tmp_path / "x.tif", noise(3, 64, 64, np.uint8)))
    found = compute_band_statistics([header], get_sensor("rgb_aerial"))
    written = write_sensor_with_statistics(found, tmp_path / "mine.yaml", "mine")
    assert get_sensor(tmp_path / "mine.yaml") == written
    assert written.name == "mine"
    assert written.mean == found.sensor.mean
    assert written.statistics_source is not None
    assert "4,096 valid pixels of 1 scenes" in written.statistics_source
    with pytest.raises(ImageryError, match="--name"):
        write_sensor_with_statistics(found, tmp_path / "x.yaml", "Not A Name")


def test_damaged_scenes_are_reported_and_the_others_counted(tmp_path: Path) -> None:
    good = read_header(write_tiff(tmp_path / "good.tif", noise(1, 64, 64)))
    bad = read_header(write_tiff(tmp_path / "bad.tif", noise(1, 64, 64), compress="deflate"))
    content = bytearray(Path(bad.path).read_bytes())
    content[500:-100] = bytes(len(content) - 600)
    Path(bad.path).write_bytes(bytes(content))
    found = compute_band_statistics([bad, good], sensor(1))
    assert found.pixels == 64 * 64
    assert [Path(path).name for path, _ in found.problems] == ["bad.tif"]


def test_nothing_valid_and_constant_bands_are_errors(tmp_path: Path) -> None:
    empty = read_header(write_tiff(tmp_path / "e.tif", np.zeros((1, 20, 20), np.uint8), nodata=0))
    with pytest.raises(ImageryError, match="no valid pixel in 1 scenes"):
        compute_band_statistics([empty], sensor(1))
    values = noise(2, 20, 20)
    values[1] = 5
    constant = read_header(write_tiff(tmp_path / "c.tif", values))
    with pytest.raises(ImageryError, match="band b1 has the same value in all 400 valid pixels"):
        compute_band_statistics([constant], sensor(2))
