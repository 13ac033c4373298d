"""Simulated places as files: read again they are what they were, and they say that they are simulated."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import typer
from typer.testing import CliRunner

from swath.cli.simulate import command
from swath.datasets.pairs.opening import open_pairs
from swath.errors import ImageryError
from swath.simulated import CLASSES, SENSORS, SimulatedPairs, simulate_change
from swath.simulated.writing import write_simulated_pairs

app = typer.Typer()
app.command()(command)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_written_pairs_are_those_of_the_data_set(tmp_path: Path) -> None:
    summary: list[tuple[int, int]] = []
    folder = write_simulated_pairs(tmp_path / "set", seed=4, splits={"train": 3, "test": 2}, size=40,
                         progress=lambda done, total: summary.append((done, total)))  # fmt: skip
    assert summary[-1] == (5, 5)
    written = open_pairs(folder, sensors=SENSORS, classes=CLASSES)
    made = SimulatedPairs(splits={"train": 3, "test": 2}, seed=4, size=40)
    assert written.paths == made.paths
    assert written.splits == made.splits
    assert not written.problems
    assert np.array_equal(np.asarray(written.labels), np.asarray(made.labels))
    for index in range(5):
        for name in SENSORS:
            one, two = written[index]["sensors"][name], made[index]["sensors"][name]
            assert torch.equal(one["image"], two["image"])
            assert one["gsd"] == pytest.approx(two["gsd"], rel=2e-3)
    for name in SENSORS:
        with rasterio.open(folder / name / f"{made.paths[0]}.tif") as file:
            assert file.tags()["SIMULATED"] == "yes"
            assert abs(file.lnglat()[0]) < 0.2
            assert abs(file.lnglat()[1]) < 0.2


def test_masks_and_boxes_lie_beside_them(tmp_path: Path) -> None:
    folder = write_simulated_pairs(tmp_path / "set", seed=4, splits={"all": 4}, size=64)
    made = SimulatedPairs(4, seed=4, size=64)
    boxes = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
    assert json.loads((folder / "classes.json").read_text(encoding="utf-8")) == list(CLASSES)
    with (folder / "pairs.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    for index, row in enumerate(rows):
        ground = made.landscape(index)
        with rasterio.open(folder / row["mask"]) as file:
            assert np.array_equal(file.read(1), ground.mask)
        mine = [a["bbox"] for a in boxes["annotations"] if a["image_id"] == index + 1]
        corners = ground.boxes.astype(float)
        assert np.array(mine).reshape(-1, 4) == pytest.approx(
            np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1), abs=0.011
        )
        assert boxes["images"][index]["file_name"] == row[SENSORS[0]]


def test_any_sensors_can_be_written_and_read(tmp_path: Path) -> None:
    gsd = {"landsat89_l2": 30.0, "naip": 3.0, "sentinel1_grd_linear": 10.0}
    folder = write_simulated_pairs(tmp_path / "set", splits={"all": 2}, sensors=list(gsd), gsd=gsd, size=12)
    written = open_pairs(folder, sensors=list(gsd))
    made = SimulatedPairs(2, sensors=list(gsd), gsd=gsd, size=12)
    for name in gsd:
        assert torch.allclose(
            written[1]["sensors"][name]["image"], made[1]["sensors"][name]["image"], atol=1e-6
        )


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_simulated_pairs(tmp_path / "set", splits={"all": 2}, size=16, progress=stop)
    assert list(tmp_path.iterdir()) == []


# ---- the command line


def test_pairs_from_the_command_line(tmp_path: Path) -> None:
    summary = run(tmp_path / "set", "--split", "train=3", "--split", "test=1", "--size", 32, "--seed", 5)
    assert "4 simulated places (3 train, 1 test)" in summary
    assert len(open_pairs(tmp_path / "set", sensors=SENSORS, split="train")) == 3


def test_change_from_the_command_line(tmp_path: Path) -> None:
    run(tmp_path / "set", "--kind", "change", "--count", 3, "--size", 64, "--start-index", 2)
    with (tmp_path / "set" / "change.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [row["id"] for row in rows] == ["simulated_000002", "simulated_000003", "simulated_000004"]
    for index, row in enumerate(rows, 2):
        change = simulate_change(0, index, size=64)
        with rasterio.open(tmp_path / "set" / row["mask"]) as file:
            assert np.array_equal(file.read(1), change.mask)
        for date, chips in (("before", change.before), ("after", change.after)):
            with rasterio.open(tmp_path / "set" / row[f"{date}_{SENSORS[1]}"]) as file:
                assert np.allclose(file.read() * np.float32(1e-4), chips[SENSORS[1]].image, atol=1e-6)


def test_aerial_from_the_command_line(tmp_path: Path) -> None:
    run(tmp_path / "set", "--kind", "aerial", "--count", 8, "--size", 24, "--gsd", "1:1.5")
    assert len(list((tmp_path / "set").glob("*.tif"))) == 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "train"], "write NAME=COUNT"),
        (["--split", "a=1", "--split", "a=2"], "each name once"),
        (["--count", "3", "--split", "a=1"], "give one of them"),
        (["--gsd", "ten"], "write metres per pixel"),
        (["--gsd", "sentinel1_ben=10"], "give one to each"),
        (["--kind", "aerial", "--gsd", "2:1"], "write a range"),
        (["--kind", "aerial", "--sensor", "naip"], "--sensor means nothing"),
        (["--kind", "change", "--cloud", "0.5"], "--cloud means nothing"),
        (["--sensor", "sentinel3"], "sentinel3"),
    ],
)
def test_mistakes_are_answered_with_the_fix(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ImageryError if words != "sentinel3" else Exception, match=words):
        run(tmp_path / "set", *arguments)
    assert not (tmp_path / "set").exists()
