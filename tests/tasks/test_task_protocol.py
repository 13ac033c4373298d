"""A task of another package: trained, scored, reported and predicted with, without a change elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from helpers import labeled_images
from swath.errors import ContractError
from swath.models.card import TaskCard, task_cards
from swath.prediction import PredictionOptions, predict_scenes
from swath.prediction.writers import SceneOutput, WriterInputs, register_writer, writers
from swath.tasks.classification.data import ClassificationDataConfig, open_classification
from swath.tasks.classification.scoring import score_images
from swath.tasks.finetuning import finetune
from swath.tasks.model import load_task_model
from swath.tasks.protocol import Task, TaskConfig, register_task, tasks
from swath.tasks.recipe import load_finetune_recipe


class ToyDataConfig(ClassificationDataConfig):
    """Options of the toy task's data."""


class ToyConfig(TaskConfig):
    """Options of the toy task."""

    slope: float = 4.0


class ToyTask(Task):
    """The class of an image from its mean color, by a linear layer."""

    data_config = ToyDataConfig
    output = "toy_text"
    card = TaskCard("names a color", "[N, bands, height, width]", "[N, {classes}]", "t", "t", ("batch",))
    config: ToyConfig

    def __init__(self, encoder: nn.Module, config: ToyConfig, contract: Any) -> None:
        super().__init__(config, contract)
        self.encoder = encoder
        self.head = nn.Linear(3, len(config.classes))

    @classmethod
    def open_data(cls, data: Any, path: Any, sensor: Any, *, options: Any, seed: int) -> Any:
        assert isinstance(data, ToyDataConfig)
        return open_classification(data, path, sensor, seed, options.classes)

    def logits(self, image: Tensor) -> Tensor:
        return self.head(image.mean(dim=(2, 3))) * self.config.slope  # type: ignore[no-any-return]

    def views(self, batch: Any) -> Mapping[str, Any]:
        return {"image": batch["image"], "label": batch["label"]}

    def forward(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"total": nn.functional.cross_entropy(self.logits(views["image"]), views["label"])}

    def predict(self, batch: Any) -> Tensor:
        return self.logits(batch["image"]).softmax(1)

    def score(
        self, dataset: Any, contract: Any, device: Any, *, scale: float = 1, intervals: bool = True
    ) -> Any:
        return score_images(self, contract, dataset, device)

    def report_sections(self, model: Any, dataset: Any, scores: Any) -> list[str]:
        return [f"<h2>Toy section of {len(dataset)} images</h2>"]

    def preferred_tiles(self, trained_size: int) -> tuple[int, float]:
        return 8, 0.0


class ToyWriter:
    """Writes the most probable class of every tile into a text file."""

    def __init__(self, inputs: WriterInputs) -> None:
        self.inputs, self.lines = inputs, list[str]()

    def start(self, state: Any) -> None:
        assert not state

    def begin(self, row: int) -> None:
        pass

    def add(self, window: Any, valid: Any, predictions: Any, which: Any) -> None:
        self.lines += [self.inputs.model.classes[int(k)] for k in predictions.argmax(1)]

    def end(self) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def finish(self) -> SceneOutput:
        path = self.inputs.target.path("toy.txt")
        path.write_text("\n".join(self.lines), encoding="utf-8")
        return SceneOutput({"toy": path.name}, {"tiles": len(self.lines)})

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_task("toy", ToyConfig)(ToyTask)
    register_writer("toy_text")(ToyWriter)
    yield
    for registry in (tasks, task_cards, writers):
        for name in ("toy", "toy_text"):
            registry._members.pop(name, None)


def test_a_task_of_another_package_is_trained_scored_reported_and_predicts(tmp_path: Path) -> None:
    data = labeled_images.write_classes(tmp_path / "data")
    model = labeled_images.write_model(tmp_path / "encoder")
    task = {"name": "toy", "options": {"slope": 8.0}}
    recipe = labeled_images.write_recipe(
        tmp_path / "toy.yaml", "classify", task=task, data={"size": 16}, optimizer={"lr": 0.03}
    )
    run = tmp_path / "run"
    finetune(load_finetune_recipe(recipe, model=model, task="toy"), data, run)

    scores = json.loads((run / "report" / "scores.json").read_text())
    assert scores["protocol"]["task"] == "toy"
    assert scores["figures"][scores["main"]]["value"] > 0.9
    assert "Toy section of 6 images" in (run / "report" / "report.html").read_text()
    assert "This model names a color" in (run / "model" / "README.md").read_text()

    trained = load_task_model(run / "model")
    assert (trained.kind, trained.task.config.slope) == ("toy", 8.0)
    image = np.concatenate([np.full((8, 8, 3), labeled_images.COLORS[n]) for n in ("water", "field")], axis=1)
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "scene.png")
    report = predict_scenes(trained, tmp_path / "scene.png", tmp_path / "out", PredictionOptions(gsd=0.5))
    assert not report.failures
    assert (tmp_path / "out" / "scene_toy.txt").read_text().split() == ["water", "field"]
    with pytest.raises(ContractError, match="require a map of classes"):
        predict_scenes(trained, tmp_path / "scene.png", tmp_path / "o", PredictionOptions(probabilities=True))
