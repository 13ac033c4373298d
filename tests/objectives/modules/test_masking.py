"""Masks hide what they say they hide."""

from __future__ import annotations

import torch

from swath.objectives.modules.masking import fill_masked, mask_pixels, random_masking


def test_keeps_the_smallest_noise():
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.0, 0.2, 0.1, 0.7]])
    masking = random_masking(noise, 0.5)
    assert masking.keep.tolist() == [[1, 3], [0, 2]]
    assert masking.hidden.tolist() == [[2, 0], [1, 3]]
    assert masking.mask.tolist() == [[True, False, True, False], [False, True, False, True]]
    assert torch.equal(masking.shuffle.gather(1, masking.restore), torch.arange(4).expand(2, 4))


def test_equal_noise_is_split_the_same_everywhere():
    masking = random_masking(torch.zeros(1, 8), 0.75)
    assert masking.keep.tolist() == [[0, 1]]


def test_fill_puts_tokens_back():
    noise = torch.rand(2, 6)
    masking = random_masking(noise, 0.5)
    tokens = torch.randn(2, 6, 4)
    kept = tokens.gather(1, masking.keep.unsqueeze(-1).expand(-1, -1, 4))
    filled = fill_masked(kept, torch.full((1, 1, 4), 7.0), masking)
    assert torch.equal(filled[~masking.mask], tokens[~masking.mask])
    assert (filled[masking.mask] == 7).all()


def test_pixels_of_a_mask():
    mask = torch.tensor([[True, False, False, True, False, False]])
    pixels = mask_pixels(mask, (2, 3), 2)
    assert pixels.shape == (1, 1, 4, 6)
    assert pixels[0, 0].int().tolist() == [[1, 1, 0, 0, 0, 0]] * 2 + [[1, 1, 0, 0, 0, 0]] * 2
