"""What `swath predict` costs: memory on a large scene, and throughput beside the bare network.

    python benchmarks/prediction.py memory --side 10000        # a scene of side x side x 4, a tiny network
    python benchmarks/prediction.py speed --encoder resnet50   # the same tiles: from memory, and by predict

`memory` predicts in a process of its own and prints the most memory that it ever held. `speed` times the
network alone on normalized tiles that are in memory (nothing is read, nothing blended or written), then
`predict_scenes` on the file, in turns; both in wall seconds and in CPU seconds, which a busy machine does not
distort.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def write_scene(path: Path, side: int, bands: int) -> None:
    """Noise on regions, uint8, tiled, written strip by strip."""
    import rasterio
    from rasterio.transform import from_origin

    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": bands, "dtype": "uint8", "tiled": True,
        "blockxsize": 512, "blockysize": 512, "compress": "deflate", "interleave": "pixel",
        "photometric": "minisblack", "alpha": "no",
        "crs": "EPSG:32633", "transform": from_origin(500000, 5200000, 0.6, 0.6),
    }  # fmt: skip
    generator = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile) as file:
        for top in range(0, side, 512):
            rows = min(512, side - top)
            coarse = generator.integers(20, 200, (bands, rows // 64 + 1, side // 64 + 1))
            strip = np.repeat(np.repeat(coarse, 64, 1), 64, 2)[:, :rows, :side]
            strip = (strip + generator.integers(0, 32, strip.shape)).astype(np.uint8)
            file.write(strip, window=((top, top + rows), (0, side)))


def model(encoder: str, sensor: str, head: str, **options: Any) -> Any:
    """An untrained segmentation model."""
    import torch

    from swath.encoders import create_model
    from swath.models.contract import Contract
    from swath.tasks.dense.task import SegmentationConfig
    from swath.tasks.model import TaskModel, build_task

    torch.manual_seed(0)
    contract = Contract.of(sensor)
    config = SegmentationConfig(classes=("a", "b", "c", "d"), head=head, head_width=128)
    network = create_model(encoder, bands=len(contract.sensor().bands), **options)
    task = build_task("segment", network, config, contract)
    return TaskModel(task, contract, kind="segment", name=encoder)


def memory(args: argparse.Namespace) -> None:
    """Predict in a fresh process, and say what it held at most."""
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        write_scene(scene, args.side, 4)
        command = [
            sys.executable,
            __file__,
            "one",
            "--scene",
            str(scene),
            "--batch-size",
            str(args.batch_size),
        ]
        print(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout, end="")


def one(args: argparse.Namespace) -> None:
    """The process that `memory` looks at."""
    from swath.prediction import PredictionOptions, predict_scenes
    from swath.prediction.tile_loop import RuntimeOptions

    tiny = model("vit", "naip", "linear", patch_size=16, embed_dim=32, depth=2, heads=2)
    before, started = peak(), time.monotonic()
    out = Path(args.scene).parent / "out"
    options = PredictionOptions(tile=256, probabilities=True)
    report = predict_scenes(
        tiny, args.scene, out, options, runtime=RuntimeOptions(batch_size=args.batch_size)
    )
    if report.failures:
        raise SystemExit(f"failed: {report.failures}")
    record = report.scenes[0]
    said = {
        "pixels": record.pixels, "tiles": record.tiles, "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time(), 1), "peak_mb": round(peak()),
        "peak_mb_before": round(before),
    }  # fmt: skip
    print(json.dumps(said))


def peak() -> float:
    """Most resident memory of this process so far, in MB (10^6 bytes; Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def speed(args: argparse.Namespace) -> None:
    """The bare network and the whole of predict on the same tiles, in turns."""
    import torch

    from swath.prediction import PredictionOptions, predict_scenes
    from swath.prediction.scene_view import open_model_view
    from swath.prediction.tile_loop import RuntimeOptions, boxes_of
    from swath.rasters.read import read_header
    from swath.tasks.protocol import normalize_task_batch
    from swath.tiling.grid import TileGrid

    task_model = model(args.encoder, "naip", "upernet").to(args.device)
    pace = RuntimeOptions(batch_size=args.batch_size, workers=args.workers)
    synchronize = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        scene = Path(folder) / "scene.tif"
        write_scene(scene, args.side, 4)
        options = PredictionOptions(tile=args.tile).resolved(task_model)
        contract = task_model.contract
        look = open_model_view([read_header(scene)], contract.sensor(), contract, options)
        grid = TileGrid.of(look.height, look.width, args.tile, options.overlap or 0)
        batches = []
        for window in grid.windows(pace.tiles(look, grid)):
            images, valid, gsd = (torch.from_numpy(x) for x in look.read(boxes_of(grid, window)))
            batch: Any = {"image": images, "valid": valid, "gsd": gsd, "sensor": contract.sensor().name}
            batches.append(
                normalize_task_batch(
                    contract, {k: v.to(args.device) if k != "sensor" else v for k, v in batch.items()}
                )
            )  # type: ignore[attr-defined, arg-type]
        rows = []
        for turn in range(args.turns + 1):
            wall, cpu = time.monotonic(), time.process_time()
            for batch in batches:
                task_model.task.predict(batch)
            synchronize()
            bare = (time.monotonic() - wall, time.process_time() - cpu)
            wall, cpu = time.monotonic(), time.process_time()
            predict_scenes(task_model, scene, Path(folder) / str(turn), options, runtime=pace)
            whole = (time.monotonic() - wall, time.process_time() - cpu)
            if turn:  # the first turn warms up
                rows.append((*bare, *whole))
        bare_wall, bare_cpu, wall, cpu = np.median(np.array(rows), axis=0)
        said = {
            "encoder": args.encoder, "tiles": len(grid), "tile": args.tile, "batch": args.batch_size,
            "bare_tiles_per_second": round(len(grid) / bare_wall, 3),
            "predict_tiles_per_second": round(len(grid) / wall, 3),
            "ratio_wall": round(bare_wall / wall, 3), "ratio_cpu": round(bare_cpu / cpu, 3),
            "bare_cpu_seconds": round(bare_cpu, 2), "predict_cpu_seconds": round(cpu, 2), "turns": len(rows),
        }  # fmt: skip
        print(json.dumps(said))


def main() -> None:
    """Read arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    for run, side in ((memory, 10000), (one, 0), (speed, 1024)):
        verb = verbs.add_parser(run.__name__)
        verb.set_defaults(run=run)
        verb.add_argument("--side", type=int, default=side)
        verb.add_argument("--batch-size", type=int, default=8)
        verb.add_argument("--scene")
        verb.add_argument("--encoder", default="vit_small_patch16")
        verb.add_argument("--tile", type=int, default=256)
        verb.add_argument("--turns", type=int, default=2)
        verb.add_argument("--workers", type=int, default=2)
        verb.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
