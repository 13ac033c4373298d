"""What a C-band radar sees of a landscape: VV and VH backscatter with speckle.

Mean powers per surface are the rough decibels of `surfaces`. Per scene, independently of every other sensor,
are drawn: roughness and biomass of each crop, soil moisture, wind over water, the incidence angle, the look
direction (which streets run across it and shine), the strength of single corner reflectors, and speckle.

Left out, and so not to be learnt here: layover and shadow, azimuth ambiguities, borders, other polarisations
than co- and cross-polarized, coherence.
"""

from __future__ import annotations

import numpy as np

from swath.errors import ImageryError
from swath.sensors.sensor import Sensor
from swath.simulated.landscape.primitives import RectangleFeatures
from swath.simulated.landscape.rasterize import F32, Landscape
from swath.simulated.landscape.surfaces import CROP_VARIETIES, CROPS, of_patches, patches_of

LOOKS = 4.4  # equivalent number of looks of Sentinel-1 IW GRD, high resolution
NOISE_DB = -24.5  # noise-equivalent sigma nought
_STREAM = 23
_SIDE = 0.15  # weight of each neighbor in the impulse response: pixels overlap, as in GRD products
_MEAN = np.stack([of_patches("vv"), of_patches("vh")], axis=1)
_WANDER, _CLUTTER, _SLANT = of_patches("wander"), of_patches("clutter"), of_patches("slant")


def render_radar(
    landscape: Landscape, sensor: Sensor, *, looks: float | None = None, speckle: bool = True
) -> F32:
    """Backscatter [C, H, W] of a landscape in the sensor's unit (dB or linear power).

    Args:
        landscape: The ground.
        sensor: Its bands are named after polarisations: VV or HH, VH or HV.
        looks: Equivalent number of looks of a pixel: where the ground is even, power has the variance of its
            squared mean over `looks`. Default: `LOOKS`, times the number of 10 m pixels in a larger one.
        speckle: False gives the mean power that speckle would multiply.

    Raises:
        ImageryError: A band is not a polarization, or `looks` is not positive.
    """
    order = _polarisations(sensor)
    if looks is None:
        looks = LOOKS * max(1.0, landscape.gsd / 10) ** 2
    if looks <= 0:
        raise ImageryError(f"looks={looks:g}: give a positive number; {LOOKS} is a Sentinel-1 GRD pixel's")
    random = np.random.default_rng([landscape.seed, landscape.index, _STREAM, landscape.date])
    size = landscape.size
    look = random.uniform(0, 2 * np.pi)
    seen = landscape.mix(
        np.concatenate([_power_of_patches(landscape, random, look), _CLUTTER[:, None]], axis=1)
    ).T
    power, clutter = np.ascontiguousarray(seen[:2]), seen[2]

    # Inside a patch: clumps of plants, gusts on water. Slopes that face the radar are brighter.
    clumps = np.float32(0.8) * landscape.field(random, 24.0) + np.float32(0.6) * landscape.field(random, 90.0)
    power *= np.maximum(1 + clutter * clumps.ravel(), np.float32(0.15))
    east, south = landscape.slopes
    towards = (np.float32(np.cos(look)) * east + np.float32(np.sin(look)) * south).ravel()
    power *= np.clip(1 + np.float32(2.6) * towards, 0.3, 2.5)
    # From near to far range the incidence angle grows by about 0.07 degrees a kilometre.
    middle = (np.arange(size, dtype=np.float32) + 0.5 - size / 2) * np.float32(landscape.gsd / 1000)
    far = np.cos(look) * middle[None, :] + np.sin(look) * middle[:, None]
    power *= 1 - np.float32(0.0016) * far.ravel()

    image = power.reshape(2, size, size)
    _corner_reflectors(landscape, random, image)
    image = _blur(image) + np.float32(10 ** (NOISE_DB / 10))
    if speckle:
        image *= _speckle(random, image.shape, looks)
    image = image[order]
    if sensor.unit == "dB":
        return np.float32(10) * np.log10(np.maximum(image, np.float32(1e-5)))
    return image


def _polarisations(sensor: Sensor) -> list[int]:
    """For each band 0 (co-polarized) or 1 (cross-polarized)."""
    kinds = {"VV": 0, "HH": 0, "VH": 1, "HV": 1}
    unknown = [band.name for band in sensor.bands if band.name.upper() not in kinds]
    if unknown or sensor.unit not in ("dB", "linear"):
        raise ImageryError(
            f"sensor {sensor.name!r} cannot be simulated as a radar: bands are to be called VV, VH, HH or "
            f"HV, in dB or linear (they are {', '.join(sensor.band_names)} in {sensor.unit})"
        )
    return [kinds[band.name.upper()] for band in sensor.bands]


