"""A scene seen through a sensor: which of the file's bands are wanted, and pixels in the sensor's unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swath.errors import ContractError, ImageryError, UnstatedError
from swath.geo.grid import PixelWindow
from swath.rasters.read import SceneHeader, read_window, window_gsd
from swath.sensors.matching import match_bands
from swath.sensors.sensor import Sensor
from swath.sensors.sentinel2_level import level_conflict
from swath.sensors.sentinel2_offset import resolve_offset_dn
from swath.sensors.units import to_unit

GSD_FIX = (
    "state it: `--gsd 0.3` (metres per pixel; data.gsd in a recipe, gsd= in Python), or `--gsd relative` if "
    "it is unknown"
)
OVERRIDE = "override:"
_CHECKED = 256  # side in pixels of what is looked at of a scene


def resolve_gsd(given: float | str | None, own: float | None, where: str) -> float | None:
    """The stated GSD where it counts, None where the image's own does.

    Args:
        given: Metres per pixel of images that do not state their own; ``"relative"``: 1 for every image;
            ``"override:0.3"``: 0.3 also for images that state another.
        own: What the image states: metres per pixel, or None.
        where: The image, for messages.

    Raises:
        ImageryError: No GSD at all, or one that is not a positive number.
    """
    gsd: float | str | None = given
    if isinstance(given, str) and given.startswith(OVERRIDE):
        try:
            gsd = float(given.removeprefix(OVERRIDE))
        except ValueError:
            raise ImageryError(f"gsd={given!r}: metres per pixel follow {OVERRIDE}") from None
    elif given == "relative":
        return 1.0
    elif isinstance(given, str):
        raise ImageryError(
            f"gsd={given!r}: a number of metres, 'relative', or '{OVERRIDE}0.3' to replace what files state"
        )
    elif own is not None:
        return None
    if gsd is None:
        raise UnstatedError(f"{where}: has no georeference, so its GSD is unknown; {GSD_FIX}")
    gsd = float(gsd)
    if not (np.isfinite(gsd) and gsd > 0):
        raise ImageryError(f"{where}: a GSD of {gsd:g} is not a positive number of metres; {GSD_FIX}")
    return gsd


@dataclass(frozen=True, slots=True)
class SensorScene:
    """A scene whose bands are known to be a sensor's; made by `as_sensor`. Picklable.

    Attributes:
        header: Of the scene, with the sensor's nodata where the file states none.
        sensor: What it was taken with.
        bands: For each band of the sensor the 0-based index of the scene's.
        native_gsd: Metres per pixel that the user states for the whole scene (1.0 in relative mode); None to
            measure it on the ground, for each window at its own place.
        offset_dn: Added to stored values before scaling, see `swath.sensors.units.to_unit`.
    """

    header: SceneHeader
    sensor: Sensor
    bands: tuple[int, ...]
    native_gsd: float | None = None
    offset_dn: float = 0.0

    def gsd(self, window: PixelWindow | None = None, out_shape: tuple[int, int] | None = None) -> float:
        """Effective GSD of a window resampled to `out_shape` (h, w)."""
        if self.native_gsd is None:
            measured = window_gsd(self.header, window, out_shape)
            if measured is None:  # as_sensor has made sure that this cannot be
                raise ImageryError(f"{self.header.path}: has no georeference; {GSD_FIX}")
            return measured
        if out_shape is None or window is None:
            return self.native_gsd
        return self.native_gsd * float(np.sqrt(window.width / out_shape[1] * window.height / out_shape[0]))

    def read(
        self, window: PixelWindow | None = None, out_shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels [C, h, w] in the sensor's unit, and valid [h, w]; resampled to `out_shape` by area, or
        bilinearly where that enlarges.

        Raises:
            ImageryError: The file is damaged, gone or changed, or holds values of another type.
        """
        enlarges = window is not None and out_shape is not None and out_shape > (window.height, window.width)
        stored, valid = read_window(
            self.header,
            window,
            bands=self.bands,
            out_shape=out_shape,
            resampling="bilinear" if enlarges else "area",
        )
        return to_unit(stored, self.sensor, self.offset_dn), valid

    def check_values(self) -> None:
        """Hold the middle of the scene against the sensor's unit.

        Raises:
            ImageryError: The values cannot be in this unit (see `swath.sensors.value_range`), or the file is
                damaged.
        """
        import torch

        from swath.sensors.value_range import check_unit_range

        header = self.header
        width, height = min(header.width, _CHECKED), min(header.height, _CHECKED)
        window = PixelWindow((header.width - width) // 2, (header.height - height) // 2, width, height)
        image, valid = self.read(window)
        stack = torch.from_numpy(image)[None], torch.from_numpy(valid)[None]
        try:
            check_unit_range(self.sensor, *stack, header.path)
        except ContractError as error:
            raise ImageryError(str(error).replace("for this model", "by its definition")) from None


def match_scene_to_sensor(
    header: SceneHeader,
    sensor: Sensor,
    *,
    gsd: float | str | None = None,
    offset_dn: float | None = None,
) -> SensorScene:
    """Look at a scene as imagery of `sensor`.

    Args:
        header: From `swath.rasters.read.read_header` or a catalog.
        sensor: The sensor.
        gsd: Of a scene without georeference, or one that counts in any case; see `resolve_gsd`.
        offset_dn: Added to stored values before scaling; None for what the scene says about itself. Only
            Sentinel-2 has one (see `swath.sensors.sentinel2_offset`), 0 elsewhere.

    Raises:
        ImageryError: The bands or the type of values are not the sensor's; or the GSD, or Sentinel-2's
            offset, is unknown.
    """
    where = header.path
    bands = match_scene_bands(header, sensor)
    applied = header.tags.get("earthsearch:boa_offset_applied", "").lower() == "true"
    offset, _ = resolve_offset_dn(
        sensor,
        given=offset_dn,
        tags=header.tags,
        path=where,
        stac={"earthsearch:boa_offset_applied": applied},
    )
    try:
        to_unit(np.empty((len(bands), 0, 0), header.dtype), sensor, offset)
    except ImageryError as error:
        raise ImageryError(f"{where}: {error}") from None
    if gsd is None and header.gsd is None and header.transform is not None:
        raise UnstatedError(f"{where}: states a grid but no usable CRS, so its GSD is unknown; {GSD_FIX}")
    native_gsd = resolve_gsd(gsd, header.gsd, where)
    return SensorScene(with_sensor_nodata(header, sensor, bands), sensor, tuple(bands), native_gsd, offset)


def match_scene_bands(header: SceneHeader, sensor: Sensor) -> list[int]:
    """For each band of the sensor the 0-based index of the scene's.

    Raises:
        ImageryError: See `swath.sensors.matching.match_bands`; or the scene states another processing level.
    """
    conflict = level_conflict(sensor.name, header.tags, header.path)
    if conflict is not None:
        raise ImageryError(conflict)
    try:
        return match_bands(sensor, header.descriptions, header.path)
    except ImageryError as error:
        if header.has_alpha and len(sensor.bands) == header.bands + 1:
            # What many programs write into a 4-band file of red, green, blue and near infrared.
            raise ImageryError(
                f"{error} Or is it the last band, which the file calls transparency (alpha)? Then mark it as "
                f"a band: gdal_edit.py -colorinterp_{header.bands + 1} undefined {header.path}"
            ) from None
        raise


def with_sensor_nodata(header: SceneHeader, sensor: Sensor, bands: Sequence[int]) -> SceneHeader:
    """The header with the sensor's nodata values where the file does not state any itself."""
    values = {band.nodata for band in sensor.bands}
    if header.nodata is not None or header.band_nodata is not None or values == {None}:
        return header
    if len(values) == 1:
        return replace(header, nodata=values.pop())
    each: list[float | None] = [None] * header.bands
    for band, index in zip(sensor.bands, bands, strict=True):
        each[index] = band.nodata
    return replace(header, band_nodata=tuple(each))
