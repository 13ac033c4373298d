"""Simulated aerial scenes with labels: drawn by code, never a substitute for real imagery in a claim.

The demo and some tests need labeled scenes at many ground sample distances, which no freely shippable
sample offers. These are simple drawings in *metres*: tree crowns, houses, roads, rivers and fields of
natural size are laid out on the ground and then looked at with a given GSD. What makes a class is its
layout. Ground cover, crown and roof colors, the sun's azimuth, illumination, white balance, haze and
sensor noise are drawn at random for every scene and independently of the class, as season, hour and camera
are in real archives: the mean color alone tells little.

Every scene is a pure function of (seed, index).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from swath.files import atomic_folder

_OVERSAMPLING = (
    2  # drawn with 2 x 2 samples a pixel, then averaged by area: the camera integrates over a pixel
)

# Surface colors (red, green, blue; 0 to 255 before illumination), a few variants each. Rough, from memory of
# aerial imagery rather than measured spectra.
_COVER = ((96, 120, 62), (126, 138, 78), (150, 132, 96), (168, 150, 118), (120, 104, 80), (84, 98, 58))
_CROWN = ((46, 70, 36), (62, 86, 44), (84, 100, 50), (112, 98, 48), (58, 74, 58))
_ROOF = ((164, 92, 74), (140, 138, 134), (196, 192, 184), (112, 100, 92), (88, 92, 100))
_PAVED = ((146, 144, 140), (118, 116, 114), (172, 166, 154))
_WATER = ((52, 70, 66), (70, 88, 92), (88, 92, 70), (40, 56, 74))

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SimulatedScene:
    """One drawn scene: `image` [H, W, 3] uint8, its class name and its GSD in metres per pixel."""

    image: np.ndarray[Any, Any]
    kind: str
    gsd: float


class _AerialCanvas:
    """A square of ground to draw on, in metres, with a little margin so that nothing stops at the border."""

    def __init__(self, random: np.random.Generator, size: int, gsd: float) -> None:
        self.random = random
        self.extent = size * gsd
        self.scale = _OVERSAMPLING / gsd
        self.side = size * _OVERSAMPLING
        self.picture = Image.new("RGB", (self.side, self.side), self.pick(_COVER))
        self.pen = ImageDraw.Draw(self.picture)
        azimuth = random.uniform(0, 2 * np.pi)
        self.shadow = np.array([np.cos(azimuth), np.sin(azimuth)]) * random.uniform(0.35, 0.8)
        # The layout as a whole lies at any angle and offset; _to_pixels applies both.
        angle = random.uniform(0, 2 * np.pi)
        self.turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def pick(self, palette: tuple[Color, ...]) -> Color:
        """A palette's color, varied a little."""
        base = np.array(palette[self.random.integers(len(palette))]) + self.random.normal(0, 7, 3)
        red, green, blue = (int(value) for value in np.clip(base, 5, 250))
        return red, green, blue

    def between(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def lattice(self, step_x: float, step_y: float) -> Iterator[tuple[float, float]]:
        """Points of a rectangular lattice that covers the ground at any turn."""
        reach = 0.75 * self.extent + max(step_x, step_y)
        phase_x, phase_y = self.between(0, step_x), self.between(0, step_y)
        for x in np.arange(-reach + phase_x, reach, step_x):
            for y in np.arange(-reach + phase_y, reach, step_y):
                yield float(x), float(y)

    def _to_pixels(self, points: Any) -> list[tuple[float, float]]:
        turned = np.asarray(points, dtype=float) @ self.turn.T + self.extent / 2
        return [(float(x), float(y)) for x, y in turned * self.scale]

    def polygon(self, points: Any, color: Color) -> None:
        self.pen.polygon(self._to_pixels(points), fill=color)

    def band(self, points: Any, width: float, color: Color) -> None:
        """A band of constant width in metres along a line, with round bends."""
        pixels, across = self._to_pixels(points), max(1, round(width * self.scale))
        self.pen.line(pixels, fill=color, width=across)
        for x, y in pixels[1:-1]:
            self.pen.ellipse((x - across / 2, y - across / 2, x + across / 2, y + across / 2), fill=color)

    def crown(self, x: float, y: float, diameter: float, color: Color) -> None:
        """A tree: shadow, crown, and a sunlit side."""
        ((cx, cy),) = self._to_pixels([(x, y)])
        radius = max(0.5, diameter * self.scale / 2)
        dx, dy = self.shadow * diameter * self.scale * 0.7
        self.pen.ellipse(
            (cx + dx - radius, cy + dy - radius, cx + dx + radius, cy + dy + radius), fill=(28, 34, 30)
        )
        self.pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=color)
        lit = (min(255, color[0] + 24), min(255, color[1] + 26), min(255, color[2] + 14))
        sx, sy = cx - dx * 0.3, cy - dy * 0.3
        self.pen.ellipse((sx - radius / 2, sy - radius / 2, sx + radius / 2, sy + radius / 2), fill=lit)

    def building(self, x: float, y: float, width: float, depth: float, angle: float = 0.0) -> None:
        """A building with its shadow and two roof planes."""
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = np.array(
            [(-width, -depth), (width, -depth), (width, depth), (-width, depth)]
        ) / 2 @ turn.T + (x, y)
        height = min(width, depth) * 0.5
        self.polygon(corners + self.turn.T @ self.shadow * height, (34, 36, 40))
        roof = self.pick(_ROOF)
        self.polygon(corners, roof)
        shaded = (roof[0] * 4 // 5, roof[1] * 4 // 5, roof[2] * 4 // 5)
        ridge = (corners[0] + corners[3]) / 2, (corners[1] + corners[2]) / 2
        self.polygon([corners[0], corners[1], ridge[1], ridge[0]], shaded)


def _forest(ground: _AerialCanvas) -> None:
    """Crowns of 4 to 9 m at random places, nearly closed."""
    color, mean = ground.pick(_CROWN), ground.between(4.5, 8)
    for _ in range(int(2.6 * ground.extent**2 / mean**2)):
        x, y = ground.random.uniform(-0.72, 0.72, 2) * ground.extent
        ground.crown(x, y, mean * ground.between(0.7, 1.3), color)


def _savanna(ground: _AerialCanvas) -> None:
    """The same crowns, few and far between."""
    color, mean = ground.pick(_CROWN), ground.between(4.5, 8)
    for _ in range(max(3, int(0.25 * ground.extent**2 / mean**2))):
        x, y = ground.random.uniform(-0.72, 0.72, 2) * ground.extent
        ground.crown(x, y, mean * ground.between(0.7, 1.3), color)


def _orchard(ground: _AerialCanvas) -> None:
    """The same crowns on a lattice."""
    color, mean = ground.pick(_CROWN), ground.between(3.5, 6)
    step = mean * ground.between(1.25, 1.6)
    for x, y in ground.lattice(step, step * ground.between(1.0, 1.3)):
        ground.crown(x, y, mean * ground.between(0.85, 1.1), color)


def _fields(ground: _AerialCanvas) -> None:
    """Parcels 40 to 90 m wide, each of its own color, ploughed in its own direction."""
    width, length = ground.between(40, 70), ground.between(60, 140)
    for x, y in ground.lattice(width, length):
        color = ground.pick(_COVER)
        ground.polygon([(x, y), (x + width, y), (x + width, y + length), (x, y + length)], color)
        furrow = tuple(max(0, value - 14) for value in color)
        for offset in np.arange(2, width, 6.0):
            ground.band([(x + offset, y), (x + offset, y + length)], 1.5, furrow)  # type: ignore[arg-type]


def _homes(ground: _AerialCanvas) -> None:
    """Houses of 8 to 14 m along streets 45 to 60 m apart, with garden trees."""
    block, paved, crown = ground.between(45, 60), ground.pick(_PAVED), ground.pick(_CROWN)
    reach = 0.75 * ground.extent
    lot = ground.between(16, 22)
    for street in np.arange(-reach + ground.between(0, block), reach, block):
        ground.band([(-reach, street), (reach, street)], 7, paved)
        for side in (-1, 1):
            for x in np.arange(-reach, reach, lot):
                if ground.random.random() < 0.88:
                    y = street + side * ground.between(12, 15)
                    ground.building(
                        x + ground.between(-2, 2), y, ground.between(8, 14), ground.between(8, 11)
                    )
                if ground.random.random() < 0.5:
                    ground.crown(
                        x + lot / 2, street + side * ground.between(14, 22), ground.between(3, 7), crown
                    )


def _industry(ground: _AerialCanvas) -> None:
    """Halls of 25 to 70 m on paved ground."""
    ground.polygon(np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * ground.extent, ground.pick(_PAVED))
    step = ground.between(60, 85)
    for x, y in ground.lattice(step, step * ground.between(0.7, 1.0)):
        if ground.random.random() < 0.9:
            ground.building(x, y, ground.between(0.5, 0.8) * step, ground.between(0.35, 0.55) * step)


def _river(ground: _AerialCanvas) -> None:
    """A meandering river 12 to 30 m wide with trees on its banks."""
    along = np.linspace(-0.8, 0.8, 60) * ground.extent
    period, swing = ground.between(90, 180), ground.between(15, 40)
    across = (
        swing * np.sin(2 * np.pi * along / period + ground.between(0, 6))
        + ground.between(-0.15, 0.15) * ground.extent
    )
    width, crown = ground.between(12, 30), ground.pick(_CROWN)
    for x, y in zip(along, across, strict=True):
        for side in (-1, 1):
            if ground.random.random() < 0.4:
                ground.crown(x, y + side * (width / 2 + ground.between(2, 8)), ground.between(4, 8), crown)
    ground.band(np.stack([along, across], axis=1), width, ground.pick(_WATER))


def _road(ground: _AerialCanvas) -> None:
    """A straight road of 8 to 24 m with a marked middle, through open land."""
    reach, offset, width = (
        0.8 * ground.extent,
        ground.between(-0.2, 0.2) * ground.extent,
        ground.between(8, 24),
    )
    ground.band([(-reach, offset), (reach, offset)], width, ground.pick(_PAVED))
    ground.band([(-reach, offset), (reach, offset)], 0.8, (226, 224, 216))
    for x in np.arange(-reach, reach, ground.between(15, 40)):
        ground.building(x, offset + ground.random.choice([-1, 1]) * width / 4, 4.5, 2.0)  # vehicles


KINDS: dict[str, Callable[[_AerialCanvas], None]] = {
    "fields": _fields,
    "forest": _forest,
    "homes": _homes,
    "industry": _industry,
    "orchard": _orchard,
    "river": _river,
    "road": _road,
    "savanna": _savanna,
}


def simulate_scene(
    seed: int, index: int, *, size: int = 128, gsd: tuple[float, float] = (0.5, 2.0)
) -> SimulatedScene:
    """Draw scene number `index` of the endless series `seed`; the classes take turns.

    Args:
        seed: Names the series.
        index: Place in it; scene and class depend on nothing else.
        size: Side in pixels.
        gsd: Range of ground sample distances in metres per pixel, drawn log-uniformly.
    """
    random = np.random.default_rng([seed, index])
    kind = list(KINDS)[index % len(KINDS)]
    metres = float(np.exp(random.uniform(*np.log(gsd))))
    ground = _AerialCanvas(random, size, metres)
    KINDS[kind](ground)
    return SimulatedScene(_photograph(ground, size), kind, metres)


def _photograph(ground: _AerialCanvas, size: int) -> np.ndarray[Any, Any]:
    """What a camera makes of the ground: light, haze, optics and noise, independent of the class."""
    random = ground.random
    light = ground.picture.filter(ImageFilter.GaussianBlur(0.6)).resize((size, size), Image.Resampling.BOX)
    ground_light = np.asarray(light, dtype=np.float32)
    mottle = random.normal(0, 1, (size // 16 + 1, size // 16 + 1)).astype(np.float32)
    unevenness = np.asarray(Image.fromarray(mottle).resize((size, size), Image.Resampling.BICUBIC))
    exposure, white_balance = random.uniform(0.65, 1.35), random.uniform(0.88, 1.12, 3)
    haze = random.uniform(0, 0.3)
    seen = ground_light * (1 + 0.05 * unevenness[..., None]) * exposure * white_balance
    noise = random.standard_normal(seen.shape, np.float32) * random.uniform(1, 4)
    hazy = (1 - haze) * seen + haze * np.array((178, 188, 200)) + noise
    return np.clip(np.rint(hazy), 0, 255).astype(np.uint8)


def write_simulated(
    folder: Path,
    *,
    seed: int,
    splits: Mapping[str, int],
    size: int = 128,
    gsd: tuple[float, float] = (0.5, 2.0),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write labeled scenes as GeoTIFFs, and `index.csv` (file, class, gsd_m, split), whole or not at all.

    The scenes lie in rows at Null Island (0 degrees north, 0 degrees east), where nobody takes them for a
    real place; each says `SIMULATED=yes` in its tags.

    Args:
        folder: Where to; an existing one is replaced.
        seed: Series of scenes.
        splits: How many scenes each split has; every split has all classes in turn.
        size: Side in pixels.
        gsd: Range of ground sample distances.
        progress: Called with (scenes written, scenes in all).

    Returns:
        The folder.
    """
    import rasterio

    profile = {"driver": "GTiff", "width": size, "height": size, "count": 3, "dtype": "uint8",
               "crs": "EPSG:32631", "compress": "jpeg", "jpeg_quality": 92, "photometric": "ycbcr",
               "interleave": "pixel"}  # fmt: skip
    total = sum(splits.values())
    step = 1.2 * size * gsd[1]
    with atomic_folder(folder) as temporary:
        rows: list[tuple[str, str, str, str]] = []
        for split, count in splits.items():
            for _ in range(count):
                index = len(rows)
                scene = simulate_scene(seed, index, size=size, gsd=gsd)
                name = f"simulated_{index:05d}.tif"
                # Zone 31 N has easting 166,021 m at 0 degrees east.
                east, north = 166_021 + step * (index % 60), step * (1 + index // 60)
                place = rasterio.Affine(scene.gsd, 0, east, 0, -scene.gsd, north)
                with rasterio.open(temporary / name, "w", transform=place, **profile) as file:
                    file.write(scene.image.transpose(2, 0, 1))
                    file.update_tags(SIMULATED="yes", CLASS=scene.kind)
                rows.append((name, scene.kind, f"{scene.gsd:.4f}", split))
                if progress is not None:
                    progress(len(rows), total)
        with (temporary / "index.csv").open("w", newline="", encoding="utf-8") as table:
            writer = csv.writer(table, lineterminator="\n")
            writer.writerow(("file", "class", "gsd_m", "split"))
            writer.writerows(rows)
    return folder
