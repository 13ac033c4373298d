"""Small charts as SVG text: sharp at any size, in the page's own colors, dark or light.

Every line has its own color and dash, so that it can be told without color too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

_DASHES = ("", "7 3", "2 2", "9 3 2 3", "5 5", "1 3", "12 4", "4 2 1 2")


def series_color(index: int) -> str:
    """Color of the line or class number `index`; black follows the page."""
    chosen = COLORS[index % len(COLORS)]
    return "var(--ink)" if chosen == "#000000" else chosen


def dash(index: int) -> str:
    """Dashes of line number `index`: lines that share a color do not share them."""
    return _DASHES[(index + index // len(COLORS)) % len(_DASHES)]


@dataclass(frozen=True, slots=True)
class Line:
    """A line over ticks: values at positions 0, 1, 2, ... (NaN: none), with intervals where `low` is given.

    Attributes:
        name: In the key.
        values: One a tick.
        low: Lower ends, or empty.
        high: Upper ends, or empty.
        strong: Drawn thick, with its interval shaded.
        index: Chooses color and dash.
    """

    name: str
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    strong: bool = False
    index: int = 0


def line_chart(
    lines: Sequence[Line],
    ticks: Sequence[str],
    *,
    title: str,
    x_label: str,
    y_range: tuple[float, float] | None = None,
    rule: float | None = None,
    size: tuple[int, int] = (430, 270),
    positions: Sequence[float] | None = None,
    marks: bool = True,
) -> str:
    """Lines over named ticks.

    Args:
        lines: At least one.
        ticks: Names along x.
        title: Above, and what a screen reader says.
        x_label: Beneath.
        y_range: Of the axis; by default what the lines need.
        rule: A dotted horizontal line, such as chance.
        size: Width and height in pixels.
        positions: Of the ticks along x, 0 to 1; by default even.
        marks: A dot at every value; without, for lines of many values.
    """
    width, height = size
    left, right, top, bottom = 40, 12, 26, 40
    given = [
        v for line in lines for part in (line.values, line.low, line.high) for v in part if np.isfinite(v)
    ]
    low, high = y_range or _nice(min([*given, *([rule] if rule is not None else [])]), max(given))
    places = positions or [i / max(1, len(ticks) - 1) for i in range(len(ticks))]

    def x(position: float) -> float:
        return left + 8 + position * (width - left - right - 16)

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * (height - top - bottom)

    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}"><text x="{left}" y="14" font-weight="600">{escape(title)}</text>'
    ]
    for value in np.linspace(low, high, 5):
        parts.append(
            f'<line class="rule" x1="{left}" x2="{width - right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
            f'<text x="{left - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for name, place in zip(ticks, places, strict=True):
        parts.append(
            f'<text x="{x(place):.1f}" y="{height - bottom + 16}" text-anchor="middle">{escape(name)}</text>'
        )
    parts.append(
        f'<text x="{(left + width - right) / 2:.0f}" y="{height - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    if rule is not None and low <= rule <= high:
        parts.append(
            f'<line class="axis" stroke-dasharray="2 3" x1="{left}" x2="{width - right}" y1="{y(rule):.1f}" '
            f'y2="{y(rule):.1f}"/>'
        )
    for line in sorted(lines, key=lambda one: one.strong):
        points = [(x(p), v) for p, v in zip(places, line.values, strict=True) if np.isfinite(v)]
        shown = series_color(line.index)
        if line.strong and len(line.low):
            there = [
                (x(p), a, b) for p, a, b in zip(places, line.low, line.high, strict=True) if np.isfinite(a)
            ]
            edge = [f"{px:.1f},{y(b):.1f}" for px, _, b in there]
            edge += [f"{px:.1f},{y(a):.1f}" for px, a, _ in reversed(there)]
            parts.append(f'<polygon points="{" ".join(edge)}" fill="{shown}" opacity="0.16"/>')
        path = " ".join(f"{px:.1f},{y(v):.1f}" for px, v in points)
        dashes = dash(line.index)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{shown}" '
            f'stroke-width="{2.8 if line.strong else 1.5}"'
            + (f' stroke-dasharray="{dashes}"' if dashes else "")
            + f"><title>{escape(line.name)}</title></polyline>"
        )
        for px, v in points if marks else []:
            radius = 3.6 if line.strong else 2.5
            prediction = f"{line.name}: {v:.1f}"
            parts.append(
                f'<circle cx="{px:.1f}" cy="{y(v):.1f}" r="{radius}" fill="{shown}">'
                f"<title>{escape(prediction)}</title></circle>"
            )
    return "".join(parts) + "</svg>"


def scatter(
    points: NDArray[np.float64],
    classes: NDArray[np.int64],
    names: Sequence[str],
    *,
    title: str,
    image_size: int = 430,
) -> str:
    """Points [N, 2] in the colors of their classes, each class with a letter at its center."""
    low, high = points.min(axis=0), points.max(axis=0)
    span = float(max(high - low)) or 1.0
    placed = (points - (low + high) / 2) / span * (image_size - 40) + image_size / 2
    parts = [
        f'<svg viewBox="0 0 {image_size} {image_size}" width="{image_size}" height="{image_size}" role="img" '
        f'aria-label="{escape(title)}">'
    ]
    for (px, py), label in zip(placed, classes, strict=True):
        name = names[label] if label < len(names) else str(label)
        parts.append(
            f'<circle cx="{px:.1f}" cy="{image_size - py:.1f}" r="3.2" fill="{series_color(int(label))}" '
            'fill-opacity="0.75">'
            f"<title>{escape(name)}</title></circle>"
        )
    for label in np.unique(classes):
        px, py = np.median(placed[classes == label], axis=0)
        name = names[label] if label < len(names) else str(label)
        parts.append(
            f'<text x="{px:.1f}" y="{image_size - py:.1f}" text-anchor="middle" font-weight="700" '
            'paint-order="stroke" '
            f'stroke="var(--paper)" stroke-width="3">{escape(name)}</text>'
        )
    return "".join(parts) + "</svg>"


def legend(names: Sequence[str], *, lines: bool = False) -> str:
    """Which color (and, of `lines`, which dash) is whose, as an HTML list."""
    items = []
    for i, name in enumerate(names):
        if not lines:
            items.append(f'<li><i style="background:{series_color(i)}"></i>{escape(name)}</li>')
            continue
        dashes = f' stroke-dasharray="{dash(i)}"' if dash(i) else ""
        items.append(
            f'<li><svg viewBox="0 0 34 8" width="34" height="8" role="img" aria-label="line of">'
            f'<line x1="1" x2="33" y1="4" y2="4" stroke="{series_color(i)}" '
            f'stroke-width="2.5"{dashes}/></svg> '
            f"{escape(name)}</li>"
        )
    return f'<ul class="key">{"".join(items)}</ul>'


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """A difference with its interval, in a row of its own."""

    name: str
    value: float
    low: float
    high: float
    index: int = 0


def forest_plot(gaps: Sequence[DifferenceRow], *, title: str, x_label: str, width: int = 640) -> str:
    """Differences as points with their intervals about zero, one beneath the other.

    Filled where the interval does not hold zero, hollow where it does.
    """
    row, top, bottom = 22, 26, 40
    left = 16 + min(300, max(7 * len(gap.name) for gap in gaps))
    height = top + row * len(gaps) + bottom
    low, high = _nice(min(0.0, *(gap.low for gap in gaps)), max(0.0, *(gap.high for gap in gaps)))

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - 16)

    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}"><text x="4" y="14" font-weight="600">{escape(title)}</text>'
    ]
    foot = height - bottom
    for value in np.linspace(low, high, 5):
        parts.append(
            f'<line class="rule" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{top}" y2="{foot}"/>'
            f'<text x="{x(value):.1f}" y="{foot + 16}" text-anchor="middle">{value:+.3g}</text>'
        )
    parts.append(
        f'<line class="axis" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{top}" y2="{foot}"/>'
        f'<text x="{(left + width) / 2:.0f}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>'
    )
    for i, gap in enumerate(gaps):
        y = top + row * (i + 0.5)
        shown, clear = series_color(gap.index), gap.low > 0 or gap.high < 0
        prediction = f"{gap.name}: {gap.value:+.1f} ({gap.low:+.1f} to {gap.high:+.1f})"
        parts.append(
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(gap.name)}</text>'
            f'<line x1="{x(gap.low):.1f}" x2="{x(gap.high):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{shown}" '
            f'stroke-width="2"/><circle cx="{x(gap.value):.1f}" cy="{y:.1f}" r="4.5" stroke="{shown}" '
            f'stroke-width="2" fill="{shown if clear else "var(--paper)"}">'
            f"<title>{escape(prediction)}</title>"
            "</circle>"
        )
    return "".join(parts) + "</svg>"


def _nice(low: float, high: float) -> tuple[float, float]:
    """A range about [low, high] whose quarters are round numbers."""
    span = max(high - low, 1e-9)
    step = 10 ** np.floor(np.log10(span / 4))
    for factor in (1, 2, 2.5, 5, 10, 20):
        start = np.floor(low / (factor * step)) * factor * step
        if start + 4 * factor * step >= high - 1e-9:
            return float(start), float(start + 4 * factor * step)
    return float(low), float(high)


# Okabe and Ito's palette (2008): distinct for all common forms of color blindness; the model comes first.
# Then three of Tol's muted scheme, so that few figures need a color twice. Marks differ, for print in gray.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999",
           "#882255", "#999933", "#332288")  # fmt: skip
