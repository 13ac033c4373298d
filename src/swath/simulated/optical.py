"""What a sunlit sensor sees of a landscape: reflectance of any bands, or the bytes of an aerial photograph.

Per scene, independently of every other sensor and of the classes, are drawn: the state of each crop (green,
in flower, ripe, bare), how green and how bright grass and trees are, the soil's color, the sun's direction,
haze, and the spots of better and worse growth in fields. What a scene shares with other sensors' is the
ground: parcels, cover, hills.

The atmosphere is what a level-2A processor leaves: a little path reflectance that falls with wavelength, and
as much less contrast. Bands whose native sampling is coarser than the image's are averaged to it and
resampled back, as they come in products on one grid.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from swath.errors import ImageryError
from swath.sensors.sensor import Sensor
from swath.simulated.landscape.rasterize import F32, Landscape
from swath.simulated.landscape.surfaces import (
    CROP_VARIETIES,
    CROPS,
    MATERIALS,
    material_fractions,
    of_patches,
    patches_of,
    spectra,
)

_STREAM = 11  # of random numbers; the radar has another
_MATERIAL = {name: index for index, name in enumerate(MATERIALS)}
# Where a sensor gives no wavelengths (aerial photographs), its bands' common names do. Nanometres.
_COMMON = {"coastal": 443, "blue": 480, "green": 560, "red": 660, "nir": 842, "nir08": 865, "swir16": 1610,
           "swir22": 2200}  # fmt: skip
_MIX, _SPREAD, _GRAIN = material_fractions(), of_patches("spread"), of_patches("grain")
# Light and shade of crowns and furrows, metres apart: relative standard deviation where it is resolved.
_CROWN = 3.5  # metres
_LEFT = 1.15  # of the noise, in a pixel as large as the spacing; measured
_SHADE = 0.9 * _GRAIN
for _name, _shade in (("broad-leaved trees", 0.30), ("coniferous trees", 0.32), ("hedge", 0.25)):
    _SHADE[patches_of(_name)] = _shade


def wavelengths(sensor: Sensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """[C] center wavelengths of a sensor's bands in nanometres.

    Raises:
        ImageryError: A band has none, and no common name that stands for one, or is out of range.
    """
    found = [band.wavelength or _COMMON.get(band.common_name or "") for band in sensor.bands]
    for band, value in zip(sensor.bands, found, strict=True):
        if value is None or not 400 <= value <= 2500:
            raise ImageryError(
                f"sensor {sensor.name!r}, band {band.name!r}: cannot be simulated without a wavelength of "
                "400 to 2500 nm; give the band a `wavelength`, or a `common_name` such as red or nir"
            )
    return np.array(found, dtype=np.float64)


def render_optical(
    landscape: Landscape, sensor: Sensor, *, cloud: float = 0.0, common_grid: bool = True
) -> F32:
    """Reflectance [C, H, W] of a landscape.

    Args:
        landscape: The ground.
        sensor: Bands with wavelengths; only those and the native GSDs matter.
        cloud: Largest opacity of a thin cloud, 0 (none) to 1.
        common_grid: Whether bands that are natively coarser than the image are shown so (averaged, and
            resampled back to the common grid); False gives every band the image's own sampling.

    Raises:
        ImageryError: A band's wavelength is not known.
    """
    waves = wavelengths(sensor)
    random = np.random.default_rng([landscape.seed, landscape.index, _STREAM, landscape.date])
    size, count = landscape.size, len(waves)
    table, haze, path = _spectra_of_patches(random, waves)
    clear = (1 - haze) * table
    # One look-up for all: bands, and how strongly each patch shows spots of growth, and crowns.
    seen = landscape.mix(np.concatenate([clear, _GRAIN[:, None], _SHADE[:, None]], axis=1)).T
    bands, grain, shade = np.ascontiguousarray(seen[:count]), seen[count], seen[count + 1]

    # Light: hills, spots of growth, crowns. Growth moves red and near infrared apart.
    sun, elevation = random.uniform(0, 2 * np.pi), random.uniform(0.55, 1.1)
    east, south = landscape.slopes
    tilt = np.float32(np.sin(sun)) * east + np.float32(np.cos(sun)) * south
    light = 1 + np.float32(0.9 / np.tan(elevation)) * np.clip(tilt, -0.35, 0.35).ravel()
    coarse = landscape.field(random, 150.0).ravel()
    fine = landscape.field(random, 26.0).ravel()
    light *= 1 + grain * (np.float32(0.75) * fine + np.float32(0.4) * coarse)
    light *= np.maximum(1 + shade * _crowns(landscape, random), np.float32(0.25))
    bands *= np.maximum(light, np.float32(0.2))
    vigour = (grain * coarse) * np.float32(random.uniform(0.3, 1.1))
    green = np.where((waves > 720) & (waves < 1300), 1.0, np.where(waves > 500, -0.8, -0.4)).astype(
        np.float32
    )
    bands *= 1 + green[:, None] * vigour

    bands += path[:, None]
    if cloud:
        veil = np.clip(0.5 + 0.6 * landscape.field(random, 420.0).ravel() + 0.25 * fine, 0, 1) * cloud
        bands += veil * (np.float32(0.62) - bands)
    bands += (0.0012 + 0.010 * bands.mean(axis=1, keepdims=True)) * random.standard_normal(
        bands.shape, dtype=np.float32
    )
    image = bands.reshape(count, size, size)
    if common_grid:
        for band, at in zip(sensor.bands, image, strict=True):
            if band.gsd is not None and band.gsd > 1.2 * landscape.gsd:
                at[:] = _coarser(at, landscape.gsd / band.gsd)
    return np.maximum(image, np.float32(0.0005))


def render_rgb(landscape: Landscape, sensor: Sensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Bytes [C, H, W] of a camera: reflectance under an exposure and a white balance of its own.

    Raises:
        ImageryError: A band's wavelength is not known.
    """
    light = render_optical(landscape, sensor, common_grid=False)
    random = np.random.default_rng([landscape.seed, landscape.index, _STREAM + 1, landscape.date])
    balance = random.uniform(0.9, 1.1, (len(light), 1, 1)).astype(np.float32)
    brightest = np.float32(random.uniform(0.26, 0.42))
    bytes_ = 255 * np.clip(light * balance / brightest, 0, 1) ** np.float32(1 / random.uniform(1.5, 2.1))
    photo: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = np.rint(bytes_).astype(np.uint8)
    return photo


