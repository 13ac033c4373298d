"""Do two images of a place lie on each other? By phase correlation, to a fraction of a pixel.

Kuglin and Hines (1975); the peak is refined by a parabola through its neighbors. Seasons and new buildings
change an image without moving it; so what counts is the gradient's magnitude, and the peak's height says how
far to trust the answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def phase_correlation_shift(before: Array, after: Array) -> tuple[float, float, float]:
    """How far `after` is shifted against `before`, in pixels.

    Args:
        before: [C, H, W].
        after: [C, H, W].

    Returns:
        (down, right, trust): `after[y + down, x + right]` shows what `before[y, x]` does. Trust is the peak's
        height over the standard deviation of the rest: 5 is chance for images of 256 pixels, 10 is sure.
    """
    a, b = (_edges(image) for image in (before, after))
    spectrum = np.fft.rfft2(b) * np.conj(np.fft.rfft2(a))
    surface = np.fft.irfft2(spectrum / np.maximum(np.abs(spectrum), 1e-12), s=a.shape)
    place = np.unravel_index(np.argmax(surface), surface.shape)
    trust = float((surface[place] - surface.mean()) / max(surface.std(), 1e-12))
    down, right = (_refined(surface, place, axis) for axis in (0, 1))
    return down, right, trust


def _edges(image: Array) -> Array:
    """Gradient magnitude of the mean over bands, windowed so that the frame's edges do not correlate."""
    mean = np.nan_to_num(image.astype(np.float64)).mean(axis=0)
    rows, columns = np.gradient(mean)
    edges = np.hypot(rows, columns)
    edges -= edges.mean()
    windowed: Array = edges * np.outer(np.hanning(edges.shape[0]), np.hanning(edges.shape[1]))
    return windowed


def _refined(surface: Array, place: Any, axis: int) -> float:
    size = surface.shape[axis]
    line = np.take(surface, place[1 - axis], axis=1 - axis)
    at = int(place[axis])
    left, middle, right = line[at - 1], line[at], line[(at + 1) % size]
    bend = left - 2 * middle + right
    exact = at + (0.5 * (left - right) / bend if bend < 0 else 0.0)
    return float(exact - size if exact > size / 2 else exact)
