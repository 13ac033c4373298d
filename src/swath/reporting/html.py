"""Pieces of the HTML pages that Swath writes: one file, everything inside, nothing fetched, no script.

Pages read in light and dark, print, and say in words what a picture shows.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swath.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("style.css")


def write_html(path: str | Path, title: str, parts: Iterable[str]) -> Path:
    """Write a page of `parts` (HTML, in order), atomically."""
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<style>{STYLE.read_text(encoding='utf-8')}</style></head><body><main>{''.join(parts)}</main>"
        "</body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    marks: Sequence[bool] | None = None,
    numbers_from: int | None = None,
    caption: str = "",
) -> str:
    """A table that scrolls where it is too wide.

    Args:
        header: Names of the columns.
        rows: Cells; those that are `SafeHtml` go in as they are, others as text. The first names its row.
        marks: Rows to be set off.
        numbers_from: First column of numbers, which stand to the right.
        caption: What the table shows, above it.
    """

    def cell(tag: str, value: Any, position: int, scope: str = "") -> str:
        number = ' class="number"' if numbers_from is not None and position >= numbers_from else ""
        text = value if isinstance(value, SafeHtml) else escape(str(value))
        return f"<{tag}{scope}{number}>{text}</{tag}>"

    head = "".join(cell("th", name, i, ' scope="col"') for i, name in enumerate(header))
    lines = []
    for row, mark in zip(rows, marks or [False] * len(rows), strict=True):
        ours = ' class="ours"' if mark else ""
        first = cell("th", row[0], 0, ' scope="row"')
        lines.append(
            f"<tr{ours}>{first}" + "".join(cell("td", v, i) for i, v in enumerate(row[1:], 1)) + "</tr>"
        )
    prediction = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{prediction}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody>"
        "</table></div>"
    )


class SafeHtml(str):
    """Text that is HTML already."""

    __slots__ = ()


def figure(image: bytes | str, caption: str, kind: str = "jpeg", css_class: str = "", after: str = "") -> str:
    """An image in the page: bytes of an image of `kind`, or SVG as text; `after` is HTML below."""
    if isinstance(image, str):
        inside = image
    else:
        data = base64.b64encode(image).decode()
        inside = f'<img class="{css_class}" alt="{escape(caption)}" src="data:image/{kind};base64,{data}">'
    return f"<figure>{inside}<figcaption>{escape(caption)}{after}</figcaption></figure>"


def jpeg(image: Any, quality: int = 86) -> bytes:
    """A Pillow image as JPEG bytes: photographs, so a tenth of the size of PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def plot_bytes(plot: Figure) -> bytes:
    """A matplotlib figure as JPEG bytes."""
    buffer = io.BytesIO()
    plot.savefig(buffer, format="jpeg", dpi=110, facecolor="white")
    return buffer.getvalue()
