"""Retrieval across sensors on simulated pairs: the four variants of CSMAE, uni-modal MAE and the baselines.

    python benchmarks/quality_csmae.py --models cecd,cesd,secd,sesd,mae --cpu-minutes 5 --out runs/csmae
    python benchmarks/quality_csmae.py --models cecd --cpu-minutes 2 --train 1000     # a quick look
    python benchmarks/quality_csmae.py --models cecd,unified,cmid --cpu-minutes 3   # ours and CMID

SIMULATED DATA (`swath.simulated`): 4,000 places to train on, 2,000 in the archive, 500 that ask, 60 px at
20 m, Sentinel-1 (VH, VV) and Sentinel-2 (10 bands); ten land-cover classes, several a place. All models have
the same budget of CPU time, on one thread; budgets include reading but not simulating. Labels are used for
scoring only.

Reported is the paper's F1 at 10 (the harmonic mean of averaged precision and recall, in percent) in the four
directions, centered by sensor and not, with the cost of each variant. A run that is there is not trained
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


# Our own objective and CMID on the same pairs, their two looks or views being the two sensors: an embedding
# of patches for each sensor, all blocks common.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "unified": ("unified", {}),
    "unified_no_cross": ("unified", {"cross_weight": 0.0}),
    "unified_no_agreement": ("unified", {"global_weight": 0.0}),
    "unified_agreement_only": ("unified", {"reconstruction_weight": 0.0, "cross_weight": 0.0}),
    "unified_teacher": ("unified", {"teacher": True}),
    "cmid": ("cmid", {}),
    "cmid_no_local": ("cmid", {"local_weight": 0.0}),
    "cmid_no_reconstruction": ("cmid", {"reconstruction_weight": 0.0}),
}
_CMID = {
    "view_size": 60, "mask_block": 10, "crop_scale": [0.5, 1.0], "flips": "both", "photometric": "none",
    "hidden_dim": 256, "out_dim": 64, "temperature": 0.1, "queue_size": 2048, "prototypes": 256,
    "bottleneck_dim": 64, "matches": 15, "momentum": 0.99,
}  # fmt: skip
_UNIFIED = {
    "source_size": 30, "crop_scale": [0.5, 1.0], "mask_ratio": 0.5, "decoder_dim": 64, "decoder_depth": 1,
    "decoder_heads": 4, "head": "linear", "teacher": False, "global_weight": 1.0, "temperature": 0.1,
    "photometric": "none",
}  # fmt: skip


def recipe(name: str, cpu_minutes: float, seed: int) -> Any:
    """The recipe of one model: `configs/csmae_small_cpu.yaml` with its depths and losses."""
    from swath.training.config.recipe import load_recipe

    if name in OTHERS:
        specific, common, objective, encoder = 0, 4, {}, {}
    else:
        specific, common, objective, encoder = MODELS[name]
    path = Path(__file__).parent.parent / "configs" / "csmae_small_cpu.yaml"
    options = {
        "name": f"csmae_{name}",
        "seed": seed,
        "training.cpu_minutes": cpu_minutes,
        "training.images_every": 0,
        "encoder.options.patch_size": 10,
        "encoder.options.specific_depth": specific,
        "encoder.options.common_depth": common,
        **{f"encoder.options.{key}": value for key, value in encoder.items()},
        **{f"objective.options.{key}": value for key, value in objective.items()},
    }
    if name in OTHERS:
        method, changed = OTHERS[name]
        options = {key: value for key, value in options.items() if not key.startswith("encoder.")}
        options |= {
            "name": name,
            "encoder.name": "vit",
            "encoder.options": {
                # `unified` sees a look at half its size, so both have patches of 200 to 240 m of ground.
                "patch_size": 6 if method == "unified" else 10, "embed_dim": 128, "depth": 4, "heads": 4,
            },
            "objective.name": method,
            "objective.options": (_UNIFIED if method == "unified" else _CMID) | changed,
            "pooling": "mean",
        }  # fmt: skip
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

    from swath.evaluation.retrieval.features import retrieval_baselines, retrieval_model
    from swath.evaluation.retrieval.protocol import evaluate_retrieval
    from swath.evaluation.retrieval.splits import split_retrieval
    from swath.files import write_json
    from swath.models import load_model
    from swath.simulated import SimulatedPairs
    from swath.training.pretraining import pretrain

    began = time.process_time()
    pairs = SimulatedPairs(
        split_names={"train": options.train, "test": options.archive, "val": options.queries},
        seed=options.data_seed,
        sensors=[S1, S2],
        size=60,
        gsd=20.0,
    )
    print(f"{len(pairs)} simulated places in {time.process_time() - began:.0f} CPU-s", flush=True)
    train = pairs.select(split="train")
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
            candidates += retrieval_baselines([S1, S2], model)
        candidates.append(retrieval_model(model, [S1, S2], name=name))
    split = split_retrieval(pairs, query_split="val", gallery_split="test")
    found = evaluate_retrieval(candidates[::-1], split, k=10, resamples=500)
    directions = [(a, b) for a in (S1, S2) for b in (S1, S2)]
    rows = []
    print(
        f"\n{'F1@10, %':<18}{'centered':<9}" + "".join(f"{_SHORT[a]}->{_SHORT[b]:<9}" for a, b in directions)
    )
    for score in ["chance", *(c.name for c in candidates)]:
        for centered in (False, True):
            row: dict[str, Any] = {"features": score, "centered": centered}
            if score == "chance" and centered:
                continue
            text = f"{score:<18}{'yes' if centered else 'no':<9}"
            for a, b in directions:
                one = found.get(score, a, b, centered)
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
