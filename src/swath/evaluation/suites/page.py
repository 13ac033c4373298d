"""What a suite found, as one HTML page: who is above the baselines and how surely, tables, scale curves.

The page stands alone as `swath.evaluation.report` does, and shows no image of the data. It is made of a
`SuiteResult`; this module measures nothing.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from swath.evaluation.report.tables import software_versions
from swath.evaluation.suites.results import DatasetResult, SuiteResult, SuiteScore
from swath.evaluation.suites.tables import (
    PARTIAL,
    columns_of,
    protocols,
    suite_notes,
    suite_summary,
    suite_table_cells,
    title_of,
)
from swath.reporting import charts as svg
from swath.reporting.html import SafeHtml, figure, table, write_html


def write_suite_page(result: SuiteResult, path: str | Path, *, command: str) -> Path:
    """Write the page; see the module."""
    sections = [
        ("above", "Above the best baseline?", _gaps(result, command)),
        ("scores", "Scores", _scores(result, command)),
        ("scale", "Against image scale", _scales(result, command)),
        ("known", "To be known", _known(result)),
        ("again", "How to make this again", _again(result, command)),
    ]
    there = [(name, title, body) for name, title, body in sections if body]
    contents = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title, _ in there)
    parts = [_head(result), f'<nav class="contents" aria-label="Contents"><ul>{contents}</ul></nav>']
    parts += [f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>' for name, title, body in there]
    return write_html(path, result.suite.title or result.suite.name, parts)


def _head(result: SuiteResult) -> str:
    suite = result.suite
    done = sum(1 for one in result.datasets if one.status == "done")
    roles = {row.features: row.role for one in result.datasets for row in one.rows}
    numbers = [
        (f"{done} of {len(suite.datasets)}", "sets scored"),
        (str(len(result.models)), "models"),
        (str(sum(1 for role in roles.values() if role != "model")), "baselines"),
    ]
    items = "".join(f"<li><b>{value}</b><span>{escape(name)}</span></li>" for value, name in numbers)
    prediction = "".join(f"<p>{escape(sentence)}.</p>" for sentence in suite_summary(result))
    unfinished = (
        ""
        if result.finished
        else '<div class="warning"><p><b>Not finished.</b> Run the command again: it does the rest.</p></div>'
    )
    return (
        f"<h1>{escape(suite.title or suite.name)}</h1><p>{escape(suite.description.strip())}</p>"
        + unfinished
        + (f'<div class="finding">{prediction}</div>' if prediction else "")
        + f'<ul class="numbers">{items}</ul>'
    )


# ------------------------------------------------------------------------------------------------- sections


def _gaps(result: SuiteResult, command: str) -> str:
    """Each model less the best baseline of the set, with the paired interval."""
    names = _names(result)
    parts = []
    for protocol in protocols(result):
        rows = [row for row in result.rows(protocol) if row.role != "baseline" and row.difference is not None]
        if not rows:
            continue
        gaps = [
            svg.DifferenceRow(
                f"{row.set}: {row.features}",
                100 * (row.difference or 0.0),
                100 * (row.gap_low or 0.0),
                100 * (row.gap_high or 0.0),
                names.index(row.features),
            )
            for row in rows
        ]
        chart = svg.forest_plot(gaps, title=protocol, x_label="points above the best baseline", width=760)
        metric = " or ".join(sorted({row.metric for row in rows}))
        best = "; ".join(dict.fromkeys(f"{row.set}: {row.baseline}" for row in rows))
        caption = (
            f"{protocol}: {metric}, %, less that of the best baseline of the set by the same classifier "
            f"({best}), with the paired 95% interval. Filled: the interval does not hold zero."
        )
        parts.append(
            figure(
                SafeHtml(f'<div class="scroll">{chart}</div>'),
                caption,
                after=_origin(result, protocol, command),
            )
        )
    return "".join(parts)


def _scores(result: SuiteResult, command: str) -> str:
    parts = []
    for protocol in protocols(result):
        header, *body = suite_table_cells(result, protocol)
        rows = [[cells[0], *(_bold(cell) for cell in cells[1:])] for cells in body]
        parts.append(table(header, rows, numbers_from=1, caption=title_of(result, protocol)))
        parts.append(f'<p class="quiet">{_origin(result, protocol, command)}</p>')
    if any(one.partial for one in result.datasets):
        parts.append(f'<p class="quiet">{PARTIAL} only a part of the set is here.</p>')
    return "".join(parts)


def _bold(cell: str) -> str:
    return SafeHtml(f"<b>{escape(cell.strip('*'))}</b>") if cell.startswith("**") else cell


def _scales(result: SuiteResult, command: str) -> str:
    """kNN against the image's side, a chart a set that was scored at two sides or more."""
    names = _names(result)
    panels = []
    for one in result.datasets:
        rows = [row for row in one.rows if (row.protocol, row.classifier) == ("knn", "knn")]
        image_sizes = sorted({int(image_size) for row in rows for image_size in row.scales})
        if len(image_sizes) > 1:
            panels.append(_curves(one, rows, image_sizes, names))
    if not panels:
        return ""
    caption = "kNN, %, against the side in pixels that bank and queries are area-resized to. Dotted: chance."
    return svg.legend(names, lines=True) + figure(
        SafeHtml(f'<div class="panels">{"".join(panels)}</div>'),
        caption,
        after=_origin(result, "knn", command),
    )


