"""A run's numbers: JSON lines as the truth, a CSV table and TensorBoard files beside them.

When a run continues at step s, everything after s is removed first, so the files read as if it had never
been interrupted.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swath.errors import TrainingError
from swath.files import atomic_path
from swath.renames import current_names
from swath.training.run_directory import RunDirectory

Row = dict[str, Any]  # numbers; None for what was not finite


class MetricsLogger:
    """Writer of a run's metrics.

    Args:
        run: Where to.
        step: Step that the run continues at; later rows are removed.
        tensorboard: Whether to write TensorBoard files.

    Attributes:
        rows: All rows so far.
    """

    def __init__(self, run: RunDirectory, step: int, tensorboard: bool) -> None:
        self._run = run
        self.rows = [row for row in read_metrics(run.metrics) if row["step"] <= step] if step else []
        self._columns: list[str] = []
        try:
            with atomic_path(run.metrics) as path:
                path.write_text("".join(_line(row) for row in self.rows), encoding="utf-8")
            self._write_table()
        except OSError as error:
            raise _unwritable(run.metrics, error) from error
        self._board = _board(run.tensorboard, step) if tensorboard else None

    def write(self, row: Mapping[str, float | int]) -> None:
        """Append one row; it has at least ``step``. Not-finite numbers become null."""
        clean: Row = {
            key: value if isinstance(value, int) or math.isfinite(value) else None
            for key, value in row.items()
        }
        self.rows.append(clean)
        try:
            with self._run.metrics.open("a", encoding="utf-8") as file:
                file.write(_line(clean))
            if set(clean) <= set(self._columns):
                with self._run.table.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, self._columns).writerow(clean)
            else:
                self._write_table()
        except OSError as error:
            raise _unwritable(self._run.metrics, error) from error
        if self._board is not None:
            for key, value in clean.items():
                if key != "step" and value is not None:
                    self._board.add_scalar(key, value, int(clean["step"] or 0))

    def close(self) -> None:
        """Flush what is buffered."""
        if self._board is not None:
            self._board.close()

    def _write_table(self) -> None:
        self._columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with atomic_path(self._run.table) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self.rows)


def read_metrics(path: str | Path) -> list[Row]:
    """The rows of a ``metrics.jsonl``; a last line that was cut by a kill is left out."""
    path = Path(path)
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(current_names(row, "metrics", None))
    return rows


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"  # floats in full: reading them back gives the same bits


def _board(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    if step == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def _unwritable(path: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"{path}: cannot be written ({error.strerror or error}). The checkpoints are intact: make room and "
        "run the same command again"
    )
