"""What the ground is covered with, and how each cover roughly looks to a sunlit and to a radar sensor.

All numbers are rough: typical values as they stand in textbooks and as one sees them in Sentinel imagery of
temperate lowlands, written down from general knowledge, not measured and not fitted to any data set. They
are good for making sensors agree and differ in the ways in which real ones do, and for nothing else.

A landscape is a map of *patches*. A patch is one variety of a surface (arable crop 3, variety 1; roof 5),
`PATCHES` says of which; parcels with the same patch look alike in a scene. There are fewer than 256 of them,
so a map is a byte a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

CLASSES = (
    "arable land",
    "pasture",
    "broad-leaved forest",
    "coniferous forest",
    "wetland",
    "water",
    "settlement",
    "industry",
    "road",
    "bare ground",
)

# A scene carries a class's label where the class covers this share of it. Roads are thin: 1.5% is a motorway
# across a scene of 1.2 km; country lanes (about 0.6%) do not count.
LABEL_SHARE = np.array([0.08, 0.08, 0.08, 0.08, 0.08, 0.05, 0.08, 0.08, 0.02, 0.08])

WAVELENGTHS = np.array([443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1610, 2190], dtype=np.float64)
# Reflectance of pure materials at WAVELENGTHS (nanometres).
MATERIALS: dict[str, tuple[float, ...]] = {
    "leaf": (0.020, 0.025, 0.060, 0.024, 0.100, 0.350, 0.450, 0.480, 0.500, 0.500, 0.220, 0.100),
    "crown": (0.015, 0.020, 0.042, 0.022, 0.075, 0.260, 0.330, 0.360, 0.370, 0.370, 0.165, 0.072),
    "needle": (0.013, 0.017, 0.030, 0.019, 0.052, 0.155, 0.195, 0.215, 0.220, 0.215, 0.095, 0.042),
    "flower": (0.030, 0.035, 0.150, 0.120, 0.190, 0.360, 0.430, 0.460, 0.470, 0.470, 0.240, 0.120),
    "straw": (0.060, 0.080, 0.125, 0.170, 0.200, 0.230, 0.260, 0.290, 0.300, 0.320, 0.340, 0.220),
    "dark soil": (0.035, 0.045, 0.062, 0.085, 0.100, 0.115, 0.130, 0.145, 0.150, 0.165, 0.220, 0.180),
    "pale soil": (0.080, 0.105, 0.150, 0.205, 0.235, 0.255, 0.275, 0.295, 0.305, 0.325, 0.400, 0.350),
    "gravel": (0.120, 0.150, 0.200, 0.245, 0.260, 0.275, 0.285, 0.300, 0.310, 0.320, 0.380, 0.350),
    "clear water": (0.030, 0.035, 0.035, 0.018, 0.013, 0.008, 0.007, 0.006, 0.005, 0.004, 0.002, 0.001),
    "silty water": (0.055, 0.070, 0.100, 0.085, 0.070, 0.042, 0.038, 0.032, 0.028, 0.018, 0.005, 0.003),
    "asphalt": (0.060, 0.070, 0.085, 0.095, 0.100, 0.105, 0.110, 0.120, 0.120, 0.125, 0.140, 0.130),
    "concrete": (0.130, 0.160, 0.195, 0.230, 0.245, 0.255, 0.265, 0.270, 0.275, 0.280, 0.310, 0.280),
    "tile": (0.050, 0.060, 0.085, 0.170, 0.200, 0.215, 0.225, 0.235, 0.240, 0.250, 0.300, 0.270),
    "metal": (0.320, 0.350, 0.370, 0.380, 0.380, 0.385, 0.385, 0.385, 0.385, 0.380, 0.360, 0.330),
}


@dataclass(frozen=True, slots=True)
class Surface:
    """One kind of cover.

    Attributes:
        name: For people.
        label: Class, one of `CLASSES`.
        patches: How many varieties there are.
        mix: Shares of `MATERIALS`; sensors vary them.
        spread: Standard deviation of the logarithm of each share, from patch to patch.
        grain: Relative standard deviation of brightness inside a patch, at 10 m.
        vv, vh: Mean backscatter (gamma to sigma nought, dB) at about 38 degrees of incidence.
        wander: Standard deviation in dB from patch to patch.
        clutter: Relative standard deviation of power inside a patch, beside speckle.
        slant: How fast the backscatter falls with incidence: power of the cosine's ratio.
    """

    name: str
    label: str
    patches: int
    mix: dict[str, float]
    spread: float
    grain: float
    vv: float
    vh: float
    wander: float
    clutter: float
    slant: float


def _surface(
    name: str,
    label: str,
    patches: int,
    mix: dict[str, float],
    optical: tuple[float, float],
    radar: tuple[float, float, float, float, float],
) -> Surface:
    return Surface(name, label, patches, mix, *optical, *radar)


CROPS = 6
CROP_VARIETIES = 4

SURFACES = (
    # Crops get their state (green, flowering, ripe, bare; rough, smooth, dense) from the sensors, scene by
    # scene: two dates are never the same to a field, and the dates of two sensors differ.
    _surface("crop", "arable land", CROPS * CROP_VARIETIES,
             {"leaf": 0.5, "straw": 0.1, "dark soil": 0.2, "pale soil": 0.2}, (0.10, 0.035),
             (-11.5, -18.5, 0.7, 0.10, 1.3)),
    _surface("meadow", "pasture", 12, {"leaf": 0.62, "straw": 0.20, "dark soil": 0.18}, (0.32, 0.05),
             (-12.0, -18.8, 0.8, 0.12, 1.4)),
    _surface("broad-leaved trees", "broad-leaved forest", 8, {"crown": 0.93, "leaf": 0.07}, (0.10, 0.10),
             (-9.2, -14.4, 0.5, 0.22, 1.0)),
    _surface("coniferous trees", "coniferous forest", 8, {"needle": 0.92, "dark soil": 0.04, "crown": 0.04},
             (0.12, 0.10), (-9.8, -15.2, 0.5, 0.20, 1.0)),
    _surface("reeds", "wetland", 6, {"leaf": 0.30, "straw": 0.32, "dark soil": 0.12, "clear water": 0.26},
             (0.30, 0.16), (-10.5, -17.8, 1.2, 0.40, 1.2)),
    _surface("lake", "water", 3, {"clear water": 0.80, "silty water": 0.20}, (0.60, 0.03),
             (-20.0, -27.5, 0.3, 0.10, 5.0)),
    _surface("river", "water", 2, {"clear water": 0.45, "silty water": 0.55}, (0.50, 0.03),
             (-19.0, -27.0, 0.4, 0.12, 5.0)),
    _surface("garden", "settlement", 12, {"leaf": 0.42, "crown": 0.18, "straw": 0.10, "asphalt": 0.16,
             "dark soil": 0.14}, (0.22, 0.12), (-8.5, -14.8, 0.8, 0.40, 0.6)),
    _surface("house", "settlement", 8, {"tile": 0.60, "concrete": 0.26, "asphalt": 0.14}, (0.70, 0.10),
             (-1.5, -9.5, 2.5, 0.60, 0.4)),
    _surface("street", "settlement", 2, {"asphalt": 0.80, "concrete": 0.20}, (0.15, 0.05),
             (-11.0, -18.5, 0.5, 0.30, 1.0)),
    _surface("yard", "industry", 6, {"asphalt": 0.42, "concrete": 0.40, "leaf": 0.08, "dark soil": 0.10},
             (0.30, 0.10), (-9.5, -17.0, 1.0, 0.50, 0.8)),
    _surface("hall", "industry", 8, {"concrete": 0.34, "metal": 0.36, "asphalt": 0.20, "tile": 0.10},
             (0.80, 0.06), (-3.5, -12.0, 3.0, 0.60, 0.3)),
    _surface("carriageway", "road", 2, {"asphalt": 0.85, "concrete": 0.15}, (0.15, 0.04),
             (-16.5, -23.5, 0.5, 0.15, 2.0)),
    _surface("sand and rock", "bare ground", 8, {"gravel": 0.44, "pale soil": 0.40, "dark soil": 0.16},
             (0.30, 0.09), (-14.0, -22.0, 1.3, 0.25, 1.8)),
    _surface("felled", "bare ground", 4, {"dark soil": 0.46, "straw": 0.34, "pale soil": 0.12, "leaf": 0.08},
             (0.25, 0.10), (-11.0, -18.0, 0.7, 0.25, 1.3)),
    _surface("hedge", "broad-leaved forest", 2, {"crown": 0.80, "leaf": 0.20}, (0.15, 0.10),
             (-9.0, -14.5, 0.8, 0.25, 1.0)),
    _surface("ship", "water", 2, {"metal": 0.55, "concrete": 0.25, "tile": 0.20}, (0.50, 0.05),
             (6.0, -4.0, 2.0, 0.50, 0.2)),
)  # fmt: skip

SURFACE = {surface.name: index for index, surface in enumerate(SURFACES)}
FIRST = {
    surface.name: sum(other.patches for other in SURFACES[:index]) for index, surface in enumerate(SURFACES)
}
# [P] surface of each patch, and its class.
PATCHES = np.repeat(np.arange(len(SURFACES)), [surface.patches for surface in SURFACES])
PATCH_CLASS = np.array([CLASSES.index(SURFACES[s].label) for s in PATCHES], dtype=np.uint8)


def patches_of(name: str) -> slice:
    """Which patches are varieties of this surface."""
    return slice(FIRST[name], FIRST[name] + SURFACES[SURFACE[name]].patches)


def of_patches(field: str) -> F32:
    """[P] one number of the surface of every patch."""
    return np.array([getattr(SURFACES[s], field) for s in PATCHES], dtype=np.float32)


def spectra(wavelengths: NDArray[np.float64]) -> F32:
    """[M, C] reflectance of every material at C wavelengths (nanometres), linear between the anchors."""
    table = [np.interp(wavelengths, WAVELENGTHS, values) for values in MATERIALS.values()]
    return np.array(table, dtype=np.float32)


def material_fractions() -> F32:
    """[P, M] shares of the materials in every patch, before a sensor's scene varies them."""
    names = list(MATERIALS)
    table = np.zeros((len(PATCHES), len(names)), dtype=np.float32)
    for patch, surface in enumerate(PATCHES):
        for material, fraction in SURFACES[surface].mix.items():
            table[patch, names.index(material)] = fraction
    return table
