"""Random numbers that depend on *what* they are for, not on when or where they are drawn.

Each sample of a training run carries a 64-bit key made from (seed, epoch, index). Every random decision
about it (crop, flip, mask) is a pure function of that key and the decision's name. So the numbers are the
same whatever the batch size, number of workers, ranks or the step that a run was resumed at, on any device:
exact resume and distributed equality follow by construction, with no generator state to save.

The mixer is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), computed in wrapping int64 tensor arithmetic.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """A 64-bit pattern as the int64 that has it."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical (zero-filling) right shift; torch's own is arithmetic for signed integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finalizer: a bijection of the 64-bit integers that scatters every input bit."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _stream(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


def sample_keys(seed: int, epoch: int, index: Tensor) -> Tensor:
    """Keys [B] (int64) of the samples `index` [B] in `epoch` of a run with `seed`."""
    base = torch.tensor([_signed(seed), _signed(epoch)], dtype=torch.int64, device=index.device)
    seeded = _mix(base[0] + _GOLDEN)
    return _mix(_mix(seeded ^ _mix(base[1] + _GOLDEN)) ^ (index.to(torch.int64) * _GOLDEN))


def uniform(keys: Tensor, stream: str, count: int = 1) -> Tensor:
    """Uniform float32 numbers in [0, 1).

    Args:
        keys: [B] int64, from `sample_keys`.
        stream: Name of the decision; different names give independent numbers.
        count: Numbers for each sample.

    Returns:
        [B, count] float32 with 24 random bits each.
    """
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device)
    state = _mix(keys.unsqueeze(1) ^ _stream(stream)) + counter * _GOLDEN
    return _shift_right(_mix(state), 40).to(torch.float32) * (1.0 / (1 << 24))


def normal(keys: Tensor, stream: str, count: int = 1) -> Tensor:
    """Standard normal float32 numbers [B, count]; cheap enough for one a pixel.

    The Box-Muller transform makes two of each 64 random bits: 32 are a radius, 32 an angle.
    """
    counter = torch.arange(1, count // 2 + count % 2 + 1, dtype=torch.int64, device=keys.device)
    state = _mix(_mix(keys.unsqueeze(1) ^ _stream(stream)) + counter * _GOLDEN)
    share = 1.0 / (1 << 32)
    radius = (_shift_right(state, 32).to(torch.float32) + 0.5).mul_(share).log_().mul_(-2.0).sqrt_()
    angle = (state & 0xFFFFFFFF).to(torch.float32).mul_(2.0 * torch.pi * share)
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return both[:, :count]


def permutation(seed: int, epoch: int, count: int) -> Tensor:
    """A random order [count] (int64) of the samples 0 .. count - 1 in `epoch` of a run with `seed`.

    Sorting the samples' mixed keys gives it; the mixer is a bijection, so keys of different samples differ
    and the order is the same on every device.
    """
    keys = sample_keys(seed, epoch, torch.arange(count))
    return torch.argsort(_mix(keys ^ _stream("order")))
