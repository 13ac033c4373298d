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
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from swath.evaluation.measures.retrieval import chance_scores, exact_neighbors, retrieval_scores
from swath.sensors.registry import get_sensor
from swath.simulated import CLASSES, SENSORS, simulate_landscape
from swath.simulated.sensing import simulated_to_unit, to_stored_values
from swath.simulated.writing import COLORS

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
                to_stored_values(ground, sensor)
        figures.append(pairs / (time.process_time() - began))
    rest = figures[1:]  # the first round warms up
    spread = f"rounds {min(rest):.1f} to {max(rest):.1f}"
    print(f"pairs per CPU-second: median {statistics.median(rest):.1f}, {spread}")


def difficulty(places: int) -> None:
    sensors = [get_sensor(name) for name in SENSORS]
    found: dict[str, list[np.ndarray]] = {f"{what} {s.name}": [] for what in ("mean", "std") for s in sensors}
    fractions, labels = [], []
    for index in range(places):
        ground = simulate_landscape(1, index)
        fractions.append(np.sqrt(ground.fractions))
        labels.append(ground.labels)
        for sensor in sensors:
            image = simulated_to_unit(to_stored_values(ground, sensor), sensor).flatten(1)
            found[f"mean {sensor.name}"].append(image.mean(dim=1).numpy())
            found[f"std {sensor.name}"].append(image.std(dim=1).numpy())
    wanted = torch.from_numpy(np.array(labels))
    both = {}
    for sensor in sensors:
        mean = standardized(np.array(found[f"mean {sensor.name}"]))
        both[sensor.name] = np.concatenate(
            [mean, standardized(np.array(found[f"std {sensor.name}"]))], axis=1
        )
        alone, more = f1(mean, mean, wanted), f1(both[sensor.name], both[sensor.name], wanted)
        print(f"F1@{K}, {sensor.name} -> itself: mean only {alone:.3f}, mean and std {more:.3f}")
    for asking, answering in (SENSORS, SENSORS[::-1]):
        summary = ridge(both[asking], both[answering])
        score = f1(summary, both[answering], wanted)
        print(f"F1@{K}, {asking} -> {answering}: linear map of mean and std {score:.3f}")
    true = standardized(np.array(fractions))
    print(f"F1@{K}, area shares: {f1(true, true, wanted):.3f}")
    print(f"F1@{K}, chance: {chance_scores(wanted[:QUERIES], wanted[QUERIES:], K).means()['f1']:.3f}")
    frequency = ", ".join(
        f"{name} {fraction:.2f}" for name, fraction in zip(CLASSES, wanted.mean(dim=0), strict=True)
    )
    print(f"labels a place: {wanted.sum(dim=1).mean():.2f}; how often: {frequency}")


def standardized(features: np.ndarray) -> np.ndarray:
    archive = features[QUERIES:]
    return (features - archive.mean(axis=0)) / archive.std(axis=0)


def ridge(asking: np.ndarray, answering: np.ndarray) -> np.ndarray:
    x, y = asking[QUERIES:], answering[QUERIES:]
    weights = np.linalg.solve(x.T @ x + 1e-2 * len(x) * np.eye(x.shape[1]), x.T @ y)
    return asking @ weights


def f1(asking: np.ndarray, answering: np.ndarray, labels: torch.Tensor) -> float:
    queries, archive = torch.from_numpy(asking[:QUERIES]), torch.from_numpy(answering[QUERIES:])
    neighbors = exact_neighbors(queries, archive, K)
    return float(retrieval_scores(neighbors.ids, labels[:QUERIES], labels[QUERIES:]).means()["f1"])


def picture(path: Path, places: tuple[int, ...] = (0, 26, 42, 60, 5, 62)) -> None:
    """Places, one a column: Sentinel-2 in true and false color, VV, VH, classes; beside them a key."""
    columns = []
    for index in places:
        ground = simulate_landscape(0, index)
        s2 = simulated_to_unit(
            to_stored_values(ground, get_sensor("sentinel2_l2a")), get_sensor("sentinel2_l2a")
        ).numpy()
        s1 = simulated_to_unit(
            to_stored_values(ground, get_sensor("sentinel1_grd")), get_sensor("sentinel1_grd")
        ).numpy()
        rows = [
            np.clip(s2[[3, 2, 1]] / 0.2, 0, 1).transpose(1, 2, 0) ** 0.8,
            np.clip(s2[[7, 3, 2]] / 0.45, 0, 1).transpose(1, 2, 0) ** 0.8,
            np.repeat(np.clip((s1[0] + 22) / 22, 0, 1)[..., None], 3, axis=2),
            np.repeat(np.clip((s1[1] + 28) / 22, 0, 1)[..., None], 3, axis=2),
            np.array(COLORS)[ground.mask] / 255,
        ]
        columns.append(
            np.concatenate([np.pad(row, ((0, 4), (0, 4), (0, 0)), constant_values=1) for row in rows])
        )
    sheet = Image.fromarray((np.concatenate(columns, axis=1) * 255).astype(np.uint8)).resize(
        (len(places) * 186, 5 * 186), Image.Resampling.NEAREST
    )
    whole = Image.new("RGB", (sheet.width + 200, sheet.height + 30), "white")
    whole.paste(sheet, (0, 0))
    pen = ImageDraw.Draw(whole)
    names = (
        "Sentinel-2, true color",
        "Sentinel-2, false color",
        "Sentinel-1, VV",
        "Sentinel-1, VH",
        "classes",
    )
    for row, name in enumerate(names):
        pen.text((sheet.width + 8, row * 186 + 6), name, fill="black")
    for k, (name, color) in enumerate(zip(CLASSES, COLORS, strict=True)):
        top = 4 * 186 + 24 + 15 * k
        pen.rectangle((sheet.width + 8, top, sheet.width + 20, top + 11), fill=color)
        pen.text((sheet.width + 26, top), name, fill="black")
    pen.text(
        (4, sheet.height + 8), "SIMULATED: drawn by swath simulate, 1.2 km a side, 10 m pixels", fill="black"
    )
    whole.quantize(128).save(path, optimize=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--pairs", type=int, default=200, help="places a round")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--places", type=int, default=2500, help="for the difficulty; 500 of them ask")
    arguments.add_argument(
        "--picture", type=Path, help="draw the sheet of the documentation, and nothing else"
    )
    options = arguments.parse_args()
    if options.picture is not None:
        picture(options.picture)
        return
    speed(options.pairs, options.rounds)
    difficulty(options.places)


if __name__ == "__main__":
    main()
