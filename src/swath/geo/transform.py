"""Affine transforms of parts and of resampled copies of an image."""

from __future__ import annotations

from collections.abc import Sequence

Transform = Sequence[float]
SixNumbers = tuple[float, float, float, float, float, float]


def window_transform(transform: Transform, column: float, row: float) -> SixNumbers:
    """The transform of a window whose upper left corner is at (column, row) of the grid."""
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    return a, b, a * column + b * row + c, d, e, d * column + e * row + f


def resampled_transform(transform: Transform, x: float, y: float) -> SixNumbers:
    """The transform after resampling: one new pixel is x old columns wide and y old rows high."""
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    return a * x, b * y, c, d * x, e * y, f
