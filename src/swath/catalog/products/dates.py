"""When a product was acquired, by its name. Only names of known products: eight digits may be anything.

Sources: the naming conventions of Sentinel-1 to 3, Landsat Collections 1 and 2, HLS, MODIS, NAIP, PlanetScope
and SkySat.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath

_DAY = r"(?P<day>\d{8})"
_SECOND = r"(?P<day>\d{8})T(?P<time>\d{6})"
_PRODUCTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\bS2[A-D]_(?:MSI|OPER_MSI_)?L(?:1B|1C|2A)_{_SECOND}",  # Sentinel-2, also tiles of BigEarthNet
        rf"\b(?:L[12][AC]_)?T\d{{2}}[A-Z]{{3}}_(?:A\d{{6}}_)?{_SECOND}",  # its tiles and band files
        rf"\bS2[A-D]_\d{{2}}[A-Z]{{3}}_{_DAY}_",  # as clouds name its COGs
        rf"\bS1[A-D]_(?:EW|IW|WV|S\d)_\w{{4}}_\w{{4}}_{_SECOND}",  # Sentinel-1
        rf"\bS1[A-D]_(?:EW|IW)_{_SECOND}",
        rf"\bS3[AB]_[A-Z]{{2}}_\d_\w{{6}}_{_SECOND}",
        rf"\bL[COETM]\d{{2}}_L\w{{3}}_\d{{6}}_{_DAY}_",  # Landsat collections
        r"\bHLS\.[LS]30\.T\w{5}\.(?P<year>\d{4})(?P<doy>\d{3})T(?P<time>\d{6})",
        r"\bM[OYC]D\w+\.A(?P<year>\d{4})(?P<doy>\d{3})\.",
        rf"\bm_\d{{7}}_[ns][ew]_\d{{1,2}}_(?:h|\d{{1,3}})_{_DAY}",  # NAIP: flown, then delivered
        rf"\b{_DAY}_(?P<time>\d{{6}})(?:_\d{{2}})?_[0-9a-f]{{4}}(?:_|\b)",  # PlanetScope
        rf"\b{_DAY}_(?P<time>\d{{6}})_ss\w+",  # SkySat
    )
)


def time_from_name(path: str) -> datetime | None:
    """Acquisition time (UTC) that a product's name states, in the file's name or those of its folders.

    A name that states the day alone gives midnight.
    """
    if (landsat := _landsat_time(path)) is not None:
        return landsat
    for part in reversed(PurePath(path).parts[-4:]):
        for product in _PRODUCTS:
            found = product.search(part)
            if found and (time := _time(found.groupdict())) is not None:
                return time
    return None


def _landsat_time(path: str) -> datetime | None:
    """What the metadata file beside a Landsat product says; its name states the day alone."""
    product = re.match(r"L[COETM]\d{2}_L\w{3}_\d{6}_\d{8}_\d{8}_\d{2}_\w{2}", PurePath(path).name)
    if product is None:
        return None
    try:
        text = Path(path).with_name(f"{product[0]}_MTL.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    day = re.search(r'DATE_ACQUIRED = "?(\d{4}-\d\d-\d\d)', text)
    clock = re.search(r'SCENE_CENTER_TIME = "?(\d\d:\d\d:\d\d)', text)
    if day is None or clock is None:
        return None
    return datetime.fromisoformat(f"{day[1]}T{clock[1]}+00:00")


def _time(parts: dict[str, str | None]) -> datetime | None:
    try:
        if (year := parts.get("year")) is not None:
            day = datetime(int(year), 1, 1, tzinfo=UTC) + timedelta(days=int(parts["doy"] or 1) - 1)
        else:
            day = datetime.strptime(str(parts["day"]), "%Y%m%d").replace(tzinfo=UTC)
        clock = datetime.strptime(parts.get("time") or "000000", "%H%M%S")
    except ValueError:
        return None
    return day.replace(hour=clock.hour, minute=clock.minute, second=clock.second)
