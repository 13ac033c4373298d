"""How far a score may be trusted: bootstrap intervals over the images that it was measured on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def bootstrap_interval(
    hits: ArrayLike, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979).

    Args:
        hits: [N] one number an image, such as 1 where the prediction was right; or [N, S] for S scores of the
            same images (scales), whose average is taken: images are drawn whole.
        level: Coverage.
        resamples: Bootstrap samples.
        seed: Of the resampling, so that a report can be repeated.

    Returns:
        (low, high) of the mean.
    """
    values = np.asarray(hits, dtype=np.float64)
    per_image = values if values.ndim == 1 else values.mean(axis=1)
    if len(per_image) == 0:
        raise ValueError("the interval of no images at all is not defined")
    generator = np.random.default_rng(seed)
    # Equal values are interchangeable: drawing how often each value comes up is the same as drawing images,
    # and independent of their number.
    distinct, counts = np.unique(per_image, return_counts=True)
    share = counts / counts.sum()
    drawn = generator.multinomial(len(per_image), share, size=resamples)
    means = drawn @ distinct / len(per_image)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def paired_difference(
    first: ArrayLike, second: ArrayLike, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Difference of two scores on the *same* images, with its bootstrap interval.

    Much sharper than comparing two intervals, because the images' difficulty cancels.

    Args:
        first: [N] or [N, S], see `bootstrap_interval`.
        second: The same images in the same order.
        level: Coverage.
        resamples: Bootstrap samples.
        seed: Of the resampling.

    Returns:
        (mean of first - second, low, high).
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    low, high = bootstrap_interval(difference, level=level, resamples=resamples, seed=seed)
    return float(difference.mean()), low, high
