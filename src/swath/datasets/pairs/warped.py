"""One sensor of a pair, warped to the grid of another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import ImageryError
from swath.geo.grid import PixelGrid
from swath.rasters.sensor_scene import SensorScene
from swath.rasters.warp import read_on_grid
from swath.sensors.units import Array, Array64, Valid, stored_to_unit


class WarpedPairReader:
    """One sensor's scenes on the grids of N places; a `swath.datasets.pairs.readers.PairReader`.

    Args:
        scenes: [N], the same scene may come many times.
        grids: [N], all of one size.
        times: [N] seconds since 1970 UTC.
    """

    def __init__(self, scenes: Sequence[SensorScene], grids: Sequence[PixelGrid], times: Array64) -> None:
        self.sensor = scenes[0].sensor
        self.names = [scene.header.path for scene in scenes]
        self.shape = (grids[0].height, grids[0].width)
        self.gsds = np.array([grid.gsd for grid in grids])
        self.times = times
        self._scenes, self._grids = list(scenes), list(grids)
        self._offsets = np.array([scene.offset_dn for scene in scenes])

    def read(self, place: int) -> tuple[list[Array], Valid]:
        """See `PairReader`."""
        stored, valid = read_on_grid(self._scenes[place], self._grids[place])
        if not valid.any():
            raise ImageryError(f"{self.names[place]}: nothing but no data at this place")
        return [stored], valid

    def finish(self, groups: Sequence[Array], rows: NDArray[np.int64]) -> Tensor:
        """See `PairReader`."""
        if self.sensor.unit == "dB":  # converted already, see `read_on_grid`
            return torch.from_numpy(groups[0].astype(np.float32, copy=False))
        return stored_to_unit(groups[0], self.sensor, self._offsets[rows])
