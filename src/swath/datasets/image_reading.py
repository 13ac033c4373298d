"""One whole image, georeferenced or not: its header and its pixels."""

from __future__ import annotations

from typing import Literal

from swath.errors import ImageryError
from swath.rasters.header import locate
from swath.rasters.pillow_reader import (
    MAX_PICTURE_PIXELS,
    decode_image,
    is_16bit_png,
    read_image_header,
)
from swath.rasters.read import SceneHeader, read_header, read_mask_beside
from swath.rasters.safe_open import sniff_driver
from swath.rasters.sensor_scene import match_scene_to_sensor
from swath.rasters.sidecars import MASK, georeference_beside, mask_beside, read_pam
from swath.sensors.sensor import Sensor
from swath.sensors.units import Array, Valid, to_unit


def read_header_any(
    path: str,
    *,
    max_pixels: int = MAX_PICTURE_PIXELS,
    palette: Literal["refuse", "index"] = "refuse",
) -> SceneHeader:
    """What the header of an image file says, raster or picture; raises `ImageryError`.

    Args:
        path: The file.
        max_pixels: For images that are decoded whole.
        palette: Of rasters with a color table, as in `swath.rasters.read.read_header`.
    """
    if not is_raster(path):
        found = read_image_header(path, max_pixels=max_pixels)
        crs, transform, gsd, footprint = locate(
            *georeference_beside(path, read_pam(path)), found.width, found.height
        )
        return SceneHeader(
            path,
            (path,),
            "picture",
            found.width,
            found.height,
            found.bands,
            found.dtype,
            ("",) * found.bands,
            crs=crs,
            transform=transform,
            gsd=gsd,
            footprint=footprint,
            has_mask=mask_beside(path) is not None,
        )
    header = read_header(path, palette=palette)
    if header.width * header.height > max_pixels:
        raise ImageryError(
            f"{path}: {header.width} x {header.height} pixels are more than the limit of "
            f"{max_pixels:,} for whole images; use layout='chips', which reads windows"
        )
    return header


def read_image_file(
    path: str,
    sensor: Sensor,
    *,
    offset_dn: float | None = None,
    max_pixels: int = MAX_PICTURE_PIXELS,
) -> tuple[Array, Valid]:
    """A whole image file, raster or picture: [C, H, W] in the sensor's unit, and valid [H, W].

    Raises:
        ImageryError: It is damaged, too large, or not of this sensor.
    """
    header = read_header_any(path, max_pixels=max_pixels)
    scene = match_scene_to_sensor(header, sensor, gsd="relative", offset_dn=offset_dn)
    if scene.header.driver != "picture":
        return scene.read()
    stored, valid = decode_image(path, max_pixels=max_pixels)
    if scene.header.has_mask:
        valid &= read_mask_beside(path + MASK, valid.shape)
    return to_unit(stored, sensor, scene.offset_dn), valid


def is_raster(path: str) -> bool:
    """Whether a file is for GDAL (TIFF, and color PNG of 16 bits) and not for Pillow; told by its bytes."""
    kind = sniff_driver(path)
    return kind == "GTiff" or (kind == "PNG" and is_16bit_png(path))


def is_plain_uint8(sensor: Sensor) -> bool:
    """Whether the sensor's pixels are stored bytes that need no conversion."""
    return all(band.unit == "uint8" and band.scale == 1.0 and band.offset == 0.0 for band in sensor.bands)
