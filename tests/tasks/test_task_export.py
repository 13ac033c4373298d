"""Models that do a task go out with their heads: probabilities as the model itself gives them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from swath.encoders import create_model
from swath.errors import ContractError
from swath.models.contract import Contract
from swath.models.export.registry import export_model
from swath.tasks.model import TaskModel, build_task, load_task_model, save_task_model
from swath.tasks.protocol import tasks

ENCODER = {"bands": 3, "patch_size": 4, "embed_dim": 16, "depth": 1, "heads": 2}


def task_model(kind: str, **options: object) -> TaskModel:
    torch.manual_seed(0)
    contract = Contract.of("rgb_aerial", gsd_range=(0.2, 4.0))
    config = tasks.get(kind).config.model_validate({"classes": ("field", "forest", "road"), **options})
    return TaskModel(build_task(kind, create_model("vit", **ENCODER), config, contract), contract, kind=kind)


def answers(path: Path, image: torch.Tensor, gsd: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(["probabilities"], {"image": image.numpy(), "gsd": gsd.numpy()})[0]
    return torch.from_numpy(found)


def test_classes_of_images_of_any_size(tmp_path: Path) -> None:
    model = task_model("classify")
    path = export_model(model, tmp_path / "a.onnx", to="onnx").path
    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert about["classes"] == '["field", "forest", "road"]'
    assert about["output"] == "probabilities"
    for size in ((8, 12), (20, 16)):
        image = torch.randint(0, 255, (2, 3, *size)).float()
        gsd = torch.tensor([0.3, 2.0])
        torch.testing.assert_close(answers(path, image, gsd), model.predict(image, gsd), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "head"), [("segment", "linear"), ("segment", "upernet")])
def test_classes_of_pixels(kind: str, head: str, tmp_path: Path) -> None:
    model = task_model(kind, head=head, head_width=16)
    path = export_model(model, tmp_path / "a.onnx", to="onnx", size=32).path
    image = torch.randint(0, 255, (3, 3, 32, 32)).float()
    gsd = torch.tensor([0.3, 2.0, 1.0])
    found = answers(path, image, gsd)
    assert found.shape == (3, 3, 32, 32)
    torch.testing.assert_close(found, model.predict(image, gsd), atol=1e-5, rtol=1e-4)


def test_a_hub_folder_holds_the_head_too(tmp_path: Path) -> None:
    model = task_model("classify")
    folder = save_task_model(
        tmp_path / "model", model.task, model.contract, kind="classify", encoder_name="vit",
        encoder_options=ENCODER, name="forest",
    )  # fmt: skip
    export_model(folder, tmp_path / "hub", to="hub")
    again = load_task_model(tmp_path / "hub")
    image, gsd = torch.randint(0, 255, (2, 3, 16, 16)).float(), torch.tensor([0.3, 2.0])
    torch.testing.assert_close(again.predict(image, gsd), model.predict(image, gsd))
    assert "pipeline_tag: image-classification" in (tmp_path / "hub" / "README.md").read_text()
    item = json.loads((tmp_path / "hub" / "mlm.json").read_text())
    (output,) = [one for one in item["properties"]["mlm:output"] if one["name"] == "classify"]
    assert output["classification:classes"][1] == {"value": 1, "name": "forest", "description": "forest"}


def test_boxes_are_no_tensor(tmp_path: Path) -> None:
    model = task_model("classify")
    model.output = "detections"
    with pytest.raises(ContractError, match="answers with detections"):
        export_model(model, tmp_path / "a.onnx", to="onnx")
