"""Scores as a table to read, JSON and CSV to keep, and a plot; each says how its figures came about."""

from __future__ import annotations

import csv
import io
import platform
import shlex
import sys
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swath.evaluation.protocols import Evaluation, Score
from swath.files import atomic_path, write_json

if TYPE_CHECKING:
    from rich.table import Table


def software() -> dict[str, str]:
    """Versions that a figure may depend on."""
    import torch

    from swath import __version__

    found = {"swath": __version__, "torch": torch.__version__}
    for package in ("numpy", "pillow", "rasterio"):
        with suppress(PackageNotFoundError):  # rasterio is not needed for pictures
            found[package] = version(package)
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def command_line() -> str:
    """The command that this process was started with, to be run again."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def write_report(
    evaluation: Evaluation, folder: str | Path, *, command: str | None = None, **about: Any
) -> list[Path]:
    """Write ``NAME.json``, ``NAME.csv`` and, for several scales, ``NAME.png`` into `folder`.

    NAME is the protocol's. Every file carries the protocol's id, the hashes of configuration and split,
    software versions and the command.

    Args:
        evaluation: The scores.
        folder: Created if needed.
        command: The command that makes them again; default this process's.
        about: Further facts for the JSON file (model id, data path).

    Returns:
        The files written.
    """
    from swath.evaluation.plots import plot_scale_curve

    folder = Path(folder)
    name = evaluation.protocol["name"]
    versions = software()
    origin = {
        "protocol": evaluation.protocol["id"],
        "config_hash": evaluation.config_hash,
        "split_hash": evaluation.protocol["split_hash"],
        "software": " ".join(f"{k}={v}" for k, v in versions.items()),
        "command": command or command_line(),
    }
    rows = [_row(score) for score in evaluation.scores]
    means = [asdict(evaluation.mean(*row)) for row in evaluation.rows]
    data = {
        **origin,
        "software": versions,
        **about,
        "settings": evaluation.protocol,
        "native": {"side_px": evaluation.native_side, "gsd_m": evaluation.native_gsd},
        "scores": rows,
        "means_over_symmetric_scales": [_rounded(mean) for mean in means],
        "comparisons": [_rounded(asdict(c)) for c in evaluation.comparisons()],
        "notes": evaluation.notes,
        "seconds": evaluation.seconds,
    }
    write_json(folder / f"{name}.json", data)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*rows[0], *origin])
    writer.writeheader()
    writer.writerows({**row, **origin} for row in rows)
    with atomic_path(folder / f"{name}.csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
    written = [folder / f"{name}.json", folder / f"{name}.csv"]
    if len({score.query_side for score in evaluation.scores}) > 1:
        written.append(plot_scale_curve(evaluation, folder / f"{name}.png", metadata=origin))
    return written


def _row(score: Score) -> dict[str, Any]:
    return {
        "features": score.features,
        "classifier": score.classifier,
        "query_side": score.query_side,
        "bank_side": score.bank_side,
        "accuracy": round(score.accuracy, 6),
        "low95": round(score.low, 6),
        "high95": round(score.high, 6),
        "queries": len(score.hits),
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}


def score_tables(evaluation: Evaluation) -> list[Table]:
    """Scores in percent: a row a featurizer and classifier, a column a scale, the best of each in bold.

    One table for bank and queries at the same scale, with the mean over scales and its 95% interval, and one
    for reduced queries where there are such scores. The intervals of single figures are in the files.
    """
    protocol = evaluation.protocol
    name = f"{protocol['name']}, top-1 accuracy in %"
    symmetric = evaluation.select(symmetric=True)
    tables = [_table(evaluation, symmetric, f"{name}: bank and queries of the same side (px)", mean=True)]
    asymmetric = evaluation.select(symmetric=False)
    if asymmetric:
        side = asymmetric[0].bank_side
        title = f"{name}: queries reduced to a side (px), bank at {side}"
        tables.append(_table(evaluation, asymmetric, title, mean=False))
    return tables


def _table(evaluation: Evaluation, scores: list[Score], title: str, *, mean: bool) -> Table:
    from rich import box
    from rich.table import Table

    sides = list(dict.fromkeys(s.query_side for s in scores))
    found = {(s.features, s.classifier, s.query_side): s.accuracy for s in scores}
    best = {side: max(found[(*row, side)] for row in evaluation.rows) for side in sides}
    means = {row: evaluation.mean(*row) for row in evaluation.rows} if mean else {}
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False)
    table.add_column("features", overflow="fold")
    table.add_column("by", no_wrap=True)
    for side in sides:
        table.add_column(str(side), justify="right", no_wrap=True)
    if mean:
        table.add_column("mean", justify="right", no_wrap=True)
        table.add_column("95%", justify="right", no_wrap=True, style="dim")
    for row in evaluation.rows:
        cells = [_bold(found[(*row, side)], best[side]) for side in sides]
        if mean:
            cells.append(_bold(means[row].accuracy, max(m.accuracy for m in means.values())))
            cells.append(f"{100 * means[row].low:.1f}-{100 * means[row].high:.1f}")
        table.add_row(*row, *cells)
    return table


def _bold(value: float, best: float) -> str:
    return f"[bold]{100 * value:.1f}[/bold]" if value == best else f"{100 * value:.1f}"


def verdict(evaluation: Evaluation) -> str:
    """One honest sentence: the first featurizer against the best of the others, paired, over the scales.

    Each side is taken with the classifier that serves it best; "" where there is nothing to compare.
    """
    first = evaluation.scores[0].features
    rows = sorted(evaluation.rows, key=lambda row: -evaluation.mean(*row).accuracy)
    own = next(row for row in rows if row[0] == first)
    others = [row for row in rows if row[0] != first]
    if not others:
        return ""
    gap = evaluation.compare_rows(own, others[0])
    label = f"{others[0][0]} ({others[0][1]})"
    size = f"{100 * abs(gap.difference):.1f} points (95%: {100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
    if gap.low > 0:
        return f"{first} ({own[1]}) is better than the best baseline, {label}, by {size}."
    if gap.high < 0:
        return f"{first} ({own[1]}) is worse than the best baseline, {label}, by {size}."
    return f"{first} ({own[1]}) and the best baseline, {label}, cannot be told apart: {size}."
