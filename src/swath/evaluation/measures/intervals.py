"""Estimates with their intervals: bootstrap over the images of a score, Student's t over seeds."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


class Estimate(NamedTuple):
    """A value with its 95% interval. The bounds are NaN where there is no interval."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @classmethod
    def from_replicates(cls, value: Any, replicates: ArrayLike) -> Self:
        """With the percentile interval of bootstrap replicates."""
        return cls(float(value), *percentile_interval(replicates))

    def __str__(self) -> str:
        if self.value != self.value:  # NaN: there was nothing to measure
            return "–"
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def nan_mean(values: NDArray[Any]) -> NDArray[np.float64]:
    """[R] mean of the finite values in each row of [R, K]; NaN (without a warning) for a row without any."""
    finite = np.isfinite(values)
    total = np.where(finite, values, 0.0).sum(axis=1)
    mean: NDArray[np.float64] = np.where(
        finite.any(axis=1), total / np.maximum(finite.sum(axis=1), 1), np.nan
    )
    return mean


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
    fraction = counts / counts.sum()
    drawn = generator.multinomial(len(per_image), fraction, size=resamples)
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


@lru_cache(maxsize=2)
def bootstrap_counts(images: int, *, seed: int = 0) -> NDArray[np.float32]:
    """How often each image is drawn in each bootstrap sample, for figures that are no mean over images.

    Args:
        images: Number of images N.
        seed: Of the resampling. Figures of the same images share their resamples, so that differences pair.

    Returns:
        [R, N] counts, each row of sum N; R is 1,000, or fewer (at least 200) beyond 20,000 images.
    """
    resamples = max(200, min(1000, 20_000_000 // max(images, 1)))
    generator = np.random.default_rng(seed)
    counts = np.empty((resamples, images), dtype=np.float32)
    for row in counts:
        row[:] = np.bincount(generator.integers(0, images, images), minlength=images)
    counts.setflags(write=False)
    return counts


def percentile_interval(replicates: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """(low, high) of bootstrap replicates; those that are not defined (NaN) are left out."""
    values = np.asarray(replicates, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_permutation_p(
    first: ArrayLike, second: ArrayLike, *, resamples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of a paired permutation test: are two scores of the same images the same?

    If they were, each image's difference would have either sign with equal chance (Fisher 1935). For hits and
    misses at one scale this is McNemar's exact test, drawn at random.

    Args:
        first: [N] or [N, S], see `bootstrap_interval`.
        second: The same images in the same order.
        resamples: Drawn assignments of signs.
        seed: Of the drawing.

    Returns:
        p, never below 1 / (resamples + 1).
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    per_image = difference if difference.ndim == 1 else difference.mean(axis=1)
    # Images with the same size of difference are interchangeable: only how many keep their sign counts.
    sizes, counts = np.unique(np.round(np.abs(per_image), 12), return_counts=True)
    kept = np.random.default_rng(seed).binomial(counts, 0.5, size=(resamples, len(counts)))
    sums = (2 * kept - counts) @ sizes
    extreme = int((np.abs(sums) >= abs(per_image.sum()) - 1e-9).sum())
    return (extreme + 1) / (resamples + 1)


def student_interval(values: ArrayLike) -> tuple[float, float]:
    """95% interval of the mean of a few independent values, such as scores of training seeds (Student's t).

    Args:
        values: [n], n at least 2.

    Returns:
        (low, high); what another seed gives scatters more widely than this interval of the *mean*.
    """
    scores = np.asarray(values, dtype=np.float64)
    if len(scores) < 2:
        raise ValueError("an interval over seeds needs two values or more")
    half = stats.t.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / np.sqrt(len(scores))
    return float(scores.mean() - half), float(scores.mean() + half)
