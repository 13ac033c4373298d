"""Windows: the right pixels, the right mask, on the right grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from helpers.rasters import noise, write_tiff
from swath.errors import ImageryError
from swath.rasters.read import PixelWindow, SceneHeader, read_header, read_window, window_gsd
from swath.rasters.resampling import Kernel


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> SceneHeader:
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    write_tiff(path, noise(4, 90, 110, seed=5), tiled=True, blockxsize=32, blockysize=16, compress="deflate")
    return read_header(path)


# --------------------------------------------------------------------------------------------- windows


def test_a_window_holds_the_same_pixels_as_rasterio_reads(scene: SceneHeader) -> None:
    window = PixelWindow(37, 11, 40, 50)
    stored, valid = read_window(scene, window)
    with rasterio.open(scene.path) as dataset:
        expected = dataset.read(window=rasterio.windows.Window(37, 11, 40, 50))
    assert np.array_equal(stored, expected)
    assert stored.dtype == np.uint16
    assert valid.shape == (50, 40)
    assert valid.all()


def test_bands_come_in_the_order_asked_for(scene: SceneHeader) -> None:
    everything, _ = read_window(scene)
    some, _ = read_window(scene, bands=[3, 0, 0])
    assert np.array_equal(some, everything[[3, 0, 0]])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"window": PixelWindow(100, 0, 20, 20)}, "is not within the scene of 110 x 90"),
        ({"window": PixelWindow(-1, 0, 20, 20)}, "is not within the scene"),
        ({"window": PixelWindow(0, 0, 0, 20)}, "is not within the scene"),
        ({"bands": [4]}, r"bands \[4\] asked for, it has 0 to 3"),
        ({"bands": []}, "bands"),
        ({"out_shape": (0, 5)}, "0 bytes"),
        ({"resampling": "average"}, "unknown resampling 'average'"),
    ],
)
def test_what_is_not_there_cannot_be_read(scene: SceneHeader, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageryError, match=words):
        read_window(scene, **arguments)


@settings(deadline=None, max_examples=30)
@given(
    column=st.integers(0, 80),
    row=st.integers(0, 60),
    factor=st.sampled_from([0.5, 1, 2, 3, 7]),
    kernel=st.sampled_from(["area", "nearest", "bilinear", "cubic"]),
)
def test_neighboring_windows_fit_without_a_seam(
    scene: SceneHeader, column: int, row: int, factor: float, kernel: Kernel
) -> None:
    """A window read by itself equals that part of a larger read, also with kernels that look beyond it."""
    size = 28
    shape = (round(size / factor), round(size / factor))
    large, _ = read_window(
        scene, PixelWindow(0, row, 110, size), out_shape=(shape[0], 110), resampling=kernel
    )
    left, right = (
        read_window(scene, PixelWindow(0, row, 55, size), out_shape=(shape[0], 55), resampling=kernel)[0],
        None,
    )
    right, _ = read_window(scene, PixelWindow(55, row, 55, size), out_shape=(shape[0], 55), resampling=kernel)
    assert np.array_equal(np.concatenate([left, right], 2), large)
    one, _ = read_window(scene, PixelWindow(column, row, 30, 30), out_shape=(30, 30), resampling=kernel)
    assert np.array_equal(one, read_window(scene)[0][:, row : row + 30, column : column + 30])


def test_reading_smaller_is_the_mean_of_what_is_covered(scene: SceneHeader) -> None:
    stored, _ = read_window(scene, PixelWindow(10, 20, 40, 60), out_shape=(30, 10))
    full, _ = read_window(scene, PixelWindow(10, 20, 40, 60))
    assert np.abs(stored - full.reshape(4, 30, 2, 10, 4).mean((2, 4))).max() <= 0.5


def test_strips_make_no_difference(scene: SceneHeader, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = read_window(scene, out_shape=(31, 29), resampling="cubic")
    monkeypatch.setattr("swath.rasters.read._STRIP_PIXELS", 2000)
    assert np.array_equal(read_window(scene, out_shape=(31, 29), resampling="cubic")[0], whole)


def test_overviews_are_used_and_agree(tmp_path: Path) -> None:
    values = np.add.outer(np.arange(2048), np.arange(2048))[None].astype(np.uint16)
    plain = read_header(write_tiff(tmp_path / "plain.tif", values, compress="deflate"))
    cog = read_header(write_tiff(tmp_path / "cog.tif", values, driver="COG", overview_resampling="average"))
    assert cog.overviews
    window = PixelWindow(256, 512, 1024, 512)
    fast, ok = read_window(cog, window, out_shape=(64, 128))
    slow, _ = read_window(plain, window, out_shape=(64, 128))
    assert ok.all()
    assert np.abs(fast.astype(int) - slow).max() <= 2
    # Reading a hundred megapixels' worth through the overview passes a limit that the full grid would not.
    from swath.rasters.read import ReadLimits

    limits = ReadLimits(read_pixels=300_000)
    assert read_window(cog, out_shape=(512, 512), limits=limits)[0].shape == (1, 512, 512)
    with pytest.raises(ImageryError, match="gdaladdo"):
        read_window(plain, out_shape=(512, 512), limits=limits)


@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp"])
def test_photographs_are_read_whole_in_windows_and_smaller(tmp_path: Path, suffix: str) -> None:
    from PIL import Image

    y, x = np.mgrid[0:256, 0:320]
    picture = np.stack([y, x // 2, (x + y) // 3], -1).astype(np.uint8)
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(picture).save(path, quality=95)
    header = read_header(path)
    stored, valid = read_window(header, PixelWindow(64, 32, 128, 96))
    assert valid.all()
    assert np.abs(stored.transpose(1, 2, 0).astype(int) - picture[32:128, 64:192]).mean() < 2
    small, _ = read_window(header, out_shape=(32, 40))
    assert np.abs(small.transpose(1, 2, 0) - picture.reshape(32, 8, 40, 8, 3).mean((1, 3))).mean() < 2


# --------------------------------------------------------------------------------------------- validity


def test_any_band_with_nodata_makes_a_pixel_invalid(tmp_path: Path) -> None:
    values = noise(3)
    values[1, 4, 5] = 0
    values[:, 7, 7] = 0
    _, valid = read_window(read_header(write_tiff(tmp_path / "a.tif", values, nodata=0)))
    assert np.argwhere(~valid).tolist() == [[4, 5], [7, 7]]


def test_in_8_bit_color_all_bands_decide_together(tmp_path: Path) -> None:
    values = noise(3, dtype=np.uint8)
    values[1, 4, 5] = 255  # a saturated green is a color
    values[:, 7, 7] = 255
    header = read_header(write_tiff(tmp_path / "a.tif", values, nodata=255))
    assert np.argwhere(~read_window(header)[1]).tolist() == [[7, 7]]
    assert np.argwhere(~read_window(header, bands=[1])[1]).tolist() == [[7, 7]]
    assert read_window(replace(header, nodata=None))[1].all()


def test_saturated_tree_crowns_stay_valid(data_dir: Path) -> None:
    """NEON tiles are tagged nodata = 255; a band-wise mask drops every saturated pixel."""
    files = sorted((data_dir / "neon_trees").rglob("*.tif"))[:20]
    kept = bandwise = 0.0
    for path in files:
        stored, valid = read_window(read_header(path))
        kept += float(valid.mean()) / len(files)
        bandwise += float((stored != 255).all(0).mean()) / len(files)
    assert kept > bandwise
    assert kept > 0.98


def test_nan_and_infinity_are_invalid_without_any_tag(tmp_path: Path) -> None:
    values = noise(2, dtype=np.float32)
    values[0, 1, 2], values[1, 3, 4], values[0, 5, 6] = np.nan, np.inf, -np.inf
    _, valid = read_window(read_header(write_tiff(tmp_path / "a.tif", values, nodata=np.nan)))
    assert np.argwhere(~valid).tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("nodata", [-9999.0, -3.4e38, 0.1, -3.4028234663852886e38])
def test_nodata_is_compared_as_float32_holds_it(tmp_path: Path, nodata: float) -> None:
    values = noise(1, dtype=np.float32)
    values[0, 2, 3] = np.float32(nodata)
    header = read_header(write_tiff(tmp_path / "a.tif", values, nodata=float(np.float32(nodata))))
    for stated in (header, replace(header, nodata=nodata)):
        assert np.argwhere(~read_window(stated)[1]).tolist() == [[2, 3]]


def test_a_nodata_value_outside_the_type_masks_nothing(tmp_path: Path) -> None:
    header = replace(read_header(write_tiff(tmp_path / "a.tif", noise())), nodata=-9999.0)
    assert read_window(header)[1].all()
    assert read_window(replace(header, nodata=0.5))[1].all()


def test_transparency_is_invalid_and_alpha_is_no_band(tmp_path: Path) -> None:
    values = noise(4, dtype=np.uint8)
    values[3] = 255
    values[3, :10] = 0
    header = read_header(write_tiff(tmp_path / "a.tif", values, alpha=True))
    stored, valid = read_window(header)
    assert np.array_equal(stored, values[:3])
    assert np.array_equal(valid, values[3] > 0)
    small, ok = read_window(header, out_shape=(20, 25))
    assert small.shape == (3, 20, 25)
    assert ok.mean() == 0.75


def test_the_files_own_mask_counts(tmp_path: Path) -> None:
    mask = np.zeros((40, 50), bool)
    mask[10:30, 20:40] = True
    for driver in ("GTiff", "COG"):
        header = read_header(write_tiff(tmp_path / f"{driver}.tif", noise(), mask=mask, driver=driver))
        assert np.array_equal(read_window(header)[1], mask)
        assert np.array_equal(read_window(header, PixelWindow(15, 5, 20, 20))[1], mask[5:25, 15:35])


def test_an_image_of_nothing_but_nodata_is_read_as_invalid(tmp_path: Path, data_dir: Path) -> None:
    made = write_tiff(tmp_path / "a.tif", np.zeros((3, 20, 20), np.uint16), nodata=0)
    for path in (made, data_dir / "geotiff_misc" / "rasterio" / "all-nodata.tif"):
        header = read_header(path)
        for shape in (None, (8, 8)):
            stored, valid = read_window(header, out_shape=shape)
            assert not valid.any()
            assert np.isfinite(stored).all()


def test_nodata_does_not_bleed_when_reading_smaller(tmp_path: Path) -> None:
    values = np.full((2, 64, 64), 1000, np.int16)
    values[:, 10:33, 5:50] = -32768
    header = read_header(write_tiff(tmp_path / "a.tif", values, nodata=-32768))
    for kernel in ("area", "bilinear", "cubic", "nearest"):
        stored, valid = read_window(header, out_shape=(13, 17), resampling=kernel)  # type: ignore[arg-type]
        assert (stored[:, valid] == 1000).all()
        assert (~valid).any()


def test_alpha_of_rasterios_own_examples(data_dir: Path) -> None:
    for name in ("alpha.tif", "RGBA.uint16.tif"):
        path = data_dir / "geotiff_misc" / "rasterio" / name
        _, valid = read_window(read_header(path))
        with rasterio.open(path) as dataset:
            assert np.array_equal(valid, dataset.dataset_mask() > 0)


# --------------------------------------------------------------------------------------- one file a band


def band_files(folder: Path, **options: Any) -> list[Path]:
    """10 m, 20 m and 60 m over the same 600 m, as Sentinel-2 has them."""
    return [
        write_tiff(
            folder / f"B{size}.tif",
            noise(1, 600 // size, 600 // size, seed=size),
            pixel=float(size),
            **options,
        )
        for size in (10, 20, 60)
    ]


def test_coarser_bands_are_replicated_onto_the_finest_grid(tmp_path: Path) -> None:
    header = read_header(band_files(tmp_path))
    stored, valid = read_window(header)
    assert stored.shape == (3, 60, 60)
    assert valid.all()
    for band, (size, factor) in enumerate([(60, 1), (30, 2), (10, 6)]):
        alone = noise(1, size, size, seed=600 // size)
        assert np.array_equal(stored[band], alone[0].repeat(factor, 0).repeat(factor, 1))


@pytest.mark.parametrize("kernel", ["area", "nearest", "bilinear", "cubic"])
def test_windows_of_band_files_fit_without_a_seam(tmp_path: Path, kernel: Kernel) -> None:
    header = read_header(band_files(tmp_path))
    everything, _ = read_window(header, resampling=kernel)
    for column, row, width, height in ((0, 0, 60, 60), (7, 13, 31, 22), (59, 59, 1, 1), (1, 0, 59, 3)):
        part, _ = read_window(header, PixelWindow(column, row, width, height), resampling=kernel)
        assert np.array_equal(part, everything[:, row : row + height, column : column + width])


def test_a_grid_that_is_shifted_by_half_a_pixel_is_read_where_it_lies(tmp_path: Path) -> None:
    """Landsat's 15 m pan band begins 7.5 m beside the 30 m bands."""
    fine = write_tiff(tmp_path / "pan.tif", np.ones((1, 40, 40), np.float32), pixel=15.0)
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32), (1, 20, 20)).copy()
    coarse = write_tiff(tmp_path / "b4.tif", ramp, transform=Affine(30, 0, 499_992.5, 0, -30, 5_000_007.5))
    stored, valid = read_window(read_header([fine, coarse]))
    # Fine column 1 covers 0.75 to 1.25 of the coarse columns: half value 0, half value 1.
    assert stored[1, 10, :3].tolist() == [0.0, 0.5, 1.0]
    assert valid[:, :39].all()


