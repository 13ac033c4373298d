"""What can be chosen about a prediction, and what of it decides the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from swath.errors import ContractError
from swath.tasks.model import TaskModel

DEFAULT_TILE = 256  # for models that do not tell what they were trained on


@dataclass(frozen=True)
class PredictionOptions:
    """Everything but the model and the scenes that a pixel of the result depends on.

    Attributes:
        tile: Side in pixels of what the network sees at once; None: see `preferred_tiles`.
        overlap: Share of a tile that it has in common with its neighbor; None: see `preferred_tiles`.
        gsd: Metres per pixel of scenes that do not tell; ``"relative"`` for models that count so.
        target_gsd: At how many metres per pixel scenes are looked at. ``auto``: as they are where the model
            has been trained on that, else resampled to the nearest GSD that it has. ``native``: as they are.
            A number: at that. Of models that count scale relative to the native resolution, how much coarser.
        coregister: Pairs only: bring the second date onto the grid of the first where they differ.
        offset_dn: Added to stored values before scaling (Sentinel-2 files that do not say their baseline).
        probabilities: Maps: also write the probability of each class.
        polygons: Maps: classes that are written as polygons as well; ``("all",)`` for every one.
        min_area: Polygons below so many pixels are left out.
        min_valid: Classes of tiles: least share of valid pixels; below, nothing is said.
        min_score: Boxes: least score.
    """

    tile: int | None = None
    overlap: float | None = None
    gsd: float | str | None = None
    target_gsd: float | str = "auto"
    coregister: bool = False
    offset_dn: float | None = None
    probabilities: bool = False
    polygons: tuple[str, ...] = ()
    min_area: int = 1
    min_valid: float = 0.5
    min_score: float = 0.3

    def resolved(self, model: TaskModel) -> PredictionOptions:
        """With what depends on the model filled in.

        Raises:
            ContractError: A value that makes no sense, or not for this model.
        """
        if self.tile is not None and self.tile < 1:
            raise ContractError(f"tile: {self.tile} pixels; give 1 or more, such as 256")
        if self.overlap is not None and not 0 <= self.overlap <= 0.5:
            raise ContractError(f"overlap: {self.overlap:g} of a tile; give 0 to 0.5, such as 0.25")
        relative = model.contract.gsd_mode == "relative"
        if isinstance(self.target_gsd, str):
            if self.target_gsd not in ("auto", "native"):
                raise ContractError(
                    f"read_gsd: {self.target_gsd!r} is neither auto, native nor metres per pixel"
                )
        elif not self.target_gsd > 0:
            raise ContractError(f"read_gsd: {self.target_gsd:g} is not a positive number")
        if not relative and self.gsd == "relative":
            raise ContractError(
                "gsd: this model sees scale in metres per pixel; give a number, such as --gsd 0.5"
            )
        unknown = [name for name in self.polygons if name not in (*model.classes, "all")]
        if unknown:
            raise ContractError(
                f"polygons: the model has no class {unknown[0]!r}; its classes are {', '.join(model.classes)}"
            )
        tile, overlap = preferred_tiles(model)
        values = {
            **asdict(self),
            "tile": self.tile or tile,
            "overlap": overlap if self.overlap is None else self.overlap,
            "gsd": "relative" if relative else self.gsd,
        }
        return PredictionOptions(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def preferred_tiles(model: TaskModel) -> tuple[int, float]:
    """Size and overlap of tiles as the model's task prefers them, for the image size it was trained on."""
    return model.task.preferred_tiles(trained_size(model) or DEFAULT_TILE)


def trained_size(model: TaskModel) -> int | None:
    """Side of the images or crops that a task model was trained on, where its directory tells."""
    recipe = (model.config.get("provenance") or {}).get("recipe") or {}
    data = recipe.get("data") or {}
    size = data.get("crop_size", data.get("size"))  # "size": of classification, and of models from 0.1
    if isinstance(size, list | tuple):
        size = max(size)
    return int(size) if isinstance(size, int) and size > 0 else None
