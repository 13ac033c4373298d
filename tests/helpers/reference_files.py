"""Which reference files there are, and how close is close.

Tests read every size, seed, scale and option from the files, so that other files of the same layout, made by
other runs of the released code, are tested as these are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

TOLERANCE = 1e-5


def names(pattern: str, known: Sequence[str]) -> list[str]:
    """Stems of the files in SWATH_PARITY_DIR; without it, or with none there, the known ones."""
    folder = os.environ.get("SWATH_PARITY_DIR")
    found = sorted(path.stem for path in Path(folder).glob(pattern)) if folder else []
    return found or list(known)


def close(
    ours: Any, theirs: Any, what: str, tolerance: float = TOLERANCE, scale: float | None = None
) -> None:
    """The largest difference is within `tolerance` of `scale`, which is the largest number of theirs."""
    theirs = torch.as_tensor(theirs).double()
    ours = torch.as_tensor(ours).detach().double()
    assert ours.numel() == theirs.numel(), f"{what}: {tuple(ours.shape)} is not {tuple(theirs.shape)}"
    size = scale or float(theirs.abs().max().clamp_min(1e-12))
    difference = float((ours.reshape(theirs.shape) - theirs).abs().max()) / size
    assert difference <= tolerance, f"{what} differs by {difference:.2e}"


def not_compared(keys: Iterable[str], compared: Sequence[str]) -> list[str]:
    """Names of tensors that match none of the patterns of what tests compare."""
    return [key for key in keys if not any(re.fullmatch(pattern, key) for pattern in compared)]
