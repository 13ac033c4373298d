"""Retrieval scores to read (terminal, Markdown) and to keep (JSON, CSV, images), each with its protocol."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swath.evaluation.measures.retrieval import METRICS
from swath.evaluation.report.tables import command_line, software_versions
from swath.evaluation.retrieval.names import short_sensor_names
from swath.evaluation.retrieval.results import MIXED, RetrievalEvaluation, RetrievalScore
from swath.files import atomic_path, write_json

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table before it is drawn: cells are text; `best` holds the (row, column) of those in bold."""

    title: str
    header: list[str]
    rows: list[list[str]]
    best: frozenset[tuple[int, int]] = frozenset()


def retrieval_grids(evaluation: RetrievalEvaluation) -> list[TextTable]:
    """The tables of a report: F1 in every direction, all metrics of the first candidate, gaps, classes."""
    names = {**short_sensor_names(evaluation.sensors), MIXED: "all"}
    grids = [_matrix(evaluation, names), _metrics(evaluation, names), _gaps(evaluation, names)]
    return [*grids, *_classes(evaluation, names)]


def retrieval_tables(evaluation: RetrievalEvaluation, *, per_class: bool = False) -> list[Table]:
    """`retrieval_grids` for the terminal; the rows a class only if requested."""
    from rich import box
    from rich.table import Table

    tables = []
    grids = retrieval_grids(evaluation)
    for grid in grids if per_class else grids[:3]:
        table = Table(
            title=grid.title, title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False
        )
        for i, name in enumerate(grid.header):
            table.add_column(name, justify="left" if i < 2 else "right", overflow="fold")
        for r, row in enumerate(grid.rows):
            cells = [f"[bold]{cell}[/bold]" if (r, c) in grid.best else cell for c, cell in enumerate(row)]
            table.add_row(*cells)
        tables.append(table)
    return tables


def retrieval_summary(evaluation: RetrievalEvaluation) -> list[str]:
    """One sentence a direction across sensors: the first candidate, the best other, chance."""
    names = short_sensor_names(evaluation.sensors)
    first, k = evaluation.candidates[0], evaluation.protocol["k"]
    sentences = []
    for query_sensor in evaluation.sensors:
        for gallery_sensor in evaluation.sensors:
            if query_sensor == gallery_sensor:
                continue
            own = _best(evaluation, first, query_sensor, gallery_sensor)
            if own is None:
                continue
            chance = evaluation.get("chance", query_sensor, gallery_sensor, False).values["f1"]
            low, high = own.intervals["f1"]
            text = (
                f"{names[query_sensor]} to {names[gallery_sensor]}: F1@{k} of {first} is "
                f"{_percent(own.values['f1'])} "
                f"(95%: {_percent(low)} to {_percent(high)}{', centered' if own.centered else ''}), chance "
                f"{_percent(chance)}"
            )
            others = [
                _best(evaluation, name, query_sensor, gallery_sensor) for name in evaluation.candidates[1:]
            ]
            scored = [score for score in others if score is not None]
            if scored:
                other = max(scored, key=lambda score: score.values["f1"])
                gap = evaluation.compare(first, other.features, query_sensor, gallery_sensor)
                assert gap is not None
                text += (
                    f"; {100 * gap['f1_difference']:+.1f} points against {other.features} (95%: "
                    f"{100 * gap['ci95_low']:+.1f} to {100 * gap['ci95_high']:+.1f})"
                )
            sentences.append(text + ".")
    return sentences


