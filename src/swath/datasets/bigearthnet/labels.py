"""The two nomenclatures of BigEarthNet: 43 CORINE classes, and the 19 that replaced them.

G. Sumbul et al., BigEarthNet-MM, IEEE Geoscience and Remote Sensing Magazine 2021, table 1: classes that
cannot be told from one acquisition are grouped, and eleven have no counterpart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swath.errors import ImageryError, suggest

_AGRICULTURE = "Land principally occupied by agriculture, with significant areas of natural vegetation"

# 19 classes, and the CORINE classes of each. In alphabetical order, which is that of the multi-hot labels.
_GROUPS: dict[str, tuple[str, ...]] = {
    "Agro-forestry areas": ("Agro-forestry areas",),
    "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    "Beaches, dunes, sands": ("Beaches, dunes, sands",),
    "Broad-leaved forest": ("Broad-leaved forest",),
    "Coastal wetlands": ("Salt marshes", "Salines"),
    "Complex cultivation patterns": ("Complex cultivation patterns",),
    "Coniferous forest": ("Coniferous forest",),
    "Industrial or commercial units": ("Industrial or commercial units",),
    "Inland waters": ("Water courses", "Water bodies"),
    "Inland wetlands": ("Inland marshes", "Peatbogs"),
    _AGRICULTURE: (_AGRICULTURE,),
    "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
    "Mixed forest": ("Mixed forest",),
    "Moors, heathland and sclerophyllous vegetation": ("Moors and heathland", "Sclerophyllous vegetation"),
    "Natural grassland and sparsely vegetated areas": ("Natural grassland", "Sparsely vegetated areas"),
    "Pastures": ("Pastures",),
    "Permanent crops": (
        "Vineyards",
        "Fruit trees and berry plantations",
        "Olive groves",
        "Annual crops associated with permanent crops",
    ),
    "Transitional woodland, shrub": ("Transitional woodland/shrub",),
    "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
}
WITHOUT_COUNTERPART = (
    "Road and rail networks and associated land",
    "Port areas",
    "Airports",
    "Mineral extraction sites",
    "Dump sites",
    "Construction sites",
    "Green urban areas",
    "Sport and leisure facilities",
    "Bare rock",
    "Burnt areas",
    "Intertidal flats",
)

CLASSES_19: tuple[str, ...] = tuple(_GROUPS)
"""The 19 classes, alphabetical."""

TO_19: dict[str, str] = {old: new for new, olds in _GROUPS.items() for old in olds}
"""CORINE class -> one of the 19, for the 32 that have one."""

CLASSES_43: tuple[str, ...] = tuple(sorted([*TO_19, *WITHOUT_COUNTERPART]))
"""The 43 CORINE classes, alphabetical."""


def labels_19(labels: Iterable[str], where: str = "labels") -> tuple[str, ...]:
    """Labels of either nomenclature as those of the 19 classes, alphabetical, each once.

    May be empty: patches that show nothing but classes without counterpart are not in the official splits.

    Raises:
        ImageryError: A label of neither nomenclature; suggests the nearest.
    """
    return tuple(sorted({new for label in labels if (new := _to_19(label, where)) is not None}))


def labels_43(labels: Sequence[str], where: str = "labels") -> tuple[str, ...]:
    """CORINE labels as they are, checked.

    Raises:
        ImageryError: A label that is none of the 43; one of the 19 cannot be taken apart again.
    """
    for label in labels:
        if label not in CLASSES_43:
            if label in CLASSES_19:
                raise ImageryError(
                    f"{where}: label {label!r} is of the nomenclature of 19 classes, which joins several of "
                    "the 43. Only 19 classes can be had from this metadata"
                )
            raise _unknown(label, where)
    return tuple(sorted(set(labels)))


def _to_19(label: str, where: str) -> str | None:
    if label in _GROUPS:
        return label
    if label in TO_19:
        return TO_19[label]
    if label in WITHOUT_COUNTERPART:
        return None
    raise _unknown(label, where)


def _unknown(label: str, where: str) -> ImageryError:
    return ImageryError(
        f"{where}: label {label!r} is neither one of BigEarthNet's 43 CORINE classes nor of its 19."
        f"{suggest(label, sorted({*CLASSES_19, *CLASSES_43}))}"
    )
