"""`SimulatedPairs`: a paired data set without files, as many labeled places as one wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.memory import check_memory
from swath.datasets.pairs.dataset import PairedImageDataset
from swath.errors import ImageryError, suggest
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.simulated.landscape.rasterize import Landscape, check_request, simulate_landscape
from swath.simulated.landscape.surfaces import CLASSES
from swath.simulated.sensing import SENSORS, Gsd, sensor_grids, simulated_to_unit, to_stored_values


class SimulatedPairs(PairedImageDataset):
    """Simulated places seen by several sensors; see `swath.simulated`.

    Has everything that pairs read from files have: ``pairs[i]``, `get_batch`, `subset`, `select`, `only`,
    labels [N, 10] float32 multi-hot, `classes`, `groups` (each place is its own), `splits`.

    Args:
        count: Places; None where `splits` says it.
        seed: Names the series, and seeds the samples' keys.
        size: Pixels a side of the first sensor.
        gsd: Metres per pixel: one for all sensors, or by sensor name. All see the same footprint.
        sensors: Any that `swath.simulated.observe` can simulate.
        first: Index of the first place in the series: disjoint ranges are disjoint sets.
        splits: Split name -> places in it, one after the other.
        cache: ``memory`` simulates everything now and keeps it as products store it (2 bytes a value: 346 KB
            for a pair of 120 px in 12 bands); ``none`` simulates again at each access, and only the labels
            now.
        progress: Called with (places made, places in all).

    Raises:
        ImageryError: Numbers out of range; sensors that cannot be simulated; too little memory.
    """

    def __init__(
        self,
        count: int | None = None,
        *,
        seed: int = 0,
        size: int = 120,
        gsd: Gsd = 10.0,
        sensors: Sequence[str | Path | Sensor] = SENSORS,
        first: int = 0,
        splits: Mapping[str, int] | None = None,
        cache: Literal["none", "memory"] = "memory",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if cache not in ("none", "memory"):
            raise ImageryError(f"cache={cache!r}:{suggest(str(cache), ['none', 'memory'])}")
        if splits is not None:
            if count is not None and count != sum(splits.values()):
                raise ImageryError(
                    f"count={count}, but splits={dict(splits)} are {sum(splits.values())} places"
                )
            count = sum(splits.values())
        if count is None or count < 1:
            raise ImageryError(f"count={count}: say how many places, or give splits={{'train': 1000, ...}}")
        check_request(seed, first, size, 1.0)
        wanted = [get_sensor(sensor) for sensor in sensors]
        grid = sensor_grids(wanted, size, gsd)
        self._ground = _LandscapeCache(seed, first)
        coarsest = max(grid.values(), key=lambda cell: cell[1])
        labels = np.zeros((count, len(CLASSES)), dtype=np.float32)
        readers = [_SimulatedPairReader(self._ground, sensor, grid[sensor.name], count) for sensor in wanted]
        super().__init__(
            readers,
            [f"simulated_{first + place:06d}" for place in range(count)],
            labels=labels,
            classes=CLASSES,
            splits=None
            if splits is None
            else [name for name, number in splits.items() for _ in range(number)],
            groups=[f"simulated_{first + place:06d}" for place in range(count)],
            seed=seed,
        )
        held: dict[str, NDArray[Any]] = {}
        for place in range(count):
            labels[place] = self._ground(place, coarsest).labels
            if cache == "memory":
                for reader in readers:
                    (stored,), _ = reader.read(place)
                    if place == 0:
                        check_memory(count * stored.nbytes * len(readers))
                        held[reader.sensor.name] = np.empty((count, *stored.shape), stored.dtype)
                    held[reader.sensor.name][place] = stored
            if progress is not None:
                progress(place + 1, count)
        # As `PairedImageDataset` holds what it has read; all pixels are valid, and of the right unit.
        self._pixels._held = {name: ([stored], None) for name, stored in held.items()}

    def landscape(self, index: int) -> Landscape:
        """The ground of place `index` on the first sensor's grid, with mask and boxes."""
        reader = self._pixels.readers[self.sensors[0].name]
        assert isinstance(reader, _SimulatedPairReader)
        return self._ground(int(self._rows[index]), reader.grid)


class _LandscapeCache:
    """Landscapes of a series; the last few are kept, since several sensors ask for the same one."""

    def __init__(self, seed: int, first: int) -> None:
        self.seed, self.first = seed, first

    def __call__(self, place: int, grid: tuple[int, float]) -> Landscape:
        return _landscape(self.seed, self.first + place, *grid)


@lru_cache(maxsize=16)
def _landscape(seed: int, index: int, size: int, gsd: float) -> Landscape:
    return simulate_landscape(seed, index, size=size, gsd=gsd)


class _SimulatedPairReader:
    """One simulated sensor as a `swath.datasets.pairs.readers.PairReader`."""

    def __init__(self, ground: _LandscapeCache, sensor: Sensor, grid: tuple[int, float], count: int) -> None:
        self.sensor, self.grid = sensor, grid
        self.names = [f"simulated:{ground.seed}/{ground.first + place}" for place in range(count)]
        self.shape = (grid[0], grid[0])
        self.gsds = np.full(count, grid[1])
        self.times = np.full(count, np.nan)
        self._ground = ground

    def read(self, place: int) -> tuple[list[NDArray[Any]], NDArray[np.bool_]]:
        """See `PairReader`."""
        return [to_stored_values(self._ground(place, self.grid), self.sensor)], np.ones(
            self.shape, dtype=bool
        )

    def finish(self, groups: Sequence[NDArray[Any]], rows: NDArray[np.int64]) -> Tensor:
        """See `PairReader`."""
        return simulated_to_unit(groups[0], self.sensor)
