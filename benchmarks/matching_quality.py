"""How far apart on the ground the cells lie that CMID matches: true places against the released code's.

    python benchmarks/matching_quality.py

4,000 pairs of crops of a 224 px frame (scale 0.3 to 1, ratio 3/4 to 4/3, flips), 7 x 7 cells, the 20 nearest
matches of each. The released code adds a crop's offset as a fraction of the free room, as if it were pixels.
"""

from __future__ import annotations

import torch

from swath.augmentations.geometric import crop_boxes
from swath.keyed_random import sample_keys, uniform
from swath.objectives.modules.cell_matching import cell_locations, match_cells

COUNT, SIDE, GRID, MATCHES = 4000, 224, (7, 7), 20


def main() -> None:
    key = sample_keys(0, 0, torch.arange(COUNT))
    true, released = [], []
    for name in ("first", "second"):
        boxes = torch.tensor(
            crop_boxes(key, SIDE, SIDE, scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3), stream=name),
            dtype=torch.float32,
        )
        flipped = uniform(key, f"flip {name}", 1)[:, 0] < 0.5
        true.append(cell_locations(boxes, flipped, GRID))
        fractions = boxes[:, :2] / (SIDE - boxes[:, 2:]).clamp_min(1)
        released.append(cell_locations(torch.cat([fractions, boxes[:, 2:]], 1), flipped, GRID))
    places = [grid.flatten(1, 2) for grid in true]
    print(f"{'matching':<10} {'mean px':>8} {'median':>8} {'90%':>8}   within half a cell (16 px)")
    for name, grids in (("pixel", true), ("released", released)):
        pairs = match_cells(grids[0], grids[1], MATCHES)
        first, second = (
            place.gather(1, index.unsqueeze(-1).expand(-1, -1, 2))
            for place, index in zip(places, (pairs.first, pairs.second), strict=True)
        )
        apart = (first - second).norm(dim=2).flatten()
        print(
            f"{name:<10} {apart.mean():8.1f} {apart.median():8.1f} {apart.quantile(0.9):8.1f}   "
            f"{100 * (apart < 16).float().mean():.1f}%"
        )


if __name__ == "__main__":
    main()
