"""Losses are taken in float32 under autocast, and in float64 for inputs in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Half precision, integers and truth values as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
