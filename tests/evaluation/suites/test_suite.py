"""Suites: several models on several sets, nothing left out in silence, and a killed run goes on."""

from __future__ import annotations

import csv
import json
import re
from copy import deepcopy
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.eval_scenes import draw, write_scenes
from helpers.html_structure import Structure
from swath.datasets.benchmarks.catalog import get_benchmark
from swath.errors import SwathError
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.suites import run as running
from swath.evaluation.suites.config import Suite, SuiteModel, get_suite, list_suites
from swath.evaluation.suites.results import SuiteResult
from swath.evaluation.suites.run import run_suite
from swath.evaluation.suites.tables import (
    FEW_QUERIES,
    markdown,
    suite_notes,
    suite_summary,
    suite_table_cells,
)
from swath.evaluation.suites.write import write_suite_report
from swath.reporting.charts import COLORS, DifferenceRow, forest_plot

MODELS = [
    SuiteModel(model="random:vit_micro_patch8", name="micro"),
    SuiteModel(model="timm:test_resnet", name="resnet"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in a table, and EuroSAT's folders with eight drawn pictures each."""
    root = tmp_path_factory.mktemp("root")
    (root / "scenes").mkdir()
    write_scenes(root / "scenes")
    random = np.random.default_rng(0)
    for i, name in enumerate(get_benchmark("eurosat").classes):
        folder = root / "EuroSAT_RGB" / name
        folder.mkdir(parents=True)
        for j in range(8):
            image = draw(("dark", "light", "spots")[i % 3], random, 64)
            Image.fromarray(image).save(folder / f"{name}_{j}.png")
    return root


@pytest.fixture(scope="module")
def suite() -> Suite:
    return Suite.model_validate({
        "name": "small",
        "scales": [25, 100],
        "gsd_mode": "relative",
        "protocols": {"knn": {"k": 5}, "linear": None},
        "baselines": ["statistics", "random"],
        "published": {"source": "a paper", "columns": ["Theirs"]},
        "datasets": [
            {"data": "scenes/index.csv", "title": "Scenes", "published": [90.0]},
            {"data": "eurosat", "size": 32, "scales": [25, 50, 100], "published": [80.0]},
            {"data": "ucmerced", "title": "UC Merced", "published": [70.0]},
        ],
    })  # fmt: skip


@pytest.fixture(scope="module")
def result(suite: Suite, root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SuiteResult, Path]:
    out = tmp_path_factory.mktemp("out")
    found = run_suite(suite, MODELS, data_root=root, out=out, device="cpu", cache=FeatureCache(out / "cache"))
    return found, out


def test_every_model_on_every_set_that_is_there(result: tuple[SuiteResult, Path]) -> None:
    found, out = result
    assert [one.status for one in found.datasets] == ["done", "done", "absent"]
    rows = found.rows("knn")
    assert {row.features for row in rows} == {"micro", "resnet", "image statistics"}
    assert {row.role for row in rows} == {"model", "baseline"}
    of_eurosat = next(row for row in rows if row.set == "eurosat" and row.features == "micro")
    assert list(of_eurosat.scales) == ["8", "16", "32"]
    assert of_eurosat.value == pytest.approx(np.mean(list(of_eurosat.scales.values())), abs=1e-5)
    assert of_eurosat.low <= of_eurosat.value <= of_eurosat.high
    for folder in ("scenes", "eurosat"):
        assert {"knn.json", "knn.csv", "linear.json"} <= {p.name for p in (out / folder).iterdir()}


def test_models_are_compared_with_the_best_baseline(result: tuple[SuiteResult, Path]) -> None:
    found, _ = result
    for row in found.rows("knn"):
        assert (row.difference is None) == (row.role == "baseline")
        if row.difference is not None:
            assert row.baseline == "image statistics"
            assert row.gap_low is not None
            assert row.gap_low <= row.difference <= (row.gap_high or 0)
    assert any(sentence.startswith("micro (knn): above") for sentence in suite_summary(found))


def test_few_queries_are_no_verdict(result: tuple[SuiteResult, Path]) -> None:
    def judged(test: int) -> str:
        found = deepcopy(result[0])
        for one in found.datasets:
            one.rows = [
                replace(row, test=test, difference=0.2, gap_low=0.1, gap_high=0.3)
                if row.role == "model"
                else row
                for row in one.rows
            ]
        return next(sentence for sentence in suite_summary(found) if sentence.startswith("micro (knn)"))

    enough, few = judged(FEW_QUERIES), judged(FEW_QUERIES - 1)
    assert "on 2 of 2 sets beyond doubt" in enough
    assert "too few" not in enough
    assert "on 0 of 0 sets beyond doubt" in few
    assert f"too few queries to judge: Scenes ({FEW_QUERIES - 1} queries), eurosat" in few


def test_the_table_keeps_absent_sets_and_says_over_how_many_a_mean_is(
    result: tuple[SuiteResult, Path],
) -> None:
    found, _ = result
    header, scenes, eurosat, merced, mean = suite_table_cells(found, "knn")
    assert header == ["set", "micro", "resnet", "image statistics", "Theirs (paper)"]
    assert scenes[-1] == "90.0"
    assert merced[1:4] == ["absent"] * 3
    assert mean[0] == "mean of 2 of 3 sets"
    assert mean[-1] == "85.0"
    assert sum(cell.startswith("**") for cell in eurosat) >= 1
    prediction = suite_notes(found)
    assert any("UC Merced is absent" in s and "swath datasets fetch ucmerced" in s for s in prediction)
    assert any("a paper: other splits" in s for s in prediction)
    assert any("random weights" in s for s in prediction)


def test_files_hold_the_same(result: tuple[SuiteResult, Path], tmp_path: Path) -> None:
    found, _ = result
    write_suite_report(found, tmp_path)
    data = json.loads((tmp_path / "suite.json").read_text())
    assert data["finished"] is True
    assert data["datasets"][2]["status"] == "absent"
    with (tmp_path / "suite.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["set"] for row in rows} == {"Scenes", "eurosat", "UC Merced"}
    assert {row["protocol"] for row in rows if row["set"] == "Scenes"} == {"knn", "linear"}
    page = (tmp_path / "suite.md").read_text()
    assert page == markdown(found)
    assert "| UC Merced | absent | absent | absent | 70.0 |" in page


def test_the_page_stands_alone_and_tells_the_same(result: tuple[SuiteResult, Path], tmp_path: Path) -> None:
    found, _ = result
    renamed = replace(found, suite=found.suite.model_copy(update={"title": "Small <suite>"}))
    write_suite_report(renamed, tmp_path, command="swath evaluate suite small.yaml --data-root data")
    page = (tmp_path / "suite.html").read_text(encoding="utf-8")
    structure = Structure()
    structure.feed(page)
    assert structure.problems == []
    assert structure.open == []
    assert "Small &lt;suite&gt;" in page
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", page), "nothing is fetched, no image is shown"
    for cells in suite_table_cells(found, "knn")[1:]:
        for cell in cells:
            assert escape(cell.strip("*")) in page
    for sentence in [*suite_summary(found), *suite_notes(found)]:
        assert escape(sentence) in page
    one = found.datasets[0]
    assert set(one.origins) == {"knn", "linear"}
    for fact in (*one.origins["knn"].values(), "torch=", "swath evaluate suite small.yaml --data-root data"):
        assert page.count(fact) >= 2, "beside the figures, and in the last section"


def test_the_table_of_figures_says_where_each_comes_from(result: tuple[SuiteResult, Path]) -> None:
    found, out = result
    write_suite_report(found, out, command="swath evaluate suite small.yaml")
    with (out / "suite.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["value"]]
    for row in rows:
        stored = json.loads((out / row["set"].casefold() / f"{row['protocol']}.json").read_text())
        assert row["config_hash"] == stored["config_hash"]
        assert row["split_hash"] == stored["split_hash"]
        assert row["command"] == "swath evaluate suite small.yaml"
        assert "torch=" in row["software"]


def test_gaps_that_are_beyond_doubt_are_filled() -> None:
    chart = forest_plot(
        [DifferenceRow("sure", 5.0, 1.0, 9.0), DifferenceRow("not <sure>", 5.0, -1.0, 9.0)],
        title="t",
        x_label="points",
    )
    filled = re.findall(r'r="4.5" stroke="[^"]*" stroke-width="2" fill="([^"]*)"', chart)
    assert filled == [COLORS[0], "var(--paper)"]
    assert "not &lt;sure&gt;: +5.0 (-1.0 to +9.0)" in chart


def test_a_second_run_does_only_what_is_left(
    suite: Suite, root: Path, result: tuple[SuiteResult, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out = result

    def not_again(*_: object, **__: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(running, "evaluate_knn", not_again)
    again = run_suite(suite, MODELS, data_root=root, out=out, device="cpu", cache=FeatureCache(out / "cache"))
    assert [one.again for one in again.datasets] == [True, True, False]
    assert [one.rows for one in again.datasets] == [one.rows for one in found.datasets]
    changed = suite.model_copy(update={"scales": (50.0, 100.0)})
    with pytest.raises(AssertionError, match="scored again"):
        run_suite(changed, MODELS, data_root=root, out=out, device="cpu", cache=FeatureCache(out / "cache"))


def test_a_killed_run_keeps_finished_sets_and_says_that_it_is_not_whole(
    suite: Suite, root: Path, tmp_path: Path
) -> None:
    def killed(result: SuiteResult) -> None:
        write_suite_report(result, tmp_path)
        raise KeyboardInterrupt

    quick = suite.model_copy(update={"baselines": ("statistics",)})
    with pytest.raises(KeyboardInterrupt):
        run_suite(
            quick, [], data_root=root, out=tmp_path, cache=FeatureCache(tmp_path / "c"), after_set=killed
        )
    assert json.loads((tmp_path / "suite.json").read_text())["finished"] is False
    assert "not finished: eurosat, UC Merced are still to do" in (tmp_path / "suite.md").read_text()
    found = run_suite(quick, [], data_root=root, out=tmp_path, cache=FeatureCache(tmp_path / "c"))
    assert [one.again for one in found.datasets] == [True, False, False]


def test_models_that_cannot_look_at_a_set_are_listed(root: Path, tmp_path: Path) -> None:
    suite = Suite.model_validate({
        "name": "x", "baselines": [], "scales": [100],
        "datasets": [{"data": "scenes/index.csv", "sensor": "naip"}],
    })  # fmt: skip
    found = run_suite(suite, MODELS[1:], data_root=root, out=tmp_path, cache=FeatureCache(tmp_path / "c"))
    assert found.datasets[0].status == "failed"
    assert "--bands red,green,blue" in found.datasets[0].not_applicable["resnet"]
    assert any("resnet does not fit" in s for s in suite_notes(found))


@pytest.mark.parametrize(
    ("models", "prediction"),
    [
        ([SuiteModel(model="nothing/here")], "no such model directory"),
        ([SuiteModel(model="rcf"), SuiteModel(model="rcf")], "two models are called 'rcf'"),
    ],
)
def test_wrong_models_are_an_error_at_once(
    suite: Suite, models: list[SuiteModel], prediction: str, tmp_path: Path
) -> None:
    with pytest.raises(SwathError, match=prediction):
        run_suite(suite, models, data_root=tmp_path, out=tmp_path)


def test_table1_is_the_papers() -> None:
    suite = get_suite("table1")
    assert "table1" in list_suites()
    assert len(suite.datasets) == 8
    for one in suite.datasets:
        get_benchmark(one.data)
    means = np.mean([one.published for one in suite.datasets if one.published], axis=0)
    assert np.round(means, 1).tolist() == [73.9, 68.6, 71.5], "the means of the paper's columns"


def test_sides_of_table1_are_the_authors() -> None:
    """16 to 64 px of EuroSAT, 32 to 256 of sets of 256, 64 to 496 of those of 500 px."""
    from swath.evaluation.protocols.setup import default_image_sizes

    assert default_image_sizes(256, 16) == [32, 64, 128, 256]
    assert default_image_sizes(500, 16) == [64, 128, 256, 496]


def test_table1_where_nothing_is_there(tmp_path: Path) -> None:
    found = run_suite(get_suite("table1"), MODELS[:1], data_root=tmp_path, out=tmp_path / "out")
    assert [one.status for one in found.datasets] == ["absent"] * 8
    assert len(suite_table_cells(found, "knn")) == 9
    assert sum("is absent" in s for s in suite_notes(found)) == 8


@pytest.mark.parametrize(
    ("change", "prediction"),
    [
        ({"setz": []}, "setz"),
        ({"datasets": []}, "datasets"),
        ({"scales": [0]}, "scales are percents"),
        ({"baselines": ["rfc"]}, "Did you mean 'rcf'"),
        ({"protocols": {}}, "name at least one"),
        ({"protocols": {"knn": {"kk": 2}}}, "protocols.knn.kk"),
        ({"datasets": ["a", {"data": "b", "title": "A"}]}, "titles that differ"),
        ({"datasets": [{"data": "a", "published": [1.0]}]}, "1 figures for 0 columns"),
    ],
)
def test_a_wrong_suite_is_refused_by_key(change: dict[str, object], prediction: str, tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "datasets": ["a"], **change}))
    with pytest.raises(SwathError, match=prediction):
        get_suite(path)
    with pytest.raises(SwathError, match="Did you mean 'table1'"):
        get_suite("table")
