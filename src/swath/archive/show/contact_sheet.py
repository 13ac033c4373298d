"""A search as one thumbnail: the query large at the left, the results in rows beside it, best first."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.archive.query.query import Query
from swath.archive.query.results import SearchResult, SearchResults
from swath.archive.show.thumbnails import read_thumbnails
from swath.files import atomic_path
from swath.reporting.fonts import fit_text, font
from swath.sensors.sensor import Sensor

_TILE = 192  # pixels of a result's side
_GAP = 16
_MARGIN = 32
_CAPTION = 54
_DATE_LINE = 18
_TITLE = 46
_PAPER, _INK, _QUIET, _ACCENT, _EMPTY = "#fbfaf7", "#1d232b", "#6b7480", "#c2410c", "#e4e2dc"


def write_contact_sheet(
    path: str | os.PathLike[str],
    query: Query,
    results: SearchResults,
    *,
    sensors: Mapping[str, Sensor] | None = None,
    relative: bool = False,
) -> None:
    """Write a PNG of the query and its results, atomically.

    Pixels are shown as `swath.reporting.stretch` says. A chip whose file is gone or unreadable becomes an
    empty tile that says so.

    Args:
        path: The PNG.
        query: Shown first.
        results: Shown best first.
        sensors: Sensors that are not registered, by name.
        relative: Whether GSDs are ratios and not metres.
    """
    chips = [query.chip, *results]
    thumbnails = read_thumbnails(chips, 2 * _TILE + _GAP + _CAPTION + _DATE_LINE, sensors)
    sheet = _draw(query, results, thumbnails, relative)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


# --- the sheet --------------------------------------------------------------------------------------------


def _draw(
    query: Query, results: SearchResults, thumbnails: Sequence[NDArray[np.uint8] | str], relative: bool
) -> Any:
    from PIL import Image, ImageDraw

    count = max(1, len(results))
    columns = count if count <= 3 else min(6, math.ceil(count / 2))
    rows = math.ceil(count / columns)
    chips = [query.chip, *results]
    captions = _CAPTION + (_DATE_LINE if any(chip.datetime for chip in chips) else 0)
    cell = _TILE + captions
    large = _TILE if rows == 1 else 2 * _TILE + _GAP + captions
    left = _MARGIN + large + 2 * _GAP + _MARGIN
    width = left + columns * _TILE + (columns - 1) * _GAP + _MARGIN
    height = _MARGIN + _TITLE + rows * cell + (rows - 1) * _GAP + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)

    names = _names(chips)
    top = _MARGIN + _TITLE
    pen.text((_MARGIN, _MARGIN), "Query", font=font(19, bold=True), fill=_ACCENT)
    nearest = f"Nearest {len(results)} of {results.total:,} chips" if len(results) else "No result"
    pen.text((left, _MARGIN), nearest, font=font(19, bold=True), fill=_INK)
    if results.shortfall:
        start = left + pen.textlength(nearest, font(19, bold=True)) + _GAP
        note = fit_text(pen, results.shortfall, font(13), width - _MARGIN - start)
        pen.text((start, _MARGIN + 5), note, font=font(13), fill=_QUIET)

    middle = left - _MARGIN // 2 - _GAP
    pen.line([(middle, _MARGIN), (middle, height - _MARGIN)], fill=_EMPTY, width=2)
    _tile(sheet, pen, (_MARGIN, top), large, thumbnails[0])
    pen.rectangle([_MARGIN - 3, top - 3, _MARGIN + large + 2, top + large + 2], outline=_ACCENT, width=3)
    _caption(pen, (_MARGIN, top + large + 10), large, query.chip, names[0], relative, as_query=True)
    for place, (result, thumbnail) in enumerate(zip(results, thumbnails[1:], strict=True)):
        row, column = divmod(place, columns)
        x, y = left + column * (_TILE + _GAP), top + row * (cell + _GAP)
        _tile(sheet, pen, (x, y), _TILE, thumbnail)
        # The bar is as long as the cosine; a cosine below 0 has none.
        pen.rectangle([x, y + _TILE + 3, x + _TILE - 1, y + _TILE + 5], fill=_EMPTY)
        length = min(1.0, max(0.0, result.score))
        if length > 0:
            pen.rectangle([x, y + _TILE + 3, x + round(length * (_TILE - 1)), y + _TILE + 5], fill=_ACCENT)
        _caption(pen, (x, y + _TILE + 10), _TILE, result, names[place + 1], relative)
    return sheet


def _tile(
    sheet: Any, pen: Any, corner: tuple[int, int], side: int, thumbnail: NDArray[np.uint8] | str
) -> None:
    """A chip fitted into a square, or an empty one with a word in it."""
    from PIL import Image

    x, y = corner
    pen.rectangle([x, y, x + side - 1, y + side - 1], fill=_EMPTY)
    if isinstance(thumbnail, str):
        pen.text((x + side // 2, y + side // 2), "file not readable", font=font(13), fill=_QUIET, anchor="mm")
        return
    image = Image.fromarray(thumbnail, "RGBA") if thumbnail.shape[2] == 4 else Image.fromarray(thumbnail)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Enlarged pixels stay pixels when there are few: a blurred 16 x 16 chip would look finer than it is.
    kernel = Image.Resampling.NEAREST if scale > 4 else Image.Resampling.LANCZOS
    image = image.resize(size, kernel)
    sheet.paste(image, (x + (side - size[0]) // 2, y + (side - size[1]) // 2), image)


def _names(chips: Sequence[SearchResult]) -> list[str]:
    """File names, with the folder before them where files of one name in several folders are shown."""
    paths = [Path(chip.source) for chip in chips]
    folders: dict[str, set[str]] = {}
    for path in paths:
        folders.setdefault(path.name, set()).add(path.parent.name)
    return [f"{path.parent.name}/{path.name}" if len(folders[path.name]) > 1 else path.name for path in paths]


def _caption(
    pen: Any,
    corner: tuple[int, int],
    width: int,
    chip: SearchResult,
    file: str,
    relative: bool,
    *,
    as_query: bool = False,
) -> None:
    """Score and name; sensor and GSD; date."""
    x, y = corner
    name = f"{chip.label} · {file}" if chip.label and as_query else chip.label or file
    start = float(x)
    if not as_query:
        score = f"{chip.score:.3f}"
        pen.text((x, y), score, font=font(15, bold=True), fill=_INK)
        start += pen.textlength(score, font(15, bold=True)) + 8
    fitted = fit_text(pen, name, font(13, bold=as_query), x + width - start)
    pen.text((start, y + 2), fitted, font=font(13, bold=as_query), fill=_INK)
    gsd = f"{chip.gsd:.3g}x" if relative else f"{chip.gsd:.3g} m"
    second = fit_text(pen, f"{chip.sensor} · {gsd}", font(12), width)
    pen.text((x, y + 23), second, font=font(12), fill=_QUIET)
    if chip.datetime:
        pen.text((x, y + 23 + _DATE_LINE), f"{chip.datetime:%Y-%m-%d}", font=font(12), fill=_QUIET)
