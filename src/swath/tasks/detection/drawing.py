"""Boxes drawn over pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Color = tuple[int, int, int]
TRUE: Color = (86, 180, 233)
RIGHT: Color = (0, 200, 120)
WRONG: Color = (230, 85, 13)
MISSED: Color = (240, 228, 66)
IGNORED: Color = (170, 170, 170)


def draw_outlines(
    canvas: NDArray[np.uint8], corners: Tensor, color: Color, *, width: int = 2, dashed: bool = False
) -> NDArray[np.uint8]:
    """A picture with boxes drawn over it.

    Args:
        canvas: [H, W, 3]; stays as it is.
        corners: [N, 4, 2] (x, y) in its pixels.
        color: Of the lines.
        width: Of the lines, in pixels.
        dashed: Broken lines, so that kinds can be told without color.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)
    for box in corners.detach().cpu().double().numpy():
        for start, stop in zip(box, np.roll(box, -1, axis=0), strict=True):
            pieces = max(1, round(float(np.hypot(*(stop - start))) / 8)) if dashed else 1
            for i in range(pieces):
                low, high = i / pieces, (i + (0.55 if dashed else 1.0)) / pieces
                a, b = start + (stop - start) * low, start + (stop - start) * high
                pen.line([tuple(a), tuple(b)], fill=color, width=width)
    return np.asarray(image).copy()


def outline_image(corners: Tensor, size: Any, color: Color = TRUE) -> Tensor:
    """Boxes on black, uint8 [3, H, W] on the CPU, for pictures of training."""
    drawn = draw_outlines(np.zeros((*size, 3), np.uint8), corners, color, width=1)
    return torch.from_numpy(drawn).permute(2, 0, 1)
