"""How many of the overlaps known in RSSCN7 the search for leaks finds when a random split parts them.

    python benchmarks/leaks_rsscn7.py DATA/rsscn7 [--seeds 0,1,2]

The data set's `overlap_pairs.csv` lists pairs of images that show the same ground (15% or more at one scale,
or one place at two neighboring scales); it is not complete, so pairs found beyond it are printed to be
looked at.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from swath.datasets.csv_table import CsvManifest
from swath.evaluation.audit.leakage import LeakageReport, find_leaks
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.baselines import RandomConvolutionalFeatures
from swath.evaluation.features.extract import extract_features


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--show", type=int, default=0, help="print this many pairs beyond the list")
    given = parser.parse_args()
    torch.set_num_threads(1)
    dataset = CsvManifest(given.data / "index.csv", "rgb_aerial")
    groups = np.array(dataset.columns["overlap_group"])
    with (given.data / "overlap_pairs.csv").open(newline="") as file:
        known = {frozenset((row["file_a"], row["file_b"])): row["kind"] for row in csv.DictReader(file)}
    for seed in map(int, given.seeds.split(",")):
        order = np.random.default_rng(seed).permutation(len(dataset))
        count = len(dataset) // 5
        split = TrainTestSplit(
            EvalSubset(dataset, np.sort(order[count:]), "train"),
            EvalSubset(dataset, np.sort(order[:count]), "test"),
            "random",
        )
        rcf = RandomConvolutionalFeatures()
        rcf.fit(split.train, 64)
        features = tuple(
            extract_features([rcf], part, [64]).features[rcf.name, 64] for part in (split.train, split.test)
        )
        began = time.process_time()
        found = find_leaks(split, features=features)  # type: ignore[arg-type]
        seconds = time.process_time() - began
        report(seed, split, found, known, groups, given.data, seconds)
        beyond = [leak for leak in found.leaks if pair(leak.query, leak.partner, given.data) not in known]
        for leak in beyond[: given.show]:
            print("   ", Path(leak.query).name, Path(leak.partner).name, leak.reason, leak.detail)


def pair(first: str, second: str, root: Path) -> frozenset[str]:
    return frozenset(str(Path(path).relative_to(root)) for path in (first, second))


def report(
    seed: int,
    split: TrainTestSplit,
    found: LeakageReport,
    known: dict[frozenset[str], str],
    groups: np.ndarray,
    root: Path,
    seconds: float,
) -> None:
    asked = {str(Path(path).relative_to(root)) for path in split.test.paths}
    parted = {one: kind for one, kind in known.items() if len(one & asked) == 1}
    pairs = {pair(leak.query, leak.partner, root): leak for leak in found.leaks}
    hit = Counter(kind for one, kind in parted.items() if one in pairs)
    every = Counter(parted.values())
    both = (set(groups[split.train.indices]) & set(groups[split.test.indices])) - {""}
    position = {str(Path(p).relative_to(root)): i for i, p in enumerate(split.train.dataset.paths)}
    seen = set()
    for one in pairs:
        names = {groups[position[file]] for file in one}
        if len(names) == 1:
            seen |= names
    print(
        f"seed {seed}: pairs parted and found "
        + ", ".join(f"{kind} {hit[kind]}/{every[kind]}" for kind in sorted(every))
        + f"; groups {len(seen & both)}/{len(both)}; pairs beyond the list "
        f"{sum(one not in known for one in pairs)}; unverified close features {found.unverified}; "
        f"{seconds:.0f} CPU s"
    )
    print("   ", found.sentence)
    print("    reasons:", dict(Counter(leak.reason for leak in found.leaks)))


if __name__ == "__main__":
    main()
