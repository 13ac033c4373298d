"""`embed_archive` against the bare forward pass of its encoder on images that lie in memory.

The benchmark writes its own PNG chips (seeded), then takes turns: a whole embedding run (reading, decoding,
screening, encoding, committing to a fresh archive), and the model's `embed` alone on the same images, already
decoded. Each round gives one ratio of images per second; the median is reported. Target: at least 0.95.

Where encoder and decoding share the CPUs, decoding cannot be free: the ratio then depends on how heavy the
encoder is, and `--model` says which. The ratio of images per CPU-second (loader workers included) is reported
too: it is the steadier one on a machine that does other things, and the lower bound of what overlap can give.

    python benchmarks/embedding.py [--model vit_small_patch16] [--images 192] [--size 224] [--rounds 5]
        [--device cpu] [--json OUT.json]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from swath.archive.archive import Archive
from swath.archive.ingest.run import embed_archive
from swath.datasets.opening import open_dataset
from swath.encoders import create_model
from swath.models import Contract, Model
from swath.sensors.registry import get_sensor


def make_images(folder: Path, count: int, size: int) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = np.clip(smooth + random.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:05d}.webp", quality=90)


def cpu_seconds() -> float:
    """Of this process and the loader workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16")
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = Model(
        create_model(options.model, bands=3),
        Contract(sensors={"rgb_aerial": get_sensor("rgb_aerial")}),
        name=options.model,
    ).to(options.device)

    embedding: list[float] = []
    bare: list[float] = []
    cpu_ratios: list[float] = []
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "images"
        folder.mkdir()
        make_images(folder, options.images, options.size)
        dataset = open_dataset(folder, sensor="rgb_aerial", gsd=1.0, layout="images")
        images = torch.stack([dataset[index]["image"] for index in range(options.images)])
        valid = torch.ones(len(images), options.size, options.size, dtype=torch.bool)
        Archive.create(Path(base) / "imports", "none", 1)  # LanceDB is imported now, not in the first round
        model.embed(images[: options.batch_size], gsd=1.0)
        for number in range(options.rounds):
            started, cpu = time.perf_counter(), cpu_seconds()
            report = embed_archive(
                model,
                dataset,
                Path(base) / f"archive_{number}",
                batch_size=options.batch_size,
                workers=options.workers,
            )
            embedding.append(options.images / (time.perf_counter() - started))
            embedding_cpu = cpu_seconds() - cpu
            assert report.embedded == options.images
            started, cpu = time.perf_counter(), cpu_seconds()
            model.embed(images, gsd=1.0, valid=valid, batch_size=options.batch_size)
            bare.append(options.images / (time.perf_counter() - started))
            cpu_ratios.append((cpu_seconds() - cpu) / embedding_cpu)
    found = {
        "model": options.model,
        "device": options.device,
        "images": options.images,
        "size": options.size,
        "embed_archive_images_per_s": round(statistics.median(embedding), 2),
        "bare_forward_images_per_s": round(statistics.median(bare), 2),
        "ratio": round(statistics.median(a / b for a, b in zip(embedding, bare, strict=True)), 3),
        "ratio_of_images_per_cpu_second": round(statistics.median(cpu_ratios), 3),
        "ratios": [round(a / b, 3) for a, b in zip(embedding, bare, strict=True)],
    }
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
