"""Leaks, splits, geometry, robustness and the report from the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from swath.cli.evaluate.frozen import app
from swath.errors import SwathError


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of blocks, 64 px, five cities; the first query is a copy of a bank image."""
    folder = tmp_path_factory.mktemp("scenes")
    random = np.random.default_rng(0)
    rows = []
    for i in range(40):
        name = ("dark", "light")[i % 2]
        blocks = np.kron(random.integers(0, 2, (16, 16, 1)) * 60.0, np.ones((4, 4, 3)))
        image = np.clip(blocks + (40 if name == "dark" else 150) + random.normal(0, 4, (64, 64, 3)), 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{i}.png")
        rows.append([f"{i}.png", name, 0.5, "val" if i >= 28 else "train", f"city {i % 5}"])
    Image.open(folder / "3.png").rotate(90).save(folder / "29.png")
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "class", "gsd_m", "split", "city"], *rows])
    return folder / "index.csv"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def test_leaks_are_listed_and_kept(run: Callable[..., Result], scenes: Path, tmp_path: Path) -> None:
    result = run("leakage", scenes, "-o", tmp_path)
    assert "1 of 12 queries (8.3%) are known to the bank (1 by near copy)" in result.stdout
    assert "29.png" in result.stdout
    data = json.loads((tmp_path / "leakage.json").read_text())
    assert Path(data["leaks"][0]["partner"]).name == "3.png"
    assert data["split_hash"]
    assert "close features" not in run("leakage", scenes, "--model", "baseline:statistics").stdout


def test_split_is_written_and_used(run: Callable[..., Result], scenes: Path, tmp_path: Path) -> None:
    table = tmp_path / "split.csv"
    result = run(
        "make-split",
        scenes,
        "--strategy",
        "group",
        "--group-column",
        "city",
        "--fractions",
        "train=0.6,test=0.4",
        "-o",
        table,
    )
    assert result.exit_code == 0
    assert "whole groups of column city" in result.stdout
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    image_sizes = {row["city"]: row["split"] for row in rows}
    assert all(row["split"] == image_sizes[row["city"]] for row in rows)
    assert sorted(image_sizes.values()).count("test") == 2
    assert run("leakage", table).exit_code == 0
    with pytest.raises(SwathError, match=r"such as train=0.8,val=0.2, not 'train'"):
        run("make-split", scenes, "--fractions", "train", "-o", table)
    with pytest.raises(SwathError, match="random, group or block, not 'blok'"):
        run("make-split", scenes, "--strategy", "blok", "-o", table)


def test_geometry_and_robustness_print_and_write(
    run: Callable[..., Result], scenes: Path, tmp_path: Path
) -> None:
    result = run(
        "embedding", "baseline:histogram", scenes, "--no-baselines", "--image-sizes", "32,64", "-o", tmp_path
    )
    assert "RankMe" in result.stdout
    rows = json.loads((tmp_path / "embedding_stats.json").read_text())["geometry"]
    assert [row["image_size"] for row in rows] == [32, 64]
    result = run(
        "robustness",
        "baseline:statistics",
        scenes,
        "--no-baselines",
        "--corruptions",
        "blur,noise",
        "-k",
        3,
        "-o",
        tmp_path,
    )
    assert "blur (sigma, pixels)" in result.stdout
    assert "loses most by" in result.stdout
    assert json.loads((tmp_path / "robustness.json").read_text())["command"]
    assert (tmp_path / "robustness.png").is_file()
    with pytest.raises(SwathError, match="speckle: not for sensor 'rgb_aerial'"):
        run("robustness", "baseline:statistics", scenes, "--no-baselines", "--corruptions", "speckle")


def test_report_is_one_page(run: Callable[..., Result], scenes: Path, tmp_path: Path) -> None:
    result = run(
        "report", "baseline:statistics", "baseline:histogram", scenes, "--no-baselines", "--no-robustness",
        "--no-fewshot", "--image-sizes", "32,64", "-k", 3, "--title", "Blocks", "-o", tmp_path,
    )  # fmt: skip
    assert "1 of 12 queries" in result.stdout
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>Blocks: image statistics, color histogram</h1>" in page
    assert (tmp_path / "bench.csv").is_file()
    assert (tmp_path / "leakage.json").is_file()
    assert "data:image" in page


def test_report_keeps_features_and_can_leave_pictures_out(
    run: Callable[..., Result], scenes: Path, tmp_path: Path
) -> None:
    arguments = [
        "report", "statistics", scenes, "--no-baselines", "--corruptions", "blur", "--no-fewshot",
        "--image-sizes", "32",
        "-k", 3, "--no-images", "--cache", tmp_path / "kept", "-o", tmp_path / "out",
    ]  # fmt: skip
    assert run(*arguments).exit_code == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "data:image" not in page
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.npy")}
    assert len(kept) > 3, "bank, queries, and each strength of a degradation"
    assert run(*arguments).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.npy")} == kept
    with pytest.raises(SwathError, match="contradict each other"):
        run(*arguments, "--no-cache")


def test_report_on_images_of_several_labels(run: Callable[..., Result], scenes: Path, tmp_path: Path) -> None:
    with scenes.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = scenes.with_name("labels.csv")
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "tags", "gsd_m", "split"])
        for i, row in enumerate(rows):
            tags = row["class"] + ("|striped" if i % 3 == 0 else "")
            writer.writerow([row["file"], tags, row["gsd_m"], row["split"]])
    arguments = [
        "report", "statistics", "histogram", table, "--label-column", "tags", "--no-baselines",
        "--image-sizes",
        "32,64", "-k", 3, "-o", tmp_path,
    ]  # fmt: skip
    result = run(*arguments, "--label-separator", "|")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "mAP micro" in page
    assert "few-shot curves are drawn of images with one label each" in page
    assert '<section id="robustness">' not in page
    with (tmp_path / "bench.csv").open(newline="") as file:
        assert {row["metric_name"] for row in csv.DictReader(file)} >= {"mAP micro", "map_macro"}
