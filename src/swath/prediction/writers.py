"""What can be made of a scene's tiles, and how far a scene has come.

A writer takes the tiles of a scene window by window, returns its state between two rows of tiles, and ends as
files. The registry `writers` finds it by the ``output`` of the model's task: ``labels``, ``map``, ``boxes``,
or what another package registers (entry-point group ``swath.writers``).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from swath.errors import ContractError
from swath.files import atomic_path
from swath.prediction.scene_view import ModelView
from swath.registry import Registry
from swath.tasks.model import TaskModel
from swath.tiling.grid import TileGrid, TileRun

Array = NDArray[Any]
State = Mapping[str, Array]


@dataclass
class SceneOutput:
    """What has come out of a scene.

    Attributes:
        files: By kind (``classes``, ``probabilities``, ``polygons``, ...), file names in the out folder.
        summary: What is in them, JSON-safe.
        notes: What people should know.
    """

    files: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class OutputWriter(Protocol):
    """See the module; rows of tiles come in order, and the windows of each from left to right."""

    def start(self, state: State) -> None:
        """Begin, or go on from what `state` told; raises OSError where what was written then is gone."""
        ...

    def begin(self, row: int) -> None:
        """A row of tiles starts."""
        ...

    def add(self, window: TileRun, valid: Array, predictions: Any, which: Array) -> None:
        """A window's tiles.

        Args:
            window: Which tiles.
            valid: [n, h, w] of all of them.
            predictions: What the model says of some: those with a valid pixel.
            which: [m] positions of those in the window.
        """
        ...

    def end(self) -> None:
        """The row of tiles is complete."""
        ...

    def state(self) -> dict[str, Array]:
        """Arrays that `start` understands; what is written besides is on the disk when it returns."""
        ...

    def finish(self) -> SceneOutput:
        """Write the files, each of them whole or not at all."""
        ...

    def close(self) -> None:
        """Let go of files; nothing is lost that `state` has told of."""
        ...


@dataclass(frozen=True)
class OutputTarget:
    """Where the files of a scene go and what they tell of themselves.

    Attributes:
        out: The folder.
        name: How their names begin, possibly with folders.
        tags: Metadata.
    """

    out: Path
    name: str
    tags: dict[str, str]

    def path(self, ending: str) -> Path:
        """A file of the scene."""
        return self.out / f"{self.name}_{ending}"


@dataclass(frozen=True)
class WriterInputs:
    """What a writer of one scene is built from.

    Attributes:
        model: Of the predictions.
        options: The `PredictionOptions`.
        view: The scene as the model sees it.
        grid: Its tiles.
        target: Where finished files go.
        folder: Where unfinished ones go; they are kept while the scene is unfinished.
    """

    model: TaskModel
    options: Any
    view: ModelView
    grid: TileGrid
    target: OutputTarget
    folder: Path


@dataclass(frozen=True)
class WriterEntry:
    """A registered writer.

    Attributes:
        build: ``build(inputs) -> OutputWriter``.
        is_map: Whether it writes a raster of classes, which the options `probabilities` and `polygons` need.
    """

    build: Callable[[WriterInputs], OutputWriter]
    is_map: bool = False


writers: Registry[WriterEntry] = Registry("output writer", "swath.writers")

Build = TypeVar("Build", bound=Callable[[WriterInputs], OutputWriter])


def register_writer(output: str, *, is_map: bool = False) -> Callable[[Build], Build]:
    """Decorator of ``build(inputs) -> OutputWriter``: the writer of tasks whose ``output`` is `output`."""

    def decorate(build: Build) -> Build:
        writers.register(output)(WriterEntry(build, is_map))
        return build

    return decorate


def find_writer(model: TaskModel, options: Any) -> WriterEntry:
    """The writer for a model's output.

    Raises:
        ContractError: `options` ask for probabilities or polygons, and the output is not a map of classes.
        SwathError: No writer is registered for the output.
    """
    entry = writers.get(model.task.output)
    if options.polygons and not entry.is_map:
        raise ContractError(f"polygons: require a map of classes, and this model's task is {model.kind}")
    if options.probabilities and not entry.is_map:
        raise ContractError("probabilities: require a map of classes; tables contain them anyway")
    return entry


class SceneProgress:
    """How far a scene has come, in a folder of its own: rows of tiles that are done, and a product's state.

    Args:
        folder: Made if it is not there.
        fingerprint: Of scene, model and options; a state of another one does not count.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self._path = folder / "state.npz"
        folder.mkdir(parents=True, exist_ok=True)

    def load(self) -> tuple[int, State]:
        """Rows of tiles that are done, and the state after them; (0, nothing) for a new or another scene."""
        try:
            with np.load(self._path, allow_pickle=False) as held:
                state = {name: held[name] for name in held.files}
        except (OSError, ValueError, EOFError):
            return 0, {}
        if str(state.pop("fingerprint", "")) != self.fingerprint:
            return 0, {}
        return int(state.pop("rows")), state

    def save(self, rows: int, state: State) -> None:
        """Remember that so many rows of tiles are done."""
        buffer = io.BytesIO()
        np.savez(buffer, fingerprint=np.array(self.fingerprint), rows=np.array(rows), **dict(state))  # type: ignore[arg-type]
        with atomic_path(self._path) as temporary:
            temporary.write_bytes(buffer.getbuffer())


class AppendableRaster:
    """Rows of a raster that are appended to a plain file, and can be taken back to an earlier length.

    Args:
        path: The file.
        row_shape: Shape of one row of pixels, [..., width] uint8.
        rows: Rows to keep of what is there.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], rows: int = 0) -> None:
        self.path, self.row_shape = path, row_shape
        size = rows * int(np.prod(row_shape))
        if size and (not path.exists() or path.stat().st_size < size):
            raise OSError(f"{path}: is shorter than it was")
        self._file = path.open("r+b" if size else "wb")
        self._file.truncate(size)
        self._file.seek(size)

    def append(self, rows: NDArray[np.uint8]) -> None:
        """[n, *row_shape]."""
        self._file.write(np.ascontiguousarray(rows).data)

    def flush(self) -> None:
        """To the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more rows."""
        self._file.close()

    def strips(self, rows: int) -> Iterator[NDArray[np.uint8]]:
        """All of it from the top, so many rows at a time: [n, *row_shape]."""
        self._file.flush()
        size = int(np.prod(self.row_shape))
        with self.path.open("rb") as file:
            while len(strip := np.fromfile(file, np.uint8, rows * size)):
                yield strip.reshape(-1, *self.row_shape)
