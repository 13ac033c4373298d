"""How much does an evaluation cost beyond the encoder? And a linear probe on very many features?

Features of RSSCN7's chips by a small ViT at several sides: CPU seconds of the bare encoder on batches in
memory, of reading files and resizing, of the whole kNN sweep with intervals and an empty cache, and of a
second run that finds its features in the cache.

    python benchmarks/evaluation_speed.py --images 2100 --sides 32,64,128
    python benchmarks/evaluation_speed.py --probe 100000x768x20

Needs the folder of real imagery (SWATH_DATA_DIR) for the first. CPU seconds of one process (use
OMP_NUM_THREADS=1), so that a busy machine does not matter much.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from swath.encoders import create_model
from swath.evaluation.data.splits import open_split
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.features.extract import resize_batch
from swath.evaluation.features.model import ModelFeatureExtractor
from swath.evaluation.protocols.frozen import evaluate_knn
from swath.evaluation.protocols.logistic_regression import fit_linear_probe
from swath.evaluation.protocols.penalty_search import fit_with_selected_c
from swath.models import Contract, Model

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SWATH_DATA_DIR", ROOT / "../shared/data")) / "rsscn7" / "index.csv"


def timed(what: str, work: Callable[[], object]) -> float:
    started, clock = time.process_time(), time.perf_counter()
    work()
    spent = time.process_time() - started
    print(f"{what}: {spent:.1f} CPU-s, {time.perf_counter() - clock:.1f} s by the clock", flush=True)
    return spent


def sweep(images: int, image_sizes: list[int], encoder: str) -> None:
    torch.manual_seed(0)
    contract = Contract.of("rgb_aerial", gsd_mode="relative")
    model = Model(create_model(encoder, bands=3), contract, name=encoder)
    split = open_split(DATA, sensor="rgb_aerial", gsd="relative")
    test = min(len(split.test.indices), images // 3)
    split.test = replace(split.test, indices=split.test.indices[:test], groups=None)
    split.train = replace(split.train, indices=split.train.indices[: images - test], groups=None)
    print(f"{len(split.train.indices)} + {test} images, sides {image_sizes}, {encoder}")
    parts = [split.train, split.test]
    batches = [
        part.dataset.get_batch(part.indices[start : start + 64])
        for part in parts
        for start in range(0, len(part.indices), 64)
    ]
    small = [resize_batch(batch, image_size) for batch in batches for image_size in image_sizes]
    del batches
    extractor = ModelFeatureExtractor(model)
    bare = timed("bare encoder", lambda: [extractor(batch) for batch in small])

    def read() -> None:
        for part in parts:
            for start in range(0, len(part.indices), 64):
                batch = part.dataset.get_batch(part.indices[start : start + 64])
                for image_size in image_sizes:
                    resize_batch(batch, image_size)

    reading = timed("reading and resizing", read)
    with tempfile.TemporaryDirectory() as folder:
        first = timed(
            "whole kNN sweep, nothing cached",
            lambda: evaluate_knn([extractor], split, image_sizes=image_sizes, cache=FeatureCache(folder)),
        )
        second = timed(
            "whole kNN sweep, all cached",
            lambda: evaluate_knn([extractor], split, image_sizes=image_sizes, cache=FeatureCache(folder)),
        )
    print(f"first run / (encoder + reading): {first / (bare + reading):.3f}")
    print(f"(first run - reading) / encoder: {(first - reading) / bare:.3f}")
    print(f"second run / encoder: {second / bare:.3f}")


def probe(shape: str) -> None:
    count, dim, classes = (int(number) for number in shape.split("x"))
    torch.manual_seed(0)
    labels = torch.arange(count) % classes
    # Correlated features with a falling spectrum, and classes that overlap.
    mix = torch.randn(dim, dim) * torch.logspace(0, -2, dim)
    x = (0.15 * torch.randn(classes, dim)[labels] + torch.randn(count, dim)) @ mix
    timed("one fit, C = 0.1", lambda: fit_linear_probe(x, labels, classes=classes, c=0.1))
    timed(
        "penalty chosen on validation, then fitted",
        lambda: fit_with_selected_c(x, labels, classes=classes),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2100)
    parser.add_argument("--sides", default="32,64,128")
    parser.add_argument("--encoder", default="vit_tiny_patch16")
    parser.add_argument("--probe", metavar="NxDxK", help="time the linear probe on random features instead")
    arguments = parser.parse_args()
    if arguments.probe:
        probe(arguments.probe)
    else:
        sweep(
            arguments.images,
            [int(image_size) for image_size in arguments.image_sizes.split(",")],
            arguments.encoder,
        )


if __name__ == "__main__":
    main()
