"""Resampling: equal to Pillow where all is valid, and blind to what is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from swath.errors import ImageryError
from swath.rasters.resampling import Kernel, check_kernel, kernel_weights, resample

RANDOM = np.random.default_rng(7)
KERNELS: tuple[Kernel, ...] = ("nearest", "area", "bilinear", "cubic")


def whole(image: np.ndarray, shape: tuple[int, int], kernel: Kernel) -> np.ndarray:
    ok = np.ones(image.shape[1:], bool)
    values, valid = resample(image, ok, (0, image.shape[1]), (0, image.shape[2]), shape, kernel)
    assert valid.all()
    return values


@pytest.mark.parametrize("shape", [(25, 30), (17, 41), (100, 90), (50, 60), (1, 1)])
@pytest.mark.parametrize("kernel", ["bilinear", "cubic"])
def test_equals_pillow(kernel: Kernel, shape: tuple[int, int]) -> None:
    image = RANDOM.random((2, 50, 60), dtype=np.float32)
    method = {"bilinear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}[kernel]
    for band, mine in zip(image, whole(image, shape, kernel), strict=True):
        theirs = np.asarray(Image.fromarray(band, mode="F").resize(shape[::-1], method))
        assert np.abs(mine - theirs).max() < 1e-6


def test_area_is_the_mean_of_what_a_pixel_covers() -> None:
    image = RANDOM.random((3, 24, 36), dtype=np.float32)
    assert np.allclose(whole(image, (12, 9), "area"), image.reshape(3, 12, 2, 9, 4).mean((2, 4)), atol=1e-6)


@settings(deadline=None)
@given(size=st.integers(1, 40), count=st.integers(1, 60))
def test_area_keeps_the_mean_for_any_ratio(size: int, count: int) -> None:
    line = np.random.default_rng(size).random((1, 1, size))
    assert whole(line, (1, count), "area").mean() == pytest.approx(line.mean(), rel=1e-9)


def test_area_replicates_when_enlarging_by_a_whole_factor() -> None:
    image = RANDOM.integers(0, 65536, (1, 5, 4)).astype(np.uint16)
    assert np.array_equal(whole(image, (15, 12), "area"), image.repeat(3, 1).repeat(3, 2))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float32, np.float64])
def test_a_flat_image_stays_flat_in_every_type(kernel: Kernel, dtype: type) -> None:
    image = np.full((1, 9, 11), 123, dtype)
    for shape in ((4, 5), (20, 30)):
        out = whole(image, shape, kernel)
        assert out.dtype == dtype
        assert np.abs(out.astype(float) - 123).max() < 1e-4


def test_cubic_overshoot_is_clipped_to_the_types_range() -> None:
    image = np.zeros((1, 8, 8), np.uint8)
    image[..., 4:] = 255
    out = whole(image, (8, 64), "cubic")
    assert out.min() == 0
    assert out.max() == 255


@pytest.mark.parametrize("kernel", KERNELS)
def test_invalid_pixels_never_bleed(kernel: Kernel) -> None:
    image = np.full((2, 20, 20), 5.0, np.float32)
    valid = np.ones((20, 20), bool)
    image[:, 3:9, 4:12] = np.nan
    valid[3:9, 4:12] = False
    for shape in ((10, 10), (7, 13), (40, 40)):
        values, ok = resample(image, valid, (0, 20), (0, 20), shape, kernel)
        assert np.isfinite(values).all()
        assert np.abs(values[:, ok] - 5).max() < 1e-4
        assert (values[:, ~ok] == 0).all()
        assert 0 < ok.mean() < 1


def test_a_pixel_is_valid_where_half_of_it_is() -> None:
    image = np.ones((1, 2, 4), np.float32)
    valid = np.array([[True, True, True, False], [False, True, False, False]])
    _, ok = resample(image, valid, (0, 2), (0, 4), (1, 2), "area")
    assert ok.tolist() == [[True, False]]
    half = np.array([[True, False]])
    assert resample(np.ones((1, 1, 2)), half, (0, 1), (0, 2), (1, 1), "area")[1].all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_lies_outside_the_input_is_invalid(kernel: Kernel) -> None:
    image = np.ones((1, 10, 10), np.float32)
    values, ok = resample(image, np.ones((10, 10), bool), (-5, 10), (0, 10), (15, 10), kernel)
    assert not ok[:5].any()
    assert ok[5:].all()
    assert np.allclose(values[:, 5:], 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_part_of_the_span_gives_that_part_of_the_result(kernel: Kernel) -> None:
    image = RANDOM.random((1, 30, 30), dtype=np.float32)
    ok = np.ones((30, 30), bool)
    everything, _ = resample(image, ok, (0, 30), (0, 30), (45, 20), kernel)
    part, _ = resample(image, ok, (10, 20), (15, 30), (15, 10), kernel)
    assert np.allclose(part, everything[:, 15:30, 10:], atol=1e-6)


def test_weights_of_smooth_kernels_sum_up_to_one() -> None:
    for kernel in ("bilinear", "cubic"):
        _, weight = kernel_weights(20, (0, 20), 7, kernel)  # type: ignore[arg-type]
        assert weight.sum(1) == pytest.approx(np.ones(7))


def test_an_unknown_kernel_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ImageryError, match=r"'bilinaer'. Did you mean 'bilinear'"):
        check_kernel("bilinaer")
