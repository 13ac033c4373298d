"""Reports: every file carries its origin, tables fit a terminal, plots hold the facts."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from helpers.eval_scenes import Fake, color, constant
from swath.errors import SwathError
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.protocols.frozen import EvaluationResult, evaluate_knn, evaluate_linear
from swath.evaluation.protocols.predictions import read_predictions
from swath.evaluation.report.plots import plot_scale_curve
from swath.evaluation.report.tables import score_tables, summary_sentence, write_scores


@pytest.fixture(scope="module")
def evaluation(split: TrainTestSplit) -> EvaluationResult:
    return evaluate_knn(
        [Fake("color", color), Fake("constant", constant)], split, image_sizes=[8, 16, 32], k=3
    )


def test_files_carry_protocol_hashes_versions_and_command(
    evaluation: EvaluationResult, tmp_path: Path
) -> None:
    written = write_scores(evaluation, tmp_path / "out", command="swath evaluate knn m d", model_id="m-123")
    assert [path.name for path in written] == [
        "knn.json", "knn.csv", "knn_predictions.npz", "knn.png", "knn_reliability.png",
    ]  # fmt: skip
    data = json.loads(written[0].read_text())
    with written[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    image = Image.open(written[3])
    image.load()
    expected = {
        "protocol": "swath.knn/1",
        "config_hash": evaluation.config_hash,
        "split_hash": evaluation.protocol["split_hash"],
        "command": "swath evaluate knn m d",
    }
    for key, value in expected.items():
        assert data[key] == rows[0][key] == image.text[key] == value  # type: ignore[attr-defined]
    assert {"swath", "torch", "numpy", "python"} <= data["software"].keys()
    assert "torch=" in rows[0]["software"]
    assert data["model_id"] == "m-123"


def test_figures_in_the_files_are_those_of_the_evaluation(
    evaluation: EvaluationResult, tmp_path: Path
) -> None:
    json_file, csv_file, *_ = write_scores(evaluation, tmp_path)
    data = json.loads(json_file.read_text())
    with csv_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(data["scores"]) == len(evaluation.scores) == 2 * 2 * 5
    for row, entry, score in zip(rows, data["scores"], evaluation.scores, strict=True):
        assert float(row["accuracy"]) == entry["accuracy"] == pytest.approx(score.accuracy, abs=1e-6)
        assert entry["ci95_low"] <= entry["accuracy"] <= entry["ci95_high"]
        assert int(row["test_image_size"]) == score.test_image_size
    assert len(data["mean_over_image_sizes"]) == 4
    assert data["comparisons"][0]["baseline"] == "constant"


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_a_terminal_without_losing_a_figure(evaluation: EvaluationResult, width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width)
    for table in score_tables(evaluation):
        console.print(table)
    text = out.getvalue()
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    for score in evaluation.scores:
        assert f"{100 * score.accuracy:.1f}" in text
    assert "bank at 32" in text


def test_verdict_says_who_is_better_and_how_sure(evaluation: EvaluationResult, split: TrainTestSplit) -> None:
    assert summary_sentence(evaluation).startswith("color (knn")
    assert "is better than the best baseline, constant" in summary_sentence(evaluation)
    turned = evaluate_knn([Fake("constant", constant), Fake("color", color)], split, image_sizes=[32], k=3)
    assert "is worse than the best baseline, color" in summary_sentence(turned)
    twins = evaluate_knn([Fake("a", color), Fake("b", color)], split, image_sizes=[32], k=3)
    assert "cannot be told apart" in summary_sentence(twins)
    assert summary_sentence(evaluate_knn([Fake("a", color)], split, image_sizes=[32], k=3)) == ""


def test_one_scale_gives_no_curve(split: TrainTestSplit, tmp_path: Path) -> None:
    evaluation = evaluate_linear([Fake("color", color)], split)
    assert [path.name for path in write_scores(evaluation, tmp_path)] == [
        "linear.json", "linear.csv", "linear_predictions.npz", "linear_reliability.png",
    ]  # fmt: skip


def test_plot_of_the_linear_probe_over_scales(split: TrainTestSplit, tmp_path: Path) -> None:
    evaluation = evaluate_linear([Fake("color", color)], split, image_sizes=[16, 32])
    image = Image.open(plot_scale_curve(evaluation, tmp_path / "p.png"))
    assert image.format == "PNG"
    assert min(image.size) > 500


# ---- every query's answer


def test_answers_of_every_query_can_be_read_again(evaluation: EvaluationResult, tmp_path: Path) -> None:
    path = write_scores(evaluation, tmp_path, command="again")[2]
    found = read_predictions(path)
    assert found.paths == evaluation.paths
    assert found.classes == evaluation.protocol["classes"]
    assert (found.labels == evaluation.labels).all()
    assert found.origin["command"] == "again"
    assert found.origin["config_hash"] == evaluation.config_hash
    for predictions, score in zip(found.predictions, evaluation.scores, strict=True):
        assert (predictions.features, predictions.test_image_size) == (score.features, score.test_image_size)
        assert predictions.predictions is not None
        assert ((predictions.predictions == found.labels) == predictions.hits).all()
        assert predictions.hits.mean() == pytest.approx(score.value)
        assert predictions.confidence is not None
        assert ((predictions.confidence > 0) & (predictions.confidence <= 1 + 1e-6)).all()
    (tmp_path / "other.npz").write_bytes(b"PK broken")
    with pytest.raises(SwathError, match="is not a queries' file"):
        read_predictions(tmp_path / "other.npz")


def test_files_say_more_than_the_headline(evaluation: EvaluationResult, tmp_path: Path) -> None:
    data = json.loads(write_scores(evaluation, tmp_path)[0].read_text())
    row = data["scores"][0]
    assert row["metric"] == "top-1 accuracy"
    for name in ("balanced", "ece", "ece_mass"):
        assert row[f"{name}_ci95_low"] <= row[name] <= row[f"{name}_ci95_high"]
    assert set(row["by_class"]) == set(evaluation.protocol["classes"])
    assert row["balanced"] == pytest.approx(np.mean([c["value"] for c in row["by_class"].values()]), abs=1e-5)


def test_mean_over_scales_is_not_called_whole_when_a_scale_was_refused(
    split: TrainTestSplit, tmp_path: Path
) -> None:
    lacking = evaluate_knn([Fake("vit", color, min_image_size=16)], split, image_sizes=[8, 16, 32], k=3)
    out = io.StringIO()
    Console(file=out, width=120).print(score_tables(lacking)[0])
    assert "mean of 2/3" in out.getvalue()
    data = json.loads(write_scores(lacking, tmp_path)[0].read_text())
    assert data["unsupported_image_sizes"] == [8]
    assert data["mean_over_image_sizes"][0]["whole"] is False
