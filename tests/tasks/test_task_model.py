from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from swath.encoders import create_model
from swath.errors import CheckpointError, ContractError
from swath.models.contract import Contract
from swath.models.directory import load_encoder, load_model, save_model
from swath.tasks.classification.task import ClassificationConfig
from swath.tasks.model import TaskModel, build_task, load_task_model, save_task_model
from swath.tasks.protocol import normalize_task_batch

ENCODER = {"bands": 3, "patch_size": 4, "embed_dim": 16, "depth": 2, "heads": 2}


def saved(folder: Path, contract: Contract | None = None) -> TaskModel:
    torch.manual_seed(0)
    contract = contract or Contract.of("rgb_aerial")
    config = ClassificationConfig(classes=("field", "forest", "road"))
    task = build_task("classify", create_model("vit", **ENCODER), config, contract)
    save_task_model(
        folder, task, contract, kind="classify", encoder_name="vit", encoder_options=ENCODER, name="toy-task"
    )
    return TaskModel(task, contract, kind="classify", name="toy-task")


def test_a_task_model_comes_back_as_it_was(tmp_path: Path) -> None:
    before = saved(tmp_path / "model")
    after = load_task_model(tmp_path / "model")
    images = torch.randint(0, 255, (5, 3, 16, 24), dtype=torch.uint8)
    assert after.classes == ["field", "forest", "road"]
    assert after.kind == "classify"
    assert not after.dense
    probabilities = after.predict(images, gsd=0.5)
    torch.testing.assert_close(probabilities, before.predict(images, gsd=0.5, batch_size=2))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))
    assert after.predict(images[0].numpy(), gsd=[0.5]).shape == (1, 3)


def test_the_directory_of_a_task_is_one_of_a_model_too(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    images = torch.randint(0, 255, (2, 3, 16, 16), dtype=torch.uint8)
    task_model = load_model(tmp_path / "model")
    model = load_encoder(tmp_path / "model")
    assert isinstance(task_model, TaskModel)
    assert not isinstance(model, TaskModel)
    torch.testing.assert_close(model.embed(images, gsd=1.0), task_model.embed(images, gsd=1.0))
    assert model.id != task_model.id  # another head would be another task model of the same encoder
    assert task_model.encoder_model.id == model.id
    assert model.encoder_model is model


def test_a_model_without_a_task_is_refused(tmp_path: Path) -> None:
    encoder = create_model("vit", **ENCODER)
    contract = Contract.of("rgb_aerial")
    save_model(
        tmp_path / "m", encoder_name="vit", encoder_options=ENCODER, encoder=encoder, contract=contract
    )
    with pytest.raises(CheckpointError, match="and no task"):
        load_task_model(tmp_path / "m")


def test_imagery_is_checked_as_for_any_model(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    with pytest.raises(ContractError, match="4 bands"):
        model.predict(np.zeros((1, 4, 16, 16), np.uint8), gsd=1.0)
    with pytest.raises(ContractError, match="GSD is missing"):
        model.predict(np.zeros((1, 3, 16, 16), np.uint8))


def test_a_transposed_encoder_answers_for_the_image_as_it_is(tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain")
    turned = saved(tmp_path / "turned", Contract.of("rgb_aerial", transpose=True))
    images = torch.randint(0, 255, (2, 3, 16, 24), dtype=torch.uint8)
    torch.testing.assert_close(
        turned.predict(images.transpose(2, 3), gsd=1.0), plain.predict(images, gsd=1.0)
    )


def test_a_pixel_of_two_dates_is_valid_if_it_is_so_at_both() -> None:
    contract = Contract.of("sentinel2_l2a")
    image = torch.rand(2, 2, 12, 4, 4)
    image[1, 0, 3, 1, 2] = float("nan")
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    valid[0, 0, 0] = False
    batch = {"image": image, "gsd": torch.tensor([10.0, 20.0]), "valid": valid, "sensor": "sentinel2_l2a"}
    ready = normalize_task_batch(contract, batch)
    assert ready["image"].shape == image.shape
    assert (~ready["valid"]).nonzero().tolist() == [[0, 0, 0], [1, 1, 2]]
    assert (ready["image"][1, :, :, 1, 2] == 0).all()
    assert ready["gsd"].tolist() == [10.0, 20.0]
    one = contract.normalize({"image": image[:1, 1], "gsd": batch["gsd"][:1], "sensor": "sentinel2_l2a"})
    torch.testing.assert_close(ready["image"][0, 1, :, 1:], one["image"][0, :, 1:])
