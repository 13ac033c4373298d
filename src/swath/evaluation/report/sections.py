"""Sections of the report page that look behind a score: leaks, mistakes, robustness, geometry.

Each is HTML made of a `ReportData`, or "" where there is nothing to tell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.evaluation.measures.classification import per_class_recall
from swath.evaluation.protocols.results import EvaluationResult, Score
from swath.evaluation.report.components import (
    charts,
    format_optional,
    image_figure,
    image_tiles,
    origin,
    origin_line,
    short_path,
)
from swath.evaluation.report.data import QueryNeighbors, ReportData, best_classifier, largest_score
from swath.reporting import charts as svg
from swath.reporting.html import SafeHtml, figure, table


def leaks_section(report_data: ReportData) -> str:
    """What the train split knows already, with images of the first pairs."""
    leakage = report_data.leakage
    text = f"<p>{escape(leakage.sentence)}</p>"
    settings = leakage.settings
    text += (
        '<p class="quiet">Looked for: equal files; close perceptual hashes in eight orientations '
        f"({settings['hash_bits_of_128']} of 128 bits); landmarks that agree on one shift, at "
        f"{max(1, len(settings['gsd_levels']))} scale(s); close features; overlapping footprints. "
        f"A suspicion counts where the detail of the pixels correlates by {settings['correlation']} or more; "
        f"{leakage.unverified:,} pairs of close features did not.</p>"
    )
    if not leakage.leaks:
        return text
    if not report_data.images:
        summary = [
            [short_path(leak.query), short_path(leak.partner), leak.reason, leak.detail]
            for leak in leakage.leaks[:20]
        ]
        caption = f"The first {len(summary)} of {len(leakage.leaks)}; all are in leakage.json"
        return text + table(["query", "known by", "reason", "detail"], summary, caption=caption)
    shown = leakage.leaks[:8]
    test = {
        path: i
        for i, path in zip(report_data.split.test.indices.tolist(), report_data.split.test.paths, strict=True)
    }
    train = {
        path: i
        for i, path in zip(
            report_data.split.train.indices.tolist(), report_data.split.train.paths, strict=True
        )
    }
    first = image_tiles(report_data.split.test.dataset, [test[leak.query] for leak in shown])
    second = image_tiles(report_data.split.train.dataset, [train[leak.partner] for leak in shown])
    rows = []
    for leak in shown:
        tiles = image_figure(first, test[leak.query], "query", f"query {short_path(leak.query)}", "")
        tiles += image_figure(
            second,
            train[leak.partner],
            "wrong",
            f"bank {short_path(leak.partner)}",
            f"{leak.reason}: {leak.detail}",
        )
        rows.append(f'<div class="row">{tiles}</div>')
    more = (
        f" The first {len(shown)} of {len(leakage.leaks)}; all are in leakage.json."
        if len(leakage.leaks) > 8
        else ""
    )
    return (
        text
        + f'<figure><div class="gallery panels">{"".join(rows)}</div>'
        + f"<figcaption>Queries and the bank images that give them away.{more}</figcaption></figure>"
    )


def confusion_section(report_data: ReportData) -> str:
    """Which classes are taken for which, a table a model."""
    evaluation = report_data.knn
    if evaluation.labels.ndim == 2:
        return ""
    names = [str(n) for n in evaluation.protocol["classes"]] or [
        str(i) for i in range(int(evaluation.labels.max()) + 1)
    ]
    parts = []
    for model in report_data.models:
        score = largest_score(evaluation, model, best_classifier(evaluation, model))
        if score.predictions is None or len(names) > 60:
            continue
        counts = np.zeros((len(names), len(names)), dtype=int)
        np.add.at(counts, (evaluation.labels, score.predictions), 1)
        parts.append(
            f"<h3>{escape(model)}</h3><p>{escape(_confused(names, counts))}</p>"
            + _heat(
                names, counts, score, evaluation, f"{model} ({score.classifier}, {score.test_image_size} px)"
            )
            + origin(report_data, evaluation.protocol, evaluation.config_hash)
        )
    return "".join(parts)


def _confused(names: Sequence[str], counts: NDArray[np.int_]) -> str:
    wrong = counts - np.diag(np.diag(counts))
    if not wrong.any():
        return "Every query was classified rightly."
    order = np.argsort(-wrong, axis=None, kind="stable")[:3]
    pairs = [np.unravel_index(i, wrong.shape) for i in order if wrong.flat[i]]
    summary = ", ".join(f"{names[a]} for {names[b]} ({wrong[a, b]} times)" for a, b in pairs)
    return f"Taken most often: {summary}."


def _heat(
    names: Sequence[str], counts: NDArray[np.int_], score: Score, evaluation: EvaluationResult, caption: str
) -> str:
    total = counts.sum(axis=1)
    recall = per_class_recall(score.hits, evaluation.labels, len(names))[0]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = []
    for i, name in enumerate(names):
        cells = []
        for j in range(len(names)):
            fraction = counts[i, j] / total[i] if total[i] else 0.0
            hue = "0,114,178" if i == j else "213,94,0"
            text = str(counts[i, j]) if counts[i, j] else '<span class="quiet">·</span>'
            cells.append(f'<td style="background:rgba({hue},{0.65 * fraction:.2f})">{text}</td>')
        interval = score.by_class[i] if i < len(score.by_class) else None
        known = interval is not None and np.isfinite(interval.low)
        span = f"{100 * recall[i]:.0f}%" + (
            f" ({100 * interval.low:.0f} to {100 * interval.high:.0f})" if known and interval else ""
        )
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}'
            f"<td>{span if total[i] else 'none'}</td></tr>"
        )
    return (
        f'<div class="scroll"><table class="heat"><caption>{escape(caption)}: a row a true class, a column '
        f"what was said; counts</caption><thead><tr><td></td>{head}"
        '<th scope="col">recall, 95%</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def calibration_section(report_data: ReportData) -> str:
    """Reliability of the probabilities given, and expected calibration error."""
    panels, rows = [], []
    chosen: list[tuple[EvaluationResult, Score, int]] = []
    for evaluation in report_data.evaluations[:2]:
        if evaluation.labels.ndim == 2:
            return ""
        for i, model in enumerate(report_data.models):
            score = largest_score(evaluation, model, best_classifier(evaluation, model))
            if score.confidence is not None:
                chosen.append((evaluation, score, i))
    for _, score, i in chosen:
        assert score.confidence is not None
        centers, fraction = _reliability(score.confidence, score.hits)
        line = svg.Line(score.features, (100 * fraction).tolist(), strong=True, index=i)
        ideal = svg.Line("perfect", (100 * centers).tolist(), index=7)
        panels.append(
            svg.line_chart(
                [ideal, line], [f"{100 * c:.0f}" for c in centers],
                title=f"{score.features}, {score.classifier}",
                x_label="probability given, %", y_range=(0, 100), size=(300, 250),
                positions=centers.tolist(),
            )
        )  # fmt: skip
        ece = score.figures.get("ece")
        if ece is not None:
            sure = float(np.mean(score.confidence))
            rows.append(
                [score.features, score.classifier, f"{100 * ece.value:.1f}",
                 f"{100 * ece.low:.1f} to {100 * ece.high:.1f}", f"{100 * sure:.1f}",
                 f"{100 * score.value:.1f}"]
            )  # fmt: skip
    if not panels:
        return ""
    caption = (
        "Share of queries that were right among those given about the same probability; the thin line is "
        "perfect."
    )
    evaluation = chosen[0][0]
    header = [
        "features",
        "classifier",
        "expected calibration error, %",
        "95% interval",
        "mean probability, %",
        "right, %",
    ]
    return charts(
        [], panels, caption, origin_line(report_data, evaluation.protocol, evaluation.config_hash)
    ) + table(header, rows, numbers_from=2)


def _reliability(
    confidence: Any, hits: Any, bins: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Center of each bin of equal width, and share of right answers in it (NaN: fewer than 5 queries)."""
    place = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    right = np.bincount(place, weights=np.asarray(hits, dtype=float), minlength=bins)
    fraction = np.where(count >= 5, right / np.maximum(count, 1), np.nan)
    return (np.arange(bins) + 0.5) / bins, fraction


