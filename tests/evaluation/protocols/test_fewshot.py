"""Few-shot curves: n images of each class and no more, the same draws for all, intervals over both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.eval_scenes import Fake, color, constant, many, rich_noise
from swath.errors import SwathError
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.protocols.fewshot import draw_shots, evaluate_fewshot
from swath.evaluation.protocols.predictions import read_predictions
from swath.evaluation.report.tables import score_tables, write_scores


def test_draws_have_n_of_each_class_and_grow() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 200)
    five, two = draw_shots(labels, 5, 0, 3), draw_shots(labels, 2, 0, 3)
    assert np.bincount(labels[five]).tolist() == [5] * 4
    assert set(two) < set(five)
    assert set(five) != set(draw_shots(labels, 5, 0, 4)) != set(draw_shots(labels, 5, 1, 4))


def test_more_labels_are_better_and_the_interval_covers_the_draws(split: TrainTestSplit) -> None:
    def weak(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([color(batch), 40 * rich_noise(batch)], dim=1)  # type: ignore[arg-type]

    evaluation = evaluate_fewshot(
        [Fake("weak", weak), Fake("constant", constant)], split, shots=[1, 10], repeats=6
    )
    values = {(s.features, s.classifier): s.value for s in evaluation.scores}
    assert set(values) == {
        (name, f"{kind}@{n}")
        for name in ("weak", "constant")
        for kind in ("centroid", "linear")
        for n in (1, 10)
    }
    assert values["weak", "linear@10"] > values["weak", "linear@1"]
    assert values["constant", "linear@10"] == pytest.approx(0.25)
    score = evaluation.select("linear@1", "weak")[0]
    assert score.low < score.value < score.high
    assert len(score.details["by_draw"]) == 6
    assert np.mean(score.details["by_draw"]) == pytest.approx(score.value, abs=1e-6)
    gap = evaluation.compare("weak", "constant", "linear@10")
    assert gap.low <= gap.difference <= gap.high


def test_features_that_know_no_class_are_at_chance() -> None:
    evaluation = evaluate_fewshot([Fake("noise", rich_noise)], many(400, 600), shots=[5], repeats=4)
    for score in evaluation.scores:
        assert score.value == pytest.approx(0.2, abs=0.05)


def test_more_than_there_are_is_refused_with_the_reason(split: TrainTestSplit) -> None:
    evaluation = evaluate_fewshot([Fake("c", color)], split, shots=[2, 50], repeats=2)
    assert evaluation.protocol["shots"] == [2]
    assert "shots refused: 50, because class dark has 12 images in the bank" in evaluation.notes
    with pytest.raises(SwathError, match="no few-shot score can be had: class dark has 12"):
        evaluate_fewshot([Fake("c", color)], split, shots=[50])
    assert evaluate_fewshot([Fake("c", color)], split, repeats=1).protocol["shots"] == [1, 2, 5, 10]


def test_misuse_is_refused(split: TrainTestSplit) -> None:
    with pytest.raises(SwathError, match="linear and centroid"):
        evaluate_fewshot([Fake("c", color)], split, classifiers=["svm"])  # type: ignore[list-item]
    with pytest.raises(SwathError, match="positive"):
        evaluate_fewshot([Fake("c", color)], split, shots=[0])


def test_table_has_a_column_a_number(split: TrainTestSplit) -> None:
    evaluation = evaluate_fewshot([Fake("c", color)], split, shots=[1, 5], repeats=2)
    (table,) = score_tables(evaluation)
    assert [column.header for column in table.columns] == ["features", "by", "1", "5"]


def test_report_has_a_curve(split: TrainTestSplit, tmp_path: Path) -> None:
    evaluation = evaluate_fewshot([Fake("c", color), Fake("k", constant)], split, shots=[1, 5], repeats=2)
    written = write_scores(evaluation, tmp_path)
    assert [path.name for path in written] == [
        "fewshot.json",
        "fewshot.csv",
        "fewshot_predictions.npz",
        "fewshot.png",
    ]
    data = json.loads(written[0].read_text())
    assert [score["shots"] for score in data["scores"][:2]] == [1, 5]
    assert read_predictions(written[2]).predictions[0].predictions is None
    assert Image.open(written[3]).format == "PNG"
