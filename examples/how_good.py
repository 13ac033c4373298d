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

import swath
from swath.simulated import write_simulated


def main(model: str, data: Path, image_sizes: list[int]) -> dict[str, float]:
    """Score a model and two baselines; returns the mean accuracy over the scales of each."""
    # 1. Every test image is classified by a vote of the most similar train images. Nothing is trained.
    #    All models see the same images; the first is the one in question.
    evaluation = swath.evaluate.knn(
        [model, "statistics", "rcf"], data, image_sizes=image_sizes, asymmetric=False, baselines=False
    )

    # 2. A score comes with its interval, and the protocol says what it depends on.
    print(f"{evaluation.protocol['test']['images']} queries, by chance {evaluation.protocol['chance']:.0%}")
    for score in evaluation.scores:
        print(
            f"{score.features:32} {score.classifier:5} {score.test_image_size:4} px  "
            f"{score.value:6.1%} ({score.low:.1%} to {score.high:.1%})"
        )
    names = dict.fromkeys(score.features for score in evaluation.scores)
    return {name: evaluation.mean(name, "knn").accuracy for name in names}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="random:vit_micro_patch8")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[16, 32, 64])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scenes = (
            arguments.data
            or write_simulated(Path(folder) / "scenes", seed=0, splits={"train": 160, "val": 80}, size=64)
            / "index.csv"
        )
        main(arguments.model, scenes, arguments.image_sizes)
