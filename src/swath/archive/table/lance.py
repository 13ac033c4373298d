"""LanceDB beneath the archive: where tables are, who may write, and what damage looks like."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from swath.errors import ArchiveError, ArchiveUnavailable
from swath.locks import exclusive_lock

TABLE = "chips"
PATIENCE = 900.0  # seconds that a writer waits for its turn


def archive_exists(path: str | os.PathLike[str]) -> bool:
    """Whether an archive, whole or damaged, is at `path`."""
    location = location_of(path)
    if is_local(location):
        return (Path(location) / f"{TABLE}.lance").exists()
    with translate_lance_errors(location, "cannot be listed"):
        return TABLE in connect_lance(location).list_tables().tables


def location_of(path: str | os.PathLike[str]) -> str:
    """A URL as it is, a local path without a trailing slash."""
    text = os.fspath(path)
    return text if "://" in text else str(Path(text))


def is_local(location: str) -> bool:
    """Whether a location is on a file system, and not on an object store."""
    return "://" not in location


def connect_lance(location: str) -> Any:
    """A LanceDB connection whose reads always see the newest version."""
    import lancedb

    return lancedb.connect(location, read_consistency_interval=timedelta(0))


def require_archive(path: Path) -> None:
    """Tell a missing archive, another folder and a damaged archive apart before LanceDB is asked."""
    if not path.exists():
        raise ArchiveUnavailable(f"{path}: no archive there; `swath embed MODEL DATA --to {path}` makes one")
    if not (path / f"{TABLE}.lance").is_dir():
        raise ArchiveUnavailable(f"{path}: is not an archive (it has no {TABLE}.lance inside)")
    if not any((path / f"{TABLE}.lance").glob("_versions/*.manifest")):
        raise ArchiveUnavailable(
            f"{path}: is damaged: {TABLE}.lance/_versions holds no manifest, so the rows cannot be found. "
            "Restore the folder from a backup, or delete it and embed again"
        )


def require_empty_location(path: Path) -> None:
    """LanceDB would start an empty table over the remains of a damaged one; we do not."""
    table = path / f"{TABLE}.lance"
    if any(table.glob("_versions/*.manifest")):
        raise ArchiveError(f"{path}: there is an archive already; open it, or choose another path")
    if any(table.glob("data/*")):
        require_archive(path)
    if path.exists() and not path.is_dir():
        raise ArchiveError(f"{path}: is a file; an archive is a folder")
    if path.is_dir() and not table.exists():
        others = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
        if others:
            raise ArchiveError(
                f"{path}: holds other files ({others[0]}, ...); give an archive its own folder"
            )


def id_filter(ids: Sequence[str]) -> str:
    """SQL that selects these ids; quotes are doubled, so that an id stays a literal whatever it holds."""
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in ids)
    return f"id IN ({quoted})"


# No space left, quota exceeded, file too large (a limit of the file system or of the process).
_FULL = re.compile(r"No space left|os error (28|122|27)\b")


@contextmanager
def translate_lance_errors(location: str, what: str) -> Iterator[None]:
    """Turn whatever LanceDB raises on damage, and a panic in its Rust, into an ArchiveError."""
    try:
        yield
    except ArchiveError:
        raise
    except (RuntimeError, OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise ArchiveUnavailable(_damage(location, what, error)) from error
    except BaseException as error:
        # Panics of Rust code; one derives from BaseException, and neither can be imported everywhere.
        if type(error).__name__ not in ("PanicException", "RustPanic"):
            raise
        raise ArchiveUnavailable(_damage(location, what, error)) from error


def _damage(location: str, what: str, error: BaseException) -> str:
    reason = re.sub(r",? /\S+\.rs:\d+:\d+", "", str(error).split("\n")[0])  # not where in Rust it was noticed
    if _FULL.search(str(error)):
        return (
            f"{location}: {what}: the disk is full ({reason}). Nothing committed is lost; free space and run "
            "it again"
        )
    if not is_local(location):
        return (
            f"{location}: {what} ({reason:.300}). Check the address, the credentials (AWS_ACCESS_KEY_ID, "
            "AWS_ENDPOINT, ...) and the network; if objects in it are missing, restore them or embed again"
        )
    return (
        f"{location}: {what} ({reason}). If files in it are missing or cut short, restore the folder from a "
        "backup, or delete it and embed again"
    )


@contextmanager
def write_lock(location: str) -> Iterator[None]:
    """Writers of a local archive take turns: two merges at once could both insert the same id.

    On object stores LanceDB's own optimistic transactions are all there is; write from one process there.
    """
    if not is_local(location):
        yield
        return
    folder = Path(location)
    folder.mkdir(parents=True, exist_ok=True)
    occupied = (
        f"has been writing to it for {PATIENCE:,.0f} s; wait for it or end it (nothing committed is lost), "
        "and try again"
    )
    with exclusive_lock(folder / ".writer.lock", ArchiveError, occupied, timeout=PATIENCE):
        yield
