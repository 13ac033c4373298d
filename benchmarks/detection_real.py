"""Detection on real imagery: trees by site, cars by sequence; scratch, frozen, full; 10% and 100% of labels.

    python benchmarks/detection_real.py --models runs/a/model,runs/b/model --data DATA --out runs/boxes

Every run has the same budget of CPU time, whatever its mode. DATA holds the folders neon_trees and kit_ais.
Runs that are done are not done again; the table is of all that are done.

Folds: neon_trees learns from the forests HARV and OSBS (a fifth of the images chooses the weights) and is
scored on the savanna SJER; kit_ais learns from one sequence of frames, is watched on four frames of the
second, and scored on the third. Frames of a sequence are near-copies: intervals over images are too narrow.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from swath.tasks.finetune import finetune
from swath.tasks.recipe import load_finetune_recipe
from swath.training.stopping import Interrupted

RECIPE = Path(__file__).resolve().parent.parent / "configs" / "finetune_detect.yaml"
MODES = {
    "scratch": ["mode=scratch", "layer_decay=1.0"],
    "frozen": ["mode=frozen", "layer_decay=1.0"],
    "full": ["mode=full"],
}
SETS = {
    "kit_ais": [
        "data.train=[images/MOS1*]",
        "data.val=[images/MOS74*, images/MOS80*, images/MOS86*, images/MOS92*]",
        "data.test=[images/MunichStreet02*]",
        "data.gsd=0.15",  # its description says 0.12 to 0.18 m
        "task.options.anchor_scale=6",  # cars are 20 to 35 pixels long
    ],
    "neon_trees": [
        "data.fold=site", "data.train=[HARV, OSBS]", "data.test=[SJER]", "data.val_share=0.2",
        "data.gsd=gsd_m", "task.options.anchor_scale=8",
    ],
}  # fmt: skip


def run(
    name: str, model: Path, mode: str, share: float, seed: int, minutes: float, data: Path, out: Path
) -> dict[str, Any]:
    """One run (unless it is done), and its row."""
    if not (out / "report" / "scores.json").is_file():
        relative = json.loads((model / "config.json").read_text())["contract"]["gsd_mode"] == "relative"
        recipe = load_finetune_recipe(
            RECIPE,
            [
                *SETS[name], *MODES[mode], *(["data.gsd=relative"] if relative else []), f"seed={seed}",
                f"name={name}_{mode}", f"data.labels_share={share}", f"training.cpu_minutes={minutes}",
                "training.workers=0", "training.tensorboard=false", "training.monitor_every=60",
                "data.boxes=repair",
            ],
            model=model, task="detect",
        )  # fmt: skip
        finetune(recipe, data / name / "annotations.json", out)
    scores = json.loads((out / "report" / "scores.json").read_text())
    steps = int((out / "metrics.jsonl").read_text().splitlines()[-1].split('"step": ')[1].split(",")[0])
    most = max(scores["per_class"], key=lambda row: row["places"])
    return {
        "set": name, "model": model.parent.name, "mode": mode, "labels": share, "seed": seed, "steps": steps,
        "figures": scores["figures"], "class": most["class"], "class_ap": most["ap"],
        "scales": {share: figures["ap50"]["value"] for share, figures in scores["scales"].items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", required=True, help="directories of models of RGB imagery, by comma")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1.5, help="CPU minutes of training a run")
    parser.add_argument("--sets", default="kit_ais,neon_trees")
    parser.add_argument("--modes", default="scratch,frozen,full")
    parser.add_argument("--shares", default="0.1,1.0")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    rows: list[dict[str, Any]] = []
    arguments.out.mkdir(parents=True, exist_ok=True)
    for model in map(Path, arguments.models.split(",")):
        for share in map(float, arguments.shares.split(",")):
            for name in arguments.sets.split(","):
                for mode in arguments.modes.split(","):
                    for seed in range(arguments.seeds):
                        out = arguments.out / f"{name}_{model.parent.name}_{mode}_{share:g}_{seed}"
                        try:
                            row = run(name, model, mode, share, seed, arguments.minutes, arguments.data, out)
                        except Interrupted:
                            return
                        rows.append(row)
                        f = {k: {n: 100 * v for n, v in one.items()} for k, one in row["figures"].items()}
                        print(
                            f"{name:<11} {row['model']:<16} {mode:<8} {share:>5.0%} of the labels, "
                            f"seed {seed}, {row['steps']} steps: AP {f['ap']['value']:.1f}, "
                            f"AP50 {f['ap50']['value']:.1f} "
                            f"({f['ap50']['low']:.1f} to {f['ap50']['high']:.1f}), {row['class']} AP "
                            f"{100 * row['class_ap']['value']:.1f}",
                            flush=True,
                        )
    text = json.dumps(rows, indent=2) + "\n"
    (arguments.out / "detection_real.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
