"""Search by several examples, and whether the scale of answers is biased: on labeled images in an archive.

What is asked: a user shows a few images of one class (drawn at random), sees the first 20 answers of their
mean, marks some of the wrong ones ("less like those"), and asks again. Each way of combining the examples
(`swath.archive.query.relevance_feedback`) ranks all other images; images that show the same ground as an
example are left out. Scores: precision of the first 20, and average precision; paired differences to Rocchio
with 95 % bootstrap intervals over trials.

Scale: of the first 10 answers to every image, the share with the query's own scale, against its share among
all images, for all answers and for those of the query's class.

    swath embed MODEL rsscn7 --gsd index.csv ... --to ARCHIVE     # labels in it
    python benchmarks/search_by_examples.py ARCHIVE --csv rsscn7/index.csv
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from swath.archive.archive import Archive
from swath.archive.index.vectors import normalize_rows, vectors_of
from swath.archive.query.relevance_feedback import METHODS, query_vector

FIRST = 20
SETTINGS = ((1, 0), (3, 0), (5, 0), (1, 3), (3, 3), (5, 5))  # examples liked, and wrong answers marked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("archive")
    parser.add_argument("--csv", type=Path, required=True, help="columns file, class, scale, overlap_group")
    parser.add_argument("--trials", type=int, default=10, help="of each class and setting")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    vectors, labels, scales, groups = read(options.archive, options.csv)
    found: dict[str, Any] = {"images": len(vectors), "dimensions": vectors.shape[1]}
    found["examples"] = {
        f"{liked} liked, {marked} marked": compare(vectors, labels, groups, liked, marked, options.trials)
        for liked, marked in SETTINGS
    }
    found["scale"] = scale_bias(vectors, labels, scales, groups)
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def read(archive: str, table: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vectors at length 1, class, scale and overlap group of every image of the archive."""
    rows = Archive.open(archive).rows(["source", "embedding"])
    with table.open(encoding="utf-8") as file:
        known = {row["file"]: row for row in csv.DictReader(file)}
    entries = [known["/".join(Path(source).parts[-2:])] for source in rows["source"].to_pylist()]
    vectors = np.array(vectors_of(rows, Archive.open(archive).dimensions))
    normalize_rows(vectors)
    columns = (np.array([entry[name] for entry in entries]) for name in ("class", "scale", "overlap_group"))
    return vectors, *columns


def compare(
    vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray, liked: int, marked: int, trials: int
) -> dict[str, Any]:
    """Scores of each method over trials of every class."""
    random = np.random.default_rng((liked, marked))
    precision: dict[str, list[float]] = {method: [] for method in METHODS}
    average: dict[str, list[float]] = {method: [] for method in METHODS}
    for label in np.unique(labels):
        for _ in range(trials):
            like = random.choice(np.flatnonzero(labels == label), liked, replace=False)
            other = ~same_ground(groups, like)
            first = ranking(vectors, query_vector(vectors[like], vectors[:0], None, "rocchio"), other)[:FIRST]
            unlike = first[labels[first] != label][:marked]
            if len(unlike) < marked:
                continue  # nothing wrong to mark
            rest = other & ~same_ground(groups, unlike)
            sample = vectors[random.choice(len(vectors), min(1024, len(vectors)), replace=False)]
            for method in METHODS:
                ranked = ranking(vectors, query_vector(vectors[like], vectors[unlike], sample, method), rest)
                hits = labels[ranked] == label
                precision[method].append(float(hits[:FIRST].mean()))
                average[method].append(float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()))
    scores: dict[str, Any] = {"trials": len(precision[METHODS[0]])}
    for method in METHODS:
        scores[method] = {
            "precision_at_20": round(float(np.mean(precision[method])), 3),
            "average_precision": round(float(np.mean(average[method])), 3),
            "over_rocchio_p20": interval(np.subtract(precision[method], precision["rocchio"])),
            "over_rocchio_ap": interval(np.subtract(average[method], average["rocchio"])),
        }
    return scores


def scale_bias(
    vectors: np.ndarray, labels: np.ndarray, scales: np.ndarray, groups: np.ndarray
) -> dict[str, Any]:
    """Share of the first ten answers at the query's own scale, with what chance gives, by scale."""
    likeness = vectors @ vectors.T
    found: dict[str, Any] = {}
    for scale in np.unique(scales):
        shares: dict[str, list[float]] = {"all": [], "of the class": []}
        chance = float((scales == scale).mean())
        for query in np.flatnonzero(scales == scale):
            other = groups != groups[query]
            other[query] = False
            for name, allowed in (("all", other), ("of the class", other & (labels == labels[query]))):
                rows = np.flatnonzero(allowed)
                best = rows[np.argsort(-likeness[query, rows], kind="stable")[:10]]
                shares[name].append(float((scales[best] == scale).mean()))
        found[str(scale)] = {"chance": round(chance, 3)} | {
            name: interval(np.array(values)) for name, values in shares.items()
        }
    return found


def same_ground(groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[N] which images share an overlap group with some; every image without one is its own."""
    same = np.isin(groups, [group for group in groups[rows] if group])
    same[rows] = True
    return same


def ranking(vectors: np.ndarray, requested: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(allowed)
    return rows[np.argsort(-(vectors[rows] @ requested), kind="stable")]


def interval(values: np.ndarray) -> list[float]:
    """Mean, and the ends of its 95 % bootstrap interval."""
    random = np.random.default_rng(0)
    drawn: Callable[[], float] = lambda: float(np.mean(random.choice(values, len(values))))  # noqa: E731
    means = [drawn() for _ in range(1000)]
    return [round(float(part), 3) for part in (np.mean(values), *np.percentile(means, [2.5, 97.5]))]


if __name__ == "__main__":
    main()
