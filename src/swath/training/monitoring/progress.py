"""What a person sees of a run: a live panel on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import RenderableType

QUIET_SECONDS = 2.0  # between two plain lines; a log file is not a terminal


class Display:
    """Live progress of a run; a context manager.

    Args:
        title: Name of the run.
        total: Steps in all, or None when CPU time decides.
        active: False shows nothing (other ranks, library use).
    """

    def __init__(self, title: str, total: int | None, *, active: bool = True) -> None:
        from rich.console import Console

        self._title, self._total, self._active = title, total, active
        self._console = Console(stderr=True)
        self._began = time.monotonic()
        self._from: float | None = None
        self._step, self._progress = 0, 0.0
        self._row: Mapping[str, float | int | None] = {}
        self._last_line = 0.0
        self._live = None
        if active and self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self._panel, console=self._console, refresh_per_second=4, transient=False
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, step: int, progress: float) -> None:
        """A step is done; cheap, called for every one."""
        if self._from is None:
            self._from, self._began = progress, time.monotonic()
        self._step, self._progress = step, progress

    def log(self, row: Mapping[str, float | int | None], last: bool = False) -> None:
        """New numbers, as they go into the metrics."""
        self._row = {**self._row, **row}
        now = time.monotonic()
        if self._active and self._live is None and (last or now - self._last_line >= QUIET_SECONDS):
            self._last_line = now
            self.print(self._line())

    def print(self, text: str, style: str | None = None) -> None:
        """Print a line that stays, above the panel."""
        if self._active:
            self._console.print(text, style=style, highlight=False, soft_wrap=True)

    def seconds_left(self) -> float | None:
        """Estimate from the pace of this process; None before there is one."""
        if self._from is None or self._progress <= self._from:
            return None
        return (time.monotonic() - self._began) * (1 - self._progress) / (self._progress - self._from)

    def _facts(self) -> list[tuple[str, str]]:
        row = self._row
        facts = [
            (key.removeprefix("loss/"), f"{value:.4f}")
            for key, value in row.items()
            if key.startswith("loss/") and value is not None
        ]
        for key, name, form in (
            ("lr", "lr", "{:.2e}"),
            ("grad_norm", "grad norm", "{:.3g}"),
            ("images_per_second", "images/s", "{:.1f}"),
            ("data_wait_fraction", "data wait", "{:.0%}"),
            ("rankme", "RankMe", "{:.1f}"),
            ("feature_std", "feature std", "{:.3f}"),
        ):
            value = row.get(key)
            if value is not None:
                facts.append((name, form.format(value)))
        return facts

    def _line(self) -> str:
        left = self.seconds_left()
        of = f"/{self._total}" if self._total else ""
        facts = "  ".join(f"{name} {value}" for name, value in self._facts())
        return f"step {self._step}{of}  {facts}" + (
            f"  left {format_duration(left)}" if left is not None else ""
        )

    def _panel(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        left = self.seconds_left()
        of = f" of {self._total}" if self._total else ""
        head = Text.assemble(
            (self._title, "bold"),
            f"  step {self._step}{of}  {self._progress:.0%}  ",
            f"{format_duration(time.monotonic() - self._began)} gone, ",
            f"{format_duration(left)} left" if left is not None else "time left is being measured",
        )
        table = Table.grid(padding=(0, 3))
        facts = self._facts()
        for _ in facts:
            table.add_column(justify="right")
        if facts:
            table.add_row(*(Text(name, style="dim") for name, _ in facts))
            table.add_row(*(value for _, value in facts))
        bar = Table.grid()  # a bare bar does not end its line
        bar.add_row(ProgressBar(total=1.0, completed=self._progress, width=72))
        return Group(head, bar, table)


def format_duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 10 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
