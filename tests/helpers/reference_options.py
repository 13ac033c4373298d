"""What only comparisons with released code need: reduced views, its schedule, its patch merging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from swath.objectives.losses.reconstruction import area_resize


def reduce_views(
    views: Mapping[str, Any], source_size: int, *, targets_from_source: bool = False
) -> dict[str, Any]:
    """The same views at a smaller source size: images and targets area-averaged, GSDs multiplied.

    Args:
        views: From `ScaleMAE.views`, nothing nodata.
        source_size: New side of the source in pixels, below the present one.
        targets_from_source: Compatibility with the released code, whose forward makes the targets by
            enlarging the already reduced *source* instead of reducing the target (a bug: high frequencies
            are gone before they can be asked for).
    """
    image = area_resize(views["image"], (source_size, source_size))
    factor = views["image"].shape[-1] / source_size
    side = int(views["target"].shape[-1] / factor)
    origin = image if targets_from_source else views["target"]
    return {
        **views,
        "image": image,
        "gsd": views["gsd"] * factor,
        "target": area_resize(origin, (side, side)),
        "target_gsd": views["target_gsd"] * views["target"].shape[-1] / side,
        "valid": None,
    }


def teacher_temperature_at(
    epoch: int, start: float = 0.04, end: float = 0.07, warmup_epochs: int = 50
) -> float:
    """Linear from `start` at epoch 0 to `end` at the last warm-up epoch, then constant."""
    if epoch >= warmup_epochs or warmup_epochs < 2:
        return end
    return start + (end - start) * epoch / (warmup_epochs - 1)


def to_released_order(key: str, tensor: Tensor) -> Tensor:
    """The way back from `to_timm_order`."""
    if ".downsample." not in key or not key.startswith("layers."):
        return tensor
    cells = tensor.reshape(*tensor.shape[:-1], 2, 2, -1)
    return cells.transpose(-3, -1).flatten(-3).contiguous()
