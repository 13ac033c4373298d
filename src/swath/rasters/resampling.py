"""Resampling that knows which pixels are valid.

One definition for every format, driver and overview: an output pixel is the weighted mean of the *valid*
input pixels under the kernel, and it is valid itself where valid input covers at least half of its area. No
data, transparency and NaN therefore never bleed into their neighbors. Kernels, for an output pixel that
covers `s` input pixels in one direction:

=========  ====================================================================================
nearest    the input pixel under the center
area       exact share of overlap: the mean of what it covers; replicates where s < 1
bilinear   triangle of half-width max(1, s): widened when reducing, so it does not alias
cubic      Keys' cubic (a = -0.5) of half-width 2 max(1, s), as Pillow's BICUBIC
=========  ====================================================================================
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from swath.errors import ImageryError, suggest

Kernel = Literal["nearest", "area", "bilinear", "cubic"]
Array = NDArray[Any]
Span = tuple[float, float]


def check_kernel(kernel: str) -> None:
    """Raise an ImageryError unless `kernel` is one of the four."""
    if kernel not in get_args(Kernel):
        raise ImageryError(f"unknown resampling {kernel!r}.{suggest(kernel, list(get_args(Kernel)))}")


def kernel_support(kernel: Kernel, step: float) -> float:
    """How many input pixels beyond its own area an output pixel may look at, in one direction."""
    if kernel in ("nearest", "area"):
        return 0.0
    return (1.0 if kernel == "bilinear" else 2.0) * max(1.0, step)


def kernel_weights(size: int, span: Span, count: int, kernel: Kernel) -> tuple[Array, Array]:
    """The 1-D resampling from `size` input pixels to `count` output pixels over `span`.

    Args:
        size: Number of input pixels; pixel i covers [i, i + 1).
        span: Interval of input coordinates that the output covers; may reach beyond the input.
        count: Number of output pixels, which share the span equally.
        kernel: See the module.

    Returns:
        (index [count, taps] int, weight [count, taps] float64). Taps outside the input have weight 0.
        Weights of "area" sum up to the covered share of the output pixel, the others to 1 (0 if all outside).
    """
    step = (span[1] - span[0]) / count
    low = span[0] + step * np.arange(count)
    center = low + step / 2
    if kernel == "nearest":
        index = np.floor(center).astype(np.int64)[:, None]
        weight = np.ones_like(index, dtype=np.float64)
    elif kernel == "area":
        # 1e-9: an edge that rounding puts just before a pixel's border does not need that pixel.
        first = np.floor(low + 1e-9).astype(np.int64)
        taps = int(np.ceil(step - 1e-9)) + 1
        index = first[:, None] + np.arange(taps)
        overlap = np.minimum(low[:, None] + step, index + 1) - np.maximum(low[:, None], index)
        weight = np.clip(overlap, 0, None) / step
    else:
        widen = max(1.0, step)
        half = kernel_support(kernel, step)
        first = np.floor(center - half).astype(np.int64)
        index = first[:, None] + np.arange(int(np.ceil(2 * half)) + 1)
        x = np.abs(index + 0.5 - center[:, None]) / widen
        weight = np.clip(1 - x, 0, None) if kernel == "bilinear" else _keys(x)
    inside = (index >= 0) & (index < size)
    weight = np.where(inside, weight, 0.0)
    if kernel in ("bilinear", "cubic"):
        total = weight.sum(1, keepdims=True)
        weight = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    keep = np.flatnonzero(weight.any(axis=0))  # whole columns of zeros are common at the ends
    keep = keep if len(keep) else np.array([0])
    return np.clip(index, 0, size - 1)[:, keep], weight[:, keep]


def _keys(x: Array) -> Array:
    """Keys' cubic convolution kernel with a = -0.5 at distances x >= 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resample(
    values: Array, valid: Array, rows: Span, columns: Span, shape: tuple[int, int], kernel: Kernel
) -> tuple[Array, Array]:
    """Resample [C, H, W] values with their [H, W] mask.

    Args:
        values: [C, H, W] of any real type.
        valid: [H, W] bool; invalid values are never looked at, so they may be NaN.
        rows: Interval of input rows that the output covers (may be fractional and reach outside).
        columns: The same for columns.
        shape: (h, w) of the output.
        kernel: See the module.

    Returns:
        ([C, h, w] of the input's type, integers rounded and clipped to their range; [h, w] bool). Invalid
        output values are 0.
    """
    height, width = valid.shape
    if kernel == "nearest":
        row, row_inside = (part[:, 0] for part in kernel_weights(height, rows, shape[0], kernel))
        column, column_inside = (part[:, 0] for part in kernel_weights(width, columns, shape[1], kernel))
        inside = (row_inside[:, None] * column_inside[None, :]) > 0
        ok = valid[row[:, None], column[None, :]] & inside
        picked = values[:, row[:, None], column[None, :]]
        return np.where(ok, picked, np.zeros((), values.dtype)), ok

    # float32 holds every integer up to 2^24; wider types are computed in double.
    exact = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    by_row, by_column = (kernel_weights(n, s, m, kernel) for n, s, m in _axes(valid, rows, columns, shape))
    area_row, area_column = (
        kernel_weights(n, s, m, "area") for n, s, m in _axes(valid, rows, columns, shape)
    )
    complete = bool(valid.all())
    seen = np.ones((height, width), exact) if complete else valid.astype(exact)
    coverage = _apply(_apply(seen[None], area_row, 1), area_column, 2)[0]
    total = _apply(_apply(seen[None], by_row, 1), by_column, 2)[0]
    # Slightly under a half, so that exactly a half survives rounding.
    ok = (coverage > 0.4999) & (total > 1e-3)

    source = values.astype(exact, copy=False)
    if not complete:
        source = np.where(valid, source, np.zeros((), exact))
    result = _apply(_apply(source, by_row, 1), by_column, 2)
    result /= np.where(ok, total, 1).astype(exact)
    result *= ok
    if np.issubdtype(values.dtype, np.integer):
        limits = np.iinfo(values.dtype)
        result = np.clip(np.rint(result), limits.min, limits.max)
    return result.astype(values.dtype, copy=False), ok


def _axes(
    valid: Array, rows: Span, columns: Span, shape: tuple[int, int]
) -> tuple[tuple[int, Span, int], tuple[int, Span, int]]:
    return (valid.shape[0], rows, shape[0]), (valid.shape[1], columns, shape[1])


def _apply(x: Array, taps: tuple[Array, Array], axis: int) -> Array:
    """Weighted sum over taps along axis 1 or 2 of [C, H, W]; the cost is one pass a tap."""
    index, weight = taps
    weight = weight.astype(x.dtype)
    shape = (1, -1, 1) if axis == 1 else (1, 1, -1)
    out = np.take(x, index[:, 0], axis=axis) * weight[:, 0].reshape(shape)
    for k in range(1, index.shape[1]):
        out += np.take(x, index[:, k], axis=axis) * weight[:, k].reshape(shape)
    return out
