"""The examples run as they are written, with small numbers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_across_sensors(tmp_path, capsys):
    torch.manual_seed(0)
    share = load("across_sensors").main(places=40, minutes=0.05, out=tmp_path / "run")
    assert 0.0 <= share <= 1.0
    assert "radar images find their own place among ten" in capsys.readouterr().out
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_how_good(tmp_path, capsys):
    from swath.simulated.aerial import write_simulated

    scenes = write_simulated(tmp_path / "scenes", seed=0, splits={"train": 48, "val": 24}, size=32)
    found = load("how_good").main("random:vit_micro_patch8", scenes / "index.csv", [16, 32])
    assert len(found) == 3
    assert all(0 < value <= 1 for value in found.values())
    said = capsys.readouterr().out
    assert "24 queries" in said
    assert sum(" px " in line for line in said.splitlines()) == 12  # three, two ways, two sizes


def test_labels_to_map(tmp_path, capsys):
    right = load("labels_to_map").main(tmp_path, places=8, steps=20)
    assert right > 0.2  # ten classes; it learns within seconds
    assert "of its pixels are right" in capsys.readouterr().out
    assert list((tmp_path / "maps").glob("*_classes.tif"))


def test_use_elsewhere(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    example = load("use_elsewhere")
    assert example.main(example.untrained(tmp_path / "model"), tmp_path / "model.onnx") <= 1e-4
    assert "not in it: the contract's checks" in capsys.readouterr().out
