"""Scenes and networks for tests of prediction: tiny, simulated, with a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from torch import Tensor

from swath.encoders import create_model
from swath.models.contract import Contract
from swath.tasks.change.task import ChangeDetectionConfig
from swath.tasks.classification.task import ClassificationConfig
from swath.tasks.dense.task import SegmentationConfig
from swath.tasks.model import TaskModel, build_task

ENCODER = {"bands": 3, "patch_size": 4, "embed_dim": 16, "depth": 2, "heads": 2}
CLASSES = ("field", "forest", "road")
NODATA = 0


def task_model(kind: str = "segment", contract: Contract | None = None) -> TaskModel:
    """A model that nobody has trained, with large random weights in its head so that its maps vary."""
    torch.manual_seed(3)
    configs: dict[str, Any] = {
        "segment": SegmentationConfig(classes=CLASSES, head="linear", head_width=16, norm="group"),
        "change": ChangeDetectionConfig(classes=CLASSES[:2], head="linear", head_width=16, norm="group"),
        "classify": ClassificationConfig(classes=CLASSES, norm="none"),
    }
    contract = contract or Contract.of("rgb_aerial")
    task = build_task(kind, create_model("vit", **ENCODER), configs[kind], contract)
    with torch.no_grad():
        for parameter in task.head.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return TaskModel(task, contract, kind=kind, name="toy")


class ByColor(torch.nn.Module):
    """In place of a network: what it says of a pixel is a function of it and of its place in the tile,
    so that seams would show, exact to the last bit in any batch."""

    def predict(self, batch: Any) -> Tensor:
        image = batch["image"]
        height, width = image.shape[-2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        color = image.flatten(1, -3).double()[:, :3]
        logits = color * 2 + torch.stack([(x * 7 + y) % 5, (x + y * 3) % 7, (x * y) % 3])
        return logits.softmax(1).float()


def by_color(contract: Contract | None = None) -> TaskModel:
    """A segmentation model whose network is `ByColor`."""
    model = task_model("segment", contract)
    model.task.predict = ByColor().predict  # type: ignore[method-assign]
    return model


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """[3, H, W] uint8, smooth enough to have regions, without zeros."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(1, 256, (3, height // 8 + 2, width // 8 + 2))
    fine = np.repeat(np.repeat(coarse, 8, 1), 8, 2)[:, :height, :width]
    noise = generator.integers(-20, 21, fine.shape)
    return np.clip(fine + noise, 1, 255).astype(np.uint8)


def write_scene(
    path: Path,
    image: np.ndarray[Any, Any],
    *,
    gsd: float = 0.5,
    crs: str | None = "EPSG:32633",
    **profile: Any,
) -> Path:
    """A GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    placed = {"crs": crs, "transform": from_origin(500000.0, 5200000.0, gsd, gsd)} if crs else {}
    count, height, width = image.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=image.dtype,
        **{**placed, **profile},
    ) as file:  # fmt: skip
        file.write(image)
    return path


def read(path: Path) -> np.ndarray[Any, Any]:
    """All bands."""
    with rasterio.open(path) as file:
        return file.read()
