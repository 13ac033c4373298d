"""CSMAE with and without scale awareness: an aerial image at 2.5 m and a radar image at 10 m of one place.

    python benchmarks/scale_aware_csmae.py --cpu-minutes 3 --out runs/scale_aware

SIMULATED DATA (`swath.simulated`): places of 600 m, seen by radar (60 px of 10 m, VH and VV) and from a plane
(RGB). Three ways to make a pair of them, each with the same budget of CPU time on one thread:

- `common_grid`: the aerial image is brought to 10 m, as the paper does with all sensors (without).
- `equal_ground`: aerial pixels stay 2.5 m, and a patch covers the same ground in both, so that the grids of
  patches coincide; positions count patches (without).
- `scale_aware`: aerial pixels stay 2.5 m, with patches of half the ground and so four times as many;
  positions are metres, and a decoder asks for the other sensor's patches by their place (with).

Reported is the paper's F1 at 10 in the four directions, centered by sensor.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

RADAR, AERIAL = "sentinel1_ben", "rgb_aerial"
# name: (aerial GSD, patch of the aerial image, scale-aware)
WAYS: dict[str, tuple[float, int, bool]] = {
    "common_grid": (10.0, 10, False),
    "equal_ground": (2.5, 40, False),
    "scale_aware": (2.5, 20, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--cpu-minutes", type=float, default=3)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--archive", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/scale_aware"))
    options = parser.parse_args()

    from swath.evaluation.retrieval.features import retrieval_model
    from swath.evaluation.retrieval.protocol import evaluate_retrieval
    from swath.evaluation.retrieval.splits import split_retrieval
    from swath.files import write_json
    from swath.models import load_model
    from swath.simulated import SimulatedPairs
    from swath.training.config.recipe import load_recipe
    from swath.training.pretraining import pretrain

    results: dict[str, Any] = {}
    directions = [(a, b) for a in (RADAR, AERIAL) for b in (RADAR, AERIAL)]
    for name in options.ways.split(","):
        gsd, patch, aware = WAYS[name]
        began = time.process_time()
        pairs = SimulatedPairs(
            split_names={"train": options.train, "test": options.archive, "val": options.queries},
            sensors=[RADAR, AERIAL],
            size=60,
            gsd={RADAR: 10.0, AERIAL: gsd},
        )
        print(f"{name}: {len(pairs)} simulated places in {time.process_time() - began:.0f} CPU-s", flush=True)
        recipe = load_recipe(
            Path(__file__).parent.parent / "configs" / "csmae_small_cpu.yaml",
            [
                f"name={name}",
                f"seed={options.seed}",
                f"sensor=[{RADAR}, {AERIAL}]",
                f"training.cpu_minutes={options.cpu_minutes}",
                "training.images_every=0",
                f"encoder.options.patch_size={{{RADAR}: 10, {AERIAL}: {patch}}}",
                f"encoder.options.scale_aware={str(aware).lower()}",
                "objective.options.reconstruction=target",
            ],
        )
        run = options.out / f"{name}_{options.cpu_minutes:g}min_seed{options.seed}"
        if not (run / "model" / "config.json").is_file():
            pretrain(recipe, pairs.select(split="train"), run)
        model = load_model(run / "model")
        split = split_retrieval(pairs, query_split="val", gallery_split="test")
        found = evaluate_retrieval(
            [retrieval_model(model, [RADAR, AERIAL], name=name)], split, k=10, resamples=500
        )
        row: dict[str, Any] = {"pairs_seen": model.config["provenance"]["images"]}
        for who, centered in ((name, True), ("chance", False)):
            for a, b in directions:
                score = found.get(who, a, b, centered)
                row[f"{who}: {a}->{b}"] = (score.values["f1"], *score.intervals.get("f1", ()))
        results[name] = row
        shown = [f"{100 * row[f'{name}: {a}->{b}'][0]:.1f}" for a, b in directions]
        print(f"{name:<14} pairs seen {row['pairs_seen']:>7}  F1@10 {'  '.join(shown)}", flush=True)
    print("directions:", ", ".join(f"{a}->{b}" for a, b in directions))
    print("chance:", [f"{100 * row[f'chance: {a}->{b}'][0]:.1f}" for a, b in directions])
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "scores.json", results)


if __name__ == "__main__":
    main()
