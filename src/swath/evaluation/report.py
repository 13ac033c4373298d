"""Scores as a table to read, JSON and CSV to keep, and a plot; each says how the figures came about."""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swath.evaluation.protocols import Evaluation
from swath.files import atomic_path, write_json

if TYPE_CHECKING:
    from rich.table import Table


def software() -> dict[str, str]:
    """Versions that a figure may depend on."""
    import numpy
    import torch

    from swath import __version__

    return {
        "swath": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }


def config_hash(protocol: dict[str, Any]) -> str:
    """12 hex digits over everything in the protocol that a figure depends on (not how long it took)."""
    kept = {k: v for k, v in protocol.items() if k != "seconds"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]


def write_report(
    evaluation: Evaluation, folder: str | Path, *, command: str | None = None, **about: Any
) -> list[Path]:
    """Write ``NAME.json``, ``NAME.csv`` and ``NAME.png`` (NAME is the protocol's) into `folder`.

    Args:
        evaluation: The scores.
        folder: Created if needed.
        command: The command that makes them again; default this process's command line.
        about: Further facts for the JSON file (model id, data path).

    Returns:
        The files written.
    """
    from swath.evaluation.plots import plot_scale_curve

    folder = Path(folder)
    name = evaluation.protocol["name"]
    data = {
        "protocol": evaluation.protocol,
        "config_hash": config_hash(evaluation.protocol),
        "split_hash": evaluation.protocol["split_hash"],
        "software": software(),
        "command": command or " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        **about,
        "native": {"side_px": evaluation.native_side, "gsd_m": evaluation.native_gsd},
        "scores": [_row(s) for s in evaluation.scores],
        "notes": evaluation.notes,
    }
    write_json(folder / f"{name}.json", data)
    with (
        atomic_path(folder / f"{name}.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(data["scores"][0]))
        writer.writeheader()
        writer.writerows(data["scores"])
    written = [folder / f"{name}.json", folder / f"{name}.csv"]
    if len({s.query_side for s in evaluation.scores}) > 1:
        written.append(plot_scale_curve(evaluation, folder / f"{name}.png"))
    return written


def _row(score: Any) -> dict[str, Any]:
    return {
        "features": score.features,
        "protocol": score.protocol,
        "query_side": score.query_side,
        "bank_side": score.bank_side,
        "accuracy": round(score.accuracy, 6),
        "low95": round(score.low, 6),
        "high95": round(score.high, 6),
        "images": len(score.hits),
    }


def score_table(evaluation: Evaluation) -> Table:
    """Scores in percent: a row a featurizer and protocol, a column a scale, the best in bold."""
    from rich.table import Table

    first = evaluation.scores[0]
    columns = [
        (s.query_side, s.bank_side)
        for s in evaluation.scores
        if s.features == first.features and s.protocol == first.protocol
    ]
    symmetric = [c for c in columns if c[0] == c[1]]
    found = {(s.features, s.protocol, s.query_side, s.bank_side): s for s in evaluation.scores}
    rows = list(dict.fromkeys((s.features, s.protocol) for s in evaluation.scores))
    best = {c: max(found[(*r, *c)].accuracy for r in rows) for c in columns}
    table = Table(
        title=f"{evaluation.protocol['name']}, top-1 % [95% interval]; q|b: queries of q px, bank of b px",
        title_justify="left",
    )
    table.add_column("features")
    table.add_column("protocol")
    for query_side, bank_side in columns:
        head = f"{query_side} px" if query_side == bank_side else f"{query_side}|{bank_side}"
        table.add_column(head, justify="right")
    if len(symmetric) > 1:
        table.add_column("mean", justify="right")
    for row in rows:
        cells = []
        for column in columns:
            s = found[(*row, *column)]
            text = f"{100 * s.accuracy:.1f} [dim]{100 * s.low:.0f}-{100 * s.high:.0f}[/dim]"
            cells.append(f"[bold]{text}[/bold]" if s.accuracy == best[column] else text)
        if len(symmetric) > 1:
            cells.append(f"{100 * sum(found[(*row, *c)].accuracy for c in symmetric) / len(symmetric):.1f}")
        table.add_row(*row, *cells)
    return table
