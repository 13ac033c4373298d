"""The report as one HTML page: sentences first, figures with intervals, and how each of them came about.

The page stands alone (nothing is fetched, no script), reads in light and dark, and prints; charts name their
values. It is made of a `ReportData`; this module measures nothing.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from swath.evaluation.protocols.results import EvaluationResult
from swath.evaluation.report.components import charts, origin, origin_line
from swath.evaluation.report.data import ReportData, best_classifier, largest_score
from swath.evaluation.report.sections import (
    calibration_section,
    confusion_section,
    embedding_section,
    leaks_section,
    neighbors_section,
    projection_section,
    robustness_section,
)
from swath.reporting import charts as svg
from swath.reporting.html import table, write_html


def render_report(dossier: ReportData, path: str | Path) -> Path:
    """Write the page; see the module."""
    sections = [
        ("scores", "Scores", _scores(dossier)),
        ("pairs", "Compared in pairs", _pairs(dossier)),
        ("scale", "Against image scale", _scale(dossier)),
        ("fewshot", "With few labels", _fewshot(dossier)),
        ("leaks", "Leaks", leaks_section(dossier)),
        ("confusion", "What is taken for what", confusion_section(dossier)),
        ("calibration", "Does it know when it is right?", calibration_section(dossier)),
        ("robustness", "When the imagery is worse", robustness_section(dossier)),
        ("geometry", "The shape of the embedding", embedding_section(dossier)),
        ("neighbors", "Neighbors", neighbors_section(dossier)),
        ("map", "A map of the embedding", projection_section(dossier)),
        ("again", "How to make this again", _again(dossier)),
    ]
    there = [(name, title, body) for name, title, body in sections if body]
    contents = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title, _ in there)
    parts = [_head(dossier), f'<nav class="contents" aria-label="Contents"><ul>{contents}</ul></nav>']
    parts += [f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>' for name, title, body in there]
    return write_html(path, f"{dossier.title}: {', '.join(dossier.models)}", parts)


def summary_sentences(dossier: ReportData) -> list[str]:
    """What the figures say, in sentences: each model against the best baseline, then against each other."""
    evaluation = dossier.knn
    others = [row for row in evaluation.rows if row[0] not in dossier.models]
    said = []
    rows = {name: (name, best_classifier(evaluation, name)) for name in dossier.models}
    if others:
        best = max(others, key=lambda row: evaluation.mean(*row).accuracy)
        said = [_against(evaluation, rows[name], best, "the best baseline, ") for name in dossier.models]
    first = dossier.models[0]
    said += [_against(evaluation, rows[first], rows[name], "") for name in dossier.models[1:]]
    return said


def _against(evaluation: EvaluationResult, row: tuple[str, str], other: tuple[str, str], what: str) -> str:
    gap = evaluation.compare_rows(row, other)
    size = f"{100 * abs(gap.difference):.1f} points (95%: {100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
    ours, theirs = f"{row[0]} ({row[1]})", f"{what}{other[0]} ({other[1]})"
    if gap.low > 0:
        return f"{ours} is better than {theirs}, by {size}."
    if gap.high < 0:
        return f"{ours} is worse than {theirs}, by {size}."
    return f"{ours} and {theirs} cannot be told apart: {size}."


def _head(dossier: ReportData) -> str:
    evaluation = dossier.knn
    protocol = evaluation.protocol
    numbers = [
        (f"{protocol['bank']['images']:,}", f"images learned from ({protocol['bank']['name']})"),
        (f"{len(evaluation.labels):,}", f"queries ({protocol['queries']['name']})"),
        (f"{len(protocol['classes'])}", "classes"),
        (f"{100 * protocol['chance']:.1f}%", "the most frequent class"),
        (f"{evaluation.native_side} px", "native side"),
    ]
    if evaluation.native_gsd is not None:
        numbers.append((f"{evaluation.native_gsd:.3g} m", "median ground sample distance"))
    items = "".join(f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>" for value, name in numbers)
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in summary_sentences(dossier))
    notes = [*dict.fromkeys(n for e in dossier.evaluations for n in e.notes), *dossier.notes]
    notes += [r.warning for r in dossier.geometry.rows if r.warning and r.features in dossier.models]
    serious = [note for note in notes if note.startswith("leak:")]
    plain = [note for note in notes if note not in serious]
    warned = "".join(f"<p>{escape(note.removeprefix('leak: '))}</p>" for note in serious)
    listed = "".join(f"<li>{escape(note)}</li>" for note in plain)
    return (
        f"<h1>{escape(dossier.title)}: {escape(', '.join(dossier.models))}</h1>"
        "<p>Frozen features, scored by their nearest neighbors and by a linear probe, with simple baselines "
        "under the same protocol. Sentences speak of the mean over image scales, each in the form that "
        f'serves it best, and compare on the same queries.</p><div class="finding">{said}</div>'
        + (f'<div class="warning"><p><b>Leak.</b></p>{warned}</div>' if warned else "")
        + f'<ul class="numbers">{items}</ul>'
        + (f'<ul class="quiet">{listed}</ul>' if listed else "")
    )


def _scores(dossier: ReportData) -> str:
    parts = []
    for evaluation, clean in zip(dossier.evaluations[:2], dossier.clean, strict=False):
        sides = sorted({s.query_side for s in evaluation.select(symmetric=True)})
        header = ["features", "classifier", *(f"{side} px" for side in sides), "mean", "95% interval"]
        header += ["without leaks", "95% interval"] if clean is not None else []
        rows, marks = [], []
        order = sorted(evaluation.rows, key=lambda row: -evaluation.mean(*row).accuracy)
        for name, kind in order:
            mean = evaluation.mean(name, kind)
            found = {s.query_side: s for s in evaluation.select(kind, name, symmetric=True)}
            row = [name, kind, *(f"{100 * found[s].value:.1f}" if s in found else "" for s in sides)]
            row += [f"{100 * mean.accuracy:.1f}", f"{100 * mean.low:.1f} to {100 * mean.high:.1f}"]
            if clean is not None:
                less = clean.mean(name, kind)
                row += [f"{100 * less.accuracy:.1f}", f"{100 * less.low:.1f} to {100 * less.high:.1f}"]
            rows.append(row)
            marks.append(name in dossier.models)
        caption = f"{evaluation.protocol['name']}: {evaluation.metric}, %, bank and queries at one side"
        parts.append(table(header, rows, marks=marks, numbers_from=2, caption=caption))
        parts.append(origin(dossier, evaluation.protocol, evaluation.config_hash))
    text = (
        "<p>Models are set off; the rest are baselines that cost no training. <i>knn-z</i> standardizes each "
        "feature by the bank first. Intervals are 95% bootstrap intervals over the queries.</p>"
    )
    return text + "".join(parts)


def _pairs(dossier: ReportData) -> str:
    """Every model against every other row, on the same queries, each in the form that serves it best."""
    header = ["protocol", "features", "against", "difference, points", "95% interval", "p", "beyond doubt"]
    rows, marks = [], []
    for evaluation in dossier.evaluations[:2]:
        names = list(dict.fromkeys(name for name, _ in evaluation.rows))
        best = {name: (name, best_classifier(evaluation, name)) for name in names}
        for i, model in enumerate(dossier.models):
            for other in [*dossier.models[i + 1 :], *(n for n in names if n not in dossier.models)]:
                gap = evaluation.compare_rows(best[model], best[other])
                clear = gap.low > 0 or gap.high < 0
                rows.append(
                    [evaluation.protocol["name"], " (".join(best[model]) + ")", " (".join(best[other]) + ")",
                     f"{100 * gap.difference:+.1f}", f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}",
                     "" if gap.p is None else f"{gap.p:.4f}", "yes" if clear else "no"]
                )  # fmt: skip
                marks.append(other in dossier.models)
    if not rows:
        return ""
    text = (
        "<p>Differences of means over scales on the same queries, whose difficulty cancels; rows between two "
        "models are set off. p is of a paired permutation test. Of twenty comparisons of equals, one is "
        "beyond doubt by chance.</p>"
    )
    knn = dossier.knn
    return (
        text
        + table(header, rows, marks=marks, numbers_from=3)
        + origin(dossier, knn.protocol, knn.config_hash)
    )


def _scale(dossier: ReportData) -> str:
    evaluation = dossier.knn
    sides = sorted({s.query_side for s in evaluation.select(symmetric=True)})
    if len(sides) < 2:
        return ""
    names = list(dict.fromkeys(name for name, _ in evaluation.rows))
    panels = []
    for symmetric in (True, False):
        lines = []
        for i, name in enumerate(names):
            kind = best_classifier(evaluation, name)
            scores = {s.query_side: s for s in evaluation.select(kind, name, symmetric)}
            if not symmetric and scores:
                scores[sides[-1]] = largest_score(evaluation, name, kind)
            if scores:
                there = [scores.get(side) for side in sides]
                values, low, high = (
                    [100 * getattr(s, what) if s else float("nan") for s in there]
                    for what in ("value", "low", "high")
                )
                lines.append(svg.Line(f"{name} ({kind})", values, low, high, name in dossier.models, i))
        if lines:
            title = (
                "bank and queries at one scale" if symmetric else f"queries reduced, bank at {sides[-1]} px"
            )
            chance = 100 * evaluation.protocol["chance"]
            panels.append(
                svg.line_chart(lines, [str(s) for s in sides], title=title, x_label="side, px", rule=chance)
            )
    caption = (
        f"{evaluation.metric}, %, against the side that images are area-resized to. Shaded: 95% intervals."
    )
    if evaluation.native_gsd is not None:
        metres = ", ".join(
            f"{side} px is {evaluation.native_gsd * evaluation.native_side / side:.3g} m" for side in sides
        )
        caption += f" On the ground (median): {metres} a pixel."
    return charts(names, panels, caption, origin_line(dossier, evaluation.protocol, evaluation.config_hash))


def _fewshot(dossier: ReportData) -> str:
    if len(dossier.evaluations) < 3:
        return ""
    evaluation = dossier.evaluations[2]
    names = list(dict.fromkeys(name for name, _ in evaluation.rows))
    kinds = list(dict.fromkeys(kind.partition("@")[0] for _, kind in evaluation.rows))
    shots = sorted({int(kind.partition("@")[2]) for _, kind in evaluation.rows})
    panels = []
    for kind in kinds:
        lines = []
        for i, name in enumerate(names):
            found = {s.classifier: s for s in evaluation.select(features=name)}
            there = [found.get(f"{kind}@{n}") for n in shots]
            values, low, high = (
                [100 * getattr(s, what) if s else float("nan") for s in there]
                for what in ("value", "low", "high")
            )
            lines.append(svg.Line(name, values, low, high, name in dossier.models, i))
        panels.append(
            svg.line_chart(
                lines, [str(n) for n in shots], title=kind, x_label="labeled images a class",
                rule=100 * evaluation.protocol["chance"],
            )
        )  # fmt: skip
    caption = (
        f"{evaluation.metric}, %, of classifiers that have seen n images of each class; mean over draws."
    )
    return charts(names, panels, caption, origin_line(dossier, evaluation.protocol, evaluation.config_hash))


def _again(dossier: ReportData) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in dossier.versions.items())
    rows = [
        [e.protocol["name"], e.protocol["id"], e.config_hash, f"{e.seconds:.0f} s"]
        for e in dossier.evaluations
    ]
    return (
        f"<pre>{escape(dossier.command)}</pre><p>Split {dossier.split.hash}: {escape(dossier.split.origin)}. "
        f"{escape(versions)}.</p>"
        + table(["part", "protocol", "configuration", "time"], rows)
        + '<p class="quiet">Beside this page lie the figures as JSON and CSV, what was said of every query '
        "(NAME_queries.npz), and bench.csv with the columns of torchgeo-bench.</p>"
    )
