"""The encoder with branches: the protocol, what is shared and what is not, and its scale-aware positions."""

from __future__ import annotations

import pytest
import torch

from swath.encoders import create_model, list_models
from swath.encoders.check import check_encoder
from swath.encoders.multi_sensor import MultiSensorViT
from swath.errors import ContractError

SMALL = {"patch_size": 8, "embed_dim": 32, "specific_depth": 1, "common_depth": 1, "heads": 4}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"specific_depth": 0, "common_depth": 2},
        {"specific_depth": 2, "common_depth": 0},
        {"pooling": "cls"},
        {"scale_aware": True},
    ],
    ids=str,
)
def test_keeps_every_promise_of_an_encoder(options):
    check_encoder(lambda bands: MultiSensorViT(bands, **(SMALL | options)))


def test_named_sizes():
    assert "vit_multi_sensor_base" in list_models("vit_multi_sensor*")
    with torch.device("meta"):
        model = create_model("vit_multi_sensor_base", bands={"s1": 2, "s2": 10})
    assert sum(p.numel() for p in model.parameters()) == 87_184_128 - 65 * 768  # theirs have a position table


def test_only_the_asked_sensor_runs():
    """The other's weights may be anything: not-a-numbers in one branch do not reach the other."""
    model = MultiSensorViT({"a": 2, "b": 5}, **SMALL).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".b." in name or name.endswith(".b"):
                parameter.fill_(float("nan"))
        pooled = model(torch.randn(2, 2, 16, 16), torch.ones(2), "a").pooled
    assert pooled.isfinite().all()


def test_together_is_one_after_the_other():
    model = MultiSensorViT({"a": 2, "b": 5}, **SMALL).eval()
    images = {"a": torch.randn(3, 2, 16, 16), "b": torch.randn(3, 5, 16, 16)}
    gsd = dict.fromkeys(images, torch.ones(3))
    with torch.no_grad():
        both = model.encode(images, gsd)
        for name in images:
            alone = model.encode({name: images[name]}, gsd)[name]
            assert (both[name] - alone).abs().max() < 1e-5


def test_keep_is_a_selection_of_patches():
    model = MultiSensorViT({"a": 2}, **SMALL).eval()
    image, gsd = torch.randn(2, 2, 16, 24), torch.ones(2)
    order = torch.stack([torch.randperm(6), torch.randperm(6)])
    with torch.no_grad():
        whole = model.encode({"a": image}, {"a": gsd})["a"][:, 1:]
        shuffled = model.encode({"a": image}, {"a": gsd}, {"a": order})["a"][:, 1:]
    picked = whole.gather(1, order[..., None].expand_as(whole))
    assert (picked - shuffled).abs().max() < 1e-5


def test_patches_of_equal_ground_have_equal_places():
    """8 pixels of 3 m and 2 pixels of 12 m: the same grid, and the same positions."""
    model = MultiSensorViT(
        {"fine": 3, "coarse": 3}, **(SMALL | {"patch_size": {"fine": 8, "coarse": 2}, "scale_aware": True})
    )
    fine, coarse = torch.tensor([3.0]), torch.tensor([12.0])
    assert model.step(fine, "fine") == model.step(coarse, "coarse") == 3.0
    assert model.grid(torch.empty(1, 3, 64, 64), "fine") == model.grid(torch.empty(1, 3, 16, 16), "coarse")
    assert (model.min_size("fine"), model.min_size("coarse")) == (8, 2)


def test_the_middle_of_a_patch_decides():
    """One patch of 2 units is centered between two of 1 unit."""
    from swath.encoders.positions import gsd_positions

    one = gsd_positions(2, 2, 16, torch.tensor([1.0]), cls=False, centered=True)
    two = gsd_positions(1, 1, 16, torch.tensor([2.0]), cls=False, centered=True)
    between = torch.tensor(0.5)  # (0 + 1) / 2
    assert torch.isclose(two[0, 0, 0], between.sin())
    assert torch.equal(one, gsd_positions(2, 2, 16, torch.tensor([1.0]), cls=False))


def test_scale_unaware_ignores_gsd():
    model = MultiSensorViT({"a": 2}, **SMALL).eval()
    image = torch.randn(2, 2, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(image, torch.ones(2)).pooled, model(image, torch.full((2,), 7.0)).pooled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": {"a": 8}}, "patch_size names the sensors"),
        ({"embed_dim": 30}, "multiple of 4"),
        ({"specific_depth": 0, "common_depth": 0}, "not both 0"),
        ({"pooling": "max"}, "'mean' or 'cls'"),
    ],
)
def test_refuses_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        MultiSensorViT({"a": 2, "b": 3}, **(SMALL | options))


def test_refuses_images_that_do_not_fit():
    model = MultiSensorViT({"a": 2, "b": 3}, **SMALL)
    with pytest.raises(ContractError, match="have 3; select"):
        model(torch.randn(1, 3, 16, 16), torch.ones(1), "a")
    with pytest.raises(ContractError, match="resize or pad them to 16 x 24"):
        model(torch.randn(1, 2, 15, 20), torch.ones(1), "a")
    with pytest.raises(ContractError, match="no sensor 'c'"):
        model(torch.randn(1, 2, 16, 16), torch.ones(1), "c")
