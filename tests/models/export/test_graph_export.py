"""ONNX files and torch.export programs answer as the model does, for any batch, size and GSD."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from swath.encoders import create_model
from swath.errors import ContractError
from swath.models.contract import Contract
from swath.models.export.registry import export_model, exporters
from swath.models.model import Model
from swath.sensors.sensor import Sensor

TINY = {"embed_dim": 16, "depth": 1, "heads": 2, "patch_size": 8}


def sensor_of(bands, name="mine"):
    return Sensor(
        name=name,
        bands=[{"name": f"b{i}", "unit": "reflectance", "mean": 0.5, "std": 0.1} for i in range(bands)],
    )


def model_of(encoder, pooling=None, sensors=None, transpose=False, **options):
    sensors = sensors or {"mine": 2}
    torch.manual_seed(0)
    built = create_model(encoder, bands=sensors if len(sensors) > 1 else 2, **options)
    contract = Contract.of(
        *(sensor_of(count, name) for name, count in sensors.items()),
        reference_gsd=2.0,
        gsd_range=(1.0, 30.0),
        transpose=transpose,
    )
    return Model(built, contract, pooling=pooling)


def images_of(count, *size, bands=2):
    return 0.5 + 0.1 * torch.randn(count, bands, *size, generator=torch.Generator().manual_seed(count))


def assert_answers(model, run, sensor=None, bands=2, sizes=((1, 16, 16), (3, 16, 40))):
    for count, *size in sizes:
        image = images_of(count, *size, bands=bands)
        image[0, 0, 1, 2] = float("nan")
        gsd = torch.linspace(1.0, 29.0, count)
        wanted = model.embed(image, gsd, sensor)
        found = run(image, gsd)
        assert found.shape == wanted.shape
        assert float((found - wanted).abs().max()) <= 1e-4 * max(1.0, float(wanted.abs().max()))


def in_onnx(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image, gsd: torch.from_numpy(
        session.run(None, {"image": image.numpy(), "gsd": gsd.numpy()})[0]
    )


def in_torch(path):
    return torch.export.load(path).module()


def test_formats_are_known():
    assert {"onnx", "torch", "hub", "timm"} <= set(exporters.names())


@pytest.mark.parametrize(("to", "ending", "load"), [("onnx", "onnx", in_onnx), ("torch", "pt2", in_torch)])
def test_vit_that_sees_scale(to, ending, load, tmp_path):
    model = model_of("vit", "mean_std", **TINY)
    exported = export_model(model, tmp_path / f"a.{ending}", to=to)
    assert exported.facts["difference"] <= 1e-4
    run = load(exported.path)
    assert_answers(model, run)
    image = images_of(1, 16, 16)
    near, far = (run(image, torch.tensor([gsd])) for gsd in (1.0, 20.0))
    assert float((near - far).abs().max()) > 1e-3  # the GSD is an input that counts
    assert exported.facts["size_least"] == (8 if to == "onnx" else 16)
    if to == "onnx":
        assert_answers(model, run, sizes=((2, 8, 8), (1, 8, 24)))  # one patch
    else:
        assert "images of fewer than 16 pixels a side" in exported.left_behind
        with pytest.raises(AssertionError, match="Guard failed"):
            run(images_of(1, 8, 8), torch.ones(1))


def test_a_cnn_and_one_cell_in_torch(tmp_path):
    model = model_of("resnet_nano")
    exported = export_model(model, tmp_path / "a.pt2", to="torch")
    least = exported.facts["size_least"]
    assert_answers(model, in_torch(exported.path), sizes=((1, least, least), (2, 96, 128)))


def test_onnx_says_what_it_wants(tmp_path):
    model = model_of("vit", **TINY)
    path = export_model(model, tmp_path / "a.onnx", to="onnx").path
    file = onnx.load(path)
    about = {entry.key: entry.value for entry in file.metadata_props}
    assert about["model"] == model.id
    assert json.loads(about["bands"]) == ["b0", "b1"]
    assert json.loads(about["mean"]) == [0.5, 0.5]
    assert (about["gsd_mode"], about["normalization"], about["size_multiple"]) == ("metres", "inside", "8")
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*file.graph.input, *file.graph.output]
    }
    assert list(shapes) == ["image", "gsd", "embedding"]
    assert shapes["image"][1] == 2
    assert all(isinstance(side, str) for side in [shapes["image"][i] for i in (0, 2, 3)])
    assert shapes["embedding"] == [shapes["image"][0], 16]


def test_several_sensors_and_branches(tmp_path):
    model = model_of(
        "vit_multi_sensor", sensors={"s1": 2, "s2": 3}, transpose=True, embed_dim=16, heads=2,
        patch_size={"s1": 8, "s2": 4}, specific_depth=1, common_depth=1, scale_aware=True,
    )  # fmt: skip
    with pytest.raises(ContractError, match="say which one"):
        export_model(model, tmp_path / "a.onnx", to="onnx")
    exported = export_model(model, tmp_path / "a.onnx", to="onnx", sensor="s2")
    assert_answers(model, in_onnx(exported.path), "s2", bands=3)
    assert any("other sensors" in line for line in exported.left_behind)


def test_cnn(tmp_path):
    model = model_of("resnet_nano")
    path = export_model(model, tmp_path / "a.onnx", to="onnx").path
    assert_answers(model, in_onnx(path), sizes=((1, 32, 32), (3, 64, 96)))


@pytest.mark.parametrize("scale_aware", [False, True])
def test_swin_is_for_one_size(scale_aware, tmp_path):
    model = model_of(
        "swin", embed_dim=8, depths=(2, 2), heads=(1, 2), window=3, patch_size=2, scale_aware=scale_aware
    )
    with pytest.raises(ContractError, match=r"depends on the size.*--size"):
        export_model(model, tmp_path / "a.onnx", to="onnx")
    path = export_model(model, tmp_path / "a.onnx", to="onnx", size=20).path  # padded and shifted windows
    assert_answers(model, in_onnx(path), sizes=((1, 20, 20), (5, 20, 20)))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"gsd": 1.0}, "gsd: it is an input"),
        ({"size": 20}, "no multiple of 8; 16 are"),
        ({"sensor": "other"}, "not trained on sensor"),
    ],
)
@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_choices_that_mean_nothing(to, choices, message, tmp_path):
    out = tmp_path / ("a.onnx" if to == "onnx" else "a.pt2")
    with pytest.raises(ContractError, match=message):
        export_model(model_of("vit", **TINY), out, to=to, **choices)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("to", "ending"), [("onnx", "onnx"), ("torch", "pt2"), ("timm", "safetensors")])
def test_names_of_files(to, ending, tmp_path):
    with pytest.raises(ContractError, match="name the file so"):
        export_model(model_of("vit", **TINY), tmp_path / "a.bin", to=to)
    folder = tmp_path / f"a.{ending}"
    folder.mkdir()
    with pytest.raises(ContractError, match="is a folder; name a file"):
        export_model(model_of("vit", **TINY), folder, to=to)
    assert not list(folder.iterdir())


def test_an_export_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    real = onnxruntime.InferenceSession.run

    def wrong(self, *arguments):
        return [np.asarray(value) + 1e-2 for value in real(self, *arguments)]

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", wrong)
    with pytest.raises(ContractError, match="differs from the model"):
        export_model(model_of("vit", **TINY), tmp_path / "a.onnx", to="onnx")
    assert not list(tmp_path.iterdir())
