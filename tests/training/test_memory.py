"""Freed memory stays in the process, so that the next step does not pay for fresh pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

_COUNT_FAULTS = """
import resource, sys
import torch
from swath.training.memory import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
def step():
    torch.empty(64 << 20, dtype=torch.uint8).fill_(1)
step(); step()
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
    assert after < 100
    assert after < before
