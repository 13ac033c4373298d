"""How long a run is, and how far along it is."""

from __future__ import annotations

import time

from swath.training.config.sections import TrainingConfig
from swath.training.optim.schedules import bolts_cosine_schedule, cosine_schedule, cosine_with_scaled_warmup


class Budget:
    """Steps, epochs, or CPU time of this process.

    Args:
        config: Names the budget and the warm-up.
        steps_per_epoch: Of the data.
        spent: CPU seconds that earlier parts of the run have used.

    Attributes:
        steps: Steps in all, or None when CPU time decides.
    """

    def __init__(self, config: TrainingConfig, steps_per_epoch: int, spent: float = 0.0) -> None:
        self._schedule = config.schedule
        self._before = spent
        self._began = time.process_time()
        self._cpu_seconds = None if config.cpu_minutes is None else 60.0 * config.cpu_minutes
        self.steps = config.steps
        if config.epochs is not None:
            self.steps = config.epochs * steps_per_epoch
        if config.warmup_steps is not None:
            self.warmup = min(1.0, config.warmup_steps / (self.steps or 1))
        elif config.warmup_epochs is not None:
            self.warmup = min(1.0, config.warmup_epochs * steps_per_epoch / (self.steps or 1))
        else:
            self.warmup = 0.05 if config.warmup_fraction is None else config.warmup_fraction

    @property
    def spent(self) -> float:
        """CPU seconds of the run so far, all threads, earlier parts included."""
        return self._before + time.process_time() - self._began

    def progress(self, step: int) -> float:
        """Share of the budget spent in the middle of step `step` (from 1)."""
        if self._cpu_seconds is not None:
            return min(1.0, self.spent / self._cpu_seconds)
        assert self.steps is not None
        return (step - 0.5) / self.steps

    def finished(self, step: int) -> bool:
        """Whether nothing is left after `step` steps."""
        if self._cpu_seconds is not None:
            return self.spent >= self._cpu_seconds
        assert self.steps is not None
        return step >= self.steps

    def total_steps(self, step: int) -> int:
        """Steps in all: exact, or what the pace so far lets expect."""
        return self.steps or max(step, round(step / max(self.progress(step), 1e-6)))

    def rate(self, step: int, final: float) -> float:
        """Share of the peak learning rate for step `step` (from 1), by the schedules of `optim`."""
        if self._schedule != "cosine":
            assert self.steps is not None
            by_step = bolts_cosine_schedule if self._schedule == "cosine_bolts" else cosine_with_scaled_warmup
            return by_step(step - 1, self.steps, round(self.warmup * self.steps), final=final)
        return cosine_schedule(self.progress(step), self.warmup, final)
