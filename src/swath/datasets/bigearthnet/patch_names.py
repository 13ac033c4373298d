"""What the names of BigEarthNet's patches say, and the subsets that are chosen by them.

    S2A_MSIL2A_20170613T101031_87_48                      Sentinel-2, v1: no tile
    S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43    Sentinel-2, v2
    S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48          Sentinel-1, v1 and v2

Many of v1 have lost the zero in front of the hour (``S2B_MSIL2A_20170831T95030_0_84`` is of 09:50:30), and
some count seconds beyond 59 (``T94161``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from swath.errors import ImageryError

_SENTINEL2 = re.compile(
    r"S2[A-D]_MSIL2A_(?P<day>\d{8})T(?P<time>\d{5,6})(?P<product>_N\d{4}_R\d{3}_T(?P<tile>\w{5}))?_(?P<x>\d+)_(?P<y>\d+)"
)
_SENTINEL1 = re.compile(
    r"S1[A-D]_IW_GRDH_1SDV_(?P<day>\d{8})T(?P<time>\d{5,6})_(?P<tile>\w{5})_(?P<x>\d+)_(?P<y>\d+)"
)


@dataclass(frozen=True, slots=True)
class PatchName:
    """A patch's name, taken apart.

    Attributes:
        name: As it is.
        sentinel: 1 or 2.
        time: Acquisition, UTC.
        tile: MGRS tile, such as 33UUP; None in names of Sentinel-2 in v1.
        position: Column and row of the patch in its tile.
        scene: The name without the position: patches of one scene are neighbors in space and time.
    """

    name: str
    sentinel: int
    time: datetime
    tile: str | None
    position: tuple[int, int]
    scene: str


def parse_patch_name(name: str) -> PatchName | None:
    """The parts of a patch's name; None where it is none."""
    for sentinel, pattern in ((2, _SENTINEL2), (1, _SENTINEL1)):
        found = pattern.fullmatch(name)
        if found:
            clock = found["time"].zfill(6)
            hours, minutes, seconds = (int(clock[i : i + 2]) for i in (0, 2, 4))
            day = datetime.strptime(found["day"], "%Y%m%d").replace(tzinfo=UTC)
            return PatchName(
                name=name,
                sentinel=sentinel,
                time=day + timedelta(hours=hours, minutes=minutes, seconds=seconds),
                tile=found["tile"],
                position=(int(found["x"]), int(found["y"])),
                scene=name[: found.start("x") - 1],
            )
    return None


def is_ben14k(s2_name: str, country: str) -> bool:
    """Whether a patch belongs to BEN-14K, *given* that it is in an official split of v1.

    BEN-14K is what of the official splits was taken over Serbia by Sentinel-2 in June, July or August. The
    month counts, not a season that somebody has written down: of 27 August and of 1 September, both of one
    pair, Sentinel-2's decides.

    Raises:
        ImageryError: Not the name of a Sentinel-2 patch.
    """
    patch = parse_patch_name(s2_name)
    if patch is None or patch.sentinel != 2:
        raise ImageryError(f"{s2_name!r} is not the name of a Sentinel-2 patch of BigEarthNet")
    return country == "Serbia" and patch.time.month in (6, 7, 8)


def ben14k(s2_names: Sequence[str], countries: Iterable[str]) -> list[str]:
    """The names that belong to BEN-14K, sorted, of one official split of v1.

    Args:
        s2_names: Sentinel-2 patches of a split (train, val or test).
        countries: The country of each.
    """
    return sorted(name for name, country in zip(s2_names, countries, strict=True) if is_ben14k(name, country))
