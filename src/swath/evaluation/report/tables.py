"""Scores as a table to read, JSON and CSV to keep, and a plot; each says how its figures came about."""

from __future__ import annotations

import csv
import io
import platform
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swath.evaluation.measures.intervals import Estimate
from swath.evaluation.protocols.predictions import write_predictions
from swath.evaluation.protocols.results import EvaluationResult, Score
from swath.files import atomic_path, write_json

if TYPE_CHECKING:
    from rich.table import Table


def software_versions() -> dict[str, str]:
    """Versions that a figure may depend on."""
    import torch

    from swath._version import __version__

    found = {"swath": __version__, "torch": torch.__version__}
    for package in ("numpy", "pillow", "rasterio"):
        with suppress(PackageNotFoundError):  # rasterio is not needed for pictures
            found[package] = version(package)
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def command_line() -> str:
    """The command that this process was started with, to be run again."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def write_scores(
    evaluation: EvaluationResult, folder: str | Path, *, command: str | None = None, **about: Any
) -> list[Path]:
    """Write ``NAME.json``, ``NAME.csv``, ``NAME_predictions.npz`` and images into `folder`.

    NAME is the protocol's. The queries' file holds what was said of every query (see `read_queries`), so that
    confusion matrices, reliability plots and galleries can be made later. Pictures are ``NAME.png`` for
    several scales. Every file carries the protocol's id, the hashes of configuration and split, software
    versions and the command.

    Args:
        evaluation: The scores.
        folder: Created if needed.
        command: The command that makes them again; default this process's.
        about: Further facts for the JSON file (model id, data path).

    Returns:
        The files written.
    """
    from swath.evaluation.report.plots import plot_fewshot_curve, plot_reliability, plot_scale_curve

    folder = Path(folder)
    name = evaluation.protocol["name"]
    versions = software_versions()
    origin = {
        "protocol": evaluation.protocol["id"],
        "config_hash": evaluation.config_hash,
        "split_hash": evaluation.protocol["split_hash"],
        "software": " ".join(f"{k}={v}" for k, v in versions.items()),
        "command": command or command_line(),
    }
    rows = [_row(evaluation, score) for score in evaluation.scores]
    means = [{**asdict(evaluation.mean(*row)), "whole": not evaluation.refused} for row in evaluation.rows]
    data = {
        **origin,
        "software": versions,
        **about,
        "settings": evaluation.protocol,
        "native": {"image_size_px": evaluation.native_image_size, "gsd_m": evaluation.native_gsd},
        "scores": [
            {**row, "by_class": _by_class(evaluation, score), **score.details}
            for row, score in zip(rows, evaluation.scores, strict=True)
        ],
        "mean_over_image_sizes": [_rounded(mean) for mean in means],
        "unsupported_image_sizes": evaluation.refused,
        "seed_summary": [_rounded(asdict(found)) for found in evaluation.seed_summary()],
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
    written.append(write_predictions(evaluation, folder / f"{name}_predictions.npz", origin))
    if "shots" in evaluation.protocol:
        written.append(plot_fewshot_curve(evaluation, folder / f"{name}.png", metadata=origin))
    elif len({score.test_image_size for score in evaluation.scores}) > 1:
        written.append(plot_scale_curve(evaluation, folder / f"{name}.png", metadata=origin))
    if evaluation.labels.ndim == 1 and any(score.confidence is not None for score in evaluation.scores):
        written.append(plot_reliability(evaluation, folder / f"{name}_reliability.png", metadata=origin))
    return written


def _row(evaluation: EvaluationResult, score: Score) -> dict[str, Any]:
    row = {
        **score.head,
        "metric": evaluation.metric,
        "value": _number(score.value),
        "ci95_low": _number(score.low),
        "ci95_high": _number(score.high),
        "test": len(score.hits),
    }
    if evaluation.metric == "top-1 accuracy":
        row["accuracy"] = row["value"]
    for name, figure in score.figures.items():
        for suffix, number in zip(("", "_ci95_low", "_ci95_high"), figure, strict=True):
            row[name + suffix] = _number(number)
    return row


def _by_class(evaluation: EvaluationResult, score: Score) -> dict[str, dict[str, float | None]]:
    names = evaluation.protocol["classes"] or [str(i) for i in range(len(score.by_class))]

    def plain(figure: Estimate) -> dict[str, float | None]:
        return {
            "value": _number(figure.value),
            "ci95_low": _number(figure.low),
            "ci95_high": _number(figure.high),
        }

    return {name: plain(figure) for name, figure in zip(names, score.by_class, strict=False)}


def _number(value: float) -> float | None:
    """Six digits; None (in CSV: empty) for what is not defined."""
    return None if isnan(value) else round(value, 6)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}


def score_tables(evaluation: EvaluationResult) -> list[Table]:
    """Scores in percent: a row a feature extractor and classifier, a column a scale, the best of each in
    bold.

    One table for train and test split at the same scale, with the mean over scales and its 95% interval, and
    one for reduced queries where there are such scores. The intervals of single figures are in the files.
    """
    protocol = evaluation.protocol
    name = f"{protocol['name']}, {evaluation.metric} in %"
    if "shots" in protocol:
        return [
            _shots_table(evaluation, image_size, f"{name}: labeled images a class, images of {image_size} px")
            for image_size in protocol["image_sizes"]
        ]
    symmetric = evaluation.select(symmetric=True)
    tables = [_table(evaluation, symmetric, f"{name}: bank and queries of the same side (px)", mean=True)]
    asymmetric = evaluation.select(symmetric=False)
    if asymmetric:
        image_size = asymmetric[0].train_image_size
        title = f"{name}: queries reduced to a side (px), bank at {image_size}"
        tables.append(_table(evaluation, asymmetric, title, mean=False))
    return tables


def _table(evaluation: EvaluationResult, scores: list[Score], title: str, *, mean: bool) -> Table:
    image_sizes = list(dict.fromkeys(s.test_image_size for s in scores))
    found = {(s.features, s.classifier, s.test_image_size): s.accuracy for s in scores}
    best = {
        image_size: max(found[(*row, image_size)] for row in evaluation.rows) for image_size in image_sizes
    }
    means = {row: evaluation.mean(*row) for row in evaluation.rows} if mean else {}
    table = _bare(title)
    table.add_column("features", overflow="fold")
    table.add_column("by", no_wrap=True)
    for image_size in image_sizes:
        table.add_column(str(image_size), justify="right", no_wrap=True)
    if mean:
        lacking = len(evaluation.refused)
        whole = "mean" if not lacking else f"mean of {len(image_sizes)}/{len(image_sizes) + lacking}"
        table.add_column(whole, justify="right", no_wrap=True)
        table.add_column("95%", justify="right", no_wrap=True, style="dim")
    for row in evaluation.rows:
        cells = [_bold(found[(*row, image_size)], best[image_size]) for image_size in image_sizes]
        if mean:
            cells.append(_bold(means[row].accuracy, max(m.accuracy for m in means.values())))
            cells.append(f"{100 * means[row].low:.1f}-{100 * means[row].high:.1f}")
        table.add_row(*row, *cells)
    return table


def comparison_table(evaluation: EvaluationResult, names: Sequence[str]) -> Table:
    """Paired differences between feature extractors on the same queries: a row each two, under each
    classifier.

    Over the symmetric scales; the interval holds 95%, p is that of a paired permutation test.
    """
    table = _bare(f"paired differences in {evaluation.metric}, points")
    for header in ("features", "baseline", "by"):
        table.add_column(header, overflow="fold")
    for header in ("difference", "95%", "p"):
        table.add_column(header, justify="right", no_wrap=True)
    kinds = dict.fromkeys(kind for features, kind in evaluation.rows if features in names)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            for kind in kinds:
                found = evaluation.compare(first, second, kind)
                clear = found.low > 0 or found.high < 0
                size = f"{100 * found.difference:+.1f}"
                table.add_row(
                    first, second, kind, f"[bold]{size}[/bold]" if clear else size,
                    f"{100 * found.low:+.1f} to {100 * found.high:+.1f}",
                    "" if found.p is None else f"{found.p:.4f}",
                )  # fmt: skip
    return table


def seed_table(evaluation: EvaluationResult) -> Table:
    """Mean over the seeds of one method: a row a classifier and scale."""
    count = len(evaluation.seed_group)
    table = _bare(f"{count} seeds, {evaluation.metric} in %: mean, standard deviation, 95% of the mean")
    for header in ("by", "side, px"):
        table.add_column(header)
    for header in ("mean", "sd", "95%"):
        table.add_column(header, justify="right", no_wrap=True)
    for found in evaluation.seed_summary():
        image_size = "mean of scales" if found.test_image_size is None else str(found.test_image_size)
        spread = f"{100 * found.low:.1f}-{100 * found.high:.1f}"
        table.add_row(
            found.classifier, image_size, f"{100 * found.mean:.1f}", f"{100 * found.deviation:.1f}", spread
        )
    return table


def _bare(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False)


def _shots_table(evaluation: EvaluationResult, image_size: int, title: str) -> Table:
    """A row a feature extractor and classifier, a column a number of labeled images per class."""
    shots = evaluation.protocol["shots"]
    rows: dict[tuple[str, str], list[float]] = {}
    for score in evaluation.scores:
        if score.test_image_size == image_size:
            kind = score.classifier.partition("@")[0]
            rows.setdefault((score.features, kind), []).append(score.value)
    best = [max(column) for column in zip(*rows.values(), strict=True)]
    table = _bare(title)
    table.add_column("features", overflow="fold")
    table.add_column("by", no_wrap=True)
    for n in shots:
        table.add_column(str(n), justify="right", no_wrap=True)
    for row, values in rows.items():
        table.add_row(*row, *(_bold(value, top) for value, top in zip(values, best, strict=True)))
    return table


def _bold(value: float, best: float) -> str:
    return f"[bold]{100 * value:.1f}[/bold]" if value == best else f"{100 * value:.1f}"


def summary_sentence(evaluation: EvaluationResult) -> str:
    """One honest sentence: the first feature extractor against the best of the others, paired, over the
    scales.

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
