"""Colors of classes."""

from __future__ import annotations

import torch
from torch import Tensor

from swath.tasks.dense.losses import IGNORE

# Okabe and Ito's colors, then more of the same lightness; the first class, mostly background, is dark.
COLORS = (
    (40, 40, 40), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167), (153, 153, 153), (120, 200, 80), (160, 90, 60), (150, 120, 220), (90, 220, 210),
)  # fmt: skip


def colorize_mask(mask: Tensor) -> Tensor:
    """Class indices [B, H, W] as colors, uint8 [B, 3, H, W]; `IGNORE` is white."""
    table = torch.full((256, 3), 255, dtype=torch.uint8)
    for index in range(IGNORE):
        table[index] = torch.tensor(class_color(index), dtype=torch.uint8)
    return table.to(mask.device)[mask.long()].movedim(-1, 1)


def class_color(index: int) -> tuple[int, int, int]:
    """The color of class `index` on maps and in reports."""
    return COLORS[index % len(COLORS)]
