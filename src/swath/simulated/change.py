"""Two dates of one place, and what has changed between them.

What changes: a settlement or an industrial area is built on open land, forest is felled, a lake or river
floods open land. What does not count as change, although it looks like one: crops in another state, dry or
green grass, other light, moisture, wind and speckle; both dates have their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swath.datasets.chip import Chip
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.simulated.landscape.plan import Planner, draw_plan, world_size
from swath.simulated.landscape.primitives import (
    LandscapePlan,
    LineFeature,
    PolygonFeature,
    Stroke,
    over_classes,
    over_surfaces,
)
from swath.simulated.landscape.rasterize import Landscape, check_request, rasterize
from swath.simulated.landscape.shapes import F64, blob
from swath.simulated.landscape.surfaces import CLASSES, FIRST, SURFACE, SURFACES
from swath.simulated.sensing import SENSORS, Gsd, render, sensor_grids

CHANGES = ("no change", "built", "felled", "flooded")
_UNCHANGED_SHARE = 0.2  # of the places where nothing happens
_STREAM = 37
_OPEN = over_classes("arable land", "pasture")
_FOREST = over_surfaces("broad-leaved trees", "coniferous trees")
_LOW = over_classes("arable land", "pasture", "wetland", "bare ground")


@dataclass(frozen=True, slots=True)
class SimulatedChange:
    """A change pair.

    Attributes:
        before: Sensor name -> chip of the first date.
        after: Sensor name -> chip of the second date.
        mask: [H, W] uint8, index into `CHANGES`, on the first sensor's grid; above 0 is change.
        before_ground: The landscape of the first date.
        after_ground: The landscape of the second date.
    """

    before: dict[str, Chip]
    after: dict[str, Chip]
    mask: NDArray[np.uint8]
    before_landscape: Landscape
    after_landscape: Landscape


def simulate_change(
    seed: int,
    index: int,
    *,
    size: int = 120,
    gsd: Gsd = 10.0,
    sensors: Sequence[str | Path | Sensor] = SENSORS,
) -> SimulatedChange:
    """Change pair number `index` of the series `seed`.

    The first date is the ground of `simulate_landscape` with the same numbers.

    Args:
        seed: Names the series.
        index: Place in it.
        size: Pixels a side of the first sensor.
        gsd: Metres per pixel, one for all or by sensor name.
        sensors: As in `simulate_pair`.

    Raises:
        ImageryError: As in `simulate_pair`.
    """
    wanted = [get_sensor(sensor) for sensor in sensors]
    grid = sensor_grids(wanted, size, gsd)
    pixels, metres = grid[wanted[0].name]
    check_request(seed, index, pixels, metres)
    plan = draw_plan(seed, index, world_size(pixels * metres))
    later = _later(plan, seed, index, pixels * metres / 2)
    dates: list[tuple[dict[str, Chip], Landscape]] = []
    for date, state in enumerate((plan, later)):
        grounds = {
            cell: rasterize(state, seed, index, size=cell[0], gsd=cell[1], date=date)
            for cell in set(grid.values())
        }
        chips = {sensor.name: render(grounds[grid[sensor.name]], sensor) for sensor in wanted}
        dates.append((chips, grounds[grid[wanted[0].name]]))
    (before, first), (after, second) = dates
    return SimulatedChange(before, after, _mask(first, second), first, second)


def _mask(before: Landscape, after: Landscape) -> NDArray[np.uint8]:
    """[H, W] what has become of the pixels whose class is another one now."""
    became = np.zeros(len(CLASSES), dtype=np.uint8)
    for name, kind in (("settlement", 1), ("industry", 1), ("bare ground", 2), ("water", 3)):
        became[CLASSES.index(name)] = kind
    found: NDArray[np.uint8] = became[after.mask] * (before.mask != after.mask)
    return found


def _later(plan: LandscapePlan, seed: int, index: int, reach: float) -> LandscapePlan:
    """The plan with what has happened since; `reach` is half of the side that is looked at."""
    planner = Planner(seed, index, plan.size, stream=_STREAM)
    random = planner.random
    if random.random() < _UNCHANGED_SHARE:
        return plan
    more: list[Stroke] = []
    events = random.sample(("built", "felled", "flooded"), 3)
    wanted = random.choices((1, 2, 3), (0.5, 0.35, 0.15))[0]
    towns = dict(plan.towns)
    for event in events:
        if wanted == 0:
            break
        strokes = {"built": _build, "felled": _fell, "flooded": _flood}[event](plan, planner, reach)
        more += strokes
        wanted -= bool(strokes)
    towns.update(planner.plan.towns)
    return replace(plan, strokes=[*plan.strokes, *more], towns=towns)


def _build(plan: LandscapePlan, planner: Planner, reach: float) -> list[Stroke]:
    """A new quarter on open land."""
    where = _middle_of(plan, planner, reach, _OPEN)
    if where is None:
        return []
    random = planner.random
    outline = blob(*where, random.uniform(70, 170), planner.numbers, 0.3)
    angle = random.uniform(0, math.pi)
    free = [patch for patch in _patches("garden") if patch not in plan.towns]
    planner.gardens = (free[0] if free else _patches("garden")[-1]) - FIRST["garden"]
    (planner.settlement if random.random() < 0.7 else planner.industry)(
        [tuple(point) for point in outline.tolist()], angle
    )
    ground, painted = planner.plan.polygons.pop()
    return [PolygonFeature(ground, painted, _OPEN), *planner.plan.strokes]


def _fell(plan: LandscapePlan, planner: Planner, reach: float) -> list[Stroke]:
    """A clear-cut, in one piece or two."""
    where = _middle_of(plan, planner, reach, _FOREST)
    if where is None:
        return []
    random = planner.random
    patch = random.choice(_patches("felled"))
    shift = (random.uniform(-150, 150), random.uniform(-150, 150))
    places = [where, (where[0] + shift[0], where[1] + shift[1])][: random.randint(1, 2)]
    return [
        PolygonFeature(patch, blob(*place, random.uniform(45, 130), planner.numbers, 0.35), _FOREST)
        for place in places
    ]


def _flood(plan: LandscapePlan, planner: Planner, reach: float) -> list[Stroke]:
    """Open land under water beside a lake or a river."""
    random = planner.random
    patch = random.choice(_patches("river"))
    rivers = [
        s for s in plan.strokes if isinstance(s, LineFeature) and _is_river(s.patch) and np.max(s.width) > 8
    ]
    lakes = [outline for p, outline in plan.polygons if p in _patches("lake") and _near(outline, reach)]
    if rivers:
        river = rivers[-1]
        width = np.asarray(river.width) + random.uniform(60, 200)
        swing = 1 + 0.35 * np.sin(np.arange(len(river.line)) * 0.21 + random.uniform(0, 6))
        return [LineFeature(patch, river.line, width * swing, _LOW)]
    if lakes:
        shore = random.choice(lakes)
        middle = shore.mean(axis=0)
        return [
            PolygonFeature(patch, planner.ragged(middle + random.uniform(1.35, 1.9) * (shore - middle)), _LOW)
        ]
    return []


def _middle_of(
    plan: LandscapePlan, planner: Planner, reach: float, of: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """The middle of some polygon in sight that is still what it was painted as, roughly."""
    found = [outline.mean(axis=0) for patch, outline in plan.polygons[1:]
             if of[patch] and _near(outline, 0.85 * reach)]  # fmt: skip
    if not found:
        return None
    x, y = planner.random.choice(found).tolist()
    return x, y


def _near(outline: F64, reach: float) -> bool:
    return bool((np.abs(outline.mean(axis=0)) < reach).all())


def _is_river(patch: int) -> bool:
    return patch in _patches("river")


def _patches(surface: str) -> range:
    first = FIRST[surface]
    return range(first, first + SURFACES[SURFACE[surface]].patches)
