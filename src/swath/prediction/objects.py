"""Objects of a scene as polygons with class and score.

Which tile an object belongs to, and how the same object found by two tiles becomes one, is
`swath.tasks.detection.tiled_inference`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from swath.geo.grid import PixelWindow as Pixels
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
from swath.tasks.detection.detectors.common import Detections
from swath.tasks.detection.tiled_inference import (
    DetectionTile,
    box_centers,
    chosen,
    keep_core_objects,
    merge_tiles,
    on_cpu,
    outlines,
)
from swath.tiling.grid import TileGrid, TileRun


@register_writer("boxes")
def _open_objects(inputs: WriterInputs) -> DetectionWriter:
    task: Any = inputs.model.task
    return DetectionWriter(
        inputs.view, inputs.grid, inputs.model.classes, inputs.target,
        overlap=task.nms_iou, min_score=inputs.options.min_score,
    )  # fmt: skip


class DetectionWriter:
    """A `OutputWriter`: objects.

    Args:
        look: How the scene is looked at.
        grid: Its tiles.
        classes: Names.
        target: Where files go.
        overlap: IoU from which two detections of a class are one.
        min_score: Least score.
    """

    def __init__(
        self,
        look: ModelView,
        grid: TileGrid,
        classes: Sequence[str],
        target: OutputTarget,
        *,
        overlap: float,
        min_score: float,
    ) -> None:
        self.look, self.grid, self.classes, self.target = look, grid, list(classes), target
        self.overlap, self.min_score = overlap, min_score
        self.parts: list[Detections] = []

    def start(self, state: State) -> None:
        """See `OutputWriter`."""
        held: Any = {name: torch.from_numpy(values) for name, values in state.items()}
        self.parts = [held] if held else []

    def begin(self, row: int) -> None:
        """See `OutputWriter`."""

    def add(self, window: TileRun, valid: Array, predictions: Sequence[Detections], which: Array) -> None:
        """See `OutputWriter`; objects whose center has no data are none."""
        rows, columns = self.grid.rows, self.grid.columns
        top = rows.starts[window.row]
        for position, found in zip(which.tolist(), predictions, strict=True):
            index = window.first + position
            (above, below), (left, right) = rows.cores[window.row], columns.cores[index]
            found = on_cpu(found)
            x, y = box_centers(found).floor().long().unbind(1)
            known = torch.from_numpy(valid[position])
            seen = known[y.clamp(0, rows.size - 1), x.clamp(0, columns.size - 1)]
            found = chosen(found, seen & (found["scores"] >= self.min_score))
            pixels = Pixels(columns.starts[index], top, columns.size, rows.size)
            self.parts.append(keep_core_objects(found, DetectionTile(pixels, (left, above, right, below))))

    def end(self) -> None:
        """See `OutputWriter`."""

    def state(self) -> dict[str, Array]:
        """See `OutputWriter`."""
        if not self.parts:
            return {}
        every: Any = {key: torch.cat([part[key] for part in self.parts]) for key in self.parts[0]}  # type: ignore[literal-required]
        self.parts = [every]
        return {key: values.numpy() for key, values in every.items()}

    def finish(self) -> SceneOutput:
        """See `OutputWriter`."""
        kinds: dict[str, Kind] = {
            "class": "text", "class_id": "integer", "score": "real", "column": "real", "row": "real",
            "width": "real", "height": "real", "angle": "real",
        }  # fmt: skip
        found = merge_tiles(self.parts, self.overlap) if self.parts else None
        features = VectorLayer.of(self.look, self._objects(found), kinds)
        written = write_vector_layer(self.target.path("objects"), features, "objects")
        counts = Counter(features.columns["class"])
        return SceneOutput(
            files={f"objects {path.suffix[1:]}": path.name for path in written},
            summary={"objects": {name: counts[name] for name in self.classes}},
        )

    def close(self) -> None:
        """See `OutputWriter`."""

    def _objects(self, found: Detections | None) -> Iterator[tuple[list[Array], dict[str, Any]]]:
        """Outlines in pixels of what was looked at, and columns, which are in pixels of the file."""
        if found is None:
            return
        down, across = self.look.steps
        middle, corners = box_centers(found).double().numpy(), outlines(found).double().numpy()
        for i, ring in enumerate(corners):
            label = int(found["labels"][i])
            if "obb" in found:
                width, height, angle = found["obb"][i, 2:].tolist()
            else:
                (width, height), angle = (ring[2] - ring[0]).tolist(), 0.0
            yield (
                [np.vstack([ring, ring[:1]])],
                {
                    "class": self.classes[label],
                    "class_id": label,
                    "score": float(found["scores"][i]),
                    "column": float(middle[i, 0]) * across,
                    "row": float(middle[i, 1]) * down,
                    "width": width * across,
                    "height": height * down,
                    "angle": angle,
                },
            )
