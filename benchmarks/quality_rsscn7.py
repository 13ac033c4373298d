"""How good are features after a stated CPU budget? Scale-MAE on RSSCN7, beside baselines and no training.

Protocol: bank = fold train, queries = fold val of the data set's index.csv (overlapping scenes are on one
side), kNN with k = 20, T = 0.07, cosine, images area-resized to 16, 32, 64 and 128 px; "knn-z" on features
standardised by the bank; linear probe (logistic, standardised, C = 0.1) at 128 px.

    python benchmarks/quality_rsscn7.py --minutes 20                     # train, then score
    python benchmarks/quality_rsscn7.py --minutes 20 --seed 1 --set training.precision=bf16
    python benchmarks/quality_rsscn7.py --score runs/quality/seed0_20min/model

The curve "score against compute" is several runs: --minutes 1, 5, 20, ... (each with its whole schedule).
Needs the folder of real imagery (SWATH_DATA_DIR). Use OMP_NUM_THREADS=1 on a shared machine: the budget is
CPU time, and threads that wait for each other spend it too.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from rich.console import Console

from swath.evaluation.baselines import BASELINES, random_init
from swath.evaluation.features import ModelFeaturizer
from swath.evaluation.protocols import evaluate_knn, evaluate_linear
from swath.evaluation.report import score_tables, verdict, write_report
from swath.evaluation.splits import open_split
from swath.models import Model, load_model
from swath.training.engine import build_objective, pretrain
from swath.training.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SWATH_DATA_DIR", ROOT / "../shared/data")) / "rsscn7" / "index.csv"


def train(minutes: float, seed: int, recipe: Path, overrides: list[str], out: Path) -> Path:
    """Train for `minutes` of CPU time on the train fold; returns the model directory."""
    settings = [f"training.cpu_minutes={minutes}", f"seed={seed}", "data.gsd=relative", "data.fold=train"]
    started = time.process_time()
    model = pretrain(load_recipe(recipe, [*settings, *overrides]), DATA, out)
    print(f"trained: {time.process_time() - started:.0f} CPU-s with start and end, {out}")
    return model


def untrained(model: Path) -> ModelFeaturizer:
    """The encoder as the run began: its patch embedding whitened from the data, everything else random."""
    trained = load_model(model)
    recipe = load_recipe(model.parent / "recipe.yaml")
    split = open_split(DATA, sensor=trained.contract.sensor(), gsd="relative")
    torch.manual_seed(recipe.seed)
    objective = build_objective(recipe, split.bank.dataset.sensor)
    batch = split.bank.dataset.get_batch(split.bank.indices[: recipe.training.monitor_images])
    objective.prepare(trained.contract.normalise(batch))
    start = Model(objective.encoder, trained.contract, name="untrained, whitened", pooling=trained.pooling)
    return ModelFeaturizer(start, name="untrained, whitened patches")


def score(model: Path, out: Path, baselines: bool) -> None:
    """kNN over scales and linear probe of the model, its untrained encoder and the baselines."""
    console = Console(width=160)
    loaded = load_model(model)
    featurizers = [
        ModelFeaturizer(loaded),
        ModelFeaturizer(loaded, name=f"{loaded.name}, mean of tokens", pooling="mean"),
        untrained(model),
        random_init(loaded),
        random_init(loaded, pooling="mean"),
    ]
    featurizers[-1].name = "random init, mean of tokens"
    if baselines:
        featurizers += [make() for make in BASELINES.values()]
    split = open_split(DATA, sensor=loaded.contract.sensor(), gsd="relative")
    knn = evaluate_knn(featurizers, split, sides=[16, 32, 64, 128], batch_size=32)
    linear = evaluate_linear(featurizers, split, sides=[128], batch_size=32)
    for evaluation in (knn, linear):
        for table in score_tables(evaluation):
            console.print(table)
        console.print(verdict(evaluation))
        write_report(evaluation, out)


def main() -> None:
    """Read the arguments, train unless told to score only, score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="CPU budget of the training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", type=Path, default=ROOT / "configs/scale_mae_nano_cpu.yaml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/quality")
    parser.add_argument("--score", type=Path, metavar="MODEL", help="score this model directory only")
    parser.add_argument("--no-baselines", action="store_true")
    arguments = parser.parse_args()
    out = arguments.out / f"seed{arguments.seed}_{arguments.minutes:g}min"
    model = arguments.score or train(
        arguments.minutes, arguments.seed, arguments.recipe, arguments.overrides, out
    )
    score(
        model, (arguments.out / "scored") if arguments.score else out / "scores", not arguments.no_baselines
    )


if __name__ == "__main__":
    main()
