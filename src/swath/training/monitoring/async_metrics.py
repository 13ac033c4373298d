"""Metrics read from the device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


class _AsyncMetrics:
    """Losses and gradient norm of a step, on their way from the device.

    Reading a number from a GPU waits for all work queued before it. So they are copied in the background, and
    looked at when the next step is queued already.
    """

    def __init__(self, step: int, names: list[str], numbers: Tensor, rate: float) -> None:
        self.step, self.rate = step, rate
        self._names = [*names, "grad_norm"]
        self._event = None
        if numbers.device.type == "cuda":
            self._numbers = torch.empty(numbers.shape, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        else:
            self._numbers = numbers

    def values(self) -> dict[str, float]:
        """By name; waits for the step, not for later ones."""
        if self._event is not None:
            self._event.synchronize()
        return dict(zip(self._names, self._numbers.tolist(), strict=True))
