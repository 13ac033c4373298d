"""One pyramid for every encoder: strides, sizes, sensors, and that a cell is about its own pixels."""

from __future__ import annotations

import pytest
import torch

from swath.encoders.check import check_pyramid
from swath.encoders.cnn import CNN
from swath.encoders.multi_sensor import MultiSensorViT
from swath.encoders.pyramid import _Level, build_pyramid
from swath.encoders.swin import Swin
from swath.encoders.vit import ViT
from swath.errors import ContractError

TINY = {"embed_dim": 16, "depth": 5, "heads": 2}
SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "window": 4}
NANO = {"architecture": "resnet18", "options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}}
BRANCHES = {"embed_dim": 16, "heads": 2, "specific_depth": 1, "common_depth": 2}


@pytest.mark.parametrize("bands", [1, 4])
@pytest.mark.parametrize(
    "build",
    [
        *(lambda bands, patch=patch: ViT(bands, patch_size=patch, **TINY) for patch in (4, 8, 14, 16, 32)),
        lambda bands: ViT(bands, patch_size=8, embed_dim=16, depth=1, heads=2),
        lambda bands: Swin(bands, **SWIN),
        lambda bands: Swin(bands, **(SWIN | {"patch_size": 2})),
        lambda bands: Swin(bands, **SWIN, scale_aware=True),
        lambda bands: CNN(bands, **NANO),
        lambda bands: MultiSensorViT(bands, patch_size=15, **BRANCHES),
    ],
    ids=[
        "vit4",
        "vit8",
        "vit14",
        "vit16",
        "vit32",
        "shallow",
        "swin",
        "swin2",
        "swin-gsd",
        "cnn",
        "branches",
    ],
)
def test_every_family_keeps_the_promise(build, bands):
    check_pyramid(build(bands), bands)


@pytest.mark.parametrize("sensor", ["a", "b"])
@pytest.mark.parametrize(
    "encoder",
    [
        lambda: MultiSensorViT({"a": 2, "b": 5}, patch_size=8, **BRANCHES),
        lambda: MultiSensorViT({"a": 2, "b": 5}, patch_size={"a": 8, "b": 24}, **BRANCHES),
        lambda: MultiSensorViT({"a": 2, "b": 5}, patch_size=8, **(BRANCHES | {"common_depth": 0})),
        lambda: ViT({"a": 2, "b": 5}, patch_size=8, **TINY),
        lambda: Swin({"a": 2, "b": 5}, **SWIN),
        lambda: CNN({"a": 2, "b": 5}, **NANO),
    ],
    ids=["branches", "patches", "no-common", "vit", "swin", "cnn"],
)
def test_and_so_it_does_for_each_sensor(encoder, sensor):
    check_pyramid(encoder(), 2 if sensor == "a" else 5, sensor)


def test_patches_that_differ_by_sensor_need_its_name():
    encoder = MultiSensorViT({"a": 2, "b": 5}, patch_size={"a": 8, "b": 24}, **BRANCHES)
    with pytest.raises(ContractError, match="say which one"):
        build_pyramid(encoder)
    maps = build_pyramid(encoder, "a").eval()(
        torch.randn(1, 5, 50, 60), torch.ones(1), "b"
    )  # also of the other
    assert [tuple(one.shape[2:]) for one in maps] == [(13, 15), (7, 8), (4, 4), (2, 2)]


@pytest.mark.parametrize("build", [lambda: Swin(3, **SWIN), lambda: CNN(3, **NANO)], ids=["swin", "cnn"])
def test_a_hierarchy_is_given_as_it_is(build):
    encoder = build().eval()
    maps_of = build_pyramid(encoder)
    assert not list(maps_of.levels.parameters())
    assert maps_of.channels == encoder.channels
    image, gsd = torch.randn(2, 3, 64, 96), torch.ones(2)
    with torch.no_grad():
        assert all(
            torch.equal(a, b) for a, b in zip(maps_of(image, gsd), encoder(image, gsd).maps, strict=True)
        )


def test_a_size_that_does_not_divide_is_that_of_the_image_padded_with_zeros():
    maps_of = build_pyramid(ViT(3, patch_size=16, **TINY)).eval()
    image, gsd = torch.randn(1, 3, 40, 50), torch.ones(1)
    padded = torch.nn.functional.pad(image, (0, 14, 0, 8))
    with torch.no_grad():
        for small, large in zip(maps_of(image, gsd), maps_of(padded, gsd), strict=True):
            assert torch.equal(small, large[:, :, : small.shape[2], : small.shape[3]])


def test_levels_of_a_transformer_are_its_inner_layers():
    encoder = ViT(3, patch_size=16, **TINY).eval()
    image, gsd = torch.randn(2, 3, 32, 64), torch.tensor([1.0, 3.0])
    with torch.no_grad():
        inner = encoder.intermediate(image, gsd, layers=[5, 2, 5])
        assert torch.equal(inner[0], inner[2])
        assert torch.equal(inner[0], encoder(image, gsd).maps[0])  # the last is what a call gives
        assert not torch.allclose(inner[0], inner[1])
        encoder.blocks = encoder.blocks[:2]
        assert torch.equal(inner[1], encoder(image, gsd).maps[0])  # an inner one is that of a shorter encoder
    for wrong in ([], [0], [6]):
        with pytest.raises(ValueError, match="from 1 to"):
            ViT(3, **TINY).intermediate(image, gsd, layers=wrong)


def test_inner_layers_of_a_branch_pass_its_own_norm_before_the_common_blocks():
    encoder = MultiSensorViT({"a": 2, "b": 5}, patch_size=8, **BRANCHES).eval()
    image, gsd = torch.randn(2, 5, 32, 64), torch.ones(2)
    with torch.no_grad():
        inner = encoder.intermediate(image, gsd, "b", layers=[1, 3])
        assert torch.equal(inner[1], encoder(image, gsd, "b").maps[0])


def test_layers_can_be_chosen_and_are_checked():
    encoder = ViT(3, patch_size=16, **TINY)
    assert build_pyramid(encoder)._layers == [2, 3, 4, 5]
    assert build_pyramid(encoder, layers=[5, 5, 5, 5])._layers == [5, 5, 5, 5]
    for wrong in ([1, 2, 3], [1, 2, 3, 6], [0, 1, 2, 3]):
        with pytest.raises(ValueError, match="four numbers from 1 to 5"):
            build_pyramid(encoder, layers=wrong)
    with pytest.raises(ValueError, match="no layers to choose"):
        build_pyramid(Swin(3, **SWIN), layers=[1, 2, 3, 4])
    with pytest.raises(TypeError, match="no encoder"):
        build_pyramid(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("patch", [8, 12, 14, 15, 16, 22])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_a_cell_stays_over_its_pixels(patch, stride):
    """Where each cell of the encoder knows its place, so does each of the level, to half a cell."""
    level = _Level(4, patch, stride)
    for convolution in level.up:  # no more than one here, so no norm
        torch.nn.init.constant_(convolution.weight, 1 / 4)
        torch.nn.init.zeros_(convolution.bias)
    grid, cells = (-(-200 // patch), -(-300 // patch)), (-(-200 // stride), -(-300 // stride))
    place = (torch.arange(grid[1]) + 0.5) * patch
    with torch.no_grad():
        x = level(place.expand(1, 4, *grid), patch, cells)
    assert x.shape[2:] == cells
    expected = (torch.arange(cells[1]) + 0.5) * stride
    assert (x - expected)[..., 1:-1].abs().max() <= max(patch, stride) / 2


@pytest.mark.parametrize("transpose", [False, True])
def test_a_transposed_encoder_gives_maps_of_the_image_as_it_is(transpose):
    encoder = ViT(3, patch_size=8, **TINY).eval()
    image, gsd = torch.randn(1, 3, 40, 72), torch.ones(1)
    with torch.no_grad():
        maps = build_pyramid(encoder, transpose=transpose).eval()(image, gsd)
    assert [tuple(one.shape[2:]) for one in maps] == [(10, 18), (5, 9), (3, 5), (2, 3)]
