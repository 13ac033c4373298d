"""Chips of heterogeneous scenes: where they lie, what they carry, and that they are the same every time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from helpers.rasters import noise, write_tiff
from swath.datasets.chip import Chip
from swath.datasets.chips import ChipGrid, RandomChips, draw_position, grid_positions
from swath.datasets.opening import ImageDataset, collate, open_dataset
from swath.errors import ImageryError
from swath.geo.grid import PixelWindow
from swath.rasters.read import SceneHeader, read_header, read_window


@pytest.fixture
def scenes(tmp_path: Path) -> list[SceneHeader]:
    """Three scenes of other size, CRS and GSD."""
    import rasterio

    mercator = rasterio.transform.Affine(5, 0, 1_500_000, 0, -5, 8_000_000)
    degrees = rasterio.transform.Affine(1e-4, 0, 13.0, 0, -1e-4, 52.0)
    when = {"ACQUISITION_DATE": "2020-05-06"}
    return [
        read_header(path)
        for path in (
            write_tiff(tmp_path / "a.tif", noise(3, 100, 130, np.uint8, 1), tags=when),
            write_tiff(
                tmp_path / "b.tif", noise(3, 70, 64, np.uint8, 2), crs="EPSG:3857", transform=mercator
            ),
            write_tiff(
                tmp_path / "c.tif", noise(3, 33, 200, np.uint8, 3), crs="EPSG:4326", transform=degrees
            ),
        )
    ]


# ------------------------------------------------------------------------------------------------ axes


@given(length=st.integers(1, 500), chip=st.integers(1, 500), stride=st.integers(1, 600))
def test_a_grid_covers_its_axis_without_leaving_it(length: int, chip: int, stride: int) -> None:
    chip, stride = min(chip, length), min(stride, chip)
    starts = grid_positions(length, chip, stride)
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert starts[-1] + chip == length
    assert all(b - a <= stride for a, b in pairwise(starts))


@given(
    length=st.integers(1, 400), chip=st.integers(1, 400), block=st.integers(1, 300), number=st.floats(0, 1)
)
def test_aligned_starts_touch_as_few_blocks_as_possible(
    length: int, chip: int, block: int, number: float
) -> None:
    chip = min(chip, length)
    start = draw_position(length, chip, block, min(number, 1 - 2**-24))
    assert 0 <= start <= length - chip
    touched = (start + chip - 1) // block - start // block + 1
    assert touched == -(-chip // block) or start == length - chip


@settings(max_examples=50)
@given(length=st.integers(1, 60), chip=st.integers(1, 60), block=st.integers(1, 40))
def test_aligned_starts_can_meet_every_pixel_of_whole_blocks(length: int, chip: int, block: int) -> None:
    chip = min(chip, length)
    starts = {draw_position(length, chip, block, i / 4096) for i in range(4096)}
    seen = {start + i for start in starts for i in range(chip)}
    reach = range(length) if chip >= block or length < block else range(length // block * block)
    assert set(reach) <= seen
    assert length - 1 in seen


# ------------------------------------------------------------------------------------------------ grid


def test_grid_chips_are_the_windows_of_the_scenes(scenes: list[SceneHeader]) -> None:
    data = ChipGrid(scenes, "rgb_aerial", chip_size=32)
    assert isinstance(data, ImageDataset)
    assert len(data) == 4 * 5 + 3 * 2 + 2 * 7
    assert [Path(data.paths[i]).name for i in (0, 20, 26)] == ["a.tif", "b.tif", "c.tif"]
    for index in range(len(data)):
        place, window = data.place(index)
        sample = data[index]
        stored, _ = read_window(scenes[place], window)
        assert np.array_equal(sample["image"].numpy(), stored)
        assert sample["window"] == (window.column, window.row, 32, 32)
    assert data.place(len(data) - 1)[1] == PixelWindow(200 - 32, 33 - 32, 32, 32)
    assert data[-1]["index"] == len(data) - 1


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 33), overlap=st.integers(0, 32))
def test_the_grid_covers_every_pixel(
    size: int, overlap: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    header = SceneHeader("x", ("x",), "GTiff", 57, 33, 3, "uint8", ("", "", ""), gsd=1.0)
    stride = max(1, size - overlap)
    data = ChipGrid([header], "rgb_aerial", gsd=1.0, chip_size=size, stride=stride)
    seen = np.zeros((33, 57), bool)
    for index in range(len(data)):
        _, window = data.place(index)
        part = seen[window.row : window.row + size, window.column : window.column + size]
        assert part.shape == (size, size)
        part[:] = True
    assert seen.all()


def test_the_gsd_of_a_chip_is_measured_at_its_own_place(tmp_path: Path) -> None:
    import rasterio

    tall = rasterio.transform.Affine(0.01, 0, 13.0, 0, -0.01, 80.0)
    path = write_tiff(tmp_path / "x.tif", noise(3, 1000, 50, np.uint8), crs="EPSG:4326", transform=tall)
    data = ChipGrid([read_header(path)], "rgb_aerial", chip_size=50)
    north, south = data[0]["gsd"], data[len(data) - 1]["gsd"]
    latitudes = np.radians([80 - 0.25, 70 + 0.25])
    expected = 1113.2 * np.sqrt(np.cos(latitudes))
    assert (north, south) == pytest.approx(tuple(expected), rel=5e-3)


def test_chip_metres_covers_the_same_ground_everywhere(scenes: list[SceneHeader]) -> None:
    data = ChipGrid(scenes, "rgb_aerial", chip_size=16, chip_metres=150.0)
    batch = data.get_batch(range(len(data)))
    assert batch["image"].shape[2:] == (16, 16)
    sides = batch["window"][:, 2]
    assert len(set(sides.tolist())) == 3
    for i, place in enumerate(batch["scene"].tolist()):
        native = data.scenes[place].gsd()
        assert float(batch["gsd"][i]) == pytest.approx(native * int(sides[i]) / 16, rel=1e-2)
        assert float(batch["gsd"][i]) * 16 == pytest.approx(150, rel=0.1)


def test_only_an_override_and_the_relative_mode_replace_the_georeference(scenes: list[SceneHeader]) -> None:
    assert ChipGrid(scenes, "rgb_aerial", gsd=0.7, chip_size=32)[0]["gsd"] == pytest.approx(10, rel=1e-3)
    assert ChipGrid(scenes, "rgb_aerial", gsd="override:0.7", chip_size=32)[0]["gsd"] == 0.7
    assert ChipGrid(scenes, "rgb_aerial", gsd="relative", chip_size=32)[0]["gsd"] == 1.0
    with pytest.raises(ImageryError, match="chip_metres=10 needs a GSD in metres"):
        ChipGrid(scenes, "rgb_aerial", gsd="relative", chip_metres=10)


def test_a_chip_carries_footprint_time_and_source(scenes: list[SceneHeader]) -> None:
    data = ChipGrid(scenes, "rgb_aerial", chip_size=32)
    chip = data.chip(0)
    assert isinstance(chip, Chip)
    assert chip.source == scenes[0].path
    assert chip.time is not None
    assert chip.time.isoformat() == "2020-05-06T00:00:00+00:00"
    assert chip.footprint is not None
    assert chip.footprint[0] == chip.footprint[-1]
    longitudes, latitudes = zip(*chip.footprint, strict=True)
    # UTM 33N, its central meridian at 15 degrees; 32 pixels of 10 m.
    assert min(longitudes) == pytest.approx(15.0, abs=1e-6)
    assert (max(longitudes) - min(longitudes)) * 111_320 * np.cos(np.radians(45.15)) == pytest.approx(
        320, rel=0.01
    )
    assert (max(latitudes) - min(latitudes)) * 111_132 == pytest.approx(320, rel=0.01)
    assert data.get_batch([len(data) - 1, 0])["time"].isnan().tolist() == [True, False]


def test_nodata_chips_are_left_out_of_the_batch(tmp_path: Path) -> None:
    values = noise(3, 64, 64, np.uint8)
    values[:, :32, :32] = 0
    values[:, 32:, :20] = 0
    path = write_tiff(tmp_path / "x.tif", values, nodata=0)
    data = ChipGrid([read_header(path)], "rgb_aerial", chip_size=32)
    batch = data.get_batch(range(4))
    assert batch["index"].tolist() == [1, 2, 3]
    assert "column 0, row 0 has 0% valid" in batch["problems"][0][1]
    assert float(batch["valid"][1].float().mean()) == pytest.approx(12 / 32)
    strict = ChipGrid([read_header(path)], "rgb_aerial", chip_size=32, min_valid=0.5)
    assert strict.get_batch(range(4))["index"].tolist() == [1, 3]
    assert strict.get_batch([0])["image"].shape == (0, 3, 32, 32)


# ---------------------------------------------------------------------------------------------- random


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000), align=st.booleans())
def test_random_chips_depend_on_seed_epoch_and_index_only(seed: int, epoch: int, align: bool) -> None:
    headers = [
        SceneHeader(name, (name,), "GTiff", w, h, 3, "uint8", ("", "", ""), gsd=1.0, block=(16, 16))
        for name, w, h in (("x", 57, 33), ("y", 400, 120))
    ]
    options: dict[str, Any] = {
        "gsd": 1.0,
        "chip_size": 20,
        "chips_per_epoch": 30,
        "align_to_blocks": align,
        "seed": seed,
    }
    one, two = RandomChips(headers, "rgb_aerial", **options), RandomChips(headers, "rgb_aerial", **options)
    places = [_places(one, i, epoch) for i in range(30)]
    two.set_epoch(7)
    assert [_places(two, i, epoch) for i in reversed(range(30))] == places[::-1]
    assert [_places(one, i, epoch + 1) for i in range(30)] != places


def _places(data: RandomChips, index: int, epoch: int) -> list[tuple[int, PixelWindow]]:
    from swath.keyed_random import sample_keys

    return list(data._candidates(index, sample_keys(data.seed, epoch, torch.tensor([index]))))


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(20, 300), st.integers(20, 300)), min_size=1, max_size=8),
    chips=st.integers(1, 200),
    seed=st.integers(0, 1000),
)
def test_every_scene_gets_its_share_each_epoch(sizes: list[tuple[int, int]], chips: int, seed: int) -> None:
    headers = [
        SceneHeader(f"{i}", (f"{i}",), "GTiff", w, h, 3, "uint8", ("", "", ""))
        for i, (w, h) in enumerate(sizes)
    ]
    data = RandomChips(headers, "rgb_aerial", gsd=1.0, chip_size=20, chips_per_epoch=chips, seed=seed)
    first = [_places(data, i, 0)[0] for i in range(chips)]
    counts = np.bincount([place for place, _ in first], minlength=len(sizes))
    areas = np.array([w * h for w, h in sizes])
    assert np.all(np.abs(counts - chips * areas / areas.sum()) <= 2)
    for place, window in first:
        assert 0 <= window.column <= sizes[place][0] - 20
        assert 0 <= window.row <= sizes[place][1] - 20


def test_random_chips_avoid_nodata_and_damaged_files(tmp_path: Path, scenes: list[SceneHeader]) -> None:
    values = noise(3, 200, 200, np.uint8)
    values[:, :, :120] = 0
    half = read_header(write_tiff(tmp_path / "half.tif", values, nodata=0))
    bad = read_header(write_tiff(tmp_path / "bad.tif", noise(3, 100, 100, np.uint8), compress="deflate"))
    content = bytearray(Path(bad.path).read_bytes())
    content[400:-200] = bytes(len(content) - 600)  # the header stays good
    Path(bad.path).write_bytes(bytes(content))
    data = RandomChips([half, bad, scenes[0]], "rgb_aerial", chip_size=24, chips_per_epoch=60, min_valid=0.9)
    batch = data.get_batch(range(60))
    assert len(batch["index"]) == 60
    assert float(batch["valid"].float().mean(dim=(1, 2)).min()) >= 0.9
    assert set(batch["scene"].tolist()) == {0, 2}
    assert {Path(path).name for path, _ in batch["problems"]} == {"bad.tif"}


def test_draws_end_where_there_is_nothing_but_nodata(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    data = RandomChips([read_header(path)], "rgb_aerial", chip_size=32)
    batch = data.get_batch([0, 1])
    assert batch["image"].shape == (0, 3, 32, 32)
    assert "0% valid" in batch["problems"][0][1]
    with pytest.raises(ImageryError, match="0% valid"):
        data.chip(0)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_workers_cut_the_same_chips(scenes: list[SceneHeader], context: str) -> None:
    data = RandomChips(scenes, "rgb_aerial", chip_size=24, chips_per_epoch=24, seed=5)
    data.set_epoch(3)
    expected = data.get_batch(range(24))  # opens the files in this process first
    loader = DataLoader(data, 4, collate_fn=collate, num_workers=2, multiprocessing_context=context)
    batches = list(loader)
    for key in ("image", "gsd", "valid", "key", "window", "scene"):
        found = torch.cat([batch[key] for batch in batches])
        assert torch.equal(found, expected[key])  # type: ignore[literal-required]


# ------------------------------------------------------------------------------------------- bad input


def test_scenes_smaller_than_a_chip_are_reported(scenes: list[SceneHeader]) -> None:
    data = ChipGrid(scenes, "rgb_aerial", chip_size=64)
    assert len(data.scenes) == 2
    assert (
        "200 x 33 pixels are fewer than a chip of 64 x 64; choose a smaller --chip-size"
        in data.problems[0][1]
    )
    with pytest.raises(ImageryError, match=r"no scene to cut chips from.*a\.tif"):
        ChipGrid(scenes, "rgb_aerial", chip_size=640)


def test_mixed_band_counts_name_both_files(tmp_path: Path, scenes: list[SceneHeader]) -> None:
    other = read_header(write_tiff(tmp_path / "four.tif", noise(4, 64, 64)))
    with pytest.raises(ImageryError, match=r"four\.tif has 4 bands.*1 of 4 scenes.*a\.tif does"):
        ChipGrid([*scenes, other], "rgb_aerial", chip_size=32)


def test_near_infrared_marked_as_transparency_is_told(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "rgbn.tif", noise(4, 64, 64, np.uint8))  # GDAL's default for 4 bytes a pixel
    with pytest.raises(ImageryError, match=r"wants 4: .*calls transparency.*-colorinterp_4 undefined"):
        ChipGrid([read_header(path)], "naip", chip_size=32)


def test_missing_gsd_names_the_file_and_the_fix(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", noise(3, 64, 64, np.uint8), crs=None)
    with pytest.raises(ImageryError, match=r"x\.tif: states a grid but no usable CRS.*--gsd 0\.3.*relative"):
        ChipGrid([read_header(path)], "rgb_aerial", chip_size=32)
    assert ChipGrid([read_header(path)], "rgb_aerial", gsd=0.5, chip_size=32)[0]["gsd"] == 0.5


def test_sentinel2_needs_its_offset_and_applies_it(tmp_path: Path) -> None:
    names = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
    values = noise(12, 32, 32) + 1000
    header = read_header(write_tiff(tmp_path / "x.tif", values, descriptions=names))
    with pytest.raises(ImageryError, match="offset_dn"):
        ChipGrid([header], "sentinel2_l2a", chip_size=32)
    image = ChipGrid([header], "sentinel2_l2a", chip_size=32, offset_dn=-1000)[0]["image"]
    np.testing.assert_allclose(image.numpy(), (values - 1000.0) / 10000, atol=1e-6)


# --------------------------------------------------------------------------------------- open_dataset


def test_a_mixed_folder_gives_the_scenes_of_the_sensor_and_reports_the_others(
    tmp_path: Path, scenes: list[SceneHeader]
) -> None:
    write_tiff(tmp_path / "radar.tif", noise(2, 64, 64).astype(np.float32), descriptions=("VV", "VH"))
    data = open_dataset(tmp_path, sensor="rgb_aerial", chip_size=32)
    assert isinstance(data, ChipGrid)
    assert len(data.scenes) == 3
    assert [Path(path).name for path, _ in data.problems] == ["radar.tif"]
    random = open_dataset(tmp_path, sensor="sentinel1_grd", sampling="random", chip_size=32, pattern="r*")
    assert isinstance(random, RandomChips)
    assert not random.problems


def test_options_of_the_other_sampling_are_refused(tmp_path: Path, scenes: list[SceneHeader]) -> None:
    with pytest.raises(ImageryError, match="chips_per_epoch=3 means nothing with sampling='grid'"):
        open_dataset(tmp_path, sensor="rgb_aerial", chips_per_epoch=3)
    with pytest.raises(ImageryError, match="stride=3 means nothing with sampling='random'"):
        open_dataset(tmp_path, sensor="rgb_aerial", sampling="random", stride=3)


def test_real_scenes_of_many_places(data_dir: Path) -> None:
    folder = data_dir / "oscd"
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    data = open_dataset(
        folder, sensor="sentinel2_l1c", sampling="random", chip_size=64, chip_metres=960.0, offset_dn=0
    )
    assert isinstance(data, RandomChips)
    assert len(data.scenes) == 16
    assert not data.problems  # the change masks are known as such, and left out
    batch = data.get_batch(range(0, len(data), 20))
    assert batch["image"].shape[1:] == (13, 64, 64)
    assert batch["gsd"].numpy() == pytest.approx(15, rel=0.02)
    assert 0.05 < float(batch["image"].mean()) < 0.3
