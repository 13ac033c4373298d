"""Detection on real imagery: trees by site, cars by sequence; scratch, frozen, full; 10% and 100% of labels.

    python benchmarks/detection_real.py --model runs/nano/model --data DATA --out runs/boxes
    python benchmarks/detection_real.py --table --out runs/boxes

Every run has the same budget of CPU time, whatever its mode: what it does not spend on the encoder, a frozen
run spends on more steps. DATA holds the folders neon_trees and kit_ais. Runs that are done are not done
again, so that the program can be stopped at any time; 10% of the labels come first, scratch and full before
frozen.

Splits: neon_trees learns from the forests HARV and OSBS and is scored on the savanna SJER, neon_trees_harv
learns from SJER and OSBS and is scored on HARV; kit_ais learns from
one sequence of frames and is scored on the first and the last frame of another street; the third sequence was
for finding the settings. The last weights are taken: with a tenth of the labels (two images of either set)
nobody has a validation split. Frames of a sequence are near-copies: 10% of them show nearly the same cars as
all, and intervals over frames would say nothing, so that none is given.

Trees are seen at half their size, 20 to 40 pixels across as cars are, and both in small windows, as small
models pretrained on small crops of reduced images know the world, and as a CPU can afford.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swath.tasks.finetuning import finetune
from swath.tasks.recipe import FinetuneRecipe, load_finetune_recipe
from swath.training.signals import TrainingInterrupted

RECIPE = Path(__file__).resolve().parent.parent / "configs" / "finetune_detect.yaml"
MODES = {
    "scratch": ["mode=scratch", "layer_decay=1.0"],
    "full": ["mode=full"],
    "frozen": ["mode=frozen", "layer_decay=1.0"],
}
ALL = [
    "data.crop_size=64", "data.foreground_fraction=0.9", "data.val_fraction=0.0",
    "data.invalid_boxes=repair", "keep_weights=last",
    "task.options.tile=64", "task.options.box_batch_size_per_image=32", "task.options.max_proposals=200",
    "training.batch_size=4", "optimizer.lr=2.0e-3", "training.workers=0", "training.tensorboard=false",
    "test_scales=[1.0]",
]  # fmt: skip
TREES = ["data.split_field=site", "data.scale_range=[0.35, 0.5]", "task.options.tile_overlap=24"]
SETS = {
    "kit_ais": [
        "data.train=[images/MOS1*]",
        "data.test=[images/MunichStreet02-MOS74.webp, images/MunichStreet02-MOS93.webp]",
        "task.options.tile_overlap=24",
    ],
    "neon_trees": [*TREES, "data.train=[HARV, OSBS]", "data.test=[SJER]"],
    "neon_trees_harv": [*TREES, "data.train=[SJER, OSBS]", "data.test=[HARV]"],
}  # fmt: skip
FOLDER = {"neon_trees_harv": "neon_trees"}  # where the name of a set is not its folder's
# In metres: described (0.12 to 0.18), or stated by image.
GSD = {"kit_ais": "0.15", "neon_trees": "gsd_m", "neon_trees_harv": "gsd_m"}
# Of the other classes there are two dozen boxes.
MOST = {"kit_ais": "car", "neon_trees": "Tree", "neon_trees_harv": "Tree"}


def recipe_of(
    name: str, mode: str, share: float, seed: int, minutes: float, model: Path, settings: list[str]
) -> FinetuneRecipe:
    relative = json.loads((model / "config.json").read_text())["contract"]["gsd_mode"] == "relative"
    return load_finetune_recipe(
        RECIPE,
        [
            *ALL, *SETS[name], *MODES[mode], f"data.gsd={'relative' if relative else GSD[name]}",
            f"name={name}_{mode}", f"seed={seed}", f"data.label_fraction={share}",
            f"training.cpu_minutes={minutes}", "training.monitor_every=100000", *settings,
        ],
        model=model, task="detect",
    )  # fmt: skip


def row_of(out: Path) -> dict[str, Any]:
    """One finished run. AP50 of a class is the mean of its curve over COCO's 101 recalls."""
    scores = json.loads((out / "report" / "scores.json").read_text())
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    name, mode, share, seed = out.name.rsplit("-", 3)
    most = next(row for row in scores["per_class"] if row["class"] == MOST[name])
    return {
        "set": name, "mode": mode, "labels": float(share), "seed": int(seed), "steps": last["step"],
        "images": scores["protocol"]["images"], "class": MOST[name], "boxes": most["places"],
        "ap": 100 * most["ap"]["value"], "ap50": 100 * float(np.mean(scores["curves"][MOST[name]])),
    }  # fmt: skip


def table(out: Path) -> None:
    """Means over seeds, and what pretraining adds seed by seed."""
    rows = [row_of(path.parent.parent) for path in sorted(out.glob("*/report/scores.json"))]
    groups: dict[tuple[str, float, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        groups[row["set"], row["labels"], row["mode"]][row["seed"]] = row
    for (name, share, mode), runs in groups.items():
        values = [runs[seed]["ap50"] for seed in sorted(runs)]
        scratch = groups.get((name, share, "scratch"), {})
        gains = [runs[seed]["ap50"] - scratch[seed]["ap50"] for seed in sorted(runs) if seed in scratch]
        ap = np.mean([one["ap"] for one in runs.values()])
        print(
            f"{name:<11} {share:>5.0%} {mode:<8} {MOST[name]} AP50 {np.mean(values):5.1f} "
            f"({', '.join(f'{v:.1f}' for v in values)}), AP {ap:4.1f}, "
            f"steps {min(r['steps'] for r in runs.values())}+, "
            f"over scratch {', '.join(f'{g:+.1f}' for g in gains) if mode != 'scratch' else '-'}"
        )
    (out / "detection_real.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def plan(arguments: argparse.Namespace) -> Iterator[tuple[str, str, float, int]]:
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for share in map(float, arguments.shares.split(",")):
            for name in arguments.sets.split(","):
                for mode in arguments.modes.split(","):
                    yield name, mode, share, seed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="directory of a model of RGB imagery")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=0.75, help="CPU minutes of training a run")
    parser.add_argument("--sets", default="kit_ais,neon_trees,neon_trees_harv")
    parser.add_argument("--modes", default="scratch,full,frozen")
    parser.add_argument("--shares", default="0.1,1.0")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="another setting of the recipe")
    parser.add_argument("--table", action="store_true", help="only say what is done")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.table:
        for name, mode, share, seed in plan(arguments):
            out = arguments.out / f"{name}-{mode}-{share:g}-{seed}"
            if (out / "report" / "scores.json").is_file():
                continue
            recipe = recipe_of(name, mode, share, seed, arguments.minutes, arguments.model, arguments.set)
            try:
                finetune(recipe, arguments.data / FOLDER.get(name, name) / "annotations.json", out)
            except TrainingInterrupted:
                return
            row = row_of(out)
            print(f"{out.name}: AP50 {row['ap50']:.1f}, AP {row['ap']:.1f}, {row['steps']} steps", flush=True)
    table(arguments.out)


if __name__ == "__main__":
    main()
