"""What to tell somebody whose loss is not a number any more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from swath.datasets.chip import Batch
from swath.datasets.collation import split_by_sensor
from swath.training.loading import BatchLoader
from swath.training.parallel import is_sharded

NAMED = 16  # samples listed


@torch.no_grad()
def diagnose(
    *,
    step: int,
    values: Mapping[str, float],
    rate: float,
    indices: Sequence[int],
    batches: BatchLoader,
    objective: nn.Module,
    ready: Callable[[Batch], Batch],
    checkpoint: Path | None,
) -> str:
    """The message: which loss, step, learning rate, gradient norm, samples; the cause where it can be found.

    The samples are looked at one by one: is their loss finite, by itself? (Pixels that are not finite never
    get here: the contract's normalization masks them.)

    Args:
        step: That went wrong.
        values: Losses and ``grad_norm``.
        rate: Learning rate of the step.
        indices: This process's samples of the step.
        batches: To read them again.
        objective: The weights, as they were before the step where that is known (on a CPU).
        ready: Brings a batch to the weights' device, and normalizes it.
        checkpoint: The last good one.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    shown = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
    lines = [
        f"step {step}: {' and '.join(bad)} {'is' if len(bad) == 1 else 'are'} not finite.",
        f"  {shown}, lr {rate:.3g}",
        f"  samples: {', '.join(map(str, indices[:NAMED]))}{' ...' if len(indices) > NAMED else ''}",
    ]
    weights = next((n for n, p in objective.named_parameters() if not _finite(p)), None)
    culprits = _culprits(indices, step, batches, objective, ready, weights is None)
    lines += [f"  {culprit}" for culprit in culprits[:NAMED]]
    if weights is not None:
        lines.append(f"  the weights are not finite any more, {weights} first")
    if culprits:
        advice = "check these files, and remove or repair them"
    elif bad == ["grad_norm"]:
        advice = "every loss is finite, but not its gradient: try a lower learning rate, or precision fp32"
    else:
        advice = (
            "no single sample does it: lower optimizer.lr, set training.max_grad_norm (1.0 is usual), "
            "warm up for "
            "longer, or use precision bf16 or fp32 instead of fp16"
        )
    lines.append(f"  What to do: {advice}.")
    lines.append(
        f"  The last good checkpoint is {checkpoint}."
        if checkpoint
        else "  No checkpoint had been written yet."
    )
    return "\n".join(lines)


def _culprits(
    indices: Sequence[int],
    step: int,
    batches: BatchLoader,
    objective: nn.Module,
    ready: Callable[[Batch], Batch],
    weights_good: bool,
) -> list[str]:
    paths = batches.dataset.paths
    found = []
    for index in indices:
        batch = batches.fetch(batches.epoch_of(step), [index])
        path = f" ({paths[index]})" if len(paths) == len(batches.dataset) else ""
        normal = ready(batch)
        if not all(_finite(one["gsd"]) for one in split_by_sensor(normal).values()):
            found.append(f"sample {index}{path}: its GSD is not finite")
        elif weights_good and not is_sharded(objective):
            total = objective(objective.views(normal))["total"]  # type: ignore[operator]
            if not _finite(total):
                largest = max(float(one["image"].abs().max()) for one in split_by_sensor(normal).values())
                found.append(
                    f"sample {index}{path}: its loss is not finite by itself (largest normalized value "
                    f"{largest:.4g})"
                )
    # If all samples do it, none is to blame.
    return found if len(found) < len(indices) or len(indices) == 1 else []


def _finite(tensor: Tensor) -> bool:
    local = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return bool(torch.isfinite(local).all())
