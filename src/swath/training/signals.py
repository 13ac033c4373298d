"""SIGTERM and Ctrl-C: finish the step, save, leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingInterrupted(Exception):  # noqa: N818 - not an error: the run has saved and can continue
    """The run was asked to stop, and has saved.

    Attributes:
        signal: Which signal asked.
        checkpoint: What was saved.
        step: Steps done.
    """

    def __init__(self, signal_number: int, checkpoint: Path, step: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name} after step {step}, saved as {checkpoint}; the "
            "same command continues"
        )
        self.signal = signal_number
        self.checkpoint = checkpoint
        self.step = step

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells have it: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signal


class StopRequest:
    """Remembers the first signal; a second one acts as if nobody listened."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Catch the signals while the block runs (only the main thread may; elsewhere nothing is caught)."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    old = {number: signal.getsignal(number) for number in SIGNALS}

    def catch(number: int, frame: FrameType | None) -> None:
        request.signal = number
        for each, handler in old.items():
            signal.signal(each, handler)

    for number in SIGNALS:
        signal.signal(number, catch)
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def ignore_in_worker(worker: int) -> None:
    """For loader workers: a signal to the whole process group is the parent's to answer."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
