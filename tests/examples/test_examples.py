"""The examples run as they are written, with small numbers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

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
