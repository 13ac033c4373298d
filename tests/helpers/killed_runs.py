"""Runs embeddings that are killed (see test_embed.py): one line of JSON a run on the standard output.

A parent imports everything once and forks a child for each run; it opens no archive itself, because LanceDB's
threads would not survive the fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lancedb  # noqa: F401 -- slow to import
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.archive_images import make_pictures
from swath.archive.ingest.run import embed_archive
from swath.archive.table.lance import archive_exists
from swath.archive.table.store import ArchiveTable as Archive
from swath.datasets.opening import open_dataset

CHIPS, BATCH = 48, 4


class Means:
    """Stands in for a model: 16 means of an image. A batch takes it 3 ms."""

    id = "means-1"
    contract = SimpleNamespace(gsd_mode="metres", reference_size=None)

    def embed(self, images: torch.Tensor, **_: Any) -> torch.Tensor:
        time.sleep(0.003)
        return torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1), 4).flatten(1)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, archive: Path, after: int | None, inside: float | None, notes: Path) -> None:
    """One run; killed when `after` chips are done, or `inside` seconds after a commit has begun."""
    plain = Archive.upsert
    commits = 0

    def watched(self: Archive, rows: Any) -> int:
        nonlocal commits
        commits += 1
        if inside is not None and commits == 2:
            threading.Timer(inside, kill).start()
        new = plain(self, rows)
        notes.write_text(str(self.count()))  # what the store has acknowledged
        return new

    def progress(done: int, total: int) -> None:
        if after is not None and done >= after:
            kill()

    Archive.upsert = watched  # type: ignore[method-assign]
    dataset = open_dataset(folder, sensor="rgb_aerial", gsd=1.0, layout="images")
    embed_archive(Means(), dataset, archive, batch_size=BATCH, workers=0, commit_seconds=0, progress=progress)


def in_child(work: Any) -> int:
    """Run `work` in a fork; the signal that ended it, 0 if it ended well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return 0
    return os.WTERMSIG(status)


def report(archive: Path, undisturbed: Path | None, number: int, notes: Path) -> None:
    found = {"rows": 0, "distinct": 0, "signal": number, "acknowledged": 0}
    if notes.exists():
        found["acknowledged"] = int(notes.read_text() or 0)
    if archive_exists(archive) and any((archive / "chips.lance").glob("_versions/*.manifest")):
        table = Archive.open(archive).rows().sort_by("id")
        found |= {"rows": table.num_rows, "distinct": len(set(table["id"].to_pylist()))}
        if undisturbed is not None:
            found["equal_to_undisturbed"] = table.equals(Archive.open(undisturbed).rows().sort_by("id"))
    print(json.dumps(found), flush=True)


def main(base: Path) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="lancedb fork support")
    folder = make_pictures(base / "pictures", CHIPS)
    archive, undisturbed, notes = base / "archive", base / "undisturbed", base / "acknowledged"
    kills: list[tuple[int | None, float | None]] = [
        (0, None), (4, None), (None, 0.0), (8, None), (None, 0.002), (None, 0.004), (None, 0.008),
        (None, 0.012), (4, None), (None, 0.02), (12, None),
    ]  # fmt: skip
    for after, inside in kills:
        number = in_child(lambda a=after, i=inside: run(folder, archive, a, i, notes))  # type: ignore[misc]
        in_child(lambda n=number: report(archive, None, n, notes))  # type: ignore[misc]
    in_child(lambda: run(folder, undisturbed, None, None, base / "other_notes"))
    number = in_child(lambda: run(folder, archive, None, None, notes))
    in_child(lambda: report(archive, undisturbed, number, notes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
