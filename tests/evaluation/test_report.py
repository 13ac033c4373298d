"""Reports: every file carries its origin, tables fit a terminal, plots hold the facts."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from scenes import Fake, colour, constant

from swath.evaluation.plots import plot_scale_curve
from swath.evaluation.protocols import Evaluation, evaluate_knn, evaluate_linear
from swath.evaluation.report import score_tables, verdict, write_report
from swath.evaluation.splits import Split


@pytest.fixture(scope="module")
def evaluation(split: Split) -> Evaluation:
    return evaluate_knn([Fake("colour", colour), Fake("constant", constant)], split, sides=[8, 16, 32], k=3)


def test_files_carry_protocol_hashes_versions_and_command(evaluation: Evaluation, tmp_path: Path) -> None:
    written = write_report(evaluation, tmp_path / "out", command="swath evaluate knn m d", model_id="m-123")
    assert [path.name for path in written] == ["knn.json", "knn.csv", "knn.png"]
    data = json.loads(written[0].read_text())
    with written[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    picture = Image.open(written[2])
    picture.load()
    expected = {
        "protocol": "swath.knn/1",
        "config_hash": evaluation.config_hash,
        "split_hash": evaluation.protocol["split_hash"],
        "command": "swath evaluate knn m d",
    }
    for key, value in expected.items():
        assert data[key] == rows[0][key] == picture.text[key] == value  # type: ignore[attr-defined]
    assert {"swath", "torch", "numpy", "python"} <= data["software"].keys()
    assert "torch=" in rows[0]["software"]
    assert data["model_id"] == "m-123"


def test_figures_in_the_files_are_those_of_the_evaluation(evaluation: Evaluation, tmp_path: Path) -> None:
    json_file, csv_file, _ = write_report(evaluation, tmp_path)
    data = json.loads(json_file.read_text())
    with csv_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(data["scores"]) == len(evaluation.scores) == 2 * 2 * 5
    for row, entry, score in zip(rows, data["scores"], evaluation.scores, strict=True):
        assert float(row["accuracy"]) == entry["accuracy"] == pytest.approx(score.accuracy, abs=1e-6)
        assert entry["low95"] <= entry["accuracy"] <= entry["high95"]
        assert int(row["query_side"]) == score.query_side
    assert len(data["means_over_symmetric_scales"]) == 4
    assert data["comparisons"][0]["against"] == "constant"


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_a_terminal_without_losing_a_figure(evaluation: Evaluation, width: int) -> None:
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


def test_verdict_says_who_is_better_and_how_sure(evaluation: Evaluation, split: Split) -> None:
    assert verdict(evaluation).startswith("colour (knn")
    assert "is better than the best baseline, constant" in verdict(evaluation)
    turned = evaluate_knn([Fake("constant", constant), Fake("colour", colour)], split, sides=[32], k=3)
    assert "is worse than the best baseline, colour" in verdict(turned)
    twins = evaluate_knn([Fake("a", colour), Fake("b", colour)], split, sides=[32], k=3)
    assert "cannot be told apart" in verdict(twins)
    assert verdict(evaluate_knn([Fake("a", colour)], split, sides=[32], k=3)) == ""


def test_one_scale_gives_no_curve(split: Split, tmp_path: Path) -> None:
    evaluation = evaluate_linear([Fake("colour", colour)], split)
    assert [path.name for path in write_report(evaluation, tmp_path)] == ["linear.json", "linear.csv"]


def test_plot_of_the_linear_probe_over_scales(split: Split, tmp_path: Path) -> None:
    evaluation = evaluate_linear([Fake("colour", colour)], split, sides=[16, 32])
    picture = Image.open(plot_scale_curve(evaluation, tmp_path / "p.png"))
    assert picture.format == "PNG"
    assert min(picture.size) > 500
