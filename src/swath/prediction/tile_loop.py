"""One scene through a model: tiles are read ahead by threads, looked at in batches, and handed to a product.

Threads rather than processes: decoding leaves Python's lock, and pixels need not be copied between processes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from swath.datasets.chip import Batch
from swath.prediction.scene_view import Array, ModelView, TileBounds
from swath.prediction.writers import OutputWriter, SceneProgress
from swath.tasks.model import TaskModel
from swath.tiling.grid import TileGrid, TileRun

CHECKPOINT_SECONDS = 20.0  # what a kill may cost
_WINDOW_BYTES = 128 * 2**20  # of pixels that one window may take while it is read


@dataclass(frozen=True)
class RuntimeOptions:
    """How the work is done, which decides nothing of the result.

    Attributes:
        batch_size: Tiles a forward pass.
        read_window: Width in pixels of what is read at a time; None: as many tiles as a batch.
        workers: Threads that read; 0 reads in between.
    """

    batch_size: int = 8
    read_window: int | None = None
    workers: int = 2

    def tiles(self, view: ModelView, grid: TileGrid) -> int:
        """Tiles of a window: at least one, and no more than memory is meant for."""
        size = grid.columns.size
        wanted = self.batch_size
        if self.read_window is not None:
            step = grid.columns.finals[0] if len(grid.columns.starts) > 1 else size
            wanted = 1 + max(0, self.read_window - size) // step
        return max(1, min(wanted, int(_WINDOW_BYTES / (view.pixel_bytes * size * grid.rows.size))))


@dataclass(frozen=True)
class TileBatch:
    """A window that has been read: [N, ...] images, [N, h, w] valid, [N] GSD."""

    window: TileRun
    images: Array
    valid: NDArray[np.bool_]
    gsd: NDArray[np.float32]


def predict_tiles(
    model: TaskModel,
    view: ModelView,
    grid: TileGrid,
    product: OutputWriter,
    checkpoint: SceneProgress,
    runtime: RuntimeOptions,
    advance: Callable[[int], None],
) -> None:
    """Hand what a model says of every tile of a scene to a product, from where the checkpoint stands.

    Args:
        model: The model.
        view: How the scene is looked at.
        grid: Its tiles.
        product: Made for this scene, and empty.
        checkpoint: Of this scene.
        runtime: How.
        advance: Called with numbers of tiles that are done.

    Raises:
        ContractError: Pixels that are not in the unit that the model knows.
        ImageryError: The file cannot be read.
    """
    rows, state = checkpoint.load()
    try:
        product.start(state)
    except OSError:  # rasters that were growing are gone: from the beginning then
        rows = 0
        product.start({})
    advance(rows * len(grid.columns.starts))
    saved, checked, row = time.monotonic(), False, -1
    windows = grid.windows(runtime.tiles(view, grid), rows)
    with torch.inference_mode():
        for read in read_ahead(view, grid, windows, runtime.workers):
            window = read.window
            if window.row != row:
                row = window.row
                product.begin(row)
            which = np.flatnonzero(read.valid.any(axis=(1, 2)))
            if len(which) and not checked:
                _check(model, read, int(which[0]), view)
                checked = True
            product.add(window, read.valid, _said(model, read, which, runtime.batch_size), which)
            advance(window.last - window.first)
            if window.last == len(grid.columns.starts):
                product.end()
                last = row + 1 == len(grid.rows.starts)
                if last or time.monotonic() - saved >= CHECKPOINT_SECONDS:
                    checkpoint.save(row + 1, product.state())
                    saved = time.monotonic()


def read_ahead(
    view: ModelView, grid: TileGrid, windows: Sequence[TileRun], workers: int
) -> Iterator[TileBatch]:
    """The windows in order; as many as there are threads, and one more, are read ahead."""
    if workers == 0:
        yield from (_read(view, grid, window) for window in windows)
        return
    waiting: deque[Future[TileBatch]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="swath-predict")
    try:
        for window in windows:
            waiting.append(pool.submit(_read, view, grid, window))
            if len(waiting) > workers + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def boxes_of(grid: TileGrid, window: TileRun) -> list[TileBounds]:
    """Where the tiles of a window lie."""
    rows, columns = grid.rows, grid.columns
    return [
        TileBounds(rows.starts[window.row], columns.starts[j], rows.size, columns.size)
        for j in range(window.first, window.last)
    ]


def _read(look: ModelView, grid: TileGrid, window: TileRun) -> TileBatch:
    return TileBatch(window, *look.read(boxes_of(grid, window)))


def _said(model: TaskModel, read: TileBatch, which: NDArray[np.int64], batch_size: int) -> Any:
    """What the model says of some tiles of a window: [m, ...] on its device, or a list of detections."""
    parts: list[Any] = []
    for start in range(0, len(which), batch_size):
        some = which[start : start + batch_size]
        whole = len(some) == len(read.images)
        batch: Any = {
            "image": torch.from_numpy(read.images if whole else read.images[some]),
            "gsd": torch.from_numpy(read.gsd[some]),
            "valid": torch.from_numpy(read.valid[some]),
            "sensor": model.contract.sensor().name,
        }
        parts.append(model.predict_batch(cast(Batch, batch)))
    if not parts:
        return model.task.empty_output(read.valid.shape[1:], model.device)
    if isinstance(parts[0], list):
        return [detections for part in parts for detections in part]
    return torch.cat(parts).float()


def _check(model: TaskModel, read: TileBatch, tile: int, look: ModelView) -> None:
    """Refuse a scene whose first pixels with data are in another unit than the model's."""
    image = torch.from_numpy(read.images[tile : tile + 1])
    images = image.flatten(0, 1) if model.dates > 1 else image
    valid = torch.from_numpy(read.valid[tile : tile + 1]).repeat_interleave(model.dates, dim=0)
    model.contract.check(images, valid=valid, where=look.header.path)
    model.contract.gsd(float(read.gsd[tile]), 1, images.shape[-1])
