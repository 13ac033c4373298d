"""Geometry of landscapes, in metres: parcels, meanders, ragged outlines.

A polygon is a list of (x, y) corners where Python loops over few of them, and an array [n, 2] where numpy
works on many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Points = list[tuple[float, float]]


def polygon_area(polygon: Points) -> float:
    """Square metres (shoelace formula)."""
    total, (px, py) = 0.0, polygon[-1]
    for x, y in polygon:
        total += px * y - x * py
        px, py = x, y
    return abs(total) / 2


def split_polygon(polygon: Points, nx: float, ny: float, at: float) -> tuple[Points, Points]:
    """The two sides of a convex polygon along the line nx * x + ny * y = at; one may be empty."""
    low: Points = []
    high: Points = []
    px, py = polygon[-1]
    before = nx * px + ny * py - at
    for x, y in polygon:
        here = nx * x + ny * y - at
        if (before < 0) != (here < 0):
            fraction = before / (before - here)
            crossing = (px + fraction * (x - px), py + fraction * (y - py))
            low.append(crossing)
            high.append(crossing)
        (low if here < 0 else high).append((x, y))
        px, py, before = x, y, here
    return low, high


def parcels(
    polygon: Points, size: float, angle: float, slender: float, skew: float, random: Random
) -> list[Points]:
    """Divide a convex polygon into parcels, as heirs divide fields: across the long side, again and again.

    Args:
        polygon: What is divided.
        size: Area in square metres below which nobody divides any more (give or take a half).
        angle: Direction of the parcels, radians.
        slender: Length over width that parcels tend to.
        skew: Standard deviation in radians by which a cut deviates from the parcels' direction.
        random: Source of randomness.
    """
    done: list[Points] = []
    stack = [polygon]
    gauss, uniform, cos, sin = random.gauss, random.uniform, math.cos, math.sin
    while stack:
        part = stack.pop()
        if polygon_area(part) < size * uniform(0.8, 1.9):
            done.append(part)
            continue
        turn = angle + gauss(0, skew)
        ux, uy = cos(turn), sin(turn)
        along = [ux * x + uy * y for x, y in part]
        across = [ux * y - uy * x for x, y in part]
        low, high, left, right = min(along), max(along), min(across), max(across)
        where = uniform(0.36, 0.64)
        if high - low > slender * (right - left):
            pieces = split_polygon(part, ux, uy, low + where * (high - low))
        else:
            pieces = split_polygon(part, -uy, ux, left + where * (right - left))
        stack.extend(piece for piece in pieces if len(piece) > 2)
    return done


@dataclass(frozen=True, slots=True)
class SmoothDisplacement:
    """A smooth displacement of the plane: sums of waves from 40 to 400 m. Shared edges stay shared."""

    waves: F64  # [2, K] radians per metre
    swing: F64  # [K, 2]
    phase: F64  # [K]

    @classmethod
    def draw(cls, random: np.random.Generator) -> SmoothDisplacement:
        """Another one."""
        length = np.geomspace(42, 400, 12) * random.uniform(0.85, 1.15, 12)
        angle = random.uniform(0, 2 * np.pi, (2, 12))
        waves = np.stack([np.cos(angle[0]), np.sin(angle[0])]) * (2 * np.pi / length)
        swing = np.stack([np.cos(angle[1]), np.sin(angle[1])], axis=1) * (0.06 * length**0.85)[:, None]
        return cls(waves, swing, random.uniform(0, 2 * np.pi, 12))

    def __call__(self, points: Any, strength: float = 1.0) -> F64:
        """Displaced points [n, 2]; strength 1 moves them by 15 m or so."""
        points = np.asarray(points, dtype=np.float64)
        moved: F64 = points + strength * (np.sin(points @ self.waves + self.phase) @ self.swing)
        return moved


def densify(polygon: Any, step: float) -> F64:
    """A closed outline with a corner at least every `step` metres."""
    corners = np.asarray(polygon, dtype=np.float64)
    following = np.roll(corners, -1, axis=0)
    count = np.maximum(1, np.hypot(*(following - corners).T) // step).astype(np.int64)
    which = np.repeat(np.arange(len(corners)), count)
    fraction = (np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)) / count[which]
    outline: F64 = corners[which] + fraction[:, None] * (following - corners)[which]
    return outline


def blob(x: float, y: float, radius: float, random: np.random.Generator, rough: float = 0.5) -> F64:
    """A closed ragged outline round (x, y): a circle with waves in its radius."""
    order = np.arange(2, 11)
    turn = np.linspace(0, 2 * np.pi, 56, endpoint=False)
    phase, height = random.uniform(0, 2 * np.pi, 9), random.normal(0, rough, 9) / order**1.15
    length = radius * np.exp((np.sin(turn[:, None] * order + phase) * height).sum(axis=1))
    stretch = random.uniform(0.65, 1.0)
    lean = random.uniform(0, np.pi)
    along, across = length * np.cos(turn), stretch * length * np.sin(turn)
    outline: F64 = np.stack(
        [
            x + along * np.cos(lean) - across * np.sin(lean),
            y + along * np.sin(lean) + across * np.cos(lean),
        ],
        axis=1,
    )
    return outline


def meander(
    x: float, y: float, heading: float, length: float, bend: float, wave: float, random: Random
) -> F64:
    """A line [n, 2] through (x, y) whose direction swings: a sine-generated curve, the shape of meanders.

    Langbein and Leopold (1966): a river's direction is a sine of the way traveled. A second, longer sine
    keeps the bends from repeating.

    Args:
        x: Where its middle lies.
        y: Where its middle lies.
        heading: Mean direction, radians.
        length: Metres along the line.
        bend: Largest deviation from the mean direction, radians; 0.1 a road, 1.2 a meandering river.
        wave: Metres along the line from bend to like bend.
        random: Source of randomness.
    """
    step = min(wave / 16, 25.0)
    way = np.arange(-length / 2, length / 2, step)
    first, second = random.uniform(0, 2 * math.pi), random.uniform(0, 2 * math.pi)
    grow = 0.75 + 0.25 * np.sin(2 * np.pi * way / (5.3 * wave) + second)
    turn = heading + bend * grow * np.sin(2 * np.pi * way / wave + first)
    turn += 0.4 * bend * np.sin(2 * np.pi * way / (2.7 * wave) + second)
    line = np.cumsum(np.stack([np.cos(turn), np.sin(turn)], axis=1), axis=0) * step
    centered: F64 = line - line[len(line) // 2] + (x, y)
    return centered


def rotation(angle: float) -> F64:
    """[2, 2] such that ``points @ rotation(a).T`` turns them by a radians."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
