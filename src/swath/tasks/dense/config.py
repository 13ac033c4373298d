"""Options of data with a class for every pixel."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from swath.tasks.dense.masks import Classes, Color, Colors
from swath.tasks.splits import TaskDataConfig


class SegmentationDataConfig(TaskDataConfig):
    """How images and masks are read.

    Attributes:
        layout: ``auto``, ``folders``, ``places`` or ``csv``.
        classes: Names in the order of the masks' values 0, 1, ...; or a value, or several, a name. Left out:
            what the masks hold.
        ignore_values: Values of masks that do not count.
        colors: Of masks that are pictures: (red, green, blue) of each class, or several; in place of
            `classes`.
        ignore_colors: Colors of masks that do not count.
        crop_size: Side of a training crop in pixels.
        scale_range: Range of the zoom of training crops; 0.5 shows twice the ground, at twice the GSD.
        tile: Training images are parted into tiles of at least this side in pixels, and each is an image by
            itself: `labels_share` then counts tiles, drawn evenly over images, as ground that somebody has
            labeled here and there. Left out: images stay whole.
        crops_per_image: Crops of each image (or tile) in an epoch.
        foreground_fraction: Share of the crops that are laid around a pixel of a class drawn evenly among
        the image's.
        coregister: Change only: bring the second date onto the grid of the first where they differ.
    """

    layout: Literal["auto", "folders", "places", "csv"] = "auto"
    classes: Classes | None = None
    ignore_values: tuple[int, ...] = ()
    colors: Colors | None = None
    ignore_colors: tuple[Color, ...] = ()
    crop_size: int = Field(default=256, gt=0)
    scale_range: tuple[float, float] = (1.0, 1.0)
    tile: int | None = Field(default=None, gt=0)
    crops_per_image: int = Field(default=1, gt=0)
    foreground_fraction: float = Field(default=0.0, ge=0, le=1)
    coregister: bool = False

    @model_validator(mode="after")
    def _one_meaning(self) -> SegmentationDataConfig:
        if self.colors is not None and (self.classes is not None or self.ignore_values):
            raise ValueError("masks are in colors (colors, ignore_colors) or numbers (classes, ignore)")
        if self.ignore_colors and self.colors is None:
            raise ValueError("ignore_colors is for masks in colors, which `colors` tells")
        if self.tile is not None and self.tile * self.scale_range[0] < self.crop_size:
            raise ValueError(
                f"a crop of {self.crop_size} pixels at a zoom of {self.scale_range[0]:g} does not fit "
                "into a tile of "
                f"{self.tile}: tile is at least size / scale"
            )
        return self
