"""Reading JPEG, PNG and WebP safely, without GDAL.

Labeled scene collections are mostly plain pictures. Pillow reads them on a machine that has no geodata
libraries, as fast as anything else. What a file *is* is told by its first bytes, never by its name; Pillow
is then allowed that one format only; the header is judged before a pixel is allocated.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.errors import ImageryError
from swath.rasters.safe_open import sniff_driver

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
IMAGE_SUFFIXES = PICTURE_SUFFIXES | TIFF_SUFFIXES

# Under Pillow's own bomb threshold (89 Mpixel), so that it never has to warn: 80 Mpixel are 240 MB of RGB.
MAX_PICTURE_PIXELS = 80_000_000

# Pillow mode -> bands that are data (alpha is validity, not a band).
_BANDS = {"L": 1, "LA": 1, "1": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3, "I;16": 1, "I;16B": 1}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header of a picture says: number of bands without alpha, size in pixels, stored type."""

    bands: int
    height: int
    width: int
    dtype: str


def is_16bit_png(path: str | os.PathLike[str]) -> bool:
    """Whether this is a color PNG of 16 bits a band, which Pillow would reduce to 8 bits in silence."""
    with Path(path).open("rb") as file:
        head = file.read(26)
    # IHDR comes first by the standard: byte 24 is the bit depth, byte 25 the color type (0 is grayscale).
    return head.startswith(b"\x89PNG") and len(head) == 26 and head[24] == 16 and head[25] != 0


def read_image_header(path: str | os.PathLike[str], *, max_pixels: int = MAX_PICTURE_PIXELS) -> ImageHeader:
    """Read the header of a JPEG, PNG or WebP file; no pixel is decoded.

    Raises:
        ImageryError: Not such a file, damaged, too large, animated, or of a color model that is no imagery.
    """
    with _open(path, max_pixels) as image:
        dtype = "uint16" if image.mode.startswith("I;16") else "uint8"
        return ImageHeader(_BANDS[image.mode], image.height, image.width, dtype)


def decode_image(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PICTURE_PIXELS
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Decode a JPEG, PNG or WebP file.

    Pixels come as they are stored: an EXIF orientation is not applied. Fully transparent pixels are not
    valid; a palette is looked up; a bilevel picture becomes 0 and 255.

    Returns:
        image [C, H, W] uint8 (uint16 for 16-bit grayscale PNG), and valid [H, W] bool.

    Raises:
        ImageryError: As `picture_header`; also truncated or corrupt data.
    """
    with _open(path, max_pixels) as image:
        mode = image.mode
        try:
            if mode in ("P", "PA", "1"):
                has_alpha = mode == "PA" or "transparency" in image.info
                mode = "L" if mode == "1" else "RGBA" if has_alpha else "RGB"
                image = image.convert(mode)
            array = np.asarray(image)
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
            raise ImageryError(
                f"{path}: the picture is damaged or cut short ({error}); copy or download it again"
            ) from None
    if array.ndim == 2:
        array = array[:, :, None]
    if mode in ("RGBA", "LA"):
        valid = array[:, :, -1] > 0
        array = array[:, :, :-1]
    else:
        valid = np.ones(array.shape[:2], dtype=np.bool_)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    return np.array(array.transpose(2, 0, 1), order="C"), valid


def _open(path: str | os.PathLike[str], max_pixels: int) -> Any:
    """An opened, undecoded Pillow image that has passed every check of its header."""
    from PIL import Image

    kind = sniff_driver(path)
    if kind == "GTiff":
        raise ImageryError(f"{path}: is a TIFF, whatever its name says; read it as a raster")
    try:
        image = Image.open(path, formats=[kind])
    except Image.DecompressionBombError:
        raise ImageryError(
            f"{path}: too large; cut it into GeoTIFF tiles, which are read by windows"
        ) from None
    except Exception as error:
        raise ImageryError(f"{path}: the header is damaged ({error}); copy or download it again") from None
    if image.width * image.height > max_pixels:
        raise ImageryError(
            f"{path}: {image.width} x {image.height} pixels are more than the limit of {max_pixels:,} for "
            "pictures; convert it to a tiled GeoTIFF, which is read by windows"
        )
    if image.mode not in _BANDS:
        raise ImageryError(f"{path}: color model {image.mode} is not supported; convert it to RGB")
    if getattr(image, "n_frames", 1) > 1:
        raise ImageryError(f"{path}: an animation; keep one frame a file")
    return image
