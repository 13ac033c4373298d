"""Embedding a collection into an archive: resumable, idempotent, never waiting for the disk.

Loader workers decode chips while the encoder works, and a thread commits rows while both go on. A chip's id
is known before its pixels are read (see `swath.archive.ingest.chip_ids`), so what the archive holds already
is skipped at no cost; where a file has been touched, only chips whose pixels are others are embedded again.
Rows are committed every few seconds in one transaction: a run that is killed at any moment loses the seconds
since the last commit and nothing else, and running it again goes on from there.

The work is spread by an *engine*: loader workers of this process; the processes of torchrun, each of which
takes its share of the chips and commits them itself, writers taking turns; or a Ray cluster. Rows are the
same whatever the engine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from swath.archive.ingest.encode import ChipEncoder, Embedder, EncodedChips
from swath.archive.ingest.plan import Job, make_jobs, plan_embedding, prune, remove_stale
from swath.archive.ingest.read import ChipFilter, PendingChips, prefetch_chips
from swath.archive.ingest.writer import CommitWriter
from swath.archive.table.lance import archive_exists
from swath.archive.table.store import ArchiveTable
from swath.datasets.protocol import ImageDataset
from swath.errors import ArchiveError, ContractError, Problem

if TYPE_CHECKING:
    from swath.training.parallel import World

COMMIT_SECONDS = 10.0  # what a kill may cost
_MANY_FILES = 32  # data files (one a commit) from which compacting at the end of a run pays


@dataclass(slots=True)
class EmbedReport:
    """What a run did.

    `total` = `present` + `embedded` + `refreshed` + `screened` + `clouded` + chips among `failures`.

    Attributes:
        total: Chips of the data sets.
        present: Chips that were in the archive already, up to date.
        embedded: Chips embedded and committed by this run.
        refreshed: Chips whose file was touched, and whose pixels are what they were: nothing was computed.
        screened: Chips left out because too few of their pixels are valid.
        clouded: Chips left out because too many of their pixels are cloud.
        cloud_known: Chips read by this run of which the share of cloud is known.
        removed: Rows deleted because their file has changed and no longer has such a chip.
        pruned: Rows deleted because their file is gone.
        failures: (path, reason) of files and chips that could not be used.
        seconds: Duration.
    """

    total: int = 0
    present: int = 0
    embedded: int = 0
    refreshed: int = 0
    screened: int = 0
    clouded: int = 0
    cloud_known: int = 0
    removed: int = 0
    pruned: int = 0
    failures: list[Problem] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: EmbedReport) -> None:
        """Take in what another process did."""
        for name in ("total", "present", "embedded", "refreshed", "screened", "clouded", "cloud_known"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures


def embed_archive(
    model: Embedder,
    dataset: ImageDataset | Sequence[ImageDataset],
    path: str | os.PathLike[str],
    *,
    model_path: str | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    min_valid: float = 0.5,
    max_cloud: float = 1.0,
    gsd_by_width: bool = False,
    prune_below: str | os.PathLike[str] | None = None,
    engine: Literal["local", "ray"] = "local",
    world: World | None = None,
    commit_seconds: float = COMMIT_SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> EmbedReport:
    """Embed the chips of `dataset` that the archive at `path` does not hold yet.

    Args:
        model: Gives the embeddings; the archive takes those of one model only.
        dataset: From `swath.datasets.opening.open_dataset`; several for several scales of the same places.
        path: The archive; made if nothing is there.
        model_path: The model's directory, noted in the archive so that search finds it.
        batch_size: Chips a forward pass.
        workers: Processes that decode; 0 decodes in this one; None: one a CPU, at most 8. With Ray: how many
            workers encode; None: one.
        min_valid: Chips with a smaller share of valid pixels are left out.
        max_cloud: Chips with a larger share of cloud are left out, where the share is known (see
            `swath.rasters.cloud_mask`); others are kept.
        gsd_by_width: For models of relative scale that have a reference size: an image's GSD is that size
            divided by its width, whatever the data set says (as the official Scale-MAE weights are used).
        prune_below: Delete the rows of files below this folder that are gone (see `prune`).
        engine: ``local``: this process and loader workers; ``ray``: Ray Data (the extra ``ray``).
        world: Under torchrun, from `swath.training.parallel.init_distributed`: this process takes its share,
            and the report of the first is of all.
        commit_seconds: How often rows are committed.
        progress: Called with (chips done, chips to do) after each batch.

    Raises:
        ArchiveError: An archive of another model, a damaged one, a full disk. What was committed stays.
    """
    started = time.monotonic()
    if archive_exists(path):
        ArchiveTable.open(path, model_id=model.id)
    reference = model.contract.reference_size if gsd_by_width else None
    if gsd_by_width and reference is None:
        raise ArchiveError("gsd_by_width needs a model of relative scale with a reference size; give a GSD")
    relative = "relative" if model.contract.gsd_mode == "relative" else None
    datasets = [dataset] if isinstance(dataset, ImageDataset) else list(dataset)
    jobs = make_jobs(datasets, "width" if gsd_by_width else relative)
    stale = plan_embedding(path, jobs, model.id)
    report = _begin(jobs, world, batch_size)
    to_do, done = sum(len(job.pending) for job in jobs), 0
    if progress:
        progress(0, to_do)

    with CommitWriter(path, model.id, commit_seconds) as writer:
        for job in jobs:
            encoder = ChipEncoder(model, job.chips, job.described, job.embedded_pixels)
            reader = PendingChips(
                job.dataset, job.chips, job.pending, reference, ChipFilter(min_valid, max_cloud)
            )
            for outcome in _outcomes(engine, reader, encoder, batch_size, workers):
                _take(report, writer, outcome)
                done += outcome.count
                if progress:
                    progress(done, to_do)

    if _gather(report, world):
        _finish(path, model, jobs, stale, report, model_path, prune_below)
    report.seconds = time.monotonic() - started
    return report


def _begin(jobs: Sequence[Job], world: World | None, batch_size: int) -> EmbedReport:
    """The report as it begins; under torchrun, jobs are cut down to this process's share.

    A share is chosen by position in the data set, never by what is pending: ranks may look at the archive at
    different moments, and must neither overlap nor leave a gap.
    """
    rank, size = (world.rank, world.size) if world is not None else (0, 1)
    report = EmbedReport()
    for job in jobs:
        mine = [index // batch_size % size == rank for index in range(len(job.chips))]
        job.pending = [index for index in job.pending if mine[index]]
        report.total += sum(mine)
        report.present += sum(mine) - len(job.pending)
        if rank == 0:
            known = set(report.failures)
            report.failures += [problem for problem in job.dataset.problems if problem not in known]
    return report


def _outcomes(
    engine: str, reader: PendingChips, encoder: ChipEncoder, batch_size: int, workers: int | None
) -> Iterator[EncodedChips]:
    """Every pending chip of a job, read and embedded by the engine."""
    if engine == "ray":
        from swath.archive.ingest.ray_engine import ray_outcomes

        return ray_outcomes(reader, encoder, batch_size, workers)
    if engine != "local":
        raise ArchiveError(f"engine must be 'local' or 'ray', not {engine!r}")
    return map(encoder, prefetch_chips(reader, batch_size, workers))


def _take(report: EmbedReport, writer: CommitWriter, outcome: EncodedChips) -> None:
    """Count an outcome and hand its rows on to be committed."""
    embedded = sum(rows.num_rows for rows in outcome.rows)
    if outcome.refused and not embedded + report.embedded + report.present:
        raise ContractError(outcome.refused[0][1])  # not an odd image: nothing fits so far
    report.failures += outcome.problems + outcome.refused
    report.screened += outcome.screened
    report.clouded += outcome.clouded
    report.cloud_known += outcome.cloud_known
    report.embedded += embedded
    for rows in outcome.rows:
        writer.add(rows)
    for rows in outcome.same:
        report.refreshed += rows.num_rows
        writer.add_same(rows)


def _gather(report: EmbedReport, world: World | None) -> bool:
    """Wait for the others and sum the reports up in the first process; whether this is the first."""
    if world is None or world.size == 1:
        return True
    import torch.distributed as dist

    reports: list[EmbedReport | None] = [None] * world.size
    dist.all_gather_object(reports, report, group=world.control)
    for other in reports[1:] if world.first else []:
        assert other is not None
        report.add(other)
    return world.first


def _finish(
    path: str | os.PathLike[str],
    model: Embedder,
    jobs: Sequence[Job],
    stale: Sequence[str],
    report: EmbedReport,
    model_path: str | None,
    prune_below: str | os.PathLike[str] | None,
) -> None:
    """When all rows are in: delete what has lost its pixels, merge small files, note where the model was."""
    if not archive_exists(path):
        return  # there was nothing to embed
    archive = ArchiveTable.open(path, model_id=model.id)
    report.removed = remove_stale(archive, jobs, stale)
    if prune_below is not None:
        report.pruned = prune(archive, prune_below)
    if archive.files() >= _MANY_FILES:
        archive.compact()
    if model_path is not None:
        archive.remember_model(str(Path(model_path).resolve()))
