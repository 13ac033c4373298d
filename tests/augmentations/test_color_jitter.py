"""The color changes of CMID's authors: as the field defines them, in their stated shares."""

from __future__ import annotations

import colorsys

import pytest
import torch

from swath.augmentations.color_jitter import RgbColorJitter, shift_hue
from swath.keyed_random import sample_keys
from swath.sensors.registry import get_sensor

RGB = get_sensor("rgb_aerial")


@pytest.mark.parametrize("turn", [0.0, 0.1, -0.1, 0.4])
def test_hue_turns_as_in_hsv(turn):
    colors = torch.rand(1, 3, 20, 10, generator=torch.Generator().manual_seed(0))
    colors[0, :, 0, :3] = torch.eye(3)
    colors[0, :, 1] = 0.5  # gray has no hue
    new = shift_hue(colors, torch.full((1, 1, 1, 1), turn))
    for old, found in zip(colors[0].flatten(1).T.tolist(), new[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*old)
        assert found == pytest.approx(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), abs=1e-5)


def test_shares_of_images_are_as_stated():
    count = 400
    flat = torch.tensor([200.0, 120.0, 40.0]).view(1, 3, 1, 1).expand(count, 3, 8, 8)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (RGB.mean, RGB.std))
    batch = {"image": (flat - mean) / std, "key": sample_keys(0, 0, torch.arange(count))}
    new = RgbColorJitter(RGB)(batch)["image"] * std + mean
    assert new.min() >= -0.01
    assert new.max() <= 255.01
    noisy = new.flatten(2).std(dim=2).amax(dim=1) > 0.5
    assert float(noisy.float().mean()) == pytest.approx(0.6, abs=0.08)
    deviation = new.flatten(2).std(dim=2)[noisy][:, 1]
    assert 3.2 < float(deviation.median()) < 7.1  # roots of 10 to 50; gray mixes three
    assert deviation.max() < 9.5
    gray = (new[:, 0] - new[:, 2]).abs().amax(dim=(1, 2)) < 1e-3
    assert float(gray.float().mean()) == pytest.approx(0.2, abs=0.06)


def test_order_of_the_bands_does_not_matter():
    bgr = RGB.select(["B", "G", "R"])
    image = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    key = sample_keys(0, 0, torch.arange(3))
    one = RgbColorJitter(RGB)({"image": image, "key": key})["image"]
    other = RgbColorJitter(bgr)({"image": image.flip(1), "key": key})["image"].flip(1)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
