"""Chips of scenes: which scenes fit the sensor, and how chips are laid over them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from swath.datasets.chips import ChipGrid, RandomChips
from swath.datasets.protocol import ImageDataset
from swath.errors import ImageryError
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor


def open_chips(
    path: str | Path,
    *,
    sensor: str | Path | Sensor,
    gsd: float | Literal["relative"] | None = None,
    sampling: Literal["grid", "random"] = "grid",
    chip_size: int = 224,
    chip_metres: float | None = None,
    stride: int | None = None,
    chips_per_epoch: int | None = None,
    min_valid: float | None = None,
    align_to_blocks: bool | None = None,
    seed: int = 0,
    offset_dn: float | None = None,
    pattern: str | None = None,
    workers: int | None = None,
    remote: bool = False,
) -> ImageDataset:
    """Chips of all scenes at `path`: a catalog (``.parquet``), a folder, a STAC file or one raster.

    Args:
        path: What to open; a folder is catalogd first (headers only).
        sensor: What the scenes were taken with.
        sampling: ``grid`` makes a `ChipGrid`, ``random`` `RandomChips`.
        gsd: Metres per pixel; None for what the files say.
        chip_size: Side in pixels.
        chip_metres: Side on the ground instead, in metres.
        stride: Grid: pixels from chip to chip; default their side.
        chips_per_epoch: Random: how many.
        min_valid: Smallest valid share; default 0 on a grid, 0.5 at random.
        align: Random: begin chips on block boundaries.
        seed: Of the random places.
        offset_dn: Added to stored values before scaling (Sentinel-2 baselines).
        pattern: Take only files whose path below `path` matches, such as ``*/s2.tif``.
        workers: Threads that read headers.
        remote: Whether what a catalog or STAC names may be fetched from elsewhere.

    Raises:
        ImageryError: Nothing usable, or options of the other kind of sampling.
    """
    if sampling not in ("grid", "random"):
        raise ImageryError(f"sampling={sampling!r}: 'grid' or 'random' is wanted")
    foreign = (
        {"chips_per_epoch": chips_per_epoch, "align": align_to_blocks or None}
        if sampling == "grid"
        else {"stride": stride}
    )
    for name, value in foreign.items():
        if value is not None:
            raise ImageryError(f"{name}={value!r} means nothing with sampling={sampling!r}; leave it out")
    from swath.catalog.catalog import open_catalog

    scenes, problems = open_catalog(
        path, sensor=get_sensor(sensor), pattern=pattern, workers=workers, remote=remote
    )
    if sampling == "grid":
        return ChipGrid(
            scenes,
            sensor,
            gsd=gsd,
            chip_size=chip_size,
            chip_metres=chip_metres,
            stride=stride,
            min_valid=0.0 if min_valid is None else min_valid,
            seed=seed,
            offset_dn=offset_dn,
            problems=problems,
        )
    return RandomChips(
        scenes,
        sensor,
        gsd=gsd,
        chip_size=chip_size,
        chip_metres=chip_metres,
        chips_per_epoch=chips_per_epoch,
        min_valid=0.5 if min_valid is None else min_valid,
        align_to_blocks=bool(align_to_blocks),
        seed=seed,
        offset_dn=offset_dn,
        problems=problems,
    )
