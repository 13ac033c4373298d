"""The report page: one file that stands alone, says how its figures came about, and hides no leak."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.eval_scenes import Fake, color, constant, read_table, write_table
from helpers.html_structure import Structure
from swath.errors import SwathError
from swath.evaluation.data.splits import TrainTestSplit, open_split
from swath.evaluation.report.data import ReportData, best_classifier, collect_report_data
from swath.evaluation.report.page import render_report, summary_sentences
from swath.evaluation.report.tsne import tsne
from swath.evaluation.report.write import BENCH_COLUMNS, write_html_report
from swath.reporting.charts import Line, line_chart


@pytest.fixture(scope="module")
def leaky(table: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainTestSplit:
    """The split with two bank images among the queries once more, under other names."""
    folder = tmp_path_factory.mktemp("leaky")
    rows = [[str(table.parent / r[0]), *r[1:]] for r in read_table(table)]
    for i in (0, 20):
        copy = folder / f"copy{i}.png"
        copy.write_bytes(Path(rows[i][0]).read_bytes())
        rows.append([str(copy), rows[i][1], "0.5", "val", ""])
    return open_split(write_table(folder / "index.csv", rows), sensor="rgb_aerial")


@pytest.fixture(scope="module")
def report_data(leaky: TrainTestSplit) -> ReportData:
    return collect_report_data(
        [Fake("color <model>", color), Fake("shuffled", lambda batch: color(batch).flip(1) ** 2)],
        [Fake("constant", constant)], leaky, image_sizes=[16, 32], k=3, corruptions=["noise", "blur"],
        command="swath evaluate report m d -o out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(report_data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    names = {path.name for path in write_html_report(report_data, folder, model="m")}
    assert {"report.html", "knn.json", "linear.json", "leakage.json", "embedding_stats.json"} <= names
    assert {"robustness.json", "bench.csv", "knn_predictions.npz"} <= names
    return folder


def test_page_stands_alone_and_is_well_formed(written: Path) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "@import" not in page
    assert "url(" not in page
    assert "color &lt;model&gt;" in page
    assert "<model>" not in page
    structure = Structure()
    structure.feed(page)
    assert structure.problems == []
    assert structure.open == []
    assert "nan" not in re.sub(r"data:[^\"]*", "", page).lower().replace("nano", "")


def test_every_figure_carries_its_origin(written: Path, report_data: ReportData) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    lines = re.findall(r'<span class="origin">(.*?)</span>', page)
    assert len(lines) >= 8
    for line in lines:
        assert report_data.split.hash in line
        assert "torch=" in line
        assert "swath evaluate report m d -o out" in line
    for protocol in ("swath.knn", "swath.robustness/1", "swath.geometry/1"):
        assert any(protocol in line for line in lines)


def test_leaks_are_told_and_scores_had_without_them(written: Path, report_data: ReportData) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    assert "2 of 22 queries (9.1%) are known to the bank (2 by same file)" in page
    assert "without leaks" in page
    data = json.loads((written / "leakage.json").read_text())
    assert data["scores_without_leaks"][0]["test"] == 20
    clean = report_data.clean[0]
    assert clean is not None
    assert len(clean.labels) == 20


def test_pairs_are_tested_on_the_same_queries(written: Path, report_data: ReportData) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="pairs">') : page.index('<section id="scale">')]
    rows = re.findall(r"<tr[^>]*><th scope=\"row\">knn</th>(.*?)</tr>", section)
    assert len(rows) == 3, "two models against each other, each against the baseline"
    first = re.findall(r"<td[^>]*>(.*?)</td>", rows[0])
    best = {name: (name, best_classifier(report_data.knn, name)) for name in report_data.models}
    gap = report_data.knn.compare_rows(*best.values())
    assert first[2] == f"{100 * gap.difference:+.1f}"
    assert first[4] == f"{gap.p:.4f}"
    assert first[5] == ("yes" if gap.low > 0 or gap.high < 0 else "no")


def test_page_without_pictures_holds_none(report_data: ReportData, written: Path, tmp_path: Path) -> None:
    assert "data:image" in (written / "report.html").read_text(encoding="utf-8")
    bare = render_report(replace(report_data, images=False), tmp_path / "bare.html").read_text(
        encoding="utf-8"
    )
    assert "data:image" not in bare
    assert "made without pictures" in bare
    assert "same file" in bare, "leaks are listed in words"


def test_sentences_compare_with_the_best_baseline_and_with_each_other(report_data: ReportData) -> None:
    first, second, third = summary_sentences(report_data)
    assert first.startswith("color <model> (knn")
    assert "is better than the best baseline, constant" in first
    assert second.startswith("shuffled")
    assert "best baseline" not in third
    assert "shuffled" in third


def test_bench_table_has_the_columns_that_are_promised(written: Path, report_data: ReportData) -> None:
    with (written / "bench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == BENCH_COLUMNS
    k = report_data.knn.protocol["k"]
    knn = [r for r in rows if r["method"] == f"knn{k}" and r["metric_name"] == "accuracy"]
    assert [(r["name"], r["image_size"]) for r in knn[:2]] == [
        ("color <model>", "16"),
        ("color <model>", "32"),
    ]
    score = report_data.knn.select("knn", "color <model>", symmetric=True)[0]
    assert float(knn[0]["metric_value"]) == pytest.approx(score.value, abs=1e-6)
    assert float(knn[0]["ci_lower"]) <= float(knn[0]["metric_value"]) <= float(knn[0]["ci_upper"])
    assert (knn[0]["n_train"], knn[0]["feature_dim"]) == ("48", str(report_data.geometry.rows[0].dimensions))
    linear = [r for r in rows if r["method"] == "linear"]
    assert linear
    assert all(float(r["best_c"]) > 0 and int(r["n_val"]) > 0 for r in linear)


def test_neighbors_are_the_nearest(report_data: ReportData) -> None:
    rows = report_data.neighborhoods["color <model>"]
    assert any(row.right for row in rows)
    for row in rows:
        assert len(row.predictions) == 5
        assert row.cosines == sorted(row.cosines, reverse=True)
        assert set(row.predictions) <= set(report_data.split.train.indices.tolist())
        assert row.right == (row.prediction == row.truth)


def test_report_of_no_model_is_refused(leaky: TrainTestSplit) -> None:
    with pytest.raises(SwathError, match="one model at least"):
        collect_report_data([], [Fake("constant", constant)], leaky)


def test_tsne_keeps_neighbors_and_repeats_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(4, 20, generator=generator) * 6
    labels = torch.arange(120) % 4
    features = centers[labels] + torch.randn(120, 20, generator=generator)
    points, divergence = tsne(features)
    assert torch.equal(points, tsne(features)[0])
    near = torch.cdist(points, points).fill_diagonal_(torch.inf).argmin(dim=1)
    assert float((labels[near] == labels).double().mean()) == 1.0
    assert 0 < divergence < 2
    assert bool(torch.isfinite(tsne(torch.ones(30, 4))[0]).all()), "copies of one image"
    with pytest.raises(SwathError, match="5 to 2,000 images, not 3"):
        tsne(features[:3])


def test_chart_says_its_title_and_leaves_gaps_where_nothing_is_known() -> None:
    chart = line_chart(
        [Line("a & b", [1.0, float("nan"), 3.0])], ["x", "y", "z"], title="T < U", x_label="image_size"
    )
    assert 'aria-label="T &lt; U"' in chart
    assert chart.count("<circle") == 2
    assert "nan" not in chart
    assert "a &amp; b" in chart
    assert np.isfinite([float(v) for v in re.findall(r'cy="([^"]*)"', chart)]).all()