def write_retrieval(
    evaluation: RetrievalEvaluation,
    folder: str | Path,
    *,
    command: str | None = None,
    images: bool = True,
    **about: Any,
) -> list[Path]:
    """Write the report into `folder`; everything appears whole or not at all.

    Files: ``retrieval.json`` (all figures and settings), ``retrieval.csv`` (a row a score),
    ``retrieval_classes.csv`` (a row a class), ``retrieval.md`` (to read) and, with `pictures`,
    ``retrieval_latent.png`` and ``retrieval_FROM_to_TO.png`` (best and worst queries).

    Args:
        evaluation: The scores.
        folder: Created if needed.
        command: The command that makes them again; default this process's.
        images: Whether to draw.
        about: Further facts for the JSON file (model id, data path).

    Returns:
        The files written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    versions = software_versions()
    origin = {
        "protocol": evaluation.protocol["id"],
        "config_hash": evaluation.config_hash,
        "split_hash": evaluation.protocol["split_hash"],
        "software": " ".join(f"{key}={value}" for key, value in versions.items()),
        "command": command or command_line(),
    }
    rows = [_row(score) for score in evaluation.scores]
    classes = [
        {
            "features": evaluation.candidates[0],
            "query_sensor": query_sensor,
            "gallery_sensor": gallery_sensor,
            "centered": centered,
        }
        | _rounded(asdict(row))
        for (query_sensor, gallery_sensor, centered), found in evaluation.classes.items()
        for row in found
    ]
    data = {
        **origin,
        "software": versions,
        **about,
        "settings": evaluation.protocol,
        "scores": rows,
        "modality_gap": [
            {**_rounded(asdict(gap)), "pairs_closer_than_random": gap.closed} for gap in evaluation.gaps
        ],
        "comparisons": [_rounded(found) for found in _comparisons(evaluation)],
        "classes": classes,
        "notes": evaluation.notes,
        "seconds": evaluation.seconds,
    }
    write_json(folder / "retrieval.json", data)
    written = [folder / "retrieval.json"]
    written.append(_write_csv(folder / "retrieval.csv", [{**row, **origin} for row in rows]))
    if classes:
        written.append(_write_csv(folder / "retrieval_classes.csv", classes))
    drawn: list[Path] = []
    if images:
        from swath.evaluation.retrieval.figures import draw_retrieval

        drawn = draw_retrieval(evaluation, folder, metadata=origin)
    with atomic_path(folder / "retrieval.md") as temporary:
        temporary.write_text(_markdown(evaluation, origin, drawn), encoding="utf-8")
    return [*written, folder / "retrieval.md", *drawn]


# --- what is in the tables --------------------------------------------------------------------------------


def _matrix(evaluation: RetrievalEvaluation, names: dict[str, str]) -> TextTable:
    directions = [(a, b) for a in evaluation.sensors for b in [*evaluation.sensors, MIXED]]
    rows, values = [], []
    for features in [*evaluation.candidates, "chance"]:
        for centered in (False,) if features == "chance" else (False, True):
            scores = [evaluation.get(features, a, b, centered) for a, b in directions]
            cells = [_percent(s.values["f1"]) if s.values else "not comparable" for s in scores]
            values.append([s.values.get("f1", -1.0) if features != "chance" else -1.0 for s in scores])
            rows.append(
                [features, "random order" if features == "chance" else "yes" if centered else "no", *cells]
            )
    best = frozenset(
        (max(range(len(rows)), key=lambda r: values[r][c]), c + 2) for c in range(len(directions))
    )
    header = ["features", "centered", *(f"{names[a]} → {names[b]}" for a, b in directions)]
    title = f"F1@{evaluation.protocol['k']} in % (mean label precision and recall; not the IR F1@k)"
    return TextTable(title, header, rows, best)


def _metrics(evaluation: RetrievalEvaluation, names: dict[str, str]) -> TextTable:
    first, k = evaluation.candidates[0], evaluation.protocol["k"]
    rows = []
    for score in evaluation.scores:
        if score.features != first or not score.values:
            continue
        low, high = score.intervals["f1"]
        own = "" if score.same_sensor is None else _percent(score.same_sensor)
        rows.append(
            [
                f"{names[score.query_sensor]} → {names[score.gallery_sensor]}",
                "yes" if score.centered else "no",
                *(_percent(score.values[name]) for name in METRICS),
                f"{_percent(low)}-{_percent(high)}",
                own,
            ]
        )
    header = [
        "direction",
        "centered",
        *(f"{label}@{k}" for label in METRICS.values()),
        "F1 95%",
        "own sensor",
    ]
    return TextTable(f"{first}, all metrics in %", header, rows)


def _gaps(evaluation: RetrievalEvaluation, names: dict[str, str]) -> TextTable:
    rows = [
        [
            gap.features,
            "yes" if gap.centered else "no",
            f"{names[gap.first]}, {names[gap.second]}",
            f"{gap.pairs:.3f}",
            f"{gap.across:.3f}",
            f"{gap.within_first:.3f}",
            f"{gap.within_second:.3f}",
            f"{gap.distance:.3f}",
        ]
        for gap in evaluation.gaps
    ]
    header = [
        "features", "centered", "sensors", "true pairs", "random across", "random in first",
        "random in second", "distance of means",
    ]  # fmt: skip
    return TextTable("Modality gap: mean cosines over the archive", header, rows)


def _classes(evaluation: RetrievalEvaluation, names: dict[str, str]) -> list[TextTable]:
    grids = []
    for (query_sensor, gallery_sensor, centered), found in evaluation.classes.items():
        rows = [
            [
                row.name,
                f"{row.queries:,}",
                f"{row.gallery:,}",
                *(
                    _percent(value)
                    for value in (row.f1, row.precision, row.recall, row.class_precision, row.chance)
                ),
            ]
            for row in found
        ]
        state = "centered" if centered else "as they are"
        direction = f"{names[query_sensor]} → {names[gallery_sensor]}"
        title = f"{evaluation.candidates[0]}, {direction}, {state}, by class (in %)"
        header = ["class", "queries", "gallery", "F1", "P", "R", "answers of the class", "by chance"]
        grids.append(TextTable(title, header, rows))
    return grids


def _best(
    evaluation: RetrievalEvaluation, features: str, query_sensor: str, gallery_sensor: str
) -> RetrievalScore | None:
    """The score with the centering that serves it best; None where not comparable."""
    both = [evaluation.get(features, query_sensor, gallery_sensor, centered) for centered in (False, True)]
    scored = [score for score in both if score.scores is not None]
    return max(scored, key=lambda score: score.values["f1"]) if scored else None


def _comparisons(evaluation: RetrievalEvaluation) -> list[dict[str, Any]]:
    first = evaluation.candidates[0]
    found = (
        evaluation.compare(first, other, query_sensor, gallery_sensor)
        for other in evaluation.candidates[1:]
        for query_sensor in evaluation.sensors
        for gallery_sensor in evaluation.sensors
    )
    return [comparison for comparison in found if comparison is not None]


# --- files ------------------------------------------------------------------------------------------------


def _row(score: RetrievalScore) -> dict[str, Any]:
    values = score.values
    row: dict[str, Any] = {
        "features": score.features,
        "centered": None if score.features == "chance" else score.centered,
        "query_sensor": score.query_sensor,
        "gallery_sensor": score.gallery_sensor,
    }
    for name in METRICS:
        row[name] = round(values[name], 6) if values else None
    for name in METRICS:
        low, high = score.intervals.get(name, (None, None))
        row[f"{name}_ci95_low"] = None if low is None else round(low, 6)
        row[f"{name}_ci95_high"] = None if high is None else round(high, 6)
    row["same_sensor"] = None if score.same_sensor is None else round(score.same_sensor, 6)
    row["reason"] = score.reason
    return row


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def _markdown(evaluation: RetrievalEvaluation, origin: dict[str, str], drawn: Iterable[Path]) -> str:
    protocol = evaluation.protocol
    lines = [
        "# Retrieval",
        "",
        f"{protocol['queries']['places']:,} queries ({protocol['queries']['name']}), archive of "
        f"{protocol['gallery']['places']:,} places ({protocol['gallery']['name']}), k = {protocol['k']}; "
        f"{protocol['split']}. Sensors: {', '.join(protocol['sensors'])}.",
        "",
        f"{protocol['f1']}. Relevant: {protocol['relevant']}. Gain: {protocol['gain']}. Centered: "
        f"{protocol['centering']}. Intervals: {protocol['interval']}.",
        "",
        *(f"- {_escaped(sentence)}" for sentence in retrieval_summary(evaluation)),
        "",
    ]
    for grid in retrieval_grids(evaluation):
        lines += [f"## {_escaped(grid.title)}", "", _line(grid.header), _line(["---"] * len(grid.header))]
        for r, row in enumerate(grid.rows):
            lines.append(_line(f"**{c}**" if (r, i) in grid.best else c for i, c in enumerate(row)))
        lines.append("")
    if evaluation.notes:
        lines += ["## Notes", "", *(f"- {_escaped(note)}" for note in evaluation.notes), ""]
    lines += [f"![{path.stem}]({path.name})\n" for path in drawn]
    lines += ["## How these figures came about", ""]
    lines += [f"- {key}: `{value}`" for key, value in origin.items()]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Names of files and classes are no markup."""
    return text.replace("_", "\\_").replace("*", "\\*").replace("<", "&lt;")


def _percent(value: float) -> str:
    return "" if value != value else f"{100 * value:.1f}"  # NaN: there was nothing to average


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Six digits are enough; what is not a number is null in JSON."""
    return {
        key: (None if value != value else round(value, 6)) if isinstance(value, float) else value
        for key, value in values.items()
    }
