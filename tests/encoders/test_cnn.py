"""timm's convolutional networks behind the protocol: equal, masked after the stem, never downloaded."""

from __future__ import annotations

import json

import pytest
import timm
import torch

from swath.encoders import create_model, list_models
from swath.encoders.check import check_encoder
from swath.encoders.cnn import CNN
from swath.encoders.protocol import MaskableEncoder
from swath.errors import ContractError, SwathError

THIN = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("resnet18", THIN),
        ("resnet50", THIN),
        ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 16)}),
    ],
    ids=["basic", "bottleneck", "convnext"],
)
def test_keeps_every_promise_of_an_encoder(architecture, options):
    torch.manual_seed(0)  # of so few channels all may happen to be dead
    check_encoder(lambda bands: CNN(bands, architecture=architecture, options=options))


def test_named_sizes():
    assert "cnn" in list_models()
    expected = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032,
                "resnet101": 44_549_160, "resnet152": 60_192_808}  # fmt: skip
    for name, count in expected.items():
        with torch.device("meta"):
            model = create_model(name)
        classifier = 1000 * (model.embed_dim + 1)
        assert sum(p.numel() for p in model.parameters()) == count - classifier
        assert model.strides == (4, 8, 16, 32)
        assert isinstance(model, MaskableEncoder)
        assert model.mask_token_shape == (1, 64, 1, 1)
    assert create_model("resnet_nano", bands=7).channels == (32, 64, 128, 256)


@pytest.mark.parametrize("train", [False, True])
def test_equals_timm_in_values_buffers_and_names(train):
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", in_chans=4, num_classes=0, global_pool="", **THIN)
    ours = CNN(4, architecture="resnet18", options=THIN)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # the last BatchNorm of a block starts at zero
    ours.load_state_dict(theirs.state_dict())
    ours.train(train), theirs.train(train)
    image = torch.randn(3, 4, 64, 96)
    with torch.no_grad():
        features, reference = ours(image, torch.ones(3)), theirs(image)
    scale = reference.abs().max()
    assert (features.maps[-1] - reference).abs().max() <= 1e-5 * scale
    assert (features.pooled - reference.mean((2, 3))).abs().max() <= 1e-5 * scale
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, rtol=1e-4, atol=1e-6), name


def test_the_token_goes_between_stem_and_first_stage():
    torch.manual_seed(0)
    model = CNN(3, architecture="resnet18", options=THIN).eval()
    image, mask = torch.randn(2, 3, 64, 64), torch.rand(2, 16, 16) < 0.6
    token = torch.randn(1, 64, 1, 1)
    with torch.no_grad():
        x = model.maxpool(model.act1(model.bn1(model.conv1(image))))
        first = model.layer1(x + token * mask[:, None])
        assert torch.allclose(
            model.masked(image, torch.ones(2), token=token, mask=mask).maps[0], first, atol=1e-5
        )


def test_a_stem_ends_where_stride_4_begins():
    with torch.device("meta"):
        for architecture, stem in (("resnet18", 4), ("regnety_002", 2), ("darknet17", 3)):
            model = CNN(3, architecture=architecture)
            image, mask = torch.empty(2, 3, 64, 64), torch.empty(2, 16, 16)
            token = torch.empty(model.mask_token_shape, requires_grad=True)
            maps = model.encode(image, torch.ones(2), token=token, mask=mask)
            assert [one.shape[-1] for one in maps] == [16, 8, 4, 2]
            assert len(model._stem) == stem, architecture


def test_every_sensor_has_its_stem_and_shares_the_stages():
    model = CNN({"radar": 2, "optical": 5}, architecture="resnet18", options=THIN)
    names = list(model.state_dict())
    assert "stems.radar.conv1.weight" in names
    assert "stems.optical.bn1.running_mean" in names
    assert "layer1.0.conv1.weight" in names
    assert not any(name.startswith("conv1") for name in names)
    model(torch.randn(2, 5, 64, 64), torch.ones(2), "optical").pooled.sum().backward()
    assert model.stems["optical"].conv1.weight.grad is not None
    assert model.stems["radar"].conv1.weight.grad is None


def test_options_may_come_from_a_file():
    options = json.loads(json.dumps({"architecture": "resnet50", "options": THIN}))
    assert create_model("cnn", bands=3, **options).channels == (32, 32, 64, 64)


def test_refuses_what_it_was_not_built_for():
    model = CNN(3, architecture="resnet18", options=THIN)
    with pytest.raises(ContractError, match=r"takes 3 bands.*have 4"):
        model(torch.zeros(1, 4, 64, 64), torch.ones(1))
    with pytest.raises(ContractError, match="64 x 64"):
        model(torch.zeros(1, 3, 48, 64), torch.ones(1))
    with pytest.raises(ValueError, match="needs its token"):
        model.encode(torch.zeros(1, 3, 64, 64), torch.ones(1), mask=torch.zeros(1, 16, 16))


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("resnet5", {}, "Did you mean"),
        ("hf_hub:somebody/something", {}, "no model"),
        ("resnet50.a1_in1k", {}, "no model"),
        ("vit_tiny_patch16_224", {}, "strides"),
        ("swin_tiny_patch4_window7_224", {}, "any size"),
        ("resnet18", {"pretrained": True}, "without weights"),
    ],
)
def test_refuses_networks_that_do_not_fit_and_downloads(architecture, options, message):
    with pytest.raises(SwathError, match=message):
        CNN(3, architecture=architecture, options=options)
