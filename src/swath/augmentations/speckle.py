"""Speckle: what the interference of coherent waves does to a radar image's power."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_REACH = 6.7  # standard deviations that the table spans; `swath.keyed_random.normal` goes no further


def speckle_db(z: Tensor, looks: float) -> Tensor:
    """Speckle of L looks in dB from standard normal numbers of any shape.

    Fully developed speckle multiplies power by a gamma variable of mean 1 and variance 1 / L (Goodman 1976).
    It is had as a monotone function of a normal one, quantile by quantile, so its distribution is exact up to
    a table's interpolation. In dB its mean is (10 / ln 10) (psi(L) - ln L), below 0.
    """
    table = _speckle_table(float(looks), z.device)
    place = ((z + _REACH) * ((len(table) - 1) / (2 * _REACH))).clamp(0, len(table) - 1.001)
    below = place.long()
    return torch.lerp(table[below], table[below + 1], place - below)


@lru_cache(maxsize=16)
def _speckle_table(looks: float, device: torch.device, points: int = 4096) -> Tensor:
    """dB of gamma's quantiles at normal numbers from -reach to reach, by bisection in float64."""
    with torch.inference_mode(False):
        z = torch.linspace(-_REACH, _REACH, points, dtype=torch.float64)
        shape = torch.tensor(looks, dtype=torch.float64)
        tail = torch.special.ndtr(-z.abs())  # the smaller of both sides, without cancellation
        low, high = torch.full_like(z, -60.0), torch.full_like(z, 8.0)  # log of the gamma variable
        for _ in range(60):
            middle = (low + high) / 2
            value = middle.exp() * looks
            under: Any = torch.special.gammainc(shape, value) < tail
            above: Any = torch.special.gammaincc(shape, value) > tail
            too_small = torch.where(z < 0, under, above)
            low, high = torch.where(too_small, middle, low), torch.where(too_small, high, middle)
        decibel = (low + high) / 2 * (10 / math.log(10))
        return decibel.to(torch.float32).to(device)
