"""The demo walks the whole path, tells it on one page that stands alone, and uses again what is there."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from swath.demo.page import demo_summary
from swath.demo.results import DemoResults
from swath.demo.run import RECIPE, run_demo
from swath.demo.serve import serve_demo
from swath.errors import SwathError
from swath.training.config.recipe import load_recipe

SMALL = {
    "settings": (
        "training.steps=3",
        "training.batch_size=16",
        "training.log_every=1",
        "training.monitor_images=16",
        "data.chips_per_epoch=64",
    ),
    "unlabeled": {"pretrain": 24},
    "labeled": {"train": 40, "val": 16},
}


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    lines: list[str] = []
    report = run_demo(tmp_path_factory.mktemp("demo") / "out", log=lines.append, **SMALL)
    return report, lines


def test_recipe_is_valid() -> None:
    assert load_recipe(RECIPE).training.cpu_minutes is not None


def test_report_stands_alone(walked: tuple[Path, list[str]]) -> None:
    page = walked[0].read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count("data:image/") >= 6
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "@import" not in page
    assert "url(" not in page


def test_report_says_whether_it_beat_the_baselines(walked: tuple[Path, list[str]]) -> None:
    page = walked[0].read_text(encoding="utf-8")
    assert re.search(r"Training (helped|hurt|made no clear difference)", page)
    assert re.search(r"(is better than|is worse than|cannot be told apart)", page)
    assert "simulated" in page


def test_ends_by_offering_the_archive_on_a_map(walked: tuple[Path, list[str]], tmp_path: Path) -> None:
    report, lines = walked
    assert lines[-1].endswith(f"swath serve {report.parent / 'archive'}")
    with pytest.raises(SwathError, match="swath demo"):
        serve_demo(tmp_path)


def test_the_archive_is_served_with_its_model_until_it_is_told_to_end(
    walked: tuple[Path, list[str]],
) -> None:
    pytest.importorskip("fastapi", reason="needs the extra 'serve'")
    out = walked[0].parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = f"from swath.demo.serve import serve_demo; serve_demo({str(out)!r}, port={port})"
    server = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        told = asked(f"http://127.0.0.1:{port}/api/archive", server)
        assert told["rows"] > 0
        assert told["capabilities"]["image"]
        server.terminate()
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()


def asked(address: str, server: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What the server says, as soon as it is up."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < until:
        try:
            with direct.open(address, timeout=60) as answer:
                summary: dict[str, Any] = json.load(answer)
                return summary
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server ended with {server.poll()} and never answered")


def test_contract_refuses_the_sentinel2_scene(walked: tuple[Path, list[str]]) -> None:
    page = walked[0].read_text(encoding="utf-8")
    refused = re.search(r"<pre>(sentinel2[^<]*)</pre>", page)
    assert refused, "the refusal names the file"
    assert "band" in refused[1]


def test_artifacts_are_where_the_tutorial_says(walked: tuple[Path, list[str]]) -> None:
    out = walked[0].parent
    for name in (
        "run/model/config.json",
        "run/metrics.csv",
        "scores/knn.json",
        "catalog.parquet",
        "archive",
    ):
        assert (out / name).exists(), name
    assert walked[1][-2].endswith("report.html")


def test_second_walk_uses_what_is_there(walked: tuple[Path, list[str]]) -> None:
    model = walked[0].parent / "run" / "model" / "model.safetensors"
    before = model.stat().st_mtime_ns
    run_demo(walked[0].parent, log=lambda _: None, **SMALL)
    assert model.stat().st_mtime_ns == before


def test_somebodys_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SwathError, match="not from an earlier demo"):
        run_demo(tmp_path, fresh=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_nothing_is_said_without_figures(tmp_path: Path) -> None:
    with pytest.raises(SwathError, match="no evaluation results"):
        demo_summary(DemoResults(tmp_path))
