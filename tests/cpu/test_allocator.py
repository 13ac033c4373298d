"""Freed memory stays in the process, so that the next step does not pay for fresh pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

_COUNT_FAULTS = """
import resource, sys
import torch
from swath.cpu.allocator import retain_freed_memory

kept = retain_freed_memory() if sys.argv[1] == "keep" else False
live = []

def step():
    for megabytes in (64, 10):
        torch.empty(megabytes << 20, dtype=torch.uint8).fill_(1)
        live.append(bytes(1000))  # small things that stay, between the large ones that go

for _ in range(15):  # until the heap has found its size
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    out = subprocess.run(
        [sys.executable, "-c", _COUNT_FAULTS, how], capture_output=True, text=True, check=True
    )
    kept, count = map(int, out.stdout.split())
    return kept, count


def test_steps_cause_no_page_faults():
    kept, after = faults("keep")
    if not kept:
        pytest.skip("the C library is not glibc")
    _, before = faults("leave")
    assert after < before / 10