def _power_of_patches(landscape: Landscape, random: np.random.Generator, look: float) -> F32:
    """Mean linear power [P, 2] of each patch in this scene."""
    decibel = _MEAN + _WANDER[:, None] * random.standard_normal((len(_MEAN), 1), dtype=np.float32)
    decibel += np.float32(0.3) * random.standard_normal(decibel.shape, dtype=np.float32)
    decibel += np.float32(random.normal(0, 0.6))  # the whole scene: season, calibration
    wet = random.normal(0, 1.2)  # soil moisture, strongest where nothing hides the soil
    for name, fraction in (
        ("crop", 0.8),
        ("meadow", 0.8),
        ("sand and rock", 1.0),
        ("felled", 0.7),
        ("reeds", 0.3),
    ):
        decibel[patches_of(name)] += fraction * wet
    stand = random.normal(0, 0.9, 2)  # leaf on or off, wet or dry crowns
    decibel[patches_of("broad-leaved trees")] += stand[0]
    decibel[patches_of("coniferous trees")] += stand[1]
    # Crops: roughness sets VV, what stands on the soil sets the ratio to VH.
    rough = np.repeat(random.uniform(-15.5, -8.0, CROPS), CROP_VARIETIES)
    ratio = np.repeat(random.uniform(5.0, 9.5, CROPS), CROP_VARIETIES)
    crops = patches_of("crop")
    decibel[crops, 0] += rough - _MEAN[crops, 0]
    decibel[crops, 1] += rough - ratio - _MEAN[crops, 1]
    wind = random.gamma(2.0, 2.2)  # metres per second, sort of
    for name, reach in (("lake", 1.0), ("river", 0.55)):
        decibel[patches_of(name), 0] += reach * min(11.0, 1.7 * wind) - 4
        decibel[patches_of(name), 1] += reach * min(7.0, 1.0 * wind) - 2
    for patch, angle in landscape.plan.towns.items():  # streets across the look direction answer at once
        off = abs((angle - look + np.pi / 4) % (np.pi / 2) - np.pi / 4)
        decibel[patch, 0] += 4.5 * np.exp(-((off / 0.2) ** 2))
    cosine = np.cos(np.radians(random.uniform(31, 45))) / np.cos(np.radians(38))
    decibel += (10 * np.log10(cosine)) * _SLANT[:, None]
    power: F32 = np.power(np.float32(10), decibel / np.float32(10), dtype=np.float32)
    return power


def _corner_reflectors(landscape: Landscape, random: np.random.Generator, image: F32) -> None:
    """Add single strong echoes at some of the buildings: the same energy whatever the size of a pixel."""
    blocks = [s for s in landscape.plan.strokes if isinstance(s, RectangleFeatures) and len(s.patch) > 2]
    if not blocks:
        return
    houses = patches_of("house")
    centers = np.concatenate([b.center for b in blocks])
    likely = np.concatenate(
        [np.full(len(b.patch), 0.30 if b.kind == "building" else 0.05 if b.patch[0] >= houses.start else 0.0)
         for b in blocks]
    )  # fmt: skip
    echo = np.exp(random.normal(5.6, 1.1, len(centers))) * (random.random(len(centers)) < likely)
    o = landscape.cells.shape[0] // landscape.size
    at = np.floor((centers / landscape.gsd + landscape.size / 2) * o).astype(int)
    seen = (echo > 0) & (at >= 0).all(axis=1) & (at < landscape.cells.shape[0]).all(axis=1)
    at, echo = at[seen], echo[seen]
    patch = landscape.cells[at[:, 1], at[:, 0]]
    halls = patches_of("hall")
    standing = ((patch >= houses.start) & (patch < houses.stop)) | (
        (patch >= halls.start) & (patch < halls.stop)
    )
    at, density = at[standing] // o, (echo[standing] / landscape.gsd**2).astype(np.float32)
    np.add.at(image[0], (at[:, 1], at[:, 0]), density)
    np.add.at(image[1], (at[:, 1], at[:, 0]), density * np.float32(0.12))


def _speckle(random: np.random.Generator, shape: tuple[int, ...], looks: float) -> F32:
    """Multiplicative speckle: gamma with mean 1 and variance 1 / looks, neighbors correlated.

    Normal numbers under the impulse response, made gamma by the cube of Wilson and Hilferty (1931): true to a
    percent from two looks up, to a few percent at one.
    """
    height, width = shape[-2:]
    raw = random.standard_normal((*shape[:-2], height + 2, width + 2), dtype=np.float32)
    norm = float(np.hypot(1 - 2 * _SIDE, np.sqrt(2) * _SIDE)) ** 2  # of the blurred numbers' deviation
    ninth = 1 / (9 * looks)
    cube: F32 = np.float32(1 - ninth) + np.float32(np.sqrt(ninth) / norm) * _response(raw)
    np.maximum(cube, np.float32(0.02), out=cube)
    return cube * cube * cube


def _blur(image: F32) -> F32:
    """The impulse response, over mean power; borders see themselves."""
    return _response(np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge"))


def _response(padded: F32) -> F32:
    """The impulse response over [..., H + 2, W + 2]."""
    side, center = np.float32(_SIDE), np.float32(1 - 2 * _SIDE)
    rows: F32 = center * padded[..., 1:-1, :] + side * (padded[..., :-2, :] + padded[..., 2:, :])
    blurred: F32 = center * rows[..., 1:-1] + side * (rows[..., :-2] + rows[..., 2:])
    return blurred
