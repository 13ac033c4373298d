"""How good are a model's features? kNN over scales, with baselines and intervals beside them, in Python.

    python examples/how_good.py                          # an untrained ViT on simulated scenes; half a minute
    python examples/how_good.py --model runs/first/model --data labeled/

`labeled/` holds one folder a class, or is a CSV table of files and classes. On the command line the same is
``swath evaluate knn runs/first/model labeled/``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from swath.evaluation.data.opening import open_eval_data
from swath.evaluation.features.opening import open_eval_model
from swath.evaluation.protocols.frozen import evaluate_knn
from swath.evaluation.report.tables import summary_sentence
from swath.simulated.aerial import write_simulated


def main(model: str, data: Path, image_sizes: list[int]) -> dict[str, float]:
    """Score a model and two baselines; returns the mean accuracy over the scales of each."""
    # 1. Whoever is scored sees the same images; the first is the one in question.
    candidates = [open_eval_model(name) for name in (model, "statistics", "rcf")]
    split = open_eval_data(data, sensor=candidates[0].sensor, gsd_mode=candidates[0].gsd_mode)

    # 2. Every query is classified by a vote of the most similar images of the bank. Nothing is trained.
    evaluation = evaluate_knn(
        [one.extractors[0] for one in candidates], split, image_sizes=image_sizes, asymmetric=False
    )

    # 3. A score comes with its interval, and the protocol says what it depends on.
    print(f"{evaluation.protocol['test']['images']} queries, by chance {evaluation.protocol['chance']:.0%}")
    for score in evaluation.scores:
        print(
            f"{score.features:32} {score.classifier:5} {score.test_image_size:4} px  "
            f"{score.value:6.1%} ({score.low:.1%} to {score.high:.1%})"
        )
    print(summary_sentence(evaluation))
    return {one.name: evaluation.mean(one.name, "knn").accuracy for one in candidates}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="random:vit_micro_patch8")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 64])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scenes = (
            arguments.data
            or write_simulated(
                Path(folder) / "scenes", seed=0, split_names={"train": 160, "val": 80}, size=64
            )
            / "index.csv"
        )
        main(arguments.model, scenes, arguments.image_sizes)
