"""Runs in processes of their own, to be killed, limited or counted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkProcess as Process
from pathlib import Path
from typing import Any

import torch
import toy

from swath.errors import SwathError
from swath.training.stopping import Interrupted


def forked(work: Callable[[], Any]) -> Process:
    """Start `work` in a process of its own that shares what is imported: a second less than a new one.

    Its exit status is 0, that of `Interrupted`, or 2 after an error of ours, which goes to standard error.
    """

    def inside() -> None:
        torch.set_num_threads(1)
        try:
            work()
        except SwathError as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(2)
        except Interrupted as stop:
            os._exit(stop.exit_status)
        except SystemExit as leaving:
            os._exit(int(leaving.code or 0))
        os._exit(0)

    process = get_context("fork").Process(target=inside)
    process.start()
    return process


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(toy.__file__).parent)}


def swath(*arguments: str | Path) -> Callable[[], None]:
    """The command line as a piece of work for `forked`."""

    def work() -> None:
        sys.argv = ["swath", *map(str, arguments)]
        toy.command_line()

    return work