def robustness_section(report_data: ReportData) -> str:
    """Accuracy against each degradation of the queries."""
    report = report_data.robustness
    if report is None:
        return ""
    panels = []
    for kind in report.corruptions:
        lines = []
        for i, name in enumerate(report.names):
            curve = report.curve(name, kind)
            lines.append(
                svg.Line(
                    name, [100 * s.accuracy for s in curve], [100 * s.low for s in curve],
                    [100 * s.high for s in curve], name in report_data.models, i,
                )
            )  # fmt: skip
        ticks = ["clean", *(f"{s.strength:.3g}" for s in report.curve(report.names[0], kind)[1:])]
        measure = report.protocol["corruptions"][kind]["measure"]
        panels.append(svg.line_chart(lines, ticks, title=kind, x_label=measure, size=(300, 220)))
    header = ["features", "clean, %", *report.corruptions]
    rows = [
        [name, f"{100 * report.curve(name, report.corruptions[0])[0].accuracy:.1f}",
         *(f"{0.0 - 100 * report.mean_loss(name, kind):+.1f}" for kind in report.corruptions)]
        for name in report.names
    ]  # fmt: skip
    caption = (
        f"kNN accuracy, %, of {report.protocol['test']['images']:,} queries made worse; the bank is "
        "clean. Strengths are in the unit beneath each panel."
    )
    refused = "".join(f"<li>{escape(note)}</li>" for note in report.notes if note.startswith("refused"))
    return (
        f"<p>{escape(report.sentence())}</p>"
        + charts(report.names, panels, caption, origin_line(report_data, report.protocol, report.config_hash))
        + table(
            header, rows, marks=[name in report_data.models for name in report.names], numbers_from=1,
            caption="Points lost or gained, mean over the strengths",
        )
        + (f'<ul class="quiet">{refused}</ul>' if refused else "")
    )  # fmt: skip


