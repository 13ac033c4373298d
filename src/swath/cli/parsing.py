"""Options and spellings that several commands share."""

from __future__ import annotations

from typing import Any

import typer


def offset_option(panel: str | None = None) -> Any:
    """``--offset-dn``; `panel`: the box of the help that it stands in."""
    return typer.Option(
        "--offset-dn",
        help="Added to stored values before scaling, for Sentinel-2 files that do not say their processing "
        "baseline: -1000 from baseline 04.00, 0 before.",
        rich_help_panel=panel,
    )


def number_or_name(text: str | None) -> float | str | None:
    """A number where it is one; else a word (`relative`, a column), which what takes it judges."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return text
