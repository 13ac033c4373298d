"""Classification, segmentation and change on real imagery: scratch, frozen and full, 10% and 100% of labels.

    python benchmarks/tasks_real.py --model runs/nano/model --data DATA --out runs/tasks --minutes 0.5
    python benchmarks/tasks_real.py --table runs/tasks

Every run has the same budget of CPU time, whatever its mode: what it does not spend on the encoder, a frozen
run spends on more steps. DATA holds the folders rsscn7, epfl_roads and sztaki; oscd is of another sensor and
wants a model of its own (--oscd-model). Runs that are done are not done again, and each is written down when
it is done, so that the program can be stopped at any time; all of the first seed come first.

Splits: rsscn7 by its own (overlapping ground is on one side), a tenth of the training images chooses the
weights; epfl_roads by blocks of image numbers; sztaki by pairs, of which --sztaki-out is left out; oscd by
city. The weights are chosen on the validation split, the figures are of the test split. Of sztaki (4 training
pairs) and oscd (4 training cities) a share of the labels is one of tiles, evenly over pairs and cities.

Images are seen at half their size (rsscn7: a quarter) where the model counts scale relative to native pixels:
models pretrained on small crops of reduced images know that scale, and time goes four times as far.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from swath.files import write_json
from swath.tasks.finetuning import finetune
from swath.tasks.recipe import FinetuneRecipe, load_finetune_recipe
from swath.training.signals import TrainingInterrupted

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
MODES = {
    "scratch": ["mode=scratch", "layer_decay=1.0"],
    "frozen": ["mode=frozen", "layer_decay=1.0", "optimizer.lr=3.0e-3"],
    "lora": ["mode=lora", "layer_decay=1.0"],
    "full": ["mode=full"],
}
DENSE = ["data.crop_size=64", "training.batch_size=8"]
HALF = ["data.scale_range=[0.4, 0.6]"]


def sets(oscd_model: Path | None, sztaki_out: int) -> dict[str, tuple[str, str, list[str]]]:
    """Folder -> (task, recipe, overrides)."""
    found = {
        "rsscn7": (
            "classify",
            "finetune_classify.yaml",
            [
                "data.test=val",
                "data.val_fraction=0.1",
                "data.crop_size=64",
                "data.resize_mode=resize",
                "training.batch_size=16",
            ],
        ),
        "epfl_roads": (
            "segment",
            "finetune_segment.yaml",
            [
                *DENSE,
                *HALF,
                "data.classes={background: 0, road: 255}",
                "data.val=[images/satImage_00*]",
                "data.test=[images/satImage_07*, images/satImage_08*, images/satImage_09*, "
                "images/satImage_1*]",
            ],
        ),
        "sztaki": (
            "change",
            "finetune_change.yaml",
            [
                *DENSE,
                *HALF,
                "data.tile=160",
                "data.classes={unchanged: 0, changed: 255}",
                f"data.test=[Szada_{sztaki_out}/*, Szada_{sztaki_out % 7 + 1}/*]",
                f"data.val=[Szada_{(sztaki_out + 1) % 7 + 1}/*]",
            ],
        ),
    }
    if oscd_model is not None:
        found["oscd"] = (
            "change",
            "finetune_change.yaml",
            [
                *DENSE,
                "data.tile=96",
                "data.offset_dn=0",
                "data.test=[nantes/*, rennes/*, bordeaux/*]",
                "data.val=[hongkong/*]",
            ],
        )
    return found


def recipe_of(
    name: str,
    plan: tuple[str, str, list[str]],
    mode: str,
    share: float,
    seed: int,
    minutes: float,
    model: Path,
    settings: list[str],
) -> FinetuneRecipe:
    """The recipe of one run. GSDs that nothing states are those of the data's descriptions."""
    task, file, overrides = plan
    gsd = {"epfl_roads": 0.5, "sztaki": 1.5}.get(name)
    relative = json.loads((model / "config.json").read_text())["contract"]["gsd_mode"] == "relative"
    scale = ["data.gsd=relative"] if relative else [f"data.gsd={gsd}"] if gsd else []
    return load_finetune_recipe(
        CONFIGS / file,
        [
            *overrides, *MODES[mode], *scale, f"name={name}_{mode}", f"seed={seed}",
            f"data.label_fraction={share}", f"training.cpu_minutes={minutes}", "training.workers=0",
            "training.tensorboard=false", "training.monitor_every=25", *settings,
        ],
        model=model, task=task,
    )  # fmt: skip


