"""What a retrieval report says and shows: tables that agree with the scores, whole files, pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.drawn_pairs import S1, S2, ByFunction, draw_pairs
from swath.evaluation.retrieval.features import RetrievalModel
from swath.evaluation.retrieval.figures import draw_queries, principal_components
from swath.evaluation.retrieval.names import short_sensor_names
from swath.evaluation.retrieval.protocol import evaluate_retrieval
from swath.evaluation.retrieval.report import retrieval_grids, retrieval_summary, write_retrieval
from swath.evaluation.retrieval.results import MIXED, RetrievalEvaluation
from swath.evaluation.retrieval.splits import split_retrieval
from swath.reporting.rgb import composite
from swath.sensors.registry import get_sensor


def means(batch):  # type: ignore[no-untyped-def]
    return batch["image"].mean(dim=(2, 3))[:, :2]


@pytest.fixture(scope="module")
def evaluation() -> RetrievalEvaluation:
    pairs = draw_pairs(90, several=True, unreadable=[2])
    one = RetrievalModel("one_*model*", {s: ByFunction("a", means) for s in (S1, S2)})
    other = RetrievalModel("other", {s: ByFunction("b", lambda batch: -means(batch)) for s in (S1, S2)})
    return evaluate_retrieval([one, other], split_retrieval(pairs), k=4, resamples=50)


def test_tables_hold_the_scores(evaluation: RetrievalEvaluation) -> None:
    matrix, metrics, gaps, *classes = retrieval_grids(evaluation)
    assert matrix.header == [
        "features", "centered", "S1 → S1", "S1 → S2", "S1 → all", "S2 → S1", "S2 → S2", "S2 → all",
    ]  # fmt: skip
    assert "not the IR F1@k" in matrix.title
    own = evaluation.get("one_*model*", S1, S2, True).values
    assert matrix.rows[1][3] == f"{100 * own['f1']:.1f}"
    assert [row[0] for row in matrix.rows[-1:]] == ["chance"]
    for column in range(2, 8):
        (bold,) = [row for row, c in matrix.best if c == column]
        assert matrix.rows[bold][column] == max((r[column] for r in matrix.rows[:-1]), key=float)
    assert metrics.rows[7][0:2] == ["S1 → S2", "yes"]
    assert metrics.rows[7][3] == f"{100 * own['precision']:.1f}"
    assert len(gaps.rows) == 4
    assert len(classes) == 8


def test_json_and_csv_say_all_that_a_figure_depends_on(
    evaluation: RetrievalEvaluation, tmp_path: Path
) -> None:
    files = write_retrieval(evaluation, tmp_path, command="swath x", images=False, model_id="m-1")
    assert [path.name for path in files] == [
        "retrieval.json", "retrieval.csv", "retrieval_classes.csv", "retrieval.md",
    ]  # fmt: skip
    report = json.loads(files[0].read_text())
    assert report["command"] == "swath x"
    assert report["model_id"] == "m-1"
    assert report["config_hash"] == evaluation.config_hash
    assert "not the F1@k of information retrieval" in report["settings"]["f1"]
    assert report["settings"]["gallery"] == {"name": "test", "places": 29}
    assert any("places are left out" in note for note in report["notes"])
    with files[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = next(r for r in rows if r["features"] == "one_*model*" and r["gallery_sensor"] == MIXED)
    assert float(first["f1_ci95_low"]) <= float(first["f1"]) <= float(first["f1_ci95_high"])
    assert first["same_sensor"] != ""
    assert "one\\_\\*model\\*" in files[3].read_text()


def test_verdicts_compare_with_the_best_other_and_chance(evaluation: RetrievalEvaluation) -> None:
    sentences = retrieval_summary(evaluation)
    assert len(sentences) == 2
    assert sentences[0].startswith("S1 to S2: F1@4 of one_*model* is ")
    assert "chance" in sentences[0]
    assert "points against other" in sentences[0]


def test_names_are_short_only_where_that_is_no_riddle() -> None:
    assert short_sensor_names([S1, S2, "naip"]) == {S1: "S1", S2: "S2", "naip": "naip"}
    both = ["sentinel2_l1c", "sentinel2_l2a"]
    assert short_sensor_names(both) == {name: name for name in both}


def test_queries_are_drawn_with_unreadable_images_left_blank(
    evaluation: RetrievalEvaluation, tmp_path: Path
) -> None:
    score = evaluation.get("one_*model*", S1, S2, False)
    path = draw_queries(evaluation, score, tmp_path / "sheet.png", count=2, metadata={"a": "b"})
    with Image.open(path) as sheet:
        assert sheet.info["a"] == "b"
        pixels = np.asarray(sheet)
    colors = {tuple(c) for c in pixels.reshape(-1, 3)[::7].tolist()}
    assert (0, 0x72, 0xB2) in colors  # at least one answer shares a label


def test_radar_is_shown_as_vv_vh_and_their_ratio() -> None:
    image = torch.full((2, 2, 4, 4), -20.0)
    image[1, 0] = -5.0  # VV strong: red, and blue because VV - VH is large
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    valid[0, 0, 0] = False
    dark, bright = composite({"image": image, "valid": valid}, get_sensor(S1))
    assert dark.shape == (4, 4, 3)
    assert dark[0, 0].tolist() == [255, 255, 255]  # nodata
    assert dark[1, 1].tolist() == [0, 0, 0]
    assert bright[1, 1].tolist() == [255, 0, 255]
    linear = composite({"image": 10 ** (image / 10), "valid": valid}, get_sensor("sentinel1_grd_linear"))
    assert np.abs(linear[1].astype(int) - bright.astype(int)).max() <= 1


def test_optical_imagery_is_shown_in_true_color() -> None:
    image = torch.zeros(1, 12, 2, 2)
    image[:, 3, 0] = 0.3  # B04, red
    (tile,) = composite({"image": image}, get_sensor(S2))
    assert tile[0, 0].tolist() == [255, 0, 0]
    assert tile[1, 0].tolist() == [0, 0, 0]


def test_principal_components_are_those_of_the_covariance() -> None:
    random = torch.Generator().manual_seed(0)
    values = torch.randn(200, 4, generator=random) * torch.tensor([5.0, 2, 0.1, 0.1])
    points, fractions = principal_components(values)
    assert points.shape == (200, 2)
    correlation = np.corrcoef(points[:, 0].numpy(), values[:, 0].numpy())[0, 1]
    assert correlation > 0.999  # and the sign is fixed
    assert fractions[0] > 0.7 > fractions[1]
