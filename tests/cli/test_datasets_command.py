"""`swath datasets` and sets known by name in `swath evaluate`, from the outside."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from helpers.range_server import serve
from swath.cli.main import build_app
from swath.datasets.benchmarks.catalog import get_benchmark
from swath.errors import SwathError


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(build_app(), [str(a) for a in arguments])

    return call


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """WHU-RS19 in miniature, as an archive to be fetched."""
    random = np.random.default_rng(0)
    (tmp_path / "served").mkdir()
    with zipfile.ZipFile(tmp_path / "served" / "WHU-RS19.zip", "w") as archive:
        for i, name in enumerate(get_benchmark("whu-rs19").classes):
            for j in range(6):
                level = np.full((32, 32, 3), 12 * i, dtype=np.uint8)
                path = tmp_path / "picture.png"
                Image.fromarray(level + random.integers(0, 9, (32, 32, 3), dtype=np.uint8)).save(path)
                archive.write(path, f"WHU-RS19/{name}/{j}.png")
    return tmp_path / "served"


def test_list_and_show_say_what_is_known(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("datasets", "list", "--data-root", tmp_path)
    assert result.exit_code == 0, result.output
    for words in ("eurosat-ms", "NWPU-RESISC45", "109,161", "0.2-30"):
        assert words in result.output
    shown = run("datasets", "show", "NWPU-RESISC45").output
    for words in ("md5 75206b2e16446591afa88e2628744886 as in TorchGeo", "thermal_power_station", "cite:"):
        assert words in shown
    assert "no checksum is published" in run("datasets", "show", "aid").output


def test_fetch_then_score(run: Callable[..., Result], served: Path, tmp_path: Path) -> None:
    with serve(served) as server:
        server.fail = [503]
        result = run(
            "datasets", "fetch", "whu-rs19", "--out", tmp_path / "data", "--url", f"{server.url}/WHU-RS19.zip"
        )
    assert result.exit_code == 0, result.output
    assert "no checksum is published; this one is written down" in result.output
    assert "swath evaluate knn MODEL whu-rs19" in result.output
    assert "was there already" in run("datasets", "fetch", "whu-rs19", "-o", tmp_path / "data").output
    assert "here:" in run("datasets", "show", "whu-rs19", "--data-root", tmp_path / "data").output

    scored = run(
        "evaluate", "knn", "statistics", "whu-rs19", "--data-root", tmp_path / "data", "--image-sizes",
        "8,16",
        "--no-baselines", "-k", 3, "-o", tmp_path / "out", "--size", 32,
    )  # fmt: skip
    assert scored.exit_code == 0, scored.output
    data = json.loads((tmp_path / "out" / "knn.json").read_text())
    assert data["settings"]["test"]["images"] == 19
    assert max(row["accuracy"] for row in data["scores"]) > 0.6


def test_a_set_that_is_not_there_says_where_to_get_it(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("evaluate", "knn", "rcf", "eurosat", "--data-root", tmp_path)
    assert isinstance(result.exception, SwathError)
    assert "swath datasets fetch eurosat" in str(result.exception)
    wrong = run("datasets", "fetch", "aid", "--out", tmp_path)
    assert "captain-whu.github.io/AID" in str(wrong.exception)


def test_suite_from_the_outside(
    run: Callable[..., Result], served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run("datasets", "fetch", "whu-rs19", "-o", tmp_path / "data", "--url", served / "WHU-RS19.zip")
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "name: mine\nscales: [25, 100]\nbaselines: [statistics]\n"
        "published: {source: a paper, columns: [Theirs]}\ndatasets:\n"
        "  - {data: whu-rs19, title: WHU-RS19, size: 32, published: [79.5]}\n  - aid\n"
    )
    arguments = (
        "evaluate", "suite", suite, "tiny=random:vit_micro_patch8", "--data-root", tmp_path / "data",
        "-o", tmp_path / "out", "--device", "cpu",
    )  # fmt: skip
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    for words in ("WHU-RS19", "tiny", "Theirs (paper)", "79.5", "aid is absent", "suite.csv"):
        assert words in result.output
    page = (tmp_path / "out" / "suite.md").read_text()
    assert "| aid | absent |" in page
    assert (tmp_path / "out" / "whu-rs19" / "knn.json").is_file()
    assert "kept from before" in run(*arguments).output


def test_a_suite_without_any_set_fails(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("evaluate", "suite", "table1", "--data-root", tmp_path, "-o", tmp_path / "out")
    assert isinstance(result.exception, SwathError)
    assert "not one set could be scored" in str(result.exception)
