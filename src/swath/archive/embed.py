"""Embedding a collection into an archive: resumable, idempotent, never waiting for the disk.

Loader workers decode chips while the encoder works, and a thread commits rows while both go on. A chip's id
is known before its pixels are read (see `swath.archive.sources`), so what the archive holds already is
skipped at no cost. Rows are committed every few seconds in one transaction: a run that is killed at any
moment loses the seconds since the last commit and nothing else, and running it again goes on from there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.archive.reading import Pending, Place, read_ahead
from swath.archive.sources import ChipSource, chip_sources, preprocessing
from swath.archive.store import Archive, archive_exists, schema
from swath.errors import ArchiveError, ContractError
from swath.imagery.chip import Batch
from swath.imagery.samples import ImageDataset, Problem

COMMIT_SECONDS = 10.0  # what a kill may cost
COMMIT_ROWS = 8192
_MANY_FILES = 32  # data files (one a commit) from which compacting at the end of a run pays


class Embedder(Protocol):
    """What embedding needs of a model; `swath.models.Model` has it."""

    id: str
    contract: Any

    def embed(
        self,
        images: Tensor,
        gsd: Tensor | None = None,
        sensor: str | None = None,
        valid: Tensor | None = None,
        *,
        batch_size: int = 64,
    ) -> Tensor:
        """[N, C, H, W] in the sensor's unit -> [N, D] float32."""
        ...


@dataclass(slots=True)
class EmbedReport:
    """What a run did. `total` = `present` + `embedded` + `screened` + chips among `failures`.

    Attributes:
        total: Chips of the data set.
        present: Chips that were in the archive already, up to date.
        embedded: Chips embedded and committed by this run.
        screened: Chips left out because too few of their pixels are valid.
        removed: Rows deleted because their file has changed and no longer has such a chip.
        failures: (path, reason) of files and chips that could not be used.
        seconds: Duration.
    """

    total: int = 0
    present: int = 0
    embedded: int = 0
    screened: int = 0
    removed: int = 0
    failures: list[Problem] = field(default_factory=list)
    seconds: float = 0.0


def embed_archive(
    model: Embedder,
    dataset: ImageDataset,
    path: str | os.PathLike[str],
    *,
    model_path: str | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    min_valid: float = 0.5,
    gsd_by_width: bool = False,
    commit_seconds: float = COMMIT_SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> EmbedReport:
    """Embed the chips of `dataset` that the archive at `path` does not hold yet.

    Args:
        model: Gives the embeddings; the archive takes those of one model only.
        dataset: From `swath.imagery.datasets.open_dataset`.
        path: The archive; made if nothing is there.
        model_path: The model's directory, noted in the archive so that search finds it.
        batch_size: Chips a forward pass.
        workers: Processes that decode; 0 decodes in this one; None: one a CPU, at most 8.
        min_valid: Chips with a smaller share of valid pixels are left out.
        gsd_by_width: For models of relative scale that have a reference size: an image's GSD is that size
            divided by its width, whatever the data set says (as the official Scale-MAE weights are used).
        commit_seconds: How often rows are committed.
        progress: Called with (chips done, chips to do) after each batch.

    Raises:
        ArchiveError: An archive of another model, a damaged one, a full disk. What was committed stays.
    """
    started = time.monotonic()
    if archive_exists(path):
        Archive.open(path, model_id=model.id)
    reference = model.contract.reference_size if gsd_by_width else None
    if gsd_by_width and reference is None:
        raise ArchiveError("gsd_by_width needs a model of relative scale with a reference size; give a GSD")
    relative = "relative" if model.contract.gsd_mode == "relative" else None
    described = preprocessing(dataset, scale="width" if gsd_by_width else relative)
    chips = chip_sources(dataset, described)
    report = EmbedReport(total=len(chips), failures=list(dataset.problems))
    pending, stale = _plan(path, chips, model.id)
    report.present = len(chips) - len(pending)
    if progress:
        progress(0, len(pending))

    source = Pending(dataset, chips, pending, reference)
    done = 0
    with _Writer(path, model.id, commit_seconds) as writer:
        for part in read_ahead(source, batch_size, workers, min_valid):
            report.failures += part.problems
            report.screened += part.screened
            for batch, places in part.batches:
                rows, bad = _embed_batch(model, batch, places, chips, described)
                if not rows.num_rows and bad and not report.embedded + report.present:
                    raise ContractError(bad[0][1])  # not an odd image: nothing fits so far
                report.failures += bad
                report.embedded += rows.num_rows
                writer.add(rows)
            done += part.count
            if progress:
                progress(done, len(pending))

    archive = writer.archive
    if archive is None and archive_exists(path):
        archive = Archive.open(path, model_id=model.id)
    if archive is not None:
        report.removed = _remove_stale(archive, chips, stale)
        if archive.files() >= _MANY_FILES:
            archive.compact()
        if model_path is not None:
            archive.remember_model(str(Path(model_path).resolve()))
    report.seconds = time.monotonic() - started
    return report


def _plan(
    path: str | os.PathLike[str], chips: Sequence[ChipSource], model_id: str
) -> tuple[list[int], list[str]]:
    """Indices of chips to embed, and ids of rows made from an older content of the same files."""
    if not archive_exists(path):
        return list(range(len(chips))), []
    held = Archive.open(path, model_id=model_id).rows(["id", "source", "fingerprint"])
    ids, sources, prints = (held[name].to_pylist() for name in ("id", "source", "fingerprint"))
    known = dict(zip(ids, prints, strict=True))
    pending = [index for index, chip in enumerate(chips) if known.get(chip.id) != chip.fingerprint]
    current: dict[str, set[str]] = {}
    for chip in chips:
        current.setdefault(chip.source, set()).add(chip.fingerprint)
    stale = [
        name
        for name, source, stamp in zip(ids, sources, prints, strict=True)
        if source in current and stamp not in current[source]
    ]
    return pending, stale


def _remove_stale(archive: Archive, chips: Sequence[ChipSource], suspects: Sequence[str]) -> int:
    """Delete the suspects that this run has not replaced: their file has changed and has no such chip now."""
    if not suspects:
        return 0
    current = {(chip.source, chip.fingerprint) for chip in chips}
    left = archive.rows(["id", "source", "fingerprint"], ids=suspects).to_pylist()
    return archive.delete([row["id"] for row in left if (row["source"], row["fingerprint"]) not in current])


# --- the encoder, in this process -------------------------------------------------------------------------


def _embed_batch(
    model: Embedder,
    batch: Batch,
    places: Sequence[Place],
    chips: Sequence[ChipSource],
    described: str,
) -> tuple[pa.Table, list[Problem]]:
    """Rows of a batch, and the chips that the model refuses or has no finite embedding for."""
    refused: dict[int, str] = {}
    try:
        found = _vectors(model, batch)
    except ContractError:
        found, refused = _vectors_one_by_one(model, batch)
    problems = []
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(found), axis=1)
    for position, place in enumerate(places):
        if not finite[position]:
            source = chips[place.index].source
            reason = refused.get(position, "its embedding is not finite; look at its pixels")
            problems.append((source, f"{source}: {reason}"))
    kept = [place for place, fine in zip(places, finite, strict=True) if fine]
    return _rows(found[finite], batch["sensor"], model.id, kept, chips, described), problems


