"""Classes of tiles: for scene classification a table of windows with their probabilities.

Legend: K classes, h x w pixels of a tile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from swath.prediction.scene_view import ModelView
from swath.prediction.vectors import Kind, VectorLayer, write_vector_layer
from swath.prediction.writers import (
    Array,
    OutputTarget,
    SceneOutput,
    State,
    WriterInputs,
    register_writer,
)
from swath.tiling.grid import TileGrid, TileRun


@register_writer("labels")
def _open_tile_classes(inputs: WriterInputs) -> TileClassWriter:
    return TileClassWriter(
        inputs.view, inputs.grid, inputs.model.classes, inputs.target,
        multilabel=inputs.model.multilabel, min_valid=inputs.options.min_valid,
    )  # fmt: skip


class TileClassWriter:
    """A `OutputWriter`: what each tile shows.

    Args:
        look: How the scene is looked at.
        grid: Its tiles.
        classes: Names.
        target: Where files go.
        multilabel: Whether a tile may be of several classes (all of probability 1/2 and more) or of none.
        min_valid: Of tiles with a smaller share of valid pixels nothing is said.
    """

    def __init__(
        self,
        look: ModelView,
        grid: TileGrid,
        classes: Sequence[str],
        target: OutputTarget,
        *,
        multilabel: bool,
        min_valid: float,
    ) -> None:
        self.look, self.grid, self.classes, self.target = look, grid, list(classes), target
        self.multilabel, self.min_valid = multilabel, min_valid
        shape = (len(grid.rows.starts), len(grid.columns.starts))
        self.shares = np.zeros(shape, np.float32)
        self.said = np.full((*shape, len(classes)), np.nan, np.float32)

    def start(self, state: State) -> None:
        """See `OutputWriter`."""
        if state:
            self.shares, self.said = state["shares"].copy(), state["said"].copy()

    def begin(self, row: int) -> None:
        """See `OutputWriter`."""

    def add(self, window: TileRun, valid: Array, predictions: Tensor, which: Array) -> None:
        """See `OutputWriter`."""
        self.shares[window.row, window.first : window.last] = valid.mean(axis=(1, 2))
        self.said[window.row, window.first + which] = predictions.cpu().numpy()

    def end(self) -> None:
        """See `OutputWriter`."""

    def state(self) -> dict[str, Array]:
        """See `OutputWriter`."""
        return {"shares": self.shares, "said": self.said}

    def finish(self) -> SceneOutput:
        """See `OutputWriter`."""
        kinds: dict[str, Kind] = {
            "column": "integer", "row": "integer", "width": "integer", "height": "integer",
            "valid": "real", "class": "text", "probability": "real",
        }  # fmt: skip
        kinds |= {f"p_{name}": "real" for name in self.classes}
        features = VectorLayer.of(self.look, self._rows(), kinds)
        written = write_vector_layer(self.target.path("windows"), features, "windows")
        counts = Counter(features.columns["class"])
        return SceneOutput(
            files={f"windows {path.suffix[1:]}": path.name for path in written},
            summary={"windows": {str(name or "nothing"): count for name, count in sorted(
                counts.items(), key=lambda item: (-item[1], str(item[0])))}},
        )  # fmt: skip

    def close(self) -> None:
        """See `OutputWriter`."""

    def _rows(self) -> Iterator[tuple[list[Array], dict[str, Any]]]:
        rows, columns = self.grid.rows, self.grid.columns
        down, across = self.look.steps
        for i, top in enumerate(rows.starts):
            for j, left in enumerate(columns.starts):
                if self.shares[i, j] < self.min_valid or np.isnan(self.said[i, j]).any():
                    continue
                right, bottom = left + columns.size, top + rows.size
                ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
                said = self.said[i, j].astype(float)
                best = int(said.argmax())
                label: str | None = self.classes[best]
                if self.multilabel:
                    label = ", ".join(n for n, p in zip(self.classes, said, strict=True) if p >= 0.5) or None
                yield (
                    [np.array(ring, np.float64)],
                    {
                        # In pixels of the file, whatever it was looked at with.
                        "column": round(left * across),
                        "row": round(top * down),
                        "width": round(columns.size * across),
                        "height": round(rows.size * down),
                        "valid": float(self.shares[i, j]),
                        "class": label,
                        "probability": float(said[best]),
                        **{f"p_{name}": float(p) for name, p in zip(self.classes, said, strict=True)},
                    },
                )
