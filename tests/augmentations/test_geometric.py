"""Augmentation keeps the GSD true, follows nodata, and depends on the samples' keys alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from swath.augmentations.geometric import (
    crop_boxes,
    random_flip_rotate,
    random_resized_crop,
    resize_images,
)
from swath.keyed_random import sample_keys


def batch_of(count=3, bands=5, height=40, width=40, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(count, bands, height, width, generator=generator) * 200
    return {
        "image": image.to(dtype),
        "gsd": torch.tensor([0.5, 1.0, 10.0, 30.0])[:count],
        "valid": torch.ones(count, height, width, dtype=torch.bool),
        "key": sample_keys(0, 0, torch.arange(count)),
        "sensor": "anything",
    }


ALL = (
    lambda b: random_resized_crop(b, 16),
    lambda b: random_resized_crop(b, (16, 24), ratio=(0.5, 2.0), filter="bilinear"),
    random_flip_rotate,
)


@pytest.mark.parametrize("augment", ALL)
@pytest.mark.parametrize("shape", [(40, 40), (40, 56)])
def test_a_sample_is_the_same_alone_and_in_company(augment, shape):
    batch = batch_of(3, 5, *shape)
    before = {k: v.clone() for k, v in batch.items() if k != "sensor"}
    state = torch.get_rng_state()
    together = augment(batch)
    assert torch.equal(torch.get_rng_state(), state)
    for i in range(3):
        one = {k: v if k == "sensor" else v[i : i + 1] for k, v in batch.items()}
        alone = augment(one)
        for key in ("image", "gsd", "valid"):
            assert torch.equal(alone[key], together[key][i : i + 1]), key
    for key, value in before.items():
        assert torch.equal(batch[key], value), f"{key} was changed in place"


def test_gsd_is_multiplied_by_crop_pixels_per_new_pixel():
    batch = batch_of(4, height=50, width=70)
    boxes = crop_boxes(batch["key"], 50, 70, ratio=(0.5, 2.0))
    new = random_resized_crop(batch, (20, 30), ratio=(0.5, 2.0))
    for i, (top, left, tall, wide) in enumerate(boxes):
        assert top >= 0
        assert top + tall <= 50
        assert left >= 0
        assert left + wide <= 70
        expected = batch["gsd"][i] * ((tall / 20) * (wide / 30)) ** 0.5
        assert new["gsd"][i] == pytest.approx(expected.item(), rel=1e-6)


def test_length_on_the_ground_is_kept():
    """A bar of 20 m is 20 m before and after: its width in pixels times the GSD."""
    image = torch.zeros(1, 1, 64, 64)
    image[..., 20:40] = 1
    batch = {"image": image, "gsd": torch.tensor([1.0]), "key": torch.tensor([0])}
    for side in (32, 96, 64):
        new = resize_images(batch, side)
        assert new["image"][0, 0, 0].sum().item() * new["gsd"].item() == pytest.approx(20.0, rel=1e-5)


def test_crops_cover_the_range_of_scales():
    boxes = crop_boxes(sample_keys(0, 0, torch.arange(2000)), 100, 100, scale=(0.25, 1.0))
    share = torch.tensor([tall * wide / 1e4 for _, _, tall, wide in boxes])
    assert all(tall == wide for _, _, tall, wide in boxes)
    assert share.min() < 0.27
    assert share.max() > 0.98
    assert share.mean().item() == pytest.approx(0.625, abs=0.02)
    left = torch.tensor([float(left) / max(1, 100 - wide) for _, left, _, wide in boxes if wide < 90])
    assert left.mean().item() == pytest.approx(0.5, abs=0.03)


def test_square_crops_of_a_narrow_image_stay_square():
    boxes = crop_boxes(sample_keys(0, 0, torch.arange(50)), 30, 300, scale=(0.5, 1.0))
    assert all(tall == wide == 30 for _, _, tall, wide in boxes)


def test_shrinking_is_antialiased_and_equals_torch():
    batch = batch_of(1, 3, 64, 64)
    for filter in ("bilinear", "bicubic"):
        new = random_resized_crop(batch, 24, scale=(1.0, 1.0), filter=filter)
        expected = F.interpolate(batch["image"], size=24, mode=filter, antialias=True)
        torch.testing.assert_close(new["image"], expected)
    torch.testing.assert_close(resize_images(batch, 16)["image"], F.avg_pool2d(batch["image"], 4))


def test_integer_images_become_float():
    new = random_resized_crop(batch_of(dtype=torch.uint8), 16)
    assert new["image"].dtype == torch.float32
    assert resize_images(batch_of(dtype=torch.uint8), 20)["image"].dtype == torch.float32


@pytest.mark.parametrize("filter", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [17, 40, 64])
def test_nodata_touches_no_valid_pixel(filter, size):
    """Whatever stands in nodata pixels, the valid pixels of the result are the same, invalid ones 0."""
    results = []
    for junk in (0.0, 1e6):
        batch = batch_of(2)
        batch["valid"][0, :13] = False
        batch["valid"][1, 5, 7] = False
        batch["image"] = torch.where(batch["valid"][:, None], batch["image"], junk)
        if filter == "area":
            results.append(resize_images(batch, size, filter=filter))
        else:
            results.append(random_resized_crop(batch, size, scale=(1.0, 1.0), filter=filter))
    one, other = results
    assert torch.equal(one["valid"], other["valid"])
    assert not one["valid"].all()
    assert one["valid"].any()
    torch.testing.assert_close(one["image"], other["image"])
    assert (one["image"] * ~one["valid"][:, None] == 0).all()


def test_orientations_of_a_square_are_equally_likely():
    count = 1600
    image = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).expand(count, 1, 2, 2)
    key = sample_keys(0, 0, torch.arange(count))
    valid = torch.tensor([[True, False], [True, True]]).expand(count, 2, 2)
    new = random_flip_rotate({"image": image, "key": key, "valid": valid})
    kinds, counts = new["image"].flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 8
    assert counts.min() > 140
    assert torch.equal(new["valid"], new["image"][:, 0] != 1), "the mask turns with the image"
    flipped = random_flip_rotate({"image": image, "key": key}, rotate=False)
    assert len(flipped["image"].flatten(1).unique(dim=0)) == 2


def test_unknown_filter():
    with pytest.raises(ValueError, match="'area', 'bilinear' or 'bicubic'"):
        resize_images(batch_of(), 8, filter="nearest")