def _curves(one: DatasetResult, rows: list[SuiteScore], image_sizes: list[int], names: list[str]) -> str:
    lines = [
        svg.Line(
            row.features,
            [100 * row.scales.get(str(image_size), float("nan")) for image_size in image_sizes],
            strong=row.role == "model",
            index=names.index(row.features),
        )
        for row in rows
    ]
    chance = 100 * rows[0].chance
    ticks = [str(image_size) for image_size in image_sizes]
    return svg.line_chart(lines, ticks, title=one.title, x_label="side, px", rule=chance)


def _known(result: SuiteResult) -> str:
    items = "".join(f"<li>{escape(remark)}</li>" for remark in suite_notes(result))
    return f"<ul>{items}</ul>" if items else ""


def _again(result: SuiteResult, command: str) -> str:
    rows = [
        [one.title, protocol, about["protocol_id"], about["config_hash"], about["split_hash"]]
        for one in result.datasets
        for protocol, about in one.origins.items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in software_versions().items())
    return (
        f"<pre>{escape(command)}</pre><p>{escape(versions)}.</p>"
        + table(["set", "by", "protocol", "configuration", "split"], rows)
        + '<p class="quiet">Beside this page lie the figures as JSON, CSV and Markdown; a folder a set holds '
        "its full reports and what was said of every query.</p>"
    )


def _names(result: SuiteResult) -> list[str]:
    """Everybody in one order, which decides colors."""
    found: dict[str, None] = {}
    for protocol in protocols(result):
        found |= dict.fromkeys(columns_of(result, result.rows(protocol)))
    return list(found)


def _origin(result: SuiteResult, protocol: str, command: str) -> str:
    """What the figures of a protocol carry; sets differ in their hashes, which the last section lists."""
    abouts = [one.origins[protocol] for one in result.datasets if protocol in one.origins]
    ids = ", ".join(sorted({about["protocol_id"] for about in abouts}))
    configurations = " ".join(about["config_hash"] for about in abouts)
    splits = " ".join(dict.fromkeys(about["split_hash"] for about in abouts))
    versions = " ".join(f"{name}={version}" for name, version in software_versions().items())
    return (
        f'<span class="origin">{escape(ids)} · configurations {configurations} · splits {splits} · '
        f"{escape(versions)} · <code>{escape(command)}</code></span>"
    )