def _vectors(model: Embedder, batch: Batch) -> NDArray[np.float32]:
    """[B, D] of a whole batch in one forward pass."""
    vectors = model.embed(
        batch["image"],
        gsd=batch["gsd"],
        sensor=batch["sensor"],
        valid=batch["valid"],
        batch_size=len(batch["image"]),
    )
    numbers: NDArray[np.float32] = vectors.detach().to("cpu", torch.float32).numpy()
    return numbers


def _vectors_one_by_one(model: Embedder, batch: Batch) -> tuple[NDArray[np.float32], dict[int, str]]:
    """[B, D] with NaN where the model refuses an image, and its reasons by position.

    One image that does not fit the contract must not cost the others of its batch, nor the run.
    """
    found: list[NDArray[np.float32] | None] = []
    refused: dict[int, str] = {}
    for position in range(len(batch["image"])):
        one = slice(position, position + 1)
        single: Batch = {
            "image": batch["image"][one],
            "gsd": batch["gsd"][one],
            "valid": batch["valid"][one],
            "sensor": batch["sensor"],
        }
        try:
            found.append(_vectors(model, single)[0])
        except ContractError as error:
            refused[position] = str(error)
            found.append(None)
    dimensions = next((len(vector) for vector in found if vector is not None), 1)
    empty = np.full(dimensions, np.nan, dtype=np.float32)
    return np.stack([empty if vector is None else vector for vector in found]), refused


def _rows(
    vectors: NDArray[np.float32],
    sensor: str,
    model_id: str,
    places: Sequence[Place],
    chips: Sequence[ChipSource],
    described: str,
) -> pa.Table:
    """Rows in the archive's schema."""
    columns = schema(vectors.shape[1])
    named = [chips[place.index] for place in places]
    windows = [
        {"column": w.column, "row": w.row, "width": w.width, "height": w.height}
        for w in (chip.window for chip in named)
    ]
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float32())
    values: dict[str, Any] = {
        "id": [chip.id for chip in named],
        "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        "geometry": [place.geometry for place in places],
        "bbox": [place.bbox for place in places],
        "datetime": [place.time for place in places],
        "sensor": [sensor] * len(places),
        "gsd": [place.gsd for place in places],
        "source": [chip.source for chip in named],
        "files": [list(chip.files) if len(chip.files) > 1 else None for chip in named],
        "window": windows,
        "valid_fraction": [place.valid_fraction for place in places],
        "label": [chip.label for chip in named],
        "model_id": [model_id] * len(places),
        "preprocessing": [described] * len(places),
        "fingerprint": [chip.fingerprint for chip in named],
    }
    return pa.table(
        [
            column if isinstance(column, pa.Array) else pa.array(column, columns.field(name).type)
            for name, column in values.items()
        ],
        schema=columns,
    )


class _Writer:
    """Commits rows every few seconds, in a thread of its own; leaving the context commits the rest."""

    def __init__(self, path: str | os.PathLike[str], model_id: str, seconds: float) -> None:
        self.archive: Archive | None = None
        self._path, self._model_id, self._seconds = path, model_id, seconds
        self._rows: list[pa.Table] = []
        self._last = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="swath-archive-writer")
        self._running: Future[None] | None = None

    def __enter__(self) -> _Writer:
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
            self.archive = Archive.open_or_create(self._path, self._model_id, dimensions)
        self.archive.upsert(rows)
