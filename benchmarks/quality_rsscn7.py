"""How good are features after a stated CPU budget? Every method on RSSCN7, beside baselines and no training.

Protocol: bank = split train, queries = split val of the data set's index.csv (overlapping scenes are on one
side), kNN with k = 20, T = 0.07, cosine, images area-resized to 16, 32, 64 and 128 px; "knn-z" on features
standardized by the bank; linear probe (logistic, standardized, C = 0.1) at the largest side. Every encoder is
scored with each read-out of its last features: the mean of tokens, and moments (mean and spread).

    python benchmarks/quality_rsscn7.py --minutes 20                     # Scale-MAE: train, then score
    python benchmarks/quality_rsscn7.py --minutes 20 --recipe configs/unified_nano_cpu.yaml --name unified_s0
    python benchmarks/quality_rsscn7.py --minutes 20 --seed 1 --set training.precision=bf16
    python benchmarks/quality_rsscn7.py --score runs/quality/seed0_20min/model
    python benchmarks/quality_rsscn7.py --score RUN_A/model RUN_B/model ... --no-baselines --sides 32,64,128
    python benchmarks/quality_rsscn7.py --score RUN_A/model RUN_B/model --no-untrained  # and A less B, paired
    python benchmarks/quality_rsscn7.py --along runs/quality/seed0_20min --at 1,2,5,10,20

An encoder with a coarsest stride of 32 (Swin, ResNet) cannot see 16 px: give --sides 32,64,128 for all that
are to be compared with it.

The curve "score against compute" comes in two forms. Several runs, --minutes 1, 5, 20, ..., each with its
whole schedule, say what a budget buys. The checkpoints of one run (--along) cost no further training, but all
but the last were taken while the learning rate was still high, so they may understate what a run of that
length would have reached. A run keeps enough checkpoints for it with --keep-checkpoints.

Needs the folder of real imagery (SWATH_DATA_DIR). Use OMP_NUM_THREADS=1 on a shared machine: the budget is
CPU time, and threads that wait for each other spend it too.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from rich.console import Console

from swath.evaluation.data.splits import TrainTestSplit, open_split
from swath.evaluation.features.baselines import ImageStatistics, RandomConvolutionalFeatures, RandomPatches
from swath.evaluation.features.extract import pooling_variants
from swath.evaluation.features.protocol import FeatureExtractor
from swath.evaluation.protocols.frozen import (
    PairedComparison,
    evaluate_knn,
    evaluate_linear,
    extract_split_features,
)
from swath.evaluation.report.tables import score_tables, write_scores
from swath.keyed_random import permutation
from swath.models import Model, load_model
from swath.training import checkpoint as checkpoints
from swath.training.build import build_contract, build_objective
from swath.training.config.recipe import PretrainRecipe, load_recipe
from swath.training.pretraining import pretrain

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SWATH_DATA_DIR", ROOT / "../shared/data")) / "rsscn7" / "index.csv"
SIDES = [16, 32, 64, 128]
READ_OUTS = ["mean", "mean_std"]


def train(minutes: float, seed: int, recipe: Path, overrides: list[str], out: Path) -> Path:
    """Train for `minutes` of CPU time on the train split; returns the model directory."""
    settings = [f"training.cpu_minutes={minutes}", f"seed={seed}", "data.gsd=relative", "data.split=train"]
    started = time.process_time()
    pretrain(recipe, DATA, out, overrides=[*settings, *overrides])
    print(f"trained: {time.process_time() - started:.0f} CPU-s with start and end, {out}")
    return out / "model"


def untrained(run: Path, split: TrainTestSplit) -> Model:
    """The encoder as the run began: its patch embedding whitened (if so) from data, all else random."""
    recipe, sensor = load_recipe(run / "recipe.yaml"), split.train.dataset.sensor
    contract = build_contract(recipe, sensor)
    objective = build_objective(recipe, sensor)
    if hasattr(objective, "prepare"):
        # The images that the engine shows it, which are of all classes: the table is ordered by class.
        chosen = permutation(recipe.seed, -1, len(split.train.indices))[: recipe.training.monitor_images]
        batch = split.train.dataset.get_batch(split.train.indices[chosen])
        objective.prepare(contract.normalize(batch))
    return Model(objective.encoder, contract, name="untrained", pooling=recipe.pooling)


def along(run: Path, minutes: list[float], split: TrainTestSplit) -> list[Model]:
    """The checkpoints of a run nearest to these CPU-minutes, as models named after their minutes."""
    recipe: PretrainRecipe = load_recipe(run / "recipe.yaml")
    states = {path: checkpoints.verify(path) for path in checkpoints.list_checkpoints(run / "checkpoints")}
    models = []
    for requested in minutes:
        path = min(states, key=lambda path: abs(states[path]["cpu_seconds"] - 60 * requested))
        found = checkpoints.load(path)
        objective = build_objective(recipe, split.train.dataset.sensor)
        checkpoints.load_model_state(objective, found.model)
        low_high = found.state["gsd_range"]
        contract = build_contract(recipe, split.train.dataset.sensor, tuple(low_high) if low_high else None)
        name = f"{found.state['cpu_seconds'] / 60:.1f} min (step {found.step})"
        models.append(Model(objective.encoder, contract, name=name, pooling=recipe.pooling))
    return models


def baselines() -> list[FeatureExtractor]:
    """Image statistics, and random convolutional features in both forms from the same patches."""
    patches = RandomPatches()
    return [
        ImageStatistics(),
        RandomConvolutionalFeatures(patches, both_signs=False),
        RandomConvolutionalFeatures(patches),
    ]


def score(
    models: list[Model],
    begun: list[Model],
    others: list[FeatureExtractor],
    split: TrainTestSplit,
    out: Path,
    image_sizes: list[int],
) -> None:
    """kNN over scales and linear probe, from features extracted once, and what training has changed.

    Args:
        models: Trained; each is also compared with those after it.
        begun: The untrained encoder of each; or one for all; or none.
        others: Baselines.
        split: Bank and queries.
        out: Folder for the reports.
        sides: Of the images in pixels; the probe is at the largest.
    """
    console = Console(width=160)
    extractors: list[FeatureExtractor] = [
        f for model in [*models, *begun] for f in pooling_variants(model, READ_OUTS)
    ]
    extractors += others
    started = time.process_time()
    summary = 0

    def progress(done: int, total: int) -> None:
        nonlocal summary
        if done * 10 // total > summary:  # some minutes of work: say how far it is
            summary = done * 10 // total
            console.print(f"features: {summary}0%, {time.process_time() - started:.0f} CPU-s")

    extracted = extract_split_features(extractors, split, image_sizes, batch_size=32, progress=progress)
    knn = evaluate_knn(extractors, split, image_sizes=image_sizes, asymmetric=False, extracted=extracted)
    linear = evaluate_linear(extractors, split, image_sizes=[max(image_sizes)], c=0.1, extracted=extracted)
    for evaluation in (knn, linear):
        for table in score_tables(evaluation):
            console.print(table)
        for number, model in enumerate(models):
            before = begun[number : number + 1] if len(begun) > 1 else begun
            for pooling in READ_OUTS:
                rivals = [f"{other.name}, {pooling}" for other in [*before, *models[number + 1 :]]]
                for other in [*rivals, *(f.name for f in others)]:
                    for kind in dict.fromkeys(kind for _, kind in evaluation.rows):
                        console.print(
                            _difference(evaluation.compare(f"{model.name}, {pooling}", other, kind))
                        )
        for note in evaluation.notes:
            console.print(f"note: {note}")
        write_scores(evaluation, out)


def _difference(found: PairedComparison) -> str:
    """A paired difference in points, with its 95% interval over the queries."""
    low, high = 100 * found.low, 100 * found.high
    return (
        f"{found.features} - {found.baseline}, {found.classifier}: {100 * found.difference:+.1f} "
        f"({low:+.1f} to {high:+.1f})"
    )


def main() -> None:
    """Read the arguments; train unless told to score only; score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="CPU budget of the training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", type=Path, default=ROOT / "configs/scale_mae_nano_cpu.yaml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/quality")
    parser.add_argument("--name", help="the run's folder below --out; default seed<S>_<M>min")
    parser.add_argument("--keep-checkpoints", action="store_true", help="all of them, every 100 steps")
    parser.add_argument("--score", type=Path, nargs="+", metavar="MODEL", help="score these models only")
    parser.add_argument("--along", type=Path, metavar="RUN", help="score the checkpoints of a run only")
    parser.add_argument("--at", default="1,2,5,10,20", help="with --along: CPU-minutes")
    parser.add_argument("--sides", default=",".join(map(str, SIDES)), help="of the images, in pixels")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--no-untrained", action="store_true", help="nor the encoders as the runs began")
    parser.add_argument("--train-only", action="store_true")
    arguments = parser.parse_args()

    out = arguments.out / (arguments.name or f"seed{arguments.seed}_{arguments.minutes:g}min")
    directories: list[Path] = arguments.score or []
    if not directories and not arguments.along:
        keep = (
            ["training.checkpoint_every=100", "training.keep_checkpoints=10000"]
            if arguments.keep_checkpoints
            else []
        )
        overrides = [*keep, *arguments.overrides]
        directories = [train(arguments.minutes, arguments.seed, arguments.recipe, overrides, out)]
        if arguments.train_only:
            return
    runs = [arguments.along] if arguments.along else [path.parent for path in directories]
    split = open_split(DATA, sensor=load_recipe(runs[0] / "recipe.yaml").sensor, gsd="relative")
    if arguments.along:
        models = along(arguments.along, [float(value) for value in arguments.at.split(",")], split)
        scores = arguments.along / "scores_along"
    else:
        models = [load_model(path) for path in directories]
        scores = directories[0].parent / "scores"
    if len(models) > 1 and not arguments.along:
        for model, run in zip(models, runs, strict=True):
            model.name = run.name
    begun = []
    for run in runs if not arguments.no_untrained else []:
        begun.append(untrained(run, split))
        begun[-1].name += f" {run.name}" if len(runs) > 1 else ""
    image_sizes = [int(image_size) for image_size in arguments.image_sizes.split(",")]
    score(models, begun, [] if arguments.no_baselines else baselines(), split, scores, image_sizes)


if __name__ == "__main__":
    main()
