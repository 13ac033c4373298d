"""Exported weights make timm's network see what our encoder sees; what it cannot hold is refused or said."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from swath.encoders import create_model
from swath.errors import ContractError, SwathError
from swath.models.contract import Contract
from swath.models.export.registry import export_model, exporters
from swath.models.model import Model
from swath.sensors.sensor import Sensor


def sensor_of(bands, name="mine"):
    return Sensor(
        name=name,
        bands=[{"name": f"b{i}", "unit": "reflectance", "mean": 0.1, "std": 0.2} for i in range(bands)],
    )


def model_of(encoder, bands=4, pooling=None, **options):
    """A model whose every weight is random, norms and biases too."""
    torch.manual_seed(0)
    counts = bands if isinstance(bands, dict) else {"mine": bands}
    built = create_model(encoder, bands=bands, **options)
    for module in built.modules():
        for name, value in module.named_parameters(recurse=False):
            if value.ndim == 1 or "table" in name:
                nn.init.normal_(value, 1.0 if "Norm" in type(module).__name__ else 0.0, 0.2)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    contract = Contract.of(*(sensor_of(n, name) for name, n in counts.items()), reference_gsd=2.0)
    return Model(built, contract, pooling=pooling)


def in_timm(exported):
    with safe_open(exported.path, "pt") as file:
        about = file.metadata()
    assert json.loads(about["arguments"]) == json.loads(json.dumps(exported.facts["arguments"]))
    assert about["architecture"] == exported.facts["architecture"]
    network = timm.create_model(about["architecture"], pretrained=False, **json.loads(about["arguments"]))
    network.load_state_dict(load_file(exported.path))
    return network.eval()


def assert_same(ours, theirs):
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, float(ours.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("gsd", [2.0, 7.3])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vit_with_its_positions(pooling, gsd, tmp_path):
    model = model_of("vit_micro_patch8", bands=5, pooling=pooling, depth=2)
    exported = export_model(model, tmp_path / "vit.safetensors", gsd=gsd, size=48)
    network = in_timm(exported)
    image = torch.randn(3, 5, 48, 48)
    ours = model.encoder(image, torch.full((3,), gsd / 2.0))
    assert_same(ours.cls if pooling == "cls" else ours.pooled, network(image))
    assert_same(torch.cat([ours.cls[:, None], ours.tokens], 1), network.forward_features(image))
    assert any("one GSD" in line for line in exported.left_behind)


@torch.no_grad()
@pytest.mark.parametrize("size", [32, 64, 96, 128, 192])
def test_swin_with_windows_cut_to_the_maps(size, tmp_path):
    model = model_of("swin_nano", bands=2)
    network = in_timm(export_model(model, tmp_path / "swin.safetensors", size=size))
    image = torch.randn(2, 2, size, size)
    ours = model.encoder(image, torch.ones(2))
    assert_same(ours.pooled, network(image))
    assert_same(ours.maps[-1].permute(0, 2, 3, 1), network.forward_features(image))


@torch.no_grad()
@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("resnet18", {}),
        ("resnet_nano", {}),
        ("cnn", {"architecture": "regnety_002"}),
        (
            "cnn",
            {"architecture": "resnet50", "options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}},
        ),
    ],
    ids=["resnet18", "resnet_nano", "regnet", "small bottlenecks"],
)
def test_cnn(encoder, options, tmp_path):
    model = model_of(encoder, **options)
    network = in_timm(export_model(model, tmp_path / "cnn.safetensors"))
    image = torch.randn(2, 4, 64, 96)
    ours = model.encoder(image, torch.ones(2))
    assert_same(ours.pooled, network(image))
    assert_same(ours.maps[-1], network.forward_features(image))


@torch.no_grad()
@pytest.mark.parametrize(
    ("encoder", "given"),
    [("vit_nano_patch8", {"size": 32, "gsd": 1.0}), ("swin_nano", {"size": 32}), ("resnet_nano", {})],
)
def test_one_sensor_of_several(encoder, given, tmp_path):
    model = model_of(encoder, bands={"radar": 2, "optical": 5})
    exported = export_model(model, tmp_path / "one.safetensors", sensor="optical", **given)
    image = torch.randn(2, 5, 32, 32)
    assert_same(model.encoder(image, torch.full((2,), 0.5), "optical").pooled, in_timm(exported)(image))
    assert any("other sensors" in line for line in exported.left_behind)
    with pytest.raises(ContractError, match="optical, radar"):
        export_model(model, tmp_path / "x.safetensors", **given)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16", "vit_small_patch8", "swin_tiny_patch4_window7", "swin_base_patch4_window7"]
)
def test_published_sizes_have_their_names(name, tmp_path):
    with torch.device("meta"):
        encoder = create_model(name, bands=3)
    model = Model(
        encoder.to_empty(device="cpu"), Contract.of("rgb_aerial", gsd_mode="relative", reference_size=224)
    )
    exported = export_model(model, tmp_path / "x.safetensors", size=224)
    assert exported.facts["architecture"].startswith(name)
    assert set(exported.facts["arguments"]) <= {
        "in_chans",
        "num_classes",
        "img_size",
        "global_pool",
        "fc_norm",
    }


@pytest.mark.parametrize(
    ("encoder", "options", "given", "message"),
    [
        ("vit_micro_patch8", {}, {"gsd": 1.0}, "say their side"),
        ("vit_micro_patch8", {}, {"size": 48}, "GSD is missing"),
        ("vit_micro_patch8", {}, {"gsd": 1.0, "size": 50}, "no multiple of 8; 48 are"),
        ("vit_micro_patch8", {"scale_aware": False}, {"gsd": 1.0, "size": 48}, "takes no notice"),
        ("swin_nano", {}, {}, "say their side"),
        ("swin_nano", {}, {"size": 48}, "no multiple of 32"),
        ("swin_nano", {}, {"size": 224}, r"another order; at (192|256) it"),
        ("swin_nano", {}, {"gsd": 1.0, "size": 64}, "takes no notice"),
        ("swin_nano", {"scale_aware": True}, {"size": 64}, "cannot be exported"),
        ("resnet_nano", {}, {"size": 64}, "leave it out"),
        ("cnn", {"architecture": "convnext_atto"}, {}, "head.norm"),
        ("vit_multi_sensor_nano", {"common_depth": 1}, {}, "no network like a MultiSensorViT"),
    ],
)
def test_what_timm_cannot_hold_is_refused(encoder, options, given, message, tmp_path):
    with pytest.raises(ContractError, match=message):
        export_model(model_of(encoder, **options), tmp_path / "x.safetensors", **given)
    assert not list(tmp_path.iterdir())


def test_formats_are_found_by_name(tmp_path):
    assert "timm" in exporters.names()
    with pytest.raises(SwathError, match="Did you mean 'timm'"):
        export_model(model_of("resnet_nano"), tmp_path / "x", to="tim")
    with pytest.raises(ContractError, match=r"written as \.safetensors"):
        export_model(model_of("resnet_nano"), tmp_path / "x.pth")