def planned(arguments: argparse.Namespace) -> Iterator[tuple[int, float, str, str]]:
    """(seed, share of the labels, set, mode) of every run, the ones that matter most first."""
    shares = [float(share) for share in arguments.shares.split(",")]
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for share in shares:
            for name in arguments.sets.split(","):
                for mode in arguments.modes.split(","):
                    yield seed, share, name, mode


def scores_of(run: Path) -> dict[str, Any] | None:
    """What a run that is done has found, on one line's worth of fields."""
    try:
        scores = json.loads((run / "report" / "scores.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    name, mode, share, seed = run.name.rsplit("-", 3)
    figure = scores["figures"][scores["main"]]
    best = run / "best" / "best.json"
    chosen = json.loads(best.read_text()) if best.is_file() else {}
    return {
        "set": name, "mode": mode, "labels": float(share), "seed": int(seed), "figure": scores["main"],
        **figure, "samples": scores["protocol"]["images"]["train"], "validation": chosen.get("score"),
        "best_step": chosen.get("step"),
    }  # fmt: skip


def told(row: dict[str, Any]) -> str:
    """A line for people."""
    return (
        f"{row['set']:<11} {row['mode']:<8} {row['labels']:>5.0%} of the labels, seed {row['seed']}: "
        f"{row['figure']} {100 * row['value']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
    )


def table(out: Path) -> None:
    """The runs that are done, as a table of means over seeds; and as tasks_real.json."""
    rows = [row for path in sorted(out.iterdir()) if path.is_dir() and (row := scores_of(path))]
    write_json(out / "tasks_real.json", rows)
    keys = dict.fromkeys((row["set"], row["figure"], row["labels"]) for row in rows)
    modes = [mode for mode in MODES if any(row["mode"] == mode for row in rows)]
    print(f"| data | figure | labels | {' | '.join(modes)} |\n|---|---|---|{'---|' * len(modes)}")
    for name, figure, share in keys:
        cells = []
        for mode in modes:
            of = [row for row in rows if (row["set"], row["labels"], row["mode"]) == (name, share, mode)]
            values = torch.tensor([100 * row["value"] for row in of])
            spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.1f}{spread} ({len(values)})" if len(values) else "")
        print(f"| {name} | {figure} | {share:.0%} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model of RGB imagery")
    parser.add_argument("--oscd-model", type=Path, help="a model of sentinel2_l1c")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print the table of the runs in this folder, and stop")
    parser.add_argument("--minutes", type=float, default=3.0, help="CPU minutes of training a run")
    parser.add_argument("--sets", default="rsscn7,epfl_roads,sztaki,oscd")
    parser.add_argument("--modes", default="scratch,frozen,full")
    parser.add_argument("--shares", default="0.1,1.0")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sztaki-out", type=int, default=1, help="first of two test pairs (1 to 7)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in every recipe")
    arguments = parser.parse_args()
    if arguments.table is not None:
        table(arguments.table)
        return
    torch.set_num_threads(1)
    plans = sets(arguments.oscd_model, arguments.sztaki_out)
    for seed, share, name, mode in planned(arguments):
        model = arguments.oscd_model if name == "oscd" else arguments.model
        if name not in plans or model is None:
            continue
        out = arguments.out / f"{name}-{mode}-{share:g}-{seed}"
        recipe = recipe_of(name, plans[name], mode, share, seed, arguments.minutes, model, arguments.set)
        if scores_of(out) is None:
            try:
                finetune(recipe, arguments.data / name, out)
            except TrainingInterrupted:
                return
        row = scores_of(out)
        assert row is not None
        print(told(row), flush=True)
    table(arguments.out)


if __name__ == "__main__":
    main()
