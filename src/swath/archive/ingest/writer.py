"""Committing rows while others are still being embedded."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from swath.archive.table.rows import schema
from swath.archive.table.store import ArchiveTable
from swath.errors import ArchiveError

COMMIT_ROWS = 8192


class CommitWriter:
    """Commits rows every few seconds, in a thread of its own; leaving the context commits the rest."""

    def __init__(self, path: str | os.PathLike[str], model_id: str, seconds: float) -> None:
        self.archive: ArchiveTable | None = None
        self._path, self._model_id, self._seconds = path, model_id, seconds
        self._rows: list[pa.Table] = []
        self._last = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="swath-archive-writer")
        self._running: Future[None] | None = None

    def __enter__(self) -> CommitWriter:
        return self

    def add(self, rows: pa.Table) -> None:
        """Take rows; commit in the background when it is time. Raises what the commit before raised."""
        if rows.num_rows:
            self._rows.append(rows)
        if self._running is not None and self._running.done():
            self._finish()
        waiting = sum(table.num_rows for table in self._rows)
        if waiting and (time.monotonic() - self._last >= self._seconds or waiting >= COMMIT_ROWS):
            self._finish()
            self._start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        # Also after an error or Ctrl-C: what is embedded is worth keeping. A failing commit must not hide it.
        try:
            self._finish()
            if self._rows:
                self._start()
                self._finish()
        except ArchiveError:
            if error is None:
                raise
        finally:
            self._thread.shutdown()

    def add_same(self, rows: pa.Table) -> None:
        """Take rows of chips whose pixels are as they were; their vectors are in the archive."""
        archive = ArchiveTable.open(self._path, model_id=self._model_id)
        held = archive.rows(["id", "embedding"], ids=rows["id"].to_pylist())
        # One that somebody has deleted meanwhile stays deleted until the next run.
        at = pc.index_in(rows["id"], value_set=held["id"])
        there = pc.is_valid(at)
        rows, at = rows.filter(there), at.filter(there)
        columns = schema(archive.dimensions)
        rows = rows.append_column(columns.field("embedding"), held["embedding"].take(at))
        self.add(rows.select(columns.names))

    def _start(self) -> None:
        rows, self._rows = pa.concat_tables(self._rows), []
        self._last = time.monotonic()
        self._running = self._thread.submit(self._commit, rows)

    def _finish(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def _commit(self, rows: pa.Table) -> None:
        if self.archive is None:
            dimensions = rows.schema.field("embedding").type.list_size
            self.archive = ArchiveTable.open_or_create(self._path, self._model_id, dimensions)
        self.archive.upsert(rows)
