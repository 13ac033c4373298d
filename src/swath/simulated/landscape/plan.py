"""The plan of a piece of country: what lies where, in metres, before anybody looks at it.

A plan is a list of things to paint one over the other: polygons (parcels, woods, lakes, towns), then bands
(rivers, roads, hedges) and blocks (streets, houses, halls, ships). It knows no pixels; `landscape` rasterizes
it at any ground sample distance. The origin is the middle, x points east and y south.
"""

from __future__ import annotations

import math
from random import Random

import numpy as np
from numpy.typing import NDArray

from swath.simulated.landscape.primitives import (
    LandscapePlan,
    LineFeature,
    RectangleFeatures,
    Stroke,
    over_classes,
    over_surfaces,
)
from swath.simulated.landscape.shapes import (
    F64,
    Points,
    SmoothDisplacement,
    blob,
    densify,
    meander,
    parcels,
    polygon_area,
    rotation,
)
from swath.simulated.landscape.surfaces import CROP_VARIETIES, CROPS, FIRST, PATCHES, SURFACE, SURFACES

WORLD = 1280.0  # metres; what is looked at lies in the middle of a world of this side, or its doubles

# Mean shares of what country is used for; each scene draws its own around them (a Dirichlet distribution).
USES = {"arable": 0.19, "pasture": 0.14, "broad-leaved": 0.13, "coniferous": 0.13, "settlement": 0.14,
        "industry": 0.11, "wetland": 0.08, "bare": 0.08}  # fmt: skip
_VARIETY = 1.3  # Dirichlet concentration: small means that one use often dominates


_OPEN = over_classes("arable land", "pasture")
_GARDEN = over_surfaces("garden")
_YARD = over_surfaces("yard")
_WATER = over_surfaces("lake", "river")
_BUILT = over_surfaces("garden", "street", "house")


def world_size(extent: float) -> float:
    """Side of the world in whose middle a footprint of `extent` metres lies."""
    return WORLD * float(1 << max(0, math.ceil(math.log2(max(extent, 1.0) / WORLD) - 1e-9)))


def draw_plan(seed: int, index: int, size: float = WORLD) -> LandscapePlan:
    """Country number `index` of the series `seed`: the same for every sensor and ground sample distance."""
    return Planner(seed, index, size).draw()


