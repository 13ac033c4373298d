"""What there is to do: which chips the archive lacks, and which of its rows have lost their pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swath.archive.ingest.chip_ids import ChipSource, absolute_path, chip_sources, preprocessing
from swath.archive.table.lance import archive_exists
from swath.archive.table.store import ArchiveTable
from swath.datasets.protocol import ImageDataset
from swath.errors import ArchiveError


@dataclass(slots=True)
class Job:
    """The chips of one data set, which are all preprocessed in one way.

    Attributes:
        dataset: Gives the pixels.
        described: How its windows become the model's input, as JSON.
        chips: All of them.
        pending: Indices of those that the archive lacks or holds of an older state of their file.
        embedded_pixels: Of the latter, the hash of the pixels that were embedded, by chip id.
    """

    dataset: ImageDataset
    described: str
    chips: list[ChipSource]
    pending: list[int] = field(default_factory=list)
    embedded_pixels: dict[str, str] = field(default_factory=dict)


def make_jobs(datasets: Sequence[ImageDataset], scale: str | None) -> list[Job]:
    """One job a data set; `scale` as in `preprocessing`."""
    jobs: list[Job] = []
    for dataset in datasets:
        described = preprocessing(dataset, scale=scale)
        if any(job.described == described and job.dataset.sensor == dataset.sensor for job in jobs):
            raise ArchiveError(f"the same chips are requested twice ({described}); give each chip size once")
        jobs.append(Job(dataset, described, chip_sources(dataset, described)))
    return jobs


def plan_embedding(path: str | os.PathLike[str], jobs: Sequence[Job], model_id: str) -> list[str]:
    """Fill in what each job has to do; returns ids of rows made from an older state of the same files."""
    if not archive_exists(path):
        for job in jobs:
            job.pending = list(range(len(job.chips)))
        return []
    held = ArchiveTable.open(path, model_id=model_id).rows(["id", "source", "fingerprint"])
    ids, sources, prints = (held[name].to_pylist() for name in ("id", "source", "fingerprint"))
    known = dict(zip(ids, prints, strict=True))
    current: dict[str, set[str]] = {}
    for job in jobs:
        for index, chip in enumerate(job.chips):
            current.setdefault(chip.source, set()).add(chip.fingerprint)
            stamp, _, pixels = known.get(chip.id, "").partition(":")
            if stamp != chip.fingerprint:
                job.pending.append(index)
                if pixels:
                    job.embedded_pixels[chip.id] = pixels
    return [
        name
        for name, source, stamp in zip(ids, sources, prints, strict=True)
        if source in current and stamp.partition(":")[0] not in current[source]
    ]


def remove_stale(archive: ArchiveTable, jobs: Sequence[Job], suspects: Sequence[str]) -> int:
    """Delete the suspects that this run has not replaced: their file has changed and has no such chip now."""
    if not suspects:
        return 0
    current = {(chip.source, chip.fingerprint) for job in jobs for chip in job.chips}
    left = archive.rows(["id", "source", "fingerprint"], ids=suspects).to_pylist()
    return archive.delete(
        [row["id"] for row in left if (row["source"], row["fingerprint"].partition(":")[0]) not in current]
    )


def prune(archive: ArchiveTable, folder: str | os.PathLike[str]) -> int:
    """Delete the rows of files below `folder` that are gone; returns how many.

    A file that cannot be looked at (permissions, a network that hangs) is not gone. `folder` itself must be
    there, so that a disk that is not mounted empties no archive.

    Raises:
        ArchiveError: There is no such folder.
    """
    root = Path(absolute_path(os.fspath(folder)))
    if not root.is_dir():
        raise ArchiveError(f"{root}: is not a folder; --prune needs an existing folder")
    held = archive.rows(["id", "source", "files"]).to_pylist()
    gone: dict[str, bool] = {}
    doomed = []
    for row in held:
        for name in row["files"] or [row["source"]]:
            if "://" in name or not Path(name).is_relative_to(root):
                continue
            if name not in gone:
                gone[name] = _gone(name)
            if gone[name]:
                doomed.append(row["id"])
                break
    return archive.delete(doomed) if doomed else 0


def _gone(name: str) -> bool:
    try:
        os.lstat(name)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
