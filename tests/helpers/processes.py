"""Runs in processes of their own, to be killed, limited or counted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess as Process
from pathlib import Path
from typing import Any

import torch

from helpers import toy_objective as toy
from swath.errors import SwathError
from swath.training.signals import TrainingInterrupted


def started(work: Callable[..., Any], *arguments: Any) -> Process:
    """Start ``work(*arguments)`` in a new process: both are pickled, so `work` stands in a module.

    Not forked: once a backward pass has needed a thread, as in some test before, a fork of this process
    cannot run another. Its exit status is 0, that of `TrainingInterrupted`, or 2 after an error of ours,
    which goes to standard error.
    """
    process = get_context("spawn").Process(target=_inside, args=(work, *arguments))
    process.start()
    return process


def _inside(work: Callable[..., Any], *arguments: Any) -> None:
    torch.set_num_threads(1)
    try:
        work(*arguments)
    except SwathError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(2)
    except TrainingInterrupted as stop:
        os._exit(stop.exit_status)
    except SystemExit as leaving:
        os._exit(int(leaving.code or 0))
    os._exit(0)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(toy.__file__).parents[1])}


def swath(*arguments: str | Path) -> None:
    """The command line, as work for `started`."""
    sys.argv = ["swath", *map(str, arguments)]
    toy.command_line()
