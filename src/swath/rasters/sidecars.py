"""Files beside an image that say something about it: masks (.msk) and georeference (.tfw, .prj, .aux.xml).

GDAL is kept from reading them (see `swath.rasters.safe_open`), since some of them name further files. What
they hold is read here: a mask as a TIFF under the same checks as an image, a georeference as text.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from swath.errors import ImageryError

Six = tuple[float, float, float, float, float, float]
MASK, PAM = ".msk", ".aux.xml"
_WORLD = {".tif": ".tfw", ".tiff": ".tfw", ".jpg": ".jgw", ".jpeg": ".jgw", ".png": ".pgw", ".webp": ".wbw"}
_MAX_BYTES = 2**20


def mask_beside(path: str) -> str | None:
    """The mask of the whole image that stands beside it (``NAME.tif.msk``)."""
    return path + MASK if Path(path + MASK).is_file() else None


def not_read_beside(path: str) -> tuple[str, ...]:
    """Where files would be that are not read: overviews, and the model of a scene that is not projected."""
    image = Path(path)
    models = (image.with_suffix(".rpb"), image.with_suffix(".rpc"), image.with_name(f"{image.stem}_RPC.TXT"))
    return (path + ".ovr", *map(str, models))


class Pam(NamedTuple):
    """What a file's ``.aux.xml`` (GDAL's PAM) states: nothing, as far as it goes."""

    transform: Six | None = None
    crs: str | None = None
    nodata: float | None = None  # of its first band


def read_pam(path: str) -> Pam:
    """What the ``.aux.xml`` beside an image states.

    Raises:
        ImageryError: It cannot be read.
    """
    text = _text(Path(path + PAM))
    if not text:
        return Pam()
    try:
        tree = ElementTree.fromstring(text)
        numbers = [float(word) for word in (tree.findtext("GeoTransform") or "").split(",") if word.strip()]
        nodata = tree.findtext("PAMRasterBand/NoDataValue")
        value = None if nodata is None else float(nodata)
    except (ElementTree.ParseError, ValueError) as error:
        raise ImageryError(f"{path}{PAM}: cannot be read ({error}). Mend it, or take it away") from None
    transform = None
    if len(numbers) == 6:
        x, a, b, y, d, e = numbers
        transform = (a, b, x, d, e, y)
    return Pam(transform, tree.findtext("SRS") or None, value)


def georeference_beside(path: str, pam: Pam) -> tuple[Six | None, str | None]:
    """(transform, CRS) that files beside an image state, None for each that they do not.

    The transform comes from a world file (``.tfw``, ``.jgw``, ..., or the image's suffix with a ``w``), whose
    numbers are those of the center of the first pixel, or from ``.aux.xml``; the CRS from ``.aux.xml`` or
    ``.prj``.

    Raises:
        ImageryError: One of them cannot be read; the message names it.
    """
    image = Path(path)
    transform, crs, _ = pam
    suffix = image.suffix.lower()
    for world in dict.fromkeys((_WORLD.get(suffix, ".wld"), (suffix or ".wl") + "w", ".wld")):
        places = (image.with_suffix(world), image.with_suffix(world.upper()))
        if (found := next((place for place in places if place.is_file()), None)) is not None:
            transform = _of_world_file(found)
            break
    if crs is None and (text := _text(image.with_suffix(".prj"))):
        crs = text.strip()
    return transform, crs


def _of_world_file(path: Path) -> Six:
    try:
        a, d, b, e, x, y = (float(word.replace(",", ".")) for word in (_text(path) or "").split())
    except ValueError:
        raise ImageryError(
            f"{path}: is no world file, which has six numbers. Mend it or take it away"
        ) from None
    if not all(map(math.isfinite, (a, d, b, e, x, y))) or a * e == b * d:
        raise ImageryError(f"{path}: states no grid ({a:g}, {d:g}, {b:g}, {e:g}). Mend it, or take it away")
    return a, b, x - (a + b) / 2, d, e, y - (d + e) / 2


def _text(path: Path) -> str | None:
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_BYTES:
        raise ImageryError(f"{path}: has {path.stat().st_size:,} bytes, too many for what it is")
    return path.read_text(encoding="utf-8", errors="replace")
