"""Example images of a fine-tuning report: those with the worst and the best scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.reporting.html import jpeg
from swath.tasks.scores import TaskScores

_SHOWN, _LARGEST = 4, 384  # examples of each kind, and their largest height in pixels
Array = NDArray[Any]


def worst_and_best(dataset: Any, scores: TaskScores, show: Callable[[int], str]) -> str:
    """HTML of the images with the worst scores, then of some of the best.

    Args:
        dataset: The split that was scored.
        scores: Its scores.
        show: Position of an image -> its HTML.
    """
    numbers = np.array(scores.protocol.get("images_scored", range(len(dataset))))
    order = numbers[np.argsort(np.nan_to_num(scores.images, nan=2.0), kind="stable")]
    worst = order[:_SHOWN].tolist()
    best = [i for i in order[::-1][:_SHOWN].tolist() if i not in worst]
    parts = []
    for title, chosen in (("Worst", worst), ("Best", best)):
        tiles = "".join(show(int(i)) for i in chosen)
        parts.append(f"<h3>{title}</h3>{tiles}" if chosen else "")
    return "".join(parts)


def side_by_side(images: Sequence[Array]) -> bytes:
    """Images [H, W, 3] of one height in one row, as JPEG."""
    from PIL import Image

    gap = np.full((images[0].shape[0], 4, 3), 255, dtype=np.uint8)
    strip = np.concatenate([x for image in images for x in (image, gap)][:-1], axis=1)
    drawn = Image.fromarray(strip)
    scale = min(1.0, _LARGEST / images[0].shape[0])
    size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
    return jpeg(drawn.resize(size, Image.Resampling.LANCZOS) if scale < 1 else drawn, quality=82)


def short_path(path: str) -> str:
    """The last two parts of a path."""
    return "/".join(path.split("/")[-2:])
