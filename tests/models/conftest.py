from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.small_models import save_small
from swath.models import Contract


@pytest.fixture
def contract() -> Contract:
    return Contract.of("rgb_aerial", gsd_range=(0.3, 2.2))


@pytest.fixture
def folder(tmp_path: Path, contract: Contract) -> Path:
    """A small model's directory."""
    torch.manual_seed(0)
    return save_small(tmp_path / "model", contract, pooling="mean", provenance={"data": "drawn", "steps": 3})