def embedding_section(report_data: ReportData) -> str:
    """How many directions the features use, and how evenly."""
    report = report_data.geometry
    warned = [row.warning for row in report.rows if row.warning]
    header = [
        "features", "image_size", "dimensions", "RankMe", "effective rank", "participation",
        "intrinsic (TwoNN)",
        "uniformity", "class alignment", "scale alignment", "top axis, %", "dead",
    ]  # fmt: skip
    rows = [
        [r.features, f"{r.image_size} px", r.dimensions, f"{r.rankme:.1f}", f"{r.effective_rank:.1f}",
         f"{r.participation:.1f}", format_optional(r.intrinsic, "{:.1f}"), f"{r.uniformity:.2f}",
         format_optional(r.class_alignment, "{:.2f}"), format_optional(r.scale_alignment, "{:.3f}"),
         f"{100 * r.top_fraction:.0f}", r.dead]
        for r in report.rows
    ]  # fmt: skip
    prediction = "".join(f"<p>{escape(sentence)}</p>" for sentence in warned if sentence)
    text = (
        "<p>How many directions the features use, and how evenly. No figure here is a score: a collapsed "
        "space cannot be good, but a full one can be useless. <b>Ranks</b> count directions in use; "
        "<b>uniformity</b> is 0 for one point and about -4 for a full sphere; <b>class alignment</b> is the "
        "squared distance within a class over that at large (1: features know nothing of classes); "
        "<b>scale alignment</b> the squared distance of an image to itself at the next larger side.</p>"
    )
    digest = hashlib.sha256(json.dumps(report.protocol, sort_keys=True).encode()).hexdigest()[:12]
    return (
        text
        + (f'<div class="warning">{prediction}</div>' if prediction else "")
        + table(
            header, rows, marks=[r.features in report_data.models for r in report.rows], numbers_from=1,
            caption=f"On the {report.protocol['images']['images']:,} images of the bank",
        )
        + origin(report_data, report.protocol, digest)
    )  # fmt: skip


def neighbors_section(report_data: ReportData) -> str:
    """Queries with their nearest train images: right ones, and the surest mistakes."""
    names = report_data.knn.protocol["classes"]
    if not report_data.images:
        return "<p>The page was made without pictures of the data, so neighbors are not shown.</p>"
    parts = []
    for model, rows in report_data.neighborhoods.items():
        if not rows:
            continue
        test = image_tiles(report_data.split.test.dataset, [row.query for row in rows])
        train = image_tiles(
            report_data.split.train.dataset, sorted({i for row in rows for i in row.predictions})
        )
        for right, title in ((True, "right, drawn evenly"), (False, "wrong, the surest first")):
            chosen = [row for row in rows if row.right is right]
            if chosen:
                lines = "".join(_neighbor_row(report_data, row, test, train, names) for row in chosen)
                parts.append(f'<h3>{escape(model)}: {title}</h3><div class="gallery">{lines}</div>')
    if not parts:
        return ""
    text = (
        "<p>A query (framed) and the five bank images that the model finds most like it, with the cosine of "
        "their features. A solid blue frame is the query's class, a dashed orange one is not. More such "
        "neighbors vote, so five right ones may still be outvoted.</p>"
    )
    knn = report_data.knn
    return text + "".join(parts) + origin(report_data, knn.protocol, knn.config_hash)


def _neighbor_row(
    report_data: ReportData,
    row: QueryNeighbors,
    test: dict[int, bytes],
    train: dict[int, bytes],
    names: Sequence[str],
) -> str:
    def called(label: int) -> str:
        return str(names[label]) if label < len(names) else str(label)

    labels = np.asarray(report_data.split.train.dataset.labels)
    verdict = "said rightly" if row.right else f"taken for {called(row.prediction)}"
    tiles = image_figure(test, row.query, "query", called(row.truth), verdict)
    for place, cosine in zip(row.predictions, row.cosines, strict=True):
        label = int(labels[place])
        tiles += image_figure(
            train, place, "right" if label == row.truth else "wrong", called(label), f"cosine {cosine:.3f}"
        )
    return f'<div class="row">{tiles}</div>'


def projection_section(report_data: ReportData) -> str:
    """The queries in two dimensions: principal components and t-SNE."""
    names = [str(name) for name in report_data.knn.protocol["classes"]]
    parts = []
    for model, found in report_data.maps.items():
        first = svg.scatter(found.components, found.labels, names, title=f"{model}: principal components")
        second = svg.scatter(found.neighbors, found.labels, names, title=f"{model}: t-SNE")
        fractions = f"{100 * found.fractions[0]:.0f}% and {100 * found.fractions[1]:.0f}%"
        caption = (
            f"{model}, {len(found.labels):,} queries. Left: two principal components, which hold "
            f"{fractions} of "
            f"the variance. Right: t-SNE (perplexity 30, divergence left {found.divergence:.2f}): who is "
            "near whom; sizes of islands and distances between them mean nothing."
        )
        line = origin_line(report_data, report_data.knn.protocol, report_data.knn.config_hash)
        parts.append(figure(SafeHtml(f'<div class="panels">{first}{second}</div>'), caption, after=line))
    return svg.legend(names) + "".join(parts) if parts else ""
