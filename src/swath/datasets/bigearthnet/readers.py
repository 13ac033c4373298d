"""Pixels of BigEarthNet's patches, from folders of GeoTIFFs or from LMDB databases.

A patch is 1.2 km x 1.2 km: 120 x 120 pixels in its 10 m bands, 60 x 60 in the 20 m bands, 20 x 20 in the
60 m bands. Coarser bands are resampled to 120 x 120 bicubically with aligned corners, in float32 and from the
stored values, as the models on BigEarthNet-MM have it; the 10 m bands stay as they are.

The LMDB of rico-hdl holds for each patch's name one safetensors blob with a tensor a band. That of
bigearthnet_encoder holds pickles (read without executing them, `swath.datasets.bigearthnet.pickles`), where
the value of a Sentinel-2 name may hold the bands of its Sentinel-1 patch as well.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from swath.datasets.bigearthnet.pickles import unpack_pickle
from swath.errors import ImageryError
from swath.rasters.read import read_header, read_window
from swath.sensors.sensor import Sensor
from swath.sensors.units import Array, Array64, Valid, stored_to_unit

SIDE = 120  # pixels of a patch in its 10 m bands
GSD = 10.0
_SIDES = {10: 120, 20: 60, 60: 20}
_BANDS = {
    1: {"VV": 10, "VH": 10},
    2: {
        "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20,
        "B09": 60, "B11": 20, "B12": 20,
    },
}  # fmt: skip


def sentinel_of(sensor: Sensor) -> int:
    """1 or 2: which of BigEarthNet's satellites a sensor's bands are from.

    Raises:
        ImageryError: It has bands that BigEarthNet has not.
    """
    for sentinel, known in _BANDS.items():
        if set(sensor.band_names) <= set(known):
            return sentinel
    nearest = 1 if {"VV", "VH"} & set(sensor.band_names) else 2
    absent = [name for name in sensor.band_names if name not in _BANDS[nearest]]
    raise ImageryError(
        f"BigEarthNet has no band {', '.join(absent)} of sensor {sensor.name!r}. Its bands are "
        f"{', '.join(_BANDS[2])} (Sentinel-2, Level-2A) and VV, VH (Sentinel-1, dB); sensors that fit: "
        "sentinel2_ben, sentinel2_l2a, sentinel1_ben, sentinel1_grd"
    )


class PatchSource(Protocol):
    """Where bands of patches come from."""

    def bands(self, patch: str, names: Sequence[str]) -> list[Array]:
        """Stored values [h, w] of these bands, each in its own resolution.

        Raises:
            ImageryError: Not there, or damaged.
        """
        ...

    def where(self, patch: str) -> str:
        """What to call a patch in messages."""
        ...


class PatchFolders:
    """Patches in folders of one GeoTIFF a band.

    Args:
        folders: Name of a patch -> its folder.
    """

    def __init__(self, folders: dict[str, str]) -> None:
        self._folders = folders

    def where(self, patch: str) -> str:
        """See `PatchSource`."""
        return self._folders[patch]

    def bands(self, patch: str, names: Sequence[str]) -> list[Array]:
        """See `PatchSource`."""
        folder = self._folders[patch]
        there = set(os.listdir(folder))  # noqa: PTH208 (names are all that is wanted)
        found = []
        for name in names:
            files = [f"{patch}_{name}{suffix}" for suffix in (".tif", ".tiff")]
            file = next((file for file in files if file in there), None)
            if file is None:
                raise ImageryError(
                    f"{folder}: band {name} is missing ({files[0]}). Unpack the archive again, or use a "
                    "sensor without this band"
                )
            header = read_header(os.path.join(folder, file), nodata=None)  # noqa: PTH118 (called often)
            if header.bands != 1:
                raise ImageryError(f"{header.path}: has {header.bands} bands, one is wanted")
            found.append(read_window(header)[0][0])
        return found


_environments: dict[tuple[int, str], Any] = {}  # LMDB must not open a database twice in a process


class PatchLmdb:
    """Patches in an LMDB database, as rico-hdl or bigearthnet_encoder writes it.

    Args:
        path: The database's folder, with `data.mdb` in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def where(self, patch: str) -> str:
        """See `PatchSource`."""
        return f"{self.path}: {patch}"

    def _environment(self) -> Any:
        key = (os.getpid(), os.path.realpath(self.path))
        if key not in _environments:
            try:
                import lmdb
            except ImportError:
                raise ImageryError(
                    f"{self.path}: reading LMDB needs the package lmdb: pip install '.[lmdb]'"
                ) from None
            try:
                environment = lmdb.open(self.path, readonly=True, lock=False, readahead=False, max_dbs=0)
            except lmdb.Error as error:
                raise ImageryError(f"{self.path}: cannot be opened as LMDB ({error})") from None
            _environments[key] = environment
        return _environments[key]

    def names(self) -> list[str]:
        """Names of all patches, without looking at values."""
        with self._environment().begin() as transaction, transaction.cursor() as cursor:
            return [bytes(key).decode() for key in cursor.iternext(keys=True, values=False)]

    def unpacked(self, patch: str) -> tuple[dict[str, Array], tuple[str, ...] | None]:
        """All bands of a patch by name, and its labels where they are stored with them.

        Raises:
            ImageryError: No such patch, or its value is of another kind.
        """
        with self._environment().begin(buffers=False) as transaction:
            value = transaction.get(patch.encode())
        if value is None:
            raise ImageryError(f"{self.path}: has no patch {patch!r}")
        if is_pickle(value):
            return unpack_pickle(value, self.where(patch))
        return unpack_safetensors(value, self.where(patch)), None

    def bands(self, patch: str, names: Sequence[str]) -> list[Array]:
        """See `PatchSource`."""
        found, _ = self.unpacked(patch)
        absent = [name for name in names if name not in found]
        if absent:
            raise ImageryError(
                f"{self.where(patch)}: has no band {', '.join(absent)}; there are {', '.join(sorted(found))}"
            )
        return [found[name] for name in names]


