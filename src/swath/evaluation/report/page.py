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


def render_report(report_data: ReportData, path: str | Path) -> Path:
    """Write the page; see the module."""
    sections = [
        ("scores", "Scores", _scores(report_data)),
        ("pairs", "Compared in pairs", _pairs(report_data)),
        ("scale", "Against image scale", _scale(report_data)),
        ("fewshot", "With few labels", _fewshot(report_data)),
        ("leaks", "Leaks", leaks_section(report_data)),
        ("confusion", "What is taken for what", confusion_section(report_data)),
        ("calibration", "Does it know when it is right?", calibration_section(report_data)),
        ("robustness", "When the imagery is worse", robustness_section(report_data)),
        ("geometry", "The shape of the embedding", embedding_section(report_data)),
        ("neighbors", "Neighbors", neighbors_section(report_data)),
        ("map", "A map of the embedding", projection_section(report_data)),
        ("again", "How to make this again", _again(report_data)),
    ]
    there = [(name, title, body) for name, title, body in sections if body]
    contents = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title, _ in there)
    parts = [_head(report_data), f'<nav class="contents" aria-label="Contents"><ul>{contents}</ul></nav>']
    parts += [f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>' for name, title, body in there]
    return write_html(path, f"{report_data.title}: {', '.join(report_data.models)}", parts)


def summary_sentences(report_data: ReportData) -> list[str]:
    """What the figures say, in sentences: each model against the best baseline, then against each other."""
    evaluation = report_data.knn
    others = [row for row in evaluation.rows if row[0] not in report_data.models]
    prediction = []
    rows = {name: (name, best_classifier(evaluation, name)) for name in report_data.models}
    if others:
        best = max(others, key=lambda row: evaluation.mean(*row).accuracy)
        prediction = [
            _against(evaluation, rows[name], best, "the best baseline, ") for name in report_data.models
        ]
    first = report_data.models[0]
    prediction += [_against(evaluation, rows[first], rows[name], "") for name in report_data.models[1:]]
    return prediction


def _against(evaluation: EvaluationResult, row: tuple[str, str], other: tuple[str, str], what: str) -> str:
    gap = evaluation.compare_rows(row, other)
    size = f"{100 * abs(gap.difference):.1f} points (95%: {100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
    ours, theirs = f"{row[0]} ({row[1]})", f"{what}{other[0]} ({other[1]})"
    if gap.low > 0:
        return f"{ours} is better than {theirs}, by {size}."
    if gap.high < 0:
        return f"{ours} is worse than {theirs}, by {size}."
    return f"{ours} and {theirs} cannot be told apart: {size}."


def _head(report_data: ReportData) -> str:
    evaluation = report_data.knn
    protocol = evaluation.protocol
    numbers = [
        (f"{protocol['train']['images']:,}", f"images learned from ({protocol['train']['name']})"),
        (f"{len(evaluation.labels):,}", f"queries ({protocol['test']['name']})"),
        (f"{len(protocol['classes'])}", "classes"),
        (f"{100 * protocol['chance']:.1f}%", "the most frequent class"),
        (f"{evaluation.native_image_size} px", "native side"),
    ]
    if evaluation.native_gsd is not None:
        numbers.append((f"{evaluation.native_gsd:.3g} m", "median ground sample distance"))
    items = "".join(f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>" for value, name in numbers)
    prediction = "".join(f"<p>{escape(sentence)}</p>" for sentence in summary_sentences(report_data))
    notes = [*dict.fromkeys(n for e in report_data.evaluations for n in e.notes), *report_data.notes]
    notes += [r.warning for r in report_data.geometry.rows if r.warning and r.features in report_data.models]
    serious = [note for note in notes if note.startswith("leak:")]
    plain = [note for note in notes if note not in serious]
    warned = "".join(f"<p>{escape(note.removeprefix('leak: '))}</p>" for note in serious)
    listed = "".join(f"<li>{escape(note)}</li>" for note in plain)
    return (
        f"<h1>{escape(report_data.title)}: {escape(', '.join(report_data.models))}</h1>"
        "<p>Frozen features, scored by their nearest neighbors and by a linear probe, with simple baselines "
        "under the same protocol. Sentences speak of the mean over image scales, each in the form that "
        f'serves it best, and compare on the same queries.</p><div class="finding">{prediction}</div>'
        + (f'<div class="warning"><p><b>Leak.</b></p>{warned}</div>' if warned else "")
        + f'<ul class="numbers">{items}</ul>'
        + (f'<ul class="quiet">{listed}</ul>' if listed else "")
    )


def _scores(report_data: ReportData) -> str:
    parts = []
    for evaluation, clean in zip(report_data.evaluations[:2], report_data.clean, strict=False):
        image_sizes = sorted({s.test_image_size for s in evaluation.select(symmetric=True)})
        header = [
            "features",
            "classifier",
            *(f"{image_size} px" for image_size in image_sizes),
            "mean",
            "95% interval",
        ]
        header += ["without leaks", "95% interval"] if clean is not None else []
        rows, marks = [], []
        order = sorted(evaluation.rows, key=lambda row: -evaluation.mean(*row).accuracy)
        for name, kind in order:
            mean = evaluation.mean(name, kind)
            found = {s.test_image_size: s for s in evaluation.select(kind, name, symmetric=True)}
            row = [name, kind, *(f"{100 * found[s].value:.1f}" if s in found else "" for s in image_sizes)]
            row += [f"{100 * mean.accuracy:.1f}", f"{100 * mean.low:.1f} to {100 * mean.high:.1f}"]
            if clean is not None:
                less = clean.mean(name, kind)
                row += [f"{100 * less.accuracy:.1f}", f"{100 * less.low:.1f} to {100 * less.high:.1f}"]
            rows.append(row)
            marks.append(name in report_data.models)
        caption = f"{evaluation.protocol['name']}: {evaluation.metric}, %, bank and queries at one side"
        parts.append(table(header, rows, marks=marks, numbers_from=2, caption=caption))
        parts.append(origin(report_data, evaluation.protocol, evaluation.config_hash))
    text = (
        "<p>Models are set off; the rest are baselines that cost no training. <i>knn-standardized</i> "
        "standardizes each feature by the train split first. Intervals are 95% bootstrap intervals over "
        "the queries.</p>"
    )
    return text + "".join(parts)


def _pairs(report_data: ReportData) -> str:
    """Every model against every other row, on the same queries, each in the form that serves it best."""
    header = ["protocol", "features", "baseline", "difference, points", "95% interval", "p", "beyond doubt"]
    rows, marks = [], []
    for evaluation in report_data.evaluations[:2]:
        names = list(dict.fromkeys(name for name, _ in evaluation.rows))
        best = {name: (name, best_classifier(evaluation, name)) for name in names}
        for i, model in enumerate(report_data.models):
            for other in [*report_data.models[i + 1 :], *(n for n in names if n not in report_data.models)]:
                gap = evaluation.compare_rows(best[model], best[other])
                clear = gap.low > 0 or gap.high < 0
                rows.append(
                    [evaluation.protocol["name"], " (".join(best[model]) + ")", " (".join(best[other]) + ")",
                     f"{100 * gap.difference:+.1f}", f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}",
                     "" if gap.p is None else f"{gap.p:.4f}", "yes" if clear else "no"]
                )  # fmt: skip
                marks.append(other in report_data.models)
    if not rows:
        return ""
    text = (
        "<p>Differences of means over scales on the same queries, whose difficulty cancels; rows between two "
        "models are set off. p is of a paired permutation test. Of twenty comparisons of equals, one is "
        "beyond doubt by chance.</p>"
    )
    knn = report_data.knn
    return (
        text
        + table(header, rows, marks=marks, numbers_from=3)
        + origin(report_data, knn.protocol, knn.config_hash)
    )


def _scale(report_data: ReportData) -> str:
    evaluation = report_data.knn
    image_sizes = sorted({s.test_image_size for s in evaluation.select(symmetric=True)})
    if len(image_sizes) < 2:
        return ""
    names = list(dict.fromkeys(name for name, _ in evaluation.rows))
    panels = []
    for symmetric in (True, False):
        lines = []
        for i, name in enumerate(names):
            kind = best_classifier(evaluation, name)
            scores = {s.test_image_size: s for s in evaluation.select(kind, name, symmetric)}
            if not symmetric and scores:
                scores[image_sizes[-1]] = largest_score(evaluation, name, kind)
            if scores:
                there = [scores.get(image_size) for image_size in image_sizes]
                values, low, high = (
                    [100 * getattr(s, what) if s else float("nan") for s in there]
                    for what in ("value", "low", "high")
                )
                lines.append(svg.Line(f"{name} ({kind})", values, low, high, name in report_data.models, i))
        if lines:
            title = (
                "bank and queries at one scale"
                if symmetric
                else f"queries reduced, bank at {image_sizes[-1]} px"
            )
            chance = 100 * evaluation.protocol["chance"]
            panels.append(
                svg.line_chart(
                    lines, [str(s) for s in image_sizes], title=title, x_label="side, px", rule=chance
                )
            )
    caption = (
        f"{evaluation.metric}, %, against the side that images are area-resized to. Shaded: 95% intervals."
    )
    if evaluation.native_gsd is not None:
        metres = ", ".join(
            f"{image_size} px is {evaluation.native_gsd * evaluation.native_image_size / image_size:.3g} m"
            for image_size in image_sizes
        )
        caption += f" On the ground (median): {metres} a pixel."
    return charts(
        names, panels, caption, origin_line(report_data, evaluation.protocol, evaluation.config_hash)
    )


def _fewshot(report_data: ReportData) -> str:
    if len(report_data.evaluations) < 3:
        return ""
    evaluation = report_data.evaluations[2]
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
            lines.append(svg.Line(name, values, low, high, name in report_data.models, i))
        panels.append(
            svg.line_chart(
                lines, [str(n) for n in shots], title=kind, x_label="labeled images a class",
                rule=100 * evaluation.protocol["chance"],
            )
        )  # fmt: skip
    caption = (
        f"{evaluation.metric}, %, of classifiers that have seen n images of each class; mean over draws."
    )
    return charts(
        names, panels, caption, origin_line(report_data, evaluation.protocol, evaluation.config_hash)
    )


def _again(report_data: ReportData) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report_data.versions.items())
    rows = [
        [e.protocol["name"], e.protocol["id"], e.config_hash, f"{e.seconds:.0f} s"]
        for e in report_data.evaluations
    ]
    return (
        f"<pre>{escape(report_data.command)}</pre><p>Split {report_data.split.hash}: "
        f"{escape(report_data.split.origin)}. "
        f"{escape(versions)}.</p>"
        + table(["part", "protocol", "configuration", "time"], rows)
        + '<p class="quiet">Beside this page lie the figures as JSON and CSV, what was said of every query '
        "(NAME_predictions.npz), and bench.csv with the columns of torchgeo-bench.</p>"
    )
