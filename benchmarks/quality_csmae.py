"""Retrieval across sensors on simulated pairs: the four variants of CSMAE, uni-modal MAE and the baselines.

    python benchmarks/quality_csmae.py --models cecd,cesd,secd,sesd,mae --cpu-minutes 5 --out runs/csmae
    python benchmarks/quality_csmae.py --models cecd --cpu-minutes 2 --train 1000     # a quick look

SIMULATED DATA (`swath.simulated`): 4,000 places to train on, 2,000 in the archive, 500 that ask, 60 px at
20 m, Sentinel-1 (VH, VV) and Sentinel-2 (10 bands); ten land-cover classes, several a place. All models have
the same budget of CPU time, on one thread; budgets include reading but not simulating. Labels are used for
scoring only.

Reported is the paper's F1 at 10 (the harmonic mean of averaged precision and recall, in percent) in the four
directions, centred by sensor and not, with the cost of each variant. A run that is there is not trained
again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

S1, S2 = "sentinel1_ben", "sentinel2_ben"
_SHORT = {S1: "S1", S2: "S2"}

# name: (blocks of a sensor's own, common blocks, options of the objective, options of the encoder)
MODELS: dict[str, tuple[int, int, dict[str, Any], dict[str, Any]]] = {
    "sesd": (3, 1, {"decoder": "specific"}, {}),
    "secd": (3, 1, {"decoder": "common"}, {}),
    "cesd": (0, 4, {"decoder": "specific"}, {}),
    "cecd": (0, 4, {"decoder": "common"}, {}),
    # Two masked autoencoders that never meet: own blocks, own decoders, no loss across sensors.
    "mae": (4, 0, {"decoder": "specific", "crossmodal": False, "mim_weight": 0.0}, {}),
    # One network for both sensors, still without a loss across them.
    "mae_common": (0, 4, {"decoder": "common", "crossmodal": False, "mim_weight": 0.0}, {}),
    # Ablations of the losses.
    "cecd_no_mim": (0, 4, {"decoder": "common", "mim_weight": 0.0}, {}),
    "cecd_no_cmr": (0, 4, {"decoder": "common", "crossmodal": False}, {}),
    "cecd_target": (0, 4, {"decoder": "common", "reconstruction": "target"}, {}),
}


def recipe(name: str, cpu_minutes: float, seed: int) -> Any:
    """The recipe of one model: `configs/csmae_small_cpu.yaml` with its depths and losses."""
    from swath.training.recipe import load_recipe

    specific, common, objective, encoder = MODELS[name]
    path = Path(__file__).parent.parent / "configs" / "csmae_small_cpu.yaml"
    options = {
        "name": f"csmae_{name}",
        "seed": seed,
        "training.cpu_minutes": cpu_minutes,
        "training.pictures_every": 0,
        "encoder.options.patch_size": 10,
        "encoder.options.specific_depth": specific,
        "encoder.options.common_depth": common,
        **{f"encoder.options.{key}": value for key, value in encoder.items()},
        **{f"objective.options.{key}": value for key, value in objective.items()},
    }
    return load_recipe(path, [f"{key}={json.dumps(value)}" for key, value in options.items()])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="cecd,cesd,secd,sesd,mae")
    parser.add_argument("--cpu-minutes", type=float, default=5)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--archive", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/csmae_simulated"))
    options = parser.parse_args()

    from swath.evaluation.pair_splits import split_pairs
    from swath.evaluation.retrieval import evaluate_retrieval
    from swath.evaluation.retrieval_features import baseline_candidates, model_candidate
    from swath.files import write_json
    from swath.models import load_model
    from swath.simulated import SimulatedPairs
    from swath.training.engine import pretrain

    began = time.process_time()
    pairs = SimulatedPairs(
        folds={"train": options.train, "test": options.archive, "val": options.queries},
        seed=options.data_seed,
        sensors=[S1, S2],
        size=60,
        gsd=20.0,
    )
    print(f"{len(pairs)} simulated places in {time.process_time() - began:.0f} CPU-s", flush=True)
    train = pairs.select(fold="train")
    candidates: list[Any] = []
    cost: dict[str, dict[str, float]] = {}
    for name in options.models.split(","):
        run = options.out / f"{name}_{options.cpu_minutes:g}min_seed{options.seed}"
        if not (run / "model" / "config.json").is_file():
            pretrain(recipe(name, options.cpu_minutes, options.seed), train, run)
        model = load_model(run / "model")
        provenance = model.config["provenance"]
        cost[name] = {
            "pairs_seen": provenance["images"],
            "pairs_per_cpu_second": provenance["images"] / provenance["cpu_seconds"],
            "encoder_parameters": sum(p.numel() for p in model.encoder.parameters()),
        }
        print(name, json.dumps(cost[name]), flush=True)
        if not candidates:
            candidates += baseline_candidates([S1, S2], model)
        candidates.append(model_candidate(model, [S1, S2], name=name))
    split = split_pairs(pairs, queries="val", archive="test")
    found = evaluate_retrieval(candidates[::-1], split, k=10, resamples=500)
    directions = [(a, b) for a in (S1, S2) for b in (S1, S2)]
    rows = []
    print(
        f"\n{'F1@10, %':<18}{'centred':<9}" + "".join(f"{_SHORT[a]}->{_SHORT[b]:<9}" for a, b in directions)
    )
    for score in ["chance", *(c.name for c in candidates)]:
        for centred in (False, True):
            row: dict[str, Any] = {"features": score, "centred": centred}
            if score == "chance" and centred:
                continue
            text = f"{score:<18}{'yes' if centred else 'no':<9}"
            for a, b in directions:
                one = found.get(score, a, b, centred)
                value = one.values.get("f1")
                low, high = one.intervals.get("f1", (float("nan"), float("nan")))
                row[f"{a}->{b}"] = {"f1": value, "low": low, "high": high}
                text += f"{100 * value:<13.1f}" if value is not None else f"{'-':<13}"
            rows.append(row)
            print(text)
    for gap in found.gaps:
        print(gap)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(
        options.out / f"scores_{options.cpu_minutes:g}min_seed{options.seed}.json",
        {"rows": rows, "cost": cost},
    )


if __name__ == "__main__":
    main()
