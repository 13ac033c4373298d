"""What a suite found, as tables to read and files to keep: one figure a set and model, baselines beside.

A cell is the mean over scales in percent with its 95% interval. Sets that are not there keep their row and
say so; a mean over sets says over how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from swath.evaluation.suites.results import DatasetResult, SuiteResult, SuiteScore

if TYPE_CHECKING:
    from rich.table import Table

PARTIAL = "†"  # beside the title of a set of which only a part is here
FEW_QUERIES = 50  # of fewer, one image is more than two points; no verdict is given


# ------------------------------------------------------------------------------------------------- the table


def suite_table_cells(result: SuiteResult, protocol: str, classifier: str | None = None) -> list[list[str]]:
    """The table as text: a header, a row a set, and the mean over those sets that every column has.

    Args:
        result: Of the suite.
        protocol: "knn" or "linear".
        classifier: Default: the protocol's own ("knn", not "knn-standardized").
    """
    rows = result.rows(protocol, classifier)
    columns = columns_of(result, rows)
    reference = result.suite.published if any(one.reference for one in result.datasets) else None
    shown = list(reference.columns) if reference and protocol == "knn" else []
    table = [["set", *columns, *(f"{name} (paper)" for name in shown)]]
    values: dict[str, list[float | None]] = {}
    for one in result.datasets:
        own = {row.features: row for row in rows if row.set == one.title}
        best = max((row.value for row in own.values()), default=None)
        cells = [_cell(one, name, own.get(name), best) for name in columns]
        papers = [f"{value:.1f}" for value in one.reference or []][: len(shown)] or ["" for _ in shown]
        table.append([one.title + (f" {PARTIAL}" if one.partial else ""), *cells, *papers])
        if one.status == "done" and own:
            numbers = [own[name].value if name in own else None for name in columns]
            values[one.title] = [*numbers, *([v / 100 for v in one.reference or []][: len(shown)])]
    return table + _mean_row(result, values, len(columns) + len(shown))


def columns_of(result: SuiteResult, rows: Sequence[SuiteScore]) -> list[str]:
    """Models as they were named, their untrained selves, then baselines; models that fit no set too."""
    order = {"model": 0, "untrained": 1, "baseline": 2}
    found = dict.fromkeys(row.features for row in sorted(rows, key=lambda row: order[row.role]))
    absent = [
        name for name in result.models if not any(f == name or f.startswith(f"{name}, ") for f in found)
    ]
    return [*absent, *found]


def _cell(one: DatasetResult, name: str, row: SuiteScore | None, best: float | None) -> str:
    if one.status != "done":
        return one.status
    if row is None:
        return "not applicable" if name in one.not_applicable else "-"
    text = f"{100 * row.value:.1f} ({100 * row.low:.1f}-{100 * row.high:.1f})"
    return f"**{text}**" if row.value == best else text


def _mean_row(result: SuiteResult, values: dict[str, list[float | None]], width: int) -> list[list[str]]:
    """Mean over the sets that all columns have; none where that are fewer than two."""
    whole = [numbers for numbers in values.values() if len(numbers) == width and None not in numbers]
    if len(whole) < 2:
        return []
    means = np.array(whole, dtype=np.float64).mean(axis=0)
    return [
        [f"mean of {len(whole)} of {len(result.suite.datasets)} sets", *(f"{100 * m:.1f}" for m in means)]
    ]


def suite_tables(result: SuiteResult) -> list[Table]:
    """One table a protocol, for the terminal."""
    from rich import box
    from rich.table import Table

    tables = []
    for protocol in protocols(result):
        header, *body = suite_table_cells(result, protocol)
        table = Table(title=title_of(result, protocol), title_justify="left", box=box.SIMPLE, pad_edge=False)
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i else "left", overflow="fold")
        for cells in body:
            table.add_row(*(_bold(cell) for cell in cells))
        tables.append(table)
    return tables


def _bold(cell: str) -> str:
    escaped = cell.replace("[", "\\[")
    return f"[bold]{escaped.strip('*')}[/bold]" if cell.startswith("**") else escaped


def protocols(result: SuiteResult) -> list[str]:
    """Those that the suite asks for."""
    return [name for name in ("knn", "linear") if getattr(result.suite.protocols, name) is not None]


def title_of(result: SuiteResult, protocol: str) -> str:
    """What the table of a protocol shows."""
    metrics = sorted({row.metric for row in result.rows(protocol)}) or ["score"]
    how = "mean over scales" if protocol == "knn" else "linear probe"
    return f"{result.suite.name}, {protocol}: {' or '.join(metrics)} in % ({how}, 95% interval)"


# ------------------------------------------------------------------------------------------- what to know too


def suite_notes(result: SuiteResult) -> list[str]:
    """What is absent, not applicable, partial or worth knowing; one sentence each."""
    found = []
    if not result.finished:
        left = [one.shown for one in result.suite.datasets[len(result.datasets) :]]
        found.append(f"not finished: {', '.join(left)} are still to do; run the command again")
    for one in result.datasets:
        if one.status != "done":
            found.append(f"{one.title} is {one.status}: {one.reason}")
        found += [f"{one.title}: {name} does not fit: {why}" for name, why in one.not_applicable.items()]
    for one in result.datasets:
        found += [f"{one.title}: {note}" for note in one.notes]
    if result.suite.published:
        found.append(
            f"figures marked (paper) are from {result.suite.published.source}: other splits, other hardware, "
            "no intervals; a difference of a point or two says nothing"
        )
    return found


def suite_summary(result: SuiteResult) -> list[str]:
    """For each model: on how many sets it beats the best baseline beyond doubt.

    Sets of fewer than `FEW_QUERIES` queries are named and not judged: an interval drawn from so few is too
    narrow more often than it says, and one image is points.
    """
    found = []
    for protocol in protocols(result):
        rows = [row for row in result.rows(protocol) if row.role == "model" and row.difference is not None]
        for name in dict.fromkeys(row.features for row in rows):
            every = [row for row in rows if row.features == name]
            own = [row for row in every if row.test >= FEW_QUERIES]
            few = [f"{row.set} ({row.test} queries)" for row in every if row.test < FEW_QUERIES]
            above = sum(1 for row in own if (row.gap_low or 0) > 0)
            below = sum(1 for row in own if (row.gap_high or 0) < 0)
            found.append(
                f"{name} ({protocol}): above the best baseline on {above} of {len(own)} sets beyond doubt, "
                f"below it on {below}, not to be told apart on {len(own) - above - below}"
                + (f"; too few queries to judge: {', '.join(few)}" if few else "")
            )
    return found


def markdown(result: SuiteResult) -> str:
    """Everything as one Markdown page."""
    suite = result.suite
    lines = [f"# {suite.title or suite.name}", ""]
    if suite.description:
        lines += [suite.description.strip(), ""]
    for protocol in protocols(result):
        header, *body = suite_table_cells(result, protocol)
        lines += [f"## {title_of(result, protocol)}", "", _line(header), _line(["---"] * len(header))]
        lines += [*(_line(cells) for cells in body), ""]
    if any(one.partial for one in result.datasets):
        lines += [f"{PARTIAL} only a part of the set is here.", ""]
    for title, prediction in (("Verdicts", suite_summary(result)), ("To be known", suite_notes(result))):
        if prediction:
            lines += [f"## {title}", "", *(f"- {sentence}" for sentence in prediction), ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
