"""Masked losses and band-passes count valid pixels only."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from swath.objectives.losses.reconstruction import low_pass, masked_area_resize, patch_loss, take_patches
from swath.objectives.modules.pixel_decoder import GroupedPairConv, Upsample


def test_valid_area_averages_valid_pixels():
    image = torch.tensor([[[[1.0, 3.0], [100.0, 5.0]]]])
    valid = torch.tensor([[[[1.0, 1.0], [0.0, 1.0]]]])
    mean, share = masked_area_resize(image, valid, (1, 1))
    assert mean.item() == pytest.approx(3.0)
    assert share.item() == 0.75


def test_smooth_is_the_plain_one_when_all_is_valid():
    image = torch.randn(2, 3, 24, 24)
    plain = low_pass(image, None, (5, 5), (24, 24))
    torch.testing.assert_close(low_pass(image, torch.ones(2, 1, 24, 24), (5, 5), (24, 24)), plain)
    reference = F.interpolate(F.adaptive_avg_pool2d(image, 5), size=24, mode="bilinear")
    torch.testing.assert_close(plain, reference)


def test_take_patches_and_its_gradient():
    image = torch.randn(2, 4, 6, 3, requires_grad=True)
    index = torch.tensor([[5, 0], [2, 3]])
    patches = take_patches(image, index, (2, 3))
    assert torch.equal(patches[0, 0], image[0, 2:4, 4:6])
    assert torch.equal(patches[1, 1], image[1, 2:4, 0:2])
    upstream = torch.randn_like(patches)
    patches.backward(upstream)
    expected = torch.zeros_like(image)
    for b in range(2):
        for m in range(2):
            r, c = divmod(index[b, m].item(), 3)
            expected[b, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2] = upstream[b, m]
    assert torch.equal(image.grad, expected)


def test_loss_is_a_mean_over_each_samples_own_pixels():
    prediction, target = torch.zeros(2, 3, 2, 2, 4), torch.full((2, 3, 2, 2, 4), 2.0)
    weight = torch.ones(2, 3, 2, 2, 1)
    weight[0, 1:] = 0
    target[0, 1:] = 1e6
    assert patch_loss(prediction, target, weight, "l2").tolist() == pytest.approx([16.0, 16.0])
    assert patch_loss(prediction, target, weight, "l1").tolist() == pytest.approx([8.0, 8.0])
    assert patch_loss(prediction, target, 0 * weight, "l2").tolist() == [0, 0]


def test_upsample_is_a_transposed_convolution():
    layer = Upsample(5, 3, 4)
    weight = layer.weight.view(4, 4, 3, 5).permute(3, 2, 0, 1)
    x = torch.randn(2, 5, 3, 2)
    expected = F.conv_transpose2d(x, weight, layer.bias, stride=4)
    torch.testing.assert_close(layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), expected)


def test_pair_convolution_is_a_grouped_one():
    layer = GroupedPairConv(6)
    x = torch.randn(2, 4, 5, 6)
    grouped = layer.weight.view(2, 3, 3, 3).transpose(0, 1)  # [outputs, 2, 3, 3]
    neighbors = x.view(2, 4, 5, 2, 3).transpose(3, 4).reshape(2, 4, 5, 6).permute(0, 3, 1, 2)
    expected = F.conv2d(neighbors, grouped, layer.bias, padding=1, groups=3)
    torch.testing.assert_close(layer(x).permute(0, 3, 1, 2), expected)
