"""Speed of the simulator, and how much of the labels simple statistics already tell.

Speed: simulated pairs (Sentinel-1 with 2 bands, Sentinel-2 with 10, 120 px at 10 m) per CPU-second of one
process; ground, labels, masks, boxes and both images, as `SimulatedPairs` keeps them. Rounds of different
places; every round is printed, the median counts.

Difficulty: places find each other by features that need no learning of pictures, scored as the CSMAE paper
scores retrieval (F1 at 10 answers: harmonic mean of average precision and recall of the labels). `chance` is
computed exactly; `area shares` are the true shares of the classes, which no picture can beat by much: what
an encoder could reach lies between `mean and std` and them. Across sensors, the statistics of one sensor are
mapped to those of the other by a ridge regression on the places of the archive: what a linear model of
global statistics gets.

    OMP_NUM_THREADS=1 python benchmarks/simulator.py [--pairs 200] [--rounds 5] [--places 2500]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from swath.evaluation.retrieval_metrics import chance_scores, exact_neighbours, retrieval_scores
from swath.imagery.sensors import get_sensor
from swath.simulated import CLASSES, SENSORS, simulate_landscape
from swath.simulated.sensing import measure, to_unit

QUERIES = 500
K = 10


def speed(pairs: int, rounds: int) -> None:
    sensors = [get_sensor(name) for name in SENSORS]
    figures = []
    for turn in range(rounds + 1):
        began = time.process_time()
        for index in range(turn * pairs, (turn + 1) * pairs):
            ground = simulate_landscape(0, index)
            for sensor in sensors:
                measure(ground, sensor)
        figures.append(pairs / (time.process_time() - began))
    rest = figures[1:]  # the first round warms up
    spread = f"rounds {min(rest):.1f} to {max(rest):.1f}"
    print(f"pairs per CPU-second: median {statistics.median(rest):.1f}, {spread}")


def difficulty(places: int) -> None:
    sensors = [get_sensor(name) for name in SENSORS]
    found: dict[str, list[np.ndarray]] = {f"{what} {s.name}": [] for what in ("mean", "std") for s in sensors}
    shares, labels = [], []
    for index in range(places):
        ground = simulate_landscape(1, index)
        shares.append(np.sqrt(ground.shares))
        labels.append(ground.labels)
        for sensor in sensors:
            image = to_unit(measure(ground, sensor), sensor).flatten(1)
            found[f"mean {sensor.name}"].append(image.mean(dim=1).numpy())
            found[f"std {sensor.name}"].append(image.std(dim=1).numpy())
    wanted = torch.from_numpy(np.array(labels))
    both = {}
    for sensor in sensors:
        mean = standardised(np.array(found[f"mean {sensor.name}"]))
        both[sensor.name] = np.concatenate(
            [mean, standardised(np.array(found[f"std {sensor.name}"]))], axis=1
        )
        alone, more = f1(mean, mean, wanted), f1(both[sensor.name], both[sensor.name], wanted)
        print(f"F1@{K}, {sensor.name} -> itself: mean only {alone:.3f}, mean and std {more:.3f}")
    for asking, answering in (SENSORS, SENSORS[::-1]):
        told = ridge(both[asking], both[answering])
        score = f1(told, both[answering], wanted)
        print(f"F1@{K}, {asking} -> {answering}: linear map of mean and std {score:.3f}")
    true = standardised(np.array(shares))
    print(f"F1@{K}, area shares: {f1(true, true, wanted):.3f}")
    print(f"F1@{K}, chance: {chance_scores(wanted[:QUERIES], wanted[QUERIES:], K).means()['f1']:.3f}")
    frequency = ", ".join(
        f"{name} {share:.2f}" for name, share in zip(CLASSES, wanted.mean(dim=0), strict=True)
    )
    print(f"labels a place: {wanted.sum(dim=1).mean():.2f}; how often: {frequency}")


def standardised(features: np.ndarray) -> np.ndarray:
    archive = features[QUERIES:]
    return (features - archive.mean(axis=0)) / archive.std(axis=0)


def ridge(asking: np.ndarray, answering: np.ndarray) -> np.ndarray:
    x, y = asking[QUERIES:], answering[QUERIES:]
    weights = np.linalg.solve(x.T @ x + 1e-2 * len(x) * np.eye(x.shape[1]), x.T @ y)
    return asking @ weights


def f1(asking: np.ndarray, answering: np.ndarray, labels: torch.Tensor) -> float:
    queries, archive = torch.from_numpy(asking[:QUERIES]), torch.from_numpy(answering[QUERIES:])
    neighbours = exact_neighbours(queries, archive, K)
    return float(retrieval_scores(neighbours.ids, labels[:QUERIES], labels[QUERIES:]).means()["f1"])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--pairs", type=int, default=200, help="places a round")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--places", type=int, default=2500, help="for the difficulty; 500 of them ask")
    options = arguments.parse_args()
    speed(options.pairs, options.rounds)
    difficulty(options.places)


if __name__ == "__main__":
    main()
