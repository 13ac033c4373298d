"""Number formats of a run: autocast, deterministic kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from swath.training.config.recipe import BaseRecipe

_PRECISION = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def _numerics(recipe: BaseRecipe, device: torch.device) -> Iterator[None]:
    """Deterministic kernels if requested; the caller's settings and random state are put back afterwards."""
    deterministic = recipe.training.deterministic
    deterministic = device.type == "cpu" if deterministic is None else deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    debug: Any = torch.utils.deterministic
    fill = debug.fill_uninitialized_memory
    with torch.random.fork_rng():
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        debug.fill_uninitialized_memory = False  # costs time and is about bugs, not order
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            debug.fill_uninitialized_memory = fill
