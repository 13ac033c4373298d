"""The ViT keeps the protocol, and its positions mean what they say."""

from __future__ import annotations

import pytest
import torch

from swath.encoders import create_model, list_models
from swath.encoders.check import check_encoder
from swath.encoders.positions import gsd_positions
from swath.encoders.vit import ViT
from swath.errors import ContractError


@pytest.mark.parametrize("options", [{"pooling": "mean"}, {"pooling": "cls"}, {"patch_size": 8}])
def test_keeps_every_promise_of_an_encoder(options):
    options = {"patch_size": 16, "embed_dim": 32, "depth": 2, "heads": 4} | options
    check_encoder(lambda bands: ViT(bands, **options))


def test_named_sizes():
    assert "vit_base_patch16" in list_models("vit_*")
    expected = {  # parameters of the encoder with 3 bands, from the published table
        "vit_base_patch16": 85_798_656 - 197 * 768,  # those count a stored position table, which we lack
        "vit_large_patch16": 303_301_632 - 197 * 1024,
    }
    for name, count in expected.items():
        with torch.device("meta"):
            model = create_model(name)
        assert sum(p.numel() for p in model.parameters()) == count
    micro = create_model("vit_micro_patch8", bands=4)
    assert (micro.embed_dim, len(micro.blocks), micro.patch_size) == (192, 6, 8)


def test_positions_depend_on_ground_distance_alone():
    """Patch 4 at 1 m and patch 2 at 2 m lie at the same place on the ground."""
    fine = gsd_positions(6, 6, 32, torch.tensor([1.0]), cls=False).view(6, 6, 32)
    coarse = gsd_positions(3, 3, 32, torch.tensor([2.0]), cls=False).view(3, 3, 32)
    assert torch.equal(fine[::2, ::2], coarse)


def test_positions_of_some_patches():
    gsd = torch.tensor([0.5, 10.0])
    at = torch.tensor([[3, 0, 7], [14, 2, 2]])
    table = gsd_positions(3, 5, 16, gsd, cls=False)
    assert torch.equal(gsd_positions(3, 5, 16, gsd, cls=False, at=at), table[torch.arange(2)[:, None], at])


def test_positions_stay_float32_for_half_precision_gsd():
    assert gsd_positions(2, 2, 8, torch.tensor([0.5], dtype=torch.float16)).dtype == torch.float32
    with pytest.raises(ValueError, match="multiple of 4"):
        gsd_positions(2, 2, 6, torch.tensor([0.5]))
    with pytest.raises(ValueError, match="shape"):
        gsd_positions(2, 2, 8, torch.tensor(0.5))


def test_keep_is_a_selection_of_patches():
    """Keeping all patches in another order gives the same tokens in that order."""
    model = ViT(2, patch_size=4, embed_dim=32, depth=2, heads=2).eval()
    image, gsd = torch.randn(2, 2, 8, 12), torch.tensor([1.0, 3.0])
    order = torch.stack([torch.randperm(6), torch.randperm(6)])
    with torch.no_grad():
        whole, shuffled = model.encode(image, gsd), model.encode(image, gsd, keep=order)
    assert torch.allclose(whole[:, 0], shuffled[:, 0], atol=1e-6)
    rows = torch.arange(2)[:, None]
    assert torch.allclose(whole[:, 1:][rows, order], shuffled[:, 1:], atol=1e-6)


def test_refuses_what_it_was_not_built_for():
    model = ViT(3, patch_size=16, embed_dim=32, depth=1, heads=2)
    with pytest.raises(ContractError, match=r"takes 3 bands.*have 4"):
        model(torch.zeros(1, 4, 32, 32), torch.ones(1))
    with pytest.raises(ContractError, match="48 x 64"):
        model(torch.zeros(1, 3, 40, 60), torch.ones(1))
    both = ViT({"sentinel2_l2a": 12, "naip": 4}, patch_size=16, embed_dim=32, depth=1, heads=2)
    with pytest.raises(ContractError, match="Did you mean 'sentinel2_l2a'"):
        both(torch.zeros(1, 12, 32, 32), torch.ones(1), "sentinel2_l1a")