def test_band_files_with_their_own_nodata(tmp_path: Path) -> None:
    first, second = noise(1), noise(1, dtype=np.float32)
    first[0, 1, 1], second[0, 2, 2] = 0, -9999
    one = write_tiff(tmp_path / "a.tif", first, nodata=0)
    header = read_header([one, write_tiff(tmp_path / "b.tif", second, nodata=-9999)])
    stored, valid = read_window(header)
    assert stored.dtype == np.float32
    assert np.argwhere(~valid).tolist() == [[1, 1], [2, 2]]
    assert np.argwhere(~read_window(header, bands=[1])[1]).tolist() == [[2, 2]]


def test_bigearthnet_patches_are_read_onto_10_m(data_dir: Path) -> None:
    root = data_dir / "s1s2" / "bigearthnet_original"
    patch = next(iter(sorted(root.rglob("*_B02.tif*")))).parent
    files = sorted(patch.glob("*_B[0-9]*.tif*"))
    stored, valid = read_window(read_header(files))
    assert stored.shape == (len(files), 120, 120)
    assert valid.any()
    for band, path in zip(stored, files, strict=True):
        with rasterio.open(path) as dataset:
            own = dataset.read(1)
        factor = 120 // own.shape[0]
        assert np.array_equal(band, own.repeat(factor, 0).repeat(factor, 1))


# --------------------------------------------------------------------------------------------- scale


def test_gsd_follows_window_and_resampling(tmp_path: Path) -> None:
    header = read_header(write_tiff(tmp_path / "a.tif", noise()))
    assert window_gsd(header) == header.gsd
    window = PixelWindow(10, 10, 20, 20)
    assert window_gsd(header, window, (10, 10)) == pytest.approx(20.008, abs=0.001)
    assert window_gsd(header, window, (10, 40)) == pytest.approx(10.004, abs=0.001)


def test_gsd_of_a_window_is_measured_where_the_window_lies(tmp_path: Path) -> None:
    world = Affine(1, 0, -180, 0, -1, 80)
    header = read_header(write_tiff(tmp_path / "w.tif", noise(1, 160, 360), crs="EPSG:4326", transform=world))
    equator, north = (
        window_gsd(header, PixelWindow(0, 79, 4, 2)),
        window_gsd(header, PixelWindow(0, 19, 4, 2)),
    )
    assert equator is not None
    assert north is not None
    assert (north / equator) ** 2 == pytest.approx(0.5, abs=0.01)  # cos 60 degrees, in x alone
    assert window_gsd(replace(header, gsd=None)) is None
