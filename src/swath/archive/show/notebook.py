"""What a notebook shows of archives, results and changes: self-contained HTML.

Everything that comes from files (names, labels) is escaped. Pictures are small, and only those of the first
results are read; a chip whose file is gone is shown as an empty tile.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.archive.changes.detect import ChangeResults
from swath.archive.query.results import SearchResult, SearchResults
from swath.archive.show.text import summary_text
from swath.archive.show.thumbnails import read_thumbnails
from swath.archive.table.store import ArchiveTable
from swath.archive.table.summary import summary_of
from swath.reporting.notebook import to_html

SHOWN = 24  # results with a thumbnail; the others are counted
_SIDE = 128  # pixels of a thumbnail
_MAP = 260  # of the map's longer side
_MOST_BOXES = 1_500  # footprints that are drawn; of more, so many evenly through the archive
_COLORS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#a16207", "#0e7490")


@to_html.register
def archive_html(archive: ArchiveTable) -> str:
    """What an archive holds, as a table, with its footprints in longitude and latitude beside it."""
    rows = archive.rows(["sensor", "gsd", "datetime", "bbox"])
    summary = summary_of(rows)
    cells = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>"
        f"{escape(value)}</td></tr>"
        for name, value in summary_text(archive, summary).items()
    )
    table = f"<table><caption>Archive {escape(archive.path)}</caption>{cells}</table>"
    if summary.bounds is None:
        return table
    step = max(1, math.ceil(rows.num_rows / _MOST_BOXES))
    some = rows.take(np.arange(0, rows.num_rows, step)).to_pylist()
    drawing = _map(some, summary.bounds, list(summary.sensors))
    return f"<div style='display:flex;gap:24px;align-items:center;flex-wrap:wrap'>{table}{drawing}</div>"


@to_html.register
def results_html(results: SearchResults) -> str:
    """Answers as thumbnails with score, sensor, scale and date, best first; and what there is to say."""
    tiles = "".join(
        _tile(thumbnail, f"<b>{result.score:.3f}</b> {escape(_name(result))}", _details(result))
        for result, thumbnail in _with_thumbnails(results)
    )
    notes = [*results.notes, *([results.shortfall] if results.shortfall else [])]
    if len(results) > SHOWN:
        notes.append(f"{len(results) - SHOWN:,} more results are not shown")
    return _page(tiles, notes)


@to_html.register
def changes_html(changes: ChangeResults) -> str:
    """Places before and after, most changed first."""
    shown = changes.items[: SHOWN // 2]
    pairs = [chip for change in shown for chip in (change.before, change.after)]
    thumbnails = [thumbnail for _, thumbnail in _with_thumbnails(pairs)]
    tiles = ""
    for number, change in enumerate(shown):
        dates = [
            f"{chip.datetime:%Y-%m-%d}" if chip.datetime else "" for chip in (change.before, change.after)
        ]
        tiles += (
            "<div style='display:flex;gap:2px'>"
            + _tile(thumbnails[2 * number], f"<b>{change.score:.1f}</b>", dates[0])
            + _tile(thumbnails[2 * number + 1], escape(_name(change.after)), dates[1])
            + "</div>"
        )
    notes = [*changes.notes, "scores are standard deviations above what is usual around a place"]
    return _page(tiles, notes)


# --- parts ------------------------------------------------------------------------------------------------


def _page(tiles: str, notes: Sequence[str]) -> str:
    words = "".join(f"<div style='color:#6b7480;font-size:12px'>{escape(note)}</div>" for note in notes)
    return f"<div style='display:flex;flex-wrap:wrap;gap:10px;margin-bottom:6px'>{tiles}</div>{words}"


def _tile(thumbnail: str, first: str, second: str) -> str:
    line = f"width:{_SIDE}px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
    return (
        f"<div style='width:{_SIDE}px'>{thumbnail}<div style='{line};font-size:13px'>{first}</div>"
        f"<div style='{line};font-size:11px;color:#6b7480'>{second}</div></div>"
    )


def _with_thumbnails(chips: Sequence[SearchResult]) -> list[tuple[SearchResult, str]]:
    """The first chips, each with its thumbnail as an HTML element."""
    shown = list(chips)[:SHOWN]
    return [
        (chip, _image(thumbnail))
        for chip, thumbnail in zip(shown, read_thumbnails(shown, _SIDE), strict=True)
    ]


def _image(thumbnail: NDArray[np.uint8] | str) -> str:
    from PIL import Image

    box = f"width:{_SIDE}px;height:{_SIDE}px;background:#e4e2dc;object-fit:contain;image-rendering:auto"
    if isinstance(thumbnail, str):
        return f"<div style='{box}' title='{escape(thumbnail, quote=True)}'></div>"
    file = io.BytesIO()
    Image.fromarray(thumbnail, "RGBA").save(file, format="PNG", optimize=True)
    return (
        f"<img style='{box}' alt='' src='data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'>"
    )


def _name(chip: SearchResult) -> str:
    return chip.label or chip.source.rsplit("/", 1)[-1]


def _details(chip: SearchResult) -> str:
    parts = [chip.sensor, f"GSD {chip.gsd:.3g}", f"{chip.datetime:%Y-%m-%d}" if chip.datetime else ""]
    return escape(" · ".join(part for part in parts if part))


def _map(
    rows: Sequence[dict[str, Any]], bounds: tuple[float, float, float, float], sensors: Sequence[str]
) -> str:
    """Footprints as boxes in an SVG, a color a sensor; those across the antimeridian are left out."""
    west, south, east, north = bounds
    shrink = max(
        0.05, math.cos(math.radians((south + north) / 2))
    )  # a degree of longitude, in one of latitude
    wide, high = max((east - west) * shrink, 1e-9), max(north - south, 1e-9)
    scale = _MAP / max(wide, high)
    boxes = ""
    for row in rows:
        box = row["bbox"]
        if box is None or box["xmin"] > box["xmax"]:
            continue
        color = _COLORS[sensors.index(row["sensor"]) % len(_COLORS)]
        x, y = (box["xmin"] - west) * shrink * scale, (north - box["ymax"]) * scale
        w, h = (box["xmax"] - box["xmin"]) * shrink * scale, (box["ymax"] - box["ymin"]) * scale
        boxes += (
            f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(w, 1):.1f}' height='{max(h, 1):.1f}' fill='{color}' "
            f"fill-opacity='0.15' stroke='{color}' stroke-width='0.6'/>"
        )
    width, height = round(wide * scale) + 4, round(high * scale) + 4
    view = f"width='{width}' height='{height}' viewBox='-2 -2 {width} {height}'"
    style = "border:1px solid #e4e2dc"
    return f"<svg {view} style='{style}' role='img' aria-label='footprints'>{boxes}</svg>"
