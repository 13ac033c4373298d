"""Ask in radar, answer in optical: from pairs of images to a search across sensors, in Python.

    python examples/across_sensors.py                 # simulated pairs; about five minutes on one core
    python examples/across_sensors.py --places 60 --minutes 0.1      # to see it run

With pairs of your own, replace `SimulatedPairs(...)` by
``swath.open_pairs("pairs.csv", sensors=["sentinel1_grd", "sentinel2_l2a"])``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

import swath
from swath.simulated import SimulatedPairs

RADAR, OPTICAL = "sentinel1_ben", "sentinel2_ben"
RECIPE = Path(__file__).resolve().parent.parent / "configs" / "csmae_small_cpu.yaml"


def main(places: int, minutes: float, out: Path) -> float:
    """Train, embed and search; returns the share of radar images whose own place is among ten answers."""
    archive = max(20, places // 4)
    pairs = SimulatedPairs(
        splits={"train": places, "test": archive}, sensors=[RADAR, OPTICAL], size=60, gsd=20.0
    )

    # 1. Train on places that both sensors see. No label is used.
    overrides = [
        f"training.cpu_minutes={minutes}",
        f"training.batch_size={min(128, places)}",
        "encoder.options.patch_size=10",
    ]
    model = swath.pretrain(RECIPE, pairs.select(split="train"), out, overrides=overrides)

    # 2. Embed new places, each sensor by its own branch.
    test = pairs.select(split="test")
    vectors = {}
    for sensor in (RADAR, OPTICAL):
        batch = test.only(sensor).get_batch(range(len(test)))
        embedded = model.embed(batch["image"], gsd=batch["gsd"], sensor=sensor)
        # What is constant in a sensor would rank its own images first: take it out.
        vectors[sensor] = F.normalize(embedded - embedded.mean(dim=0), dim=1)

    # 3. Every radar image asks the optical archive.
    answers = (vectors[RADAR] @ vectors[OPTICAL].T).topk(10, dim=1).indices
    own = (answers == torch.arange(len(test))[:, None]).any(dim=1)
    share = float(own.float().mean())
    print(
        f"{share:.0%} of {len(test)} radar images find their own place among ten optical answers; "
        f"by chance it would be {10 / len(test):.0%}"
    )
    return share


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--places", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=3.0, help="of CPU time to train")
    parser.add_argument("--out", type=Path, default=Path("runs/across_sensors"))
    arguments = parser.parse_args()
    main(arguments.places, arguments.minutes, arguments.out)