def is_pickle(value: bytes) -> bool:
    """Whether a value is a pickle; safetensors have an opening brace where their header begins."""
    return value[:1] == b"\x80" and value[8:9] != b"{"


def unpack_safetensors(value: bytes, where: str) -> dict[str, Array]:
    """Bands of one LMDB value.

    Raises:
        ImageryError: Not safetensors.
    """
    import safetensors
    from safetensors.numpy import load

    try:
        return dict(load(value))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ImageryError(f"{where}: is not safetensors ({error}); convert it with rico-hdl") from None


class PatchReader:
    """One sensor's patches, by name; a `swath.datasets.pairs.readers.PairReader`.

    Args:
        sensor: A subset of the bands of one satellite, in any order.
        patches: [N] names.
        source: Where they come from.
        times: [N] seconds since 1970 UTC.
        size: (H, W) to crop the center to.
    """

    def __init__(
        self,
        sensor: Sensor,
        patches: Sequence[str],
        source: PatchSource,
        times: Array64,
        size: tuple[int, int] | None = None,
    ) -> None:
        bands = _BANDS[sentinel_of(sensor)]
        self.sensor, self.times = sensor, times
        self.names = [source.where(patch) for patch in patches]
        self.shape = size or (SIDE, SIDE)
        if max(self.shape) > SIDE:
            raise ImageryError(f"size={self.shape}: BigEarthNet's patches are {SIDE} x {SIDE} pixels")
        self.gsds = np.full(len(patches), GSD)
        self._patches, self._source = list(patches), source
        by_gsd = {gsd: [i for i, n in enumerate(sensor.band_names) if bands[n] == gsd] for gsd in _SIDES}
        self._groups = [(_SIDES[gsd], positions) for gsd, positions in by_gsd.items() if positions]

    def read(self, place: int) -> tuple[list[Array], Valid]:
        """See `PairReader`."""
        patch = self._patches[place]
        found = self._source.bands(patch, self.sensor.band_names)
        groups: list[Array] = []
        valid = np.ones((SIDE, SIDE), bool)
        for side, positions in self._groups:
            for i in positions:
                if found[i].shape != (side, side):
                    raise ImageryError(
                        f"{self.names[place]}: band {self.sensor.band_names[i]} is {found[i].shape}, "
                        f"BigEarthNet's is {side} x {side} pixels"
                    )
            stored = np.stack([found[i] for i in positions])
            groups.append(stored)
            if stored.dtype.kind == "f":
                ok = np.isfinite(stored).all(axis=0)
                valid &= ok if side == SIDE else np.kron(ok, np.ones((SIDE // side,) * 2, bool))
        return groups, valid[self._crop()]

    def finish(self, groups: Sequence[Array], rows: NDArray[np.int64]) -> Tensor:
        """See `PairReader`."""
        count = len(groups[0])
        image = torch.empty(count, len(self.sensor.bands), SIDE, SIDE)
        for (_, positions), stored in zip(self._groups, groups, strict=True):
            image[:, positions] = resample_patch(torch.from_numpy(stored.astype(np.float32)))
        image = image[(..., *self._crop())].contiguous()
        return stored_to_unit(image, self.sensor, np.zeros(count))

    def _crop(self) -> tuple[slice, slice]:
        top, left = ((SIDE - side) // 2 for side in self.shape)
        return slice(top, top + self.shape[0]), slice(left, left + self.shape[1])


def resample_patch(stored: Tensor) -> Tensor:
    """Bands [B, c, h, w] in float32 at 120 x 120 pixels: bicubic with aligned corners; no clipping."""
    if stored.shape[-2:] == (SIDE, SIDE):
        return stored
    return functional.interpolate(stored, size=(SIDE, SIDE), mode="bicubic", align_corners=True)
