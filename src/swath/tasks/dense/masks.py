"""Masks: which class every pixel of an image has, as people store it.

A mask is a single-band file (PNG, TIFF, ...), of the image's size. What its values mean is told by `classes`:
names in the order of the values 0, 1, ...; or a mapping of names to values. Anything else is an error that
names the file and the value, unless it is listed as ignored.

Masks may also be pictures whose colors stand for classes, as people publish them; then `colors` tells
which: a mapping of names to one (red, green, blue) or several. A color is read as the number
65536 R + 256 G + B, and from there on all is as above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.datasets.image_reading import is_raster, read_header_any
from swath.errors import ImageryError
from swath.tasks.dense.losses import IGNORE

_NODATA = -1
Classes = list[str] | dict[str, int | list[int]]
Color = tuple[int, int, int]
Colors = dict[str, Color | list[Color]]


class MaskValues:
    """What the values of masks mean.

    Args:
        classes: See the module.
        ignored: Values of pixels that do not count.
        colored: Values are colors.

    Attributes:
        names: Of the classes.
        colored: Whether values are colors.
    """

    def __init__(
        self,
        classes: Mapping[str, int | list[int]] | Mapping[str, int] | Sequence[str],
        ignored: Sequence[int] = (),
        *,
        colored: bool = False,
    ) -> None:
        self.colored = colored
        stated: Mapping[str, Any] = (
            classes if isinstance(classes, Mapping) else {name: i for i, name in enumerate(classes)}
        )
        self.names = tuple(stated)
        self._of: dict[int, int] = dict.fromkeys((_NODATA, *ignored), IGNORE)
        for index, (name, values) in enumerate(stated.items()):
            for value in [values] if isinstance(values, int) else values:
                if value in self._of:
                    what = "data.colors" if colored else "data.classes: value"
                    raise ImageryError(f"{what} {self._said(value)} of {name!r} has another meaning already")
                self._of[value] = index
        if not 2 <= len(self.names) <= IGNORE:
            raise ImageryError(f"data.classes: 2 to {IGNORE} classes are wanted, not {len(self.names)}")

    @classmethod
    def of_colors(cls, colors: Colors, ignored: Sequence[Color] = ()) -> MaskValues:
        """What the colors of masks mean; colors of pixels that do not count are `ignored`.

        Raises:
            ImageryError: A color that means two things; no color.
        """
        stated = {
            name: [_number(c) for c in (given if isinstance(given, list) else [given])]
            for name, given in colors.items()
        }
        return cls(stated, [_number(color) for color in ignored], colored=True)

    def read(self, path: str) -> NDArray[np.uint8]:
        """Class indices [H, W] of the mask in a file.

        Raises:
            ImageryError: Damaged, of another kind, or with a value that means nothing.
        """
        return self.apply(read_mask(path, colors=self.colored), path)

    def _said(self, value: int) -> str:
        return str(_color(value)) if self.colored else str(value)

    def apply(self, stored: NDArray[Any], where: str) -> NDArray[np.uint8]:
        """Class indices [H, W] of stored values.

        Raises:
            ImageryError: A value that means nothing.
        """
        values, inverse = np.unique(stored, return_inverse=True)
        unknown = [int(v) for v in values if int(v) not in self._of]
        if unknown:
            pixels = int(np.isin(stored, unknown).sum())
            names = {IGNORE: "ignored", **dict(enumerate(self.names))}
            known = ", ".join(f"{self._said(v)} ({names[i]})" for v, i in self._of.items() if v >= 0)
            kind, add = ("color", "data.colors, or to data.ignore_colors") if self.colored else (
                "value", "data.classes, or to data.ignore_values"
            )  # fmt: skip
            raise ImageryError(
                f"{where}: {pixels:,} pixels have the {kind} {', '.join(map(self._said, unknown[:8]))}, "
                f"which means nothing; known are {known}. Add it to {add}"
            )
        table = np.array([self._of[int(v)] for v in values], dtype=np.uint8)
        return table[inverse].reshape(stored.shape)


def read_mask(path: str, *, colors: bool = False) -> NDArray[Any]:
    """Stored values [H, W] of a mask; a palette's indices, not its colors.

    Args:
        path: The file.
        colors: The mask is a picture of three bands (or with a palette) of 8 bits: its colors as numbers.

    Raises:
        ImageryError: Damaged, or of several bands; in colors where none are asked for, or the reverse.
    """
    if colors:
        return _read_colors(path)
    header = read_header_any(path, palette="index")
    if is_raster(path):
        from swath.rasters.read import read_window

        stored, valid = read_window(header)
        if stored.shape[0] != 1:
            raise ImageryError(_several(path, stored.shape[0]))
        if not np.issubdtype(stored.dtype, np.integer):
            raise ImageryError(f"{path}: a mask holds whole numbers, not {stored.dtype}")
        return np.where(valid, stored[0].astype(np.int64), _NODATA)
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "1", "I;16", "I"):
                raise ImageryError(_several(path, len(image.getbands())))
            return np.asarray(image).astype(np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageryError(f"{path}: the mask is damaged or cut short ({error})") from None


def _read_colors(path: str) -> NDArray[Any]:
    """65536 R + 256 G + B of every pixel [H, W]; `_NODATA` where it is transparent or nodata."""
    if is_raster(path):
        from swath.rasters.read import read_window

        stored, valid = read_window(read_header_any(path))
        if stored.shape[0] not in (3, 4) or stored.dtype != np.uint8:
            raise ImageryError(_no_colors(path, stored.shape[0], str(stored.dtype)))
        if stored.shape[0] == 4:
            valid = valid & (stored[3] > 0)
        return np.where(valid, _numbers(stored[:3]), _NODATA)
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA", "P"):
                raise ImageryError(_no_colors(path, len(image.getbands()), image.mode))
            pixels = np.asarray(image.convert("RGBA")).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageryError(f"{path}: the mask is damaged or cut short ({error})") from None
    return np.where(pixels[3] > 0, _numbers(pixels[:3]), _NODATA)


def _numbers(colors: NDArray[Any]) -> NDArray[np.int64]:
    red, green, blue = colors.astype(np.int64)
    return np.asarray((red << 16) + (green << 8) + blue)


def _number(color: Color) -> int:
    red, green, blue = color
    if not all(0 <= part <= 255 for part in color):
        raise ImageryError(f"data.colors: {tuple(color)} is no color: three numbers from 0 to 255 are")
    return (red << 16) + (green << 8) + blue


def _color(number: int) -> Color:
    return number >> 16, (number >> 8) & 255, number & 255


def _no_colors(path: str, bands: int, kind: str) -> str:
    return (
        f"{path}: data.colors is for masks in colors, of three bands of 8 bits; this has {bands} ({kind}). "
        "Masks of numbers want data.classes"
    )


def mask_size(path: str) -> tuple[int, int]:
    """(height, width) by the header."""
    header = read_header_any(path, palette="index")
    return header.height, header.width


def infer_mask_classes(paths: Sequence[str]) -> dict[str, int]:
    """Class names of what masks hold: ``background`` for 0, ``value 255`` and so on.

    Raises:
        ImageryError: Fewer than two values, or too many for classes.
    """
    values: set[int] = set()
    for path in paths:
        values |= {int(v) for v in np.unique(read_mask(path)) if v != _NODATA}
        if len(values) > 64:
            raise ImageryError(
                f"{path}: the masks hold more than 64 different values; they look like pictures. Say what "
                "the values mean with data.classes, such as {background: 0, road: 255}"
            )
    if len(values) < 2:
        folder = Path(paths[0]).parent
        raise ImageryError(f"{folder}: all masks hold the value {values} only; there is nothing to learn")
    return {"background" if value == 0 else f"value {value}": value for value in sorted(values)}


def _several(path: str, bands: int) -> str:
    return (
        f"{path}: a mask has one band, this has {bands}. Where colors stand for classes, say "
        "which, such as data.colors={building: [255, 0, 0], other: [0, 0, 0]}"
    )
