"""`swath.evaluate`: models and data by what a user has, the same figures as the protocols."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import swath
from helpers.eval_scenes import write_scenes
from swath.encoders import create_model
from swath.errors import SwathError
from swath.evaluation.data.opening import open_eval_data
from swath.evaluation.features.baselines import ImageStatistics
from swath.evaluation.inputs import open_eval_inputs
from swath.evaluation.protocols.frozen import evaluate_knn
from swath.models import Contract, Model


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def small_model(name: str) -> Model:
    torch.manual_seed(0)
    contract = Contract.of("rgb_aerial", gsd_mode="relative")
    return Model(create_model("vit_micro_patch8", bands=3), contract, name=name)


def test_knn_gives_the_figures_of_the_protocol_and_writes_them(scenes: Path, tmp_path: Path) -> None:
    result = swath.evaluate.knn("statistics", scenes, k=5, image_sizes=[32], baselines=False, out=tmp_path)
    direct = evaluate_knn(
        [ImageStatistics()], open_eval_data(scenes, sensor="rgb_aerial"), k=5, image_sizes=[32]
    )
    assert [(s.classifier, s.value) for s in result.scores] == [
        (s.classifier, s.value) for s in direct.scores
    ]
    assert json.loads((tmp_path / "knn.json").read_text())["models"] == [{"model": "statistics"}]


def test_models_in_memory_and_baselines_are_scored_on_one_split(scenes: Path) -> None:
    split = open_eval_data(scenes, sensor="rgb_aerial", gsd="relative")
    result = swath.evaluate.linear_probe([small_model("one"), "rcf"], split, c=0.1, image_sizes=[32])
    names = {score.features for score in result.scores}
    assert "one" in names
    assert len(names) > 3, "baselines beside them"
    few = swath.evaluate.fewshot("statistics", split, shots=[1, 5], repeats=2, baselines=False)
    assert {score.classifier for score in few.scores} == {"centroid@1", "centroid@5", "linear@1", "linear@5"}


def test_audits(scenes: Path, tmp_path: Path) -> None:
    assert swath.evaluate.leakage(scenes).test == 20
    report = swath.evaluate.robustness(
        "statistics", scenes, corruptions=["noise"], max_images=10, baselines=False, k=3, out=tmp_path
    )
    assert report.corruptions == ["noise"]
    stats = swath.evaluate.embedding_stats("statistics", scenes, image_sizes=[32], baselines=False)
    assert [row.features for row in stats.rows] == ["image statistics"]
    assert (tmp_path / "robustness.json").exists()


def test_make_split_reads_a_table(scenes: Path) -> None:
    assignment = swath.evaluate.make_split(scenes, fractions={"train": 0.5, "test": 0.5})
    sizes = {name: counts.total() for name, counts in assignment.counts().items()}
    assert sizes == {"train": 36, "test": 32}


def test_what_does_not_fit_is_refused(scenes: Path) -> None:
    with pytest.raises(SwathError, match="No model is given"):
        swath.evaluate.knn([], scenes)
    split = open_eval_data(scenes, sensor="rgb_aerial")
    with pytest.raises(SwathError, match="open already"):
        swath.evaluate.knn("rcf", split, train_split="train")
    with pytest.raises(SwathError, match="Name them"):
        swath.evaluate.retrieval("rcf", scenes)


def test_models_of_one_name_are_distinguished(scenes: Path) -> None:
    opened = open_eval_inputs(["first=statistics", "second=statistics"], scenes, baselines=False)
    assert [model.name for model in opened.models] == ["first", "second"]