def _crowns(landscape: Landscape, random: np.random.Generator) -> F32:
    """[N] noise of the size of crowns; pixels that are larger see what is left of it, pixel by pixel."""
    if landscape.gsd < 6:
        return landscape.field(random, _CROWN).ravel()
    left = np.float32(_LEFT * _CROWN / landscape.gsd)
    return left * random.standard_normal(landscape.size**2, dtype=np.float32)


@cache
def _materials(waves: tuple[float, ...]) -> F32:
    return spectra(np.array(waves))


def _spectra_of_patches(
    random: np.random.Generator, waves: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> tuple[F32, F32, F32]:
    """Reflectance [P, C] of each patch in this scene; haze's share [C] and path reflectance [C]."""
    mix = _MIX * np.exp(_SPREAD[:, None] * random.standard_normal(_MIX.shape, dtype=np.float32))
    season, soil = random.uniform(0.35, 1.75), random.uniform(0.1, 0.9)
    for name in ("meadow", "reeds", "garden"):  # dry summers and wet ones
        mix[patches_of(name), _MATERIAL["leaf"]] *= season
    mix[patches_of("crop")] = _crops(random, soil)
    mix /= mix.sum(axis=1, keepdims=True)
    table = mix @ _materials(tuple(waves))
    bright = np.exp(0.07 * random.standard_normal(len(table), dtype=np.float32))
    for name, spread in (("broad-leaved trees", 0.16), ("coniferous trees", 0.16), ("crop", 0.06)):
        bright[patches_of(name)] *= np.exp(random.normal(0, spread))
    bright[patches_of("hedge")] *= 0.9
    # What terrain and view angle correction leave over: a gain, and a little tilt of all spectra.
    bright *= np.exp(random.normal(0, 0.13))
    tilt = (waves / 800.0) ** random.normal(0, 0.07)
    thickness = random.gamma(1.6, 0.006)
    falling = (waves / 490.0) ** -random.uniform(0.8, 1.6)
    path = (thickness * falling + random.uniform(0, 0.003)).astype(np.float32)
    return table * bright[:, None] * tilt.astype(np.float32), np.minimum(2.2 * path, 0.5), path


def _crops(random: np.random.Generator, soil: float) -> F32:
    """Shares of materials [patches, M] of arable land: each crop in its state, varieties near it."""
    cover = np.clip(random.beta(0.9, 0.65, CROPS)[:, None] + random.normal(0, 0.07, (CROPS, CROP_VARIETIES)),
                    0, 1)  # fmt: skip
    state = random.choice(3, CROPS, p=(0.64, 0.06, 0.30))[:, None]  # green, in flower, ripe
    ripe = np.where(state == 2, random.uniform(0.5, 1.0, (CROPS, 1)), random.uniform(0, 0.1, (CROPS, 1)))
    pale = np.clip(soil + random.normal(0, 0.12, (CROPS, CROP_VARIETIES)), 0, 1)
    fractions = np.zeros((CROPS, CROP_VARIETIES, len(MATERIALS)), dtype=np.float32)
    alive = cover * (1 - ripe)
    fractions[..., _MATERIAL["leaf"]] = alive * np.where(state == 1, 0.35, 1.0)
    fractions[..., _MATERIAL["flower"]] = alive * np.where(state == 1, 0.65, 0.0)
    fractions[..., _MATERIAL["straw"]] = cover * ripe
    fractions[..., _MATERIAL["pale soil"]] = (1 - cover) * pale
    fractions[..., _MATERIAL["dark soil"]] = (1 - cover) * (1 - pale)
    return fractions.reshape(CROPS * CROP_VARIETIES, -1)


def _coarser(band: F32, fraction: float) -> F32:
    """A band averaged to `share` of its sampling and resampled back."""
    side = band.shape[0]
    small = max(1, round(side * fraction))
    image = Image.fromarray(band).resize((small, small), Image.Resampling.BOX)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
