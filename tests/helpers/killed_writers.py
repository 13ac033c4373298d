"""Writers that are killed at random moments (see test_killed_writers.py): one line of JSON a round.

A parent imports everything once and forks a child a round; it opens no archive itself, because LanceDB's
threads would not survive the fork. Every round a child says what it is about to do, does it, and says that it
was done; SIGKILL comes after a random time. Then another child looks: the archive must hold exactly what was
acknowledged, and of the last change all or nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb  # noqa: F401 -- slow to import

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.archive_rows import make_rows
from swath.archive.archive import Archive
from swath.archive.table.sensor_means import sum_by_sensor

PIECE = 40


def ids_of(first: int, count: int) -> list[str]:
    return make_rows(count, first=first)["id"].to_pylist()


def change(archive: Archive, kind: str, number: int) -> None:
    """The change of this number; rows of each number have ids of their own."""
    first = number * 1000
    if kind == "append":
        archive.append(iter([make_rows(PIECE, first=first), make_rows(PIECE, first=first + PIECE)]))
    elif kind == "upsert":
        archive.upsert(make_rows(2 * PIECE, first=first))
    elif kind == "replace":  # half of the rows are there, and get another label
        archive.upsert(make_rows(2 * PIECE, first=first, label=["new"] * 2 * PIECE))
    elif kind == "delete":
        archive.delete(ids_of(first, 2 * PIECE))
    elif kind == "compact":
        archive.compact(keep=timedelta(0))


def writer(path: Path, journal: Path, seed: int) -> None:
    """Changes one after the other until killed; each is noted before and after."""
    archive = Archive.open(path)
    chosen = random.Random(seed)
    notes = [json.loads(line) for line in journal.read_text().splitlines()]
    number = 1 + max((note["number"] for note in notes), default=0)
    held = {note["number"] for note in notes if note["kind"] in ("append", "upsert") and note["done"]}
    held -= {note["target"] for note in notes if note["kind"] == "delete"}
    with journal.open("a", buffering=1) as out:
        while True:
            kind = chosen.choice(["append", "append", "upsert", "replace", "delete", "compact"])
            target = chosen.choice(sorted(held)) if kind in ("replace", "delete") and held else number
            if kind in ("replace", "delete") and not held:
                kind = "append"
            note: dict[str, Any] = {"number": number, "kind": kind, "target": target, "done": False}
            out.write(json.dumps(note) + "\n")
            change(archive, kind, target)
            out.write(json.dumps(note | {"done": True}) + "\n")
            held = held | {target} if kind in ("append", "upsert") else held
            held -= {target} if kind == "delete" else set()
            number += 1


def expected(journal: Path) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """(id -> label) by what was acknowledged, and with the last change, should it have come through."""
    state: dict[str, str | None] = {}
    notes = [json.loads(line) for line in journal.read_text().splitlines()]
    settled = {note["number"] for note in notes if note["done"]}

    def apply(note: dict[str, Any]) -> None:
        names = ids_of(note["target"] * 1000, 2 * PIECE)
        if note["kind"] == "delete":
            for name in names:
                state.pop(name, None)
        elif note["kind"] != "compact":
            state.update(dict.fromkeys(names, "new" if note["kind"] == "replace" else None))

    last = None
    for note in notes:
        if note["done"]:
            apply(note)
        elif note["number"] not in settled:
            last = note
    before = dict(state)
    if last is not None:
        apply(last)
    return before, state


def look(path: Path, journal: Path, round_number: int) -> None:
    archive = Archive.open(path)
    rows = archive.rows(["id", "label", "sensor", "embedding"])
    found = dict(zip(rows["id"].to_pylist(), rows["label"].to_pylist(), strict=True))
    before, after = expected(journal)
    means, scanned = archive.sensor_means(), sum_by_sensor([rows], archive.dimensions)
    notes = [json.loads(line) for line in journal.read_text().splitlines()]
    unfinished = notes[-1]["kind"] if notes and not notes[-1]["done"] else None
    print(
        json.dumps(
            {
                "round": round_number,
                "rows": rows.num_rows,
                "distinct": len(found),
                "as_acknowledged": found == before,
                "with_the_last": found == after,
                "means": {name: part.count for name, part in means.items()}
                == {name: part.count for name, part in scanned.items()}
                and all(abs(means[n].total - scanned[n].total).max() < 1e-6 for n in scanned),
                "killed_in": unfinished,
                "done": [note["kind"] for note in notes if note["done"]],
            }
        ),
        flush=True,
    )
    # What is found is from now on what is acknowledged.
    if notes and not notes[-1]["done"] and found == after:
        with journal.open("a") as out:
            out.write(json.dumps(notes[-1] | {"done": True}) + "\n")
    elif notes and not notes[-1]["done"]:
        kept = [note for note in notes if note["number"] != notes[-1]["number"]]
        journal.write_text("".join(json.dumps(note) + "\n" for note in kept))


def in_child(work: Callable[[], None], seconds: float | None = None) -> None:
    """Run `work` in a fork; killed after `seconds`, else it must end well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if seconds is None:
        assert status == 0, status
    else:
        assert os.WIFSIGNALED(status), status
        assert os.WTERMSIG(status) == signal.SIGKILL


def main(base: Path, rounds: int) -> None:
    warnings.filterwarnings("ignore", message="lancedb fork support")
    path, journal = base / "archive", base / "journal"
    journal.touch()

    def begin() -> None:
        Archive.create(path, "micro-1", 8)

    in_child(begin)
    times = random.Random(0)
    for number in range(rounds):
        in_child(lambda n=number: writer(path, journal, n), times.uniform(0.1, 0.8))  # type: ignore[misc]
        in_child(lambda n=number: look(path, journal, n))  # type: ignore[misc]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
