"""An archive in a few lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swath.archive.table.summary import ArchiveSummary

if TYPE_CHECKING:
    from swath.archive.table.store import ArchiveTable


def summary_text(archive: ArchiveTable, summary: ArchiveSummary) -> dict[str, str]:
    """An archive in words, for the terminal and notebooks: what it holds, its model and version."""
    words = {"chips": "", "model": f"{archive.model_id} ({archive.dimensions} dimensions)"}
    return words | summary.text() | {"version": str(archive.version)}
