"""What a plan is made of: polygons, bands, blocks and areas, in metres, and which patches they may cover."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from swath.simulated.landscape.shapes import F64
from swath.simulated.landscape.surfaces import CLASSES, PATCH_CLASS, PATCHES, SURFACE


@dataclass(frozen=True, slots=True)
class LineFeature:
    """A line with a width."""

    patch: int
    line: F64  # [n, 2] metres
    width: float | F64  # metres, one or [n]
    over: NDArray[np.bool_] | None = None  # [P] patches it may be painted over; None for all


@dataclass(frozen=True, slots=True)
class RectangleFeatures:
    """Turned rectangles."""

    patch: NDArray[np.uint8]  # [n]
    center: F64  # [n, 2] metres
    size: F64  # [n, 2] metres
    angle: F64  # [n] radians
    over: NDArray[np.bool_] | None = None  # [P]
    kind: str | None = None  # what its bounding boxes are called, where they are wanted

    def corners(self) -> F64:
        """[n, 4, 2] metres."""
        half = self.size[:, None] / 2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        c, s = np.cos(self.angle)[:, None], np.sin(self.angle)[:, None]
        turned = np.stack([c * half[..., 0] - s * half[..., 1], s * half[..., 0] + c * half[..., 1]], axis=2)
        placed: F64 = self.center[:, None] + turned
        return placed


@dataclass(frozen=True, slots=True)
class PolygonFeature:
    """A polygon that respects what lies there."""

    patch: int
    outline: F64  # [n, 2] metres
    over: NDArray[np.bool_]  # [P]


Stroke = LineFeature | RectangleFeatures | PolygonFeature


@dataclass(slots=True)
class LandscapePlan:
    """What lies where.

    Attributes:
        side: Metres of the square world.
        polygons: (patch, outline [n, 2]) from bottom to top.
        strokes: What is painted over them, in order.
        towns: Direction of the streets (radians) of each settlement, by its garden patch.
        relief: Standard deviation of slopes (rise over run).
        relief_seed: Of the hills.
    """

    size: float
    polygons: list[tuple[int, F64]] = field(default_factory=list)
    strokes: list[Stroke] = field(default_factory=list)
    towns: dict[int, float] = field(default_factory=dict)
    relief: float = 0.0
    relief_seed: int = 0


def over_surfaces(*names: str) -> NDArray[np.bool_]:
    """[P] whether a patch is a variety of one of these surfaces."""
    return np.isin(PATCHES, [SURFACE[name] for name in names])


def over_classes(*names: str) -> NDArray[np.bool_]:
    """[P] whether a patch is of one of these classes."""
    return np.isin(PATCH_CLASS, [CLASSES.index(name) for name in names])