class Planner:
    """Draws a plan, feature by feature; `simulated.change` uses it to build more towns."""

    def __init__(self, seed: int, index: int, side: float, stream: int = 0) -> None:
        self.numbers = np.random.default_rng([seed, index, int(side), stream])
        self.random = Random(int(self.numbers.integers(1 << 62)))
        self.ragged = SmoothDisplacement.draw(self.numbers)
        self.plan = LandscapePlan(side)
        self.woods: list[tuple[int, F64]] = []  # painted after the fields, so that they bulge over them
        self.hedges: list[tuple[F64, float]] = []  # both ends, width
        self.crossings: Points = []  # corners of fields and meadows, where farms stand
        self.gardens = 0

    def draw(self) -> LandscapePlan:
        """Everything, from the fields up."""
        random, plan = self.random, self.plan
        plan.relief = min(0.22, random.expovariate(1 / 0.045))
        plan.relief_seed = random.getrandbits(60)
        half = plan.size / 2 * 1.08
        square: Points = [(-half, -half), (half, -half), (half, half), (-half, half)]
        plan.polygons.append((self.pick("meadow"), np.array(square)))

        names = list(USES)
        fractions = self.numbers.dirichlet(_VARIETY * np.array(list(USES.values())))
        around = "arable" if fractions[0] > fractions[1] else "pasture"
        lie = random.uniform(0, math.pi)
        towns: list[tuple[Points, float, str]] = []
        for district in parcels(square, random.uniform(10e4, 30e4), lie, 1.3, 0.16, random):
            use = random.choices(names, fractions.tolist())[0]
            angle = lie + random.gauss(0, 0.16)
            if use in ("settlement", "industry"):
                towns.append((district, angle, use))
                use = around  # what is left over at its edges
            self.district(district, angle, use)
        plan.polygons.extend(self.woods)
        plan.strokes.extend(self.planted())
        self.coppices()
        lines = self.waters()
        self.farmsteads()
        for district, angle, use in towns:
            (self.settlement if use == "settlement" else self.industry)(district, angle)
        plan.strokes[:0] = lines  # rivers run below streets and bridges
        self.roads([district for district, _, _ in towns])
        return plan

    # ---- helpers

    def pick(self, surface: str) -> int:
        """Some variety of a surface."""
        return FIRST[surface] + self.random.randrange(_patches(surface))

    def somewhere(self, reach: float = 0.5) -> tuple[float, float]:
        """A place; `reach` 0.5 is all of the world."""
        side = self.plan.size * reach
        return self.random.uniform(-side, side), self.random.uniform(-side, side)

    def many(self, mean: float) -> int:
        """How many of something there are, where a world of the smallest size has `mean` on average."""
        return int(self.numbers.poisson(mean * (self.plan.size / WORLD) ** 2))

    # ---- open country and woods

    def district(self, outline: Points, angle: float, use: str) -> None:
        """Parcels or stands of one use."""
        random = self.random
        if use == "arable":
            size, slender = math.exp(random.uniform(9.1, 11.1)), random.uniform(1.2, 4.0)
            crops = random.sample(range(CROPS), random.randint(2, 4))
            for parcel in parcels(outline, size, angle, slender, 0.05, random):
                patch = (
                    FIRST["crop"] + random.choice(crops) * CROP_VARIETIES + random.randrange(CROP_VARIETIES)
                )
                if random.random() < 0.04:
                    patch = self.pick("meadow")
                self.plan.polygons.append((patch, self.ragged(parcel, 0.3)))
                self.crossings.append(parcel[0])
                if random.random() < 0.05:
                    self.hedge(parcel)
        elif use == "pasture":
            size, hedged = math.exp(random.uniform(9.2, 10.8)), random.random() ** 2
            for parcel in parcels(outline, size, angle, random.uniform(1.0, 2.0), 0.16, random):
                self.plan.polygons.append((self.pick("meadow"), self.ragged(parcel, 0.7)))
                self.crossings.append(parcel[0])
                if random.random() < hedged:
                    self.hedge(parcel, 0.7)
            self.single_trees(outline)
        else:
            surface = {"broad-leaved": "broad-leaved trees", "coniferous": "coniferous trees",
                       "wetland": "reeds", "bare": "sand and rock"}[use]  # fmt: skip
            forest = use in ("broad-leaved", "coniferous")
            size = math.exp(random.uniform(10.3, 11.8)) if forest else 6e4
            variety = self.pick(surface)
            for stand in parcels(outline, size, angle, 1.5, 0.2, random):
                patch = self.pick(surface) if forest or random.random() < 0.5 else variety
                if forest and random.random() < 0.10:  # the other kind of tree stands in between
                    patch = self.pick("coniferous trees" if use == "broad-leaved" else "broad-leaved trees")
                elif forest and random.random() < 0.04:
                    patch = self.pick("felled")
                elif use == "bare" and random.random() < 0.2:
                    patch = self.pick("meadow")
                self.woods.append((patch, self.ragged(densify(stand, 18), 1.4)))

    def hedge(self, parcel: Points, strength: float = 0.3) -> None:
        """Shrubs along one side of a parcel."""
        start = self.random.randrange(len(parcel))
        ends = self.ragged([parcel[start], parcel[(start + 1) % len(parcel)]], strength)
        self.hedges.append((ends, self.random.uniform(5, 12)))

    def planted(self) -> list[Stroke]:
        """All hedges as blocks."""
        if not self.hedges:
            return []
        ends = np.array([ends for ends, _ in self.hedges])
        along = ends[:, 1] - ends[:, 0]
        size = np.stack([np.hypot(*along.T), [width for _, width in self.hedges]], axis=1)
        patch = np.array([self.pick("hedge") for _ in self.hedges], dtype=np.uint8)
        return [
            RectangleFeatures(patch, ends.mean(axis=1), size, np.arctan2(along[:, 1], along[:, 0]), _OPEN)
        ]

    def single_trees(self, outline: Points) -> None:
        """Trees that stand alone in meadows."""
        count = int(self.numbers.poisson(polygon_area(outline) / 1e4 * self.random.uniform(0, 1.2)))
        if not count:
            return
        corners = np.array(outline)
        center = self.numbers.uniform(corners.min(0), corners.max(0), (count, 2))
        size = np.repeat(self.numbers.uniform(5, 13, (count, 1)), 2, axis=1)
        patch = np.full(count, self.pick("hedge"), dtype=np.uint8)
        self.plan.strokes.append(
            RectangleFeatures(patch, center, size, np.zeros(count), over_classes("pasture"))
        )

    def coppices(self) -> None:
        """Woods that keep to no district."""
        for _ in range(self.many(1.5)):
            surface = self.random.choice(("broad-leaved trees", "coniferous trees"))
            radius = math.exp(self.random.uniform(3.4, 5.2))
            outline = blob(*self.somewhere(), radius, self.numbers)
            self.plan.polygons.append((self.pick(surface), outline))

    # ---- water

    def waters(self) -> list[Stroke]:
        """Lakes (as polygons) with their reeds; rivers are returned, to be painted before all other bands."""
        random, lines = self.random, list[Stroke]()
        for _ in range(self.many(0.42)):
            radius = math.exp(random.uniform(3.6, 5.9))
            x, y = self.somewhere()
            shore = blob(x, y, radius, self.numbers, 0.4)
            if random.random() < 0.45:
                marsh = blob(x + radius * random.uniform(-0.5, 0.5), y + radius * random.uniform(-0.5, 0.5),
                             radius * random.uniform(0.9, 1.4), self.numbers, 0.45)  # fmt: skip
                self.plan.polygons.append((self.pick("reeds"), marsh))
            self.plan.polygons.append((self.pick("lake"), shore))
            if radius > 90:
                self.ships((x, y), radius * 0.6)
        if random.random() < 0.34 * (self.plan.size / WORLD):
            width = math.exp(random.uniform(2.7, 4.5))
            wave = max(160.0, width * random.uniform(9, 13))
            line = meander(*self.somewhere(0.35), random.uniform(0, 2 * math.pi), 2.6 * self.plan.size,
                           random.uniform(0.35, 1.15), wave, random)  # fmt: skip
            swell = width * (1 + 0.18 * np.sin(np.arange(len(line)) * 0.37 + random.uniform(0, 6)))
            if random.random() < 0.5:
                lines.append(LineFeature(self.pick("reeds"), line + width * 0.5, swell * 1.9, _OPEN))
            if random.random() < 0.7:
                lines.append(LineFeature(self.pick("hedge"), line, swell + random.uniform(12, 34), _OPEN))
            lines.append(LineFeature(self.pick("river"), line, swell))
            if width > 28:
                self.ships(tuple(line[len(line) // 2]), width * 0.2, along=line)
        if random.random() < 0.4:  # a brook: too narrow to be seen itself, but its trees are not
            line = meander(*self.somewhere(), random.uniform(0, 2 * math.pi), 2 * self.plan.size,
                           random.uniform(0.4, 0.9), random.uniform(110, 240), random)  # fmt: skip
            lines.append(LineFeature(self.pick("hedge"), line, random.uniform(8, 22), _OPEN))
            lines.append(LineFeature(self.pick("river"), line, random.uniform(2, 5)))
        return lines

    def ships(self, around: tuple[float, ...], reach: float, along: F64 | None = None) -> None:
        """A few ships, lying along a river or anyhow."""
        count = int(self.numbers.poisson(3.0))
        if not count:
            return
        if along is None:
            center = np.array(around[:2]) + self.numbers.normal(0, reach, (count, 2))
            angle = self.numbers.uniform(0, np.pi, count)
        else:
            place = self.numbers.integers(1, len(along) - 1, count)
            center = along[place] + self.numbers.normal(0, reach, (count, 2))
            angle = np.arctan2(*(along[place + 1] - along[place - 1]).T[::-1])
        apart = [i for i in range(count) if all(np.hypot(*(center[:i] - center[i]).T) > 120)]
        center, angle, count = center[apart], angle[apart], len(apart)
        length = self.numbers.uniform(28, 110, count)
        size = np.stack([length, length * self.numbers.uniform(0.13, 0.2, count)], axis=1)
        patch = self.numbers.integers(FIRST["ship"], FIRST["ship"] + _patches("ship"), count, dtype=np.uint8)
        self.plan.strokes.append(RectangleFeatures(patch, center, size, angle, _WATER, "ship"))

    # ---- what people build

    def garden(self, outline: F64, angle: float) -> int:
        """Paint the ground of one more settlement; its own patch as long as there are some."""
        patch = FIRST["garden"] + self.gardens % _patches("garden")
        self.gardens += 1
        self.plan.towns[patch] = angle
        self.plan.polygons.append((patch, outline))
        return patch

    def settlement(self, district: Points, angle: float) -> None:
        """Streets in two directions, houses along them."""
        random = self.random
        middle = np.mean(district, axis=0)
        outline = self.ragged(
            densify(middle + random.uniform(0.8, 1.04) * (np.array(district) - middle), 30), 1.3
        )
        over = np.arange(len(PATCHES)) == self.garden(outline, angle)
        turn = rotation(angle)
        u, v = ((outline - middle) @ turn).T
        block, width = random.uniform(42, 66), random.uniform(5.5, 9)
        rows = np.arange(v.min() + random.uniform(0, block), v.max(), block)
        columns = np.arange(u.min() + random.uniform(0, 90), u.max(), random.uniform(80, 170))
        long, high = float(np.ptp(u)), float(np.ptp(v))
        self.streets(
            middle, turn, angle, np.stack([np.full(len(rows), u.mean()), rows], 1), (long, width), over
        )
        across = np.stack([columns, np.full(len(columns), v.mean())], 1)
        self.streets(middle, turn, angle, across, (width, high), over)
        lot, depth = random.uniform(12, 22), random.uniform(8, 12)
        place = np.arange(u.min(), u.max(), lot)
        side = (rows[:, None] + np.array([-1, 1]) * (width / 2 + depth / 2 + random.uniform(3, 7))).ravel()
        center = np.stack(np.broadcast_arrays(place[None], side[:, None]), axis=-1).reshape(-1, 2)
        keep = self.numbers.random(len(center)) < random.uniform(0.7, 0.97)
        center = center[keep] + self.numbers.normal(0, 1.2, (int(keep.sum()), 2))
        count = len(center)
        size = np.stack([np.minimum(lot - 1, self.numbers.uniform(8, 18, count)),
                         depth * self.numbers.uniform(0.8, 1.2, count)], axis=1)  # fmt: skip
        roofs = self.numbers.integers(0, _patches("house"), 3)  # a town has its three kinds of roofs
        patch = (FIRST["house"] + roofs[self.numbers.integers(0, 3, count)]).astype(np.uint8)
        self.plan.strokes.append(
            RectangleFeatures(patch, center @ turn.T + middle, size, np.full(count, angle), over)
        )

    def streets(
        self,
        middle: F64,
        turn: F64,
        angle: float,
        at: F64,
        size: tuple[float, float],
        over: NDArray[np.bool_],
    ) -> None:
        """Parallel streets of one size, where the settlement is."""
        count = len(at)
        if count:
            patch = np.full(count, self.pick("street"), dtype=np.uint8)
            sizes = np.tile(np.array(size), (count, 1))
            self.plan.strokes.append(
                RectangleFeatures(patch, at @ turn.T + middle, sizes, np.full(count, angle), over)
            )

    def industry(self, district: Points, angle: float) -> None:
        """Halls on paved ground."""
        random = self.random
        middle = np.mean(district, axis=0)
        outline = self.ragged(middle + random.uniform(0.75, 1.0) * (np.array(district) - middle), 0.3)
        self.plan.polygons.append((self.pick("yard"), outline))
        turn = rotation(angle)
        local = (outline - middle) @ turn
        step = np.array([random.uniform(75, 150), random.uniform(60, 110)])
        grid = [
            np.arange(low + s / 2, high, s)
            for low, high, s in zip(local.min(0), local.max(0), step, strict=True)
        ]
        center = np.stack(np.meshgrid(*grid), axis=-1).reshape(-1, 2)
        center = center[self.numbers.random(len(center)) < 0.82]
        count = len(center)
        if not count:
            return
        center = center + self.numbers.normal(0, 4, (count, 2))
        size: F64 = step * self.numbers.uniform(0.35, 0.82, (count, 2))
        patch = self.numbers.integers(FIRST["hall"], FIRST["hall"] + _patches("hall"), count, dtype=np.uint8)
        self.plan.strokes.append(
            RectangleFeatures(patch, center @ turn.T + middle, size, np.full(count, angle), _YARD, "building")
        )

    def farmsteads(self) -> None:
        """A yard, some trees, three to six buildings, alone among fields."""
        count = self.many(2.6) if self.crossings else 0
        for _ in range(count):
            middle = np.array(self.random.choice(self.crossings))
            angle = self.random.uniform(0, math.pi)
            yard = self.numbers.uniform(32, 66, 2) / 2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
            outline = self.ragged(densify(yard @ rotation(angle).T + middle, 12), 0.4)
            over = np.arange(len(PATCHES)) == self.garden(outline, angle)
            houses = self.random.randint(3, 6)
            center = middle + self.numbers.normal(0, 15, (houses, 2))
            size = self.numbers.uniform((12, 9), (34, 15), (houses, 2))
            turn = angle + np.pi / 2 * self.numbers.integers(0, 2, houses)
            patch = self.numbers.integers(FIRST["house"], FIRST["house"] + _patches("house"), houses)
            self.plan.strokes.append(
                RectangleFeatures(
                    patch.astype(np.uint8), center, size, np.asarray(turn, dtype=np.float64), over
                )
            )

    def roads(self, towns: list[Points]) -> None:
        """Country lanes, through a town where there is one, and sometimes a motorway."""
        random, strokes = self.random, self.plan.strokes
        for _ in range(random.randint(1, 3)):
            x, y = np.mean(random.choice(towns), axis=0) if towns else self.somewhere()
            line = meander(x, y, random.uniform(0, 2 * math.pi), 3 * self.plan.size,
                           random.uniform(0.05, 0.35), random.uniform(500, 1400), random)  # fmt: skip
            strokes.append(LineFeature(self.pick("carriageway"), line, random.uniform(5, 8), ~_BUILT))
        if random.random() < 0.26:
            line = meander(*self.somewhere(0.3), random.uniform(0, 2 * math.pi), 3 * self.plan.size,
                           random.uniform(0.03, 0.25), random.uniform(1200, 3000), random)  # fmt: skip
            width = random.uniform(22, 34)
            if random.random() < 0.6:
                strokes.append(LineFeature(self.pick("meadow"), line, width + random.uniform(10, 26), _OPEN))
            strokes.append(LineFeature(self.pick("carriageway"), line, width))


def _patches(surface: str) -> int:
    return SURFACES[SURFACE[surface]].patches
