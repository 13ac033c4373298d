"""Overlap and suppression of oriented boxes against shapely's, one thread, CPU seconds of the process.

    python benchmarks/rotated_boxes.py

shapely has neither; both are what one writes with it: a loop-free `shapely.intersection` over all pairs, or
only over those that its STRtree finds; and greedy suppression over the tree's pairs. *spread*: boxes all over
a tile of 1,024 px. *crowded*: what a detector hands to suppression, twenty candidates around fifty objects.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import shapely
import torch
from torch import Tensor

from swath.tasks.detection.rotated_boxes import corners, overlapping_pairs, pair_iou, rotated_iou, rotated_nms

COUNT, SIDE, THRESHOLD = 1000, 1024.0, 0.1


def spread(generator: torch.Generator) -> Tensor:
    u = torch.rand(COUNT, 5, generator=generator, dtype=torch.float64)
    low = torch.tensor([0, 0, 20.0, 10.0, -np.pi / 2])
    high = torch.tensor([SIDE, SIDE, 80.0, 40.0, np.pi / 2])
    return low + u * (high - low)


def crowded(generator: torch.Generator) -> Tensor:
    noise = torch.randn(COUNT, 5, generator=generator, dtype=torch.float64)
    scale = torch.tensor([5.0, 5.0, 4.0, 2.0, 0.1])
    return (spread(generator)[: COUNT // 20].repeat_interleave(20, 0) + noise * scale).clamp(min=-SIDE)


def shapely_areas(a: object, b: object) -> np.ndarray:
    common = shapely.area(shapely.intersection(a, b))
    return common / (shapely.area(a) + shapely.area(b) - common)


def shapely_all(first: Tensor, second: Tensor) -> np.ndarray:
    a, b = (shapely.polygons(corners(x).numpy()) for x in (first, second))
    return shapely_areas(a[:, None], b[None])


def shapely_tree(first: Tensor, second: Tensor) -> np.ndarray:
    a, b = (shapely.polygons(corners(x).numpy()) for x in (first, second))
    i, j = shapely.STRtree(b).query(a)
    result = np.zeros((len(a), len(b)))
    result[i, j] = shapely_areas(a[i], b[j])
    return result


def shapely_nms(boxes: Tensor, scores: Tensor) -> np.ndarray:
    order = scores.argsort(descending=True, stable=True).numpy()
    shapes = shapely.polygons(corners(boxes[order]).numpy())
    i, j = shapely.STRtree(shapes).query(shapes)
    i, j = i[i < j], j[i < j]
    meet = shapely_areas(shapes[i], shapes[j]) > THRESHOLD
    victims: dict[int, list[int]] = {}
    for one, other in zip(i[meet].tolist(), j[meet].tolist(), strict=True):
        victims.setdefault(one, []).append(other)
    alive = np.ones(len(order), dtype=bool)
    for one in range(len(order)):
        if alive[one]:
            alive[victims.get(one, [])] = False
    return order[alive]


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Best CPU time of some repetitions."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def compare(name: str, first: Tensor, second: Tensor, scores: Tensor) -> None:
    ours, theirs = rotated_iou(first, second).numpy(), shapely_tree(first, second)
    kept = rotated_nms(first, scores, THRESHOLD).numpy()
    assert np.array_equal(kept, shapely_nms(first, scores))
    i, j = overlapping_pairs(first, second)
    print(
        f"\n{name}: upright bounds of {len(i):,} of {COUNT**2:,} pairs overlap; largest difference "
        f"{np.abs(ours - theirs).max():.1e}; {len(kept)} kept"
    )
    a, b = first[i], second[j]
    shapes = [shapely.polygons(corners(x).numpy()) for x in (a, b)]
    our_iou = seconds(lambda: rotated_iou(first, second), 10)
    our_nms = seconds(lambda: rotated_nms(first, scores, THRESHOLD), 10)
    for what, our, their in (
        ("IoU, shapely on all pairs", our_iou, seconds(lambda: shapely_all(first, second), 1)),
        ("IoU, shapely with STRtree", our_iou, seconds(lambda: shapely_tree(first, second), 3)),
        ("NMS, shapely with STRtree", our_nms, seconds(lambda: shapely_nms(first, scores), 3)),
        ("those pairs alone", seconds(lambda: pair_iou(a, b), 5), seconds(lambda: shapely_areas(*shapes), 1)),
    ):
        print(f"  {what:26s} {their * 1e3:8.1f} ms   ours {our * 1e3:6.1f} ms   {their / our:6.1f} x")


def main() -> None:
    torch.set_num_threads(1)
    print(f"{COUNT} boxes; torch {torch.__version__}, shapely {shapely.__version__}")
    for name, draw in (("spread", spread), ("crowded", crowded)):
        generator = torch.Generator().manual_seed(0)
        first, second = draw(generator), draw(torch.Generator().manual_seed(int(name == "spread")))
        compare(name, first, second, torch.rand(COUNT, generator=generator))


if __name__ == "__main__":
    main()
