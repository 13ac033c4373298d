"""Training steps of several implementations of one model, side by side: shared by the `speed_*.py` scripts.

Every variant runs in processes of its own, which hold its own model and nothing else (so that peak memory is
its own), with the same weights (read from a file) and the same inputs. Variants take turns, so that a
disturbance of the machine falls on all alike. Losses and gradient norms must agree.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

STEPS = 2  # measured in each visit, after one to warm up


def run_steps(
    model: Any,
    loss_of: Callable[[], Any],
    flops: float = 0.0,
    update: Callable[[], None] = lambda: None,
) -> None:
    """In a worker: a few steps, reported as JSON on standard output.

    A step is forward, backward and `update` (optimizer and what follows it). Loss and gradient norm are those
    of the first one: later ones magnify differences in rounding.
    """
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    steps, losses, norm = [], [], float("nan")
    for step in range(STEPS + 1):
        for p in parameters:
            p.grad = None
        wall, cpu = time.perf_counter(), time.process_time()
        loss = loss_of()
        loss.backward()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if step == 0:
            norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm().item()
        losses.append(loss.item())
        del loss  # or the next step would find its graph still there
        more_wall, more_cpu = time.perf_counter(), time.process_time()
        update()
        wall, cpu = wall + time.perf_counter() - more_wall, cpu + time.process_time() - more_cpu
        steps.append({"wall": wall, "cpu": cpu})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    report = {"steps": steps[1:], "loss": losses[0], "norm": norm, "peak": peak, "flops": flops}
    print(json.dumps(report), flush=True)


def _visit(command: Sequence[str]) -> dict[str, Any]:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # a shared machine: waiting threads sleep
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def compare(
    title: str,
    variants: Sequence[str],
    command: Callable[[str], Sequence[str]],
    *,
    batch: int,
    rounds: int,
    same: Callable[[str], bool] = lambda _: True,
    tolerance: float = 1e-4,
) -> dict[str, dict[str, float]]:
    """All rounds of all variants; prints the table of medians, with ratios to the first variant.

    Args:
        title: Of the table.
        variants: Names; the first is what the others are compared with.
        command: Variant -> command line of its worker, which ends in `run_steps`.
        batch: Images (or pairs) of a step.
        rounds: Visits to each variant.
        same: Whether a variant's loss and gradient norm must be the first one's.
        tolerance: Largest relative difference of those.
    """
    reports: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            reports[variant].append(_visit([sys.executable, *command(variant)]))
    first = reports[variants[0]][0]
    rows: dict[str, dict[str, float]] = {}
    for variant, visits in reports.items():
        for key in ("loss", "norm") if same(variant) else ():
            relative = abs(visits[0][key] - first[key]) / abs(first[key])
            assert relative < tolerance, f"{variant}: {key} is {visits[0][key]}, not {first[key]}"
        steps = [step for report in visits for step in report["steps"]]
        rows[variant] = {
            "per_second": batch / statistics.median(s["wall"] for s in steps),
            "per_cpu_second": batch / statistics.median(s["cpu"] for s in steps),
            "peak_gib": max(report["peak"] for report in visits),
            "loss": visits[0]["loss"],
            "gradient_norm": visits[0]["norm"],
            "flops": max(report["flops"] for report in visits),
        }
    base = rows[variants[0]]
    print(f"\n{title}; batch {batch}, {rounds} rounds of {STEPS} steps; ratios to {variants[0]}")
    print(f"{'variant':<16} {'/s':>8} {'/CPU-s':>8} {'ratio':>6} {'peak GiB':>9} {'ratio':>6}")
    for variant, row in rows.items():
        row["speed_ratio"] = row["per_cpu_second"] / base["per_cpu_second"]
        row["memory_ratio"] = row["peak_gib"] / base["peak_gib"]
        print(
            f"{variant:<16} {row['per_second']:8.3f} {row['per_cpu_second']:8.3f} "
            f"{row['speed_ratio']:6.2f} {row['peak_gib']:9.2f} {row['memory_ratio']:6.2f}",
            flush=True,
        )
    return rows
