"""An encoder, an objective and data that Swath does not know: what a third party would write.

Small enough that a training run takes a second. Import it to register both.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from swath.encoders import EncoderFeatures, register_encoder
from swath.keyed_random import normal
from swath.objectives.protocol import ObjectiveConfig, register_objective


@register_encoder("toy_encoder")
class ToyEncoder(nn.Module):
    """A 4 x 4 patch embedding, blocks of linear maps, a token that is added everywhere."""

    def __init__(self, bands: int = 3, *, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.embed_dim, self.strides, self.channels = width, (4,), (width,)
        self.embed = nn.Conv2d(bands, width, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()) for _ in range(depth)
        )

    def forward(self, image: Tensor, gsd: Tensor, sensor: str | None = None) -> EncoderFeatures:
        x = self.embed(image)
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2) + self.token + gsd.log()[:, None, None]
        for block in self.blocks:
            x = x + block(x)
        return EncoderFeatures(x.mean(1), [x.transpose(1, 2).unflatten(2, (height, width))], tokens=x)


class ToyConfig(ObjectiveConfig):
    noise: float = 0.1
    explode_at: int | None = None  # the loss is infinite after this many steps
    poison: int | None = None  # the loss of this sample is infinite
    stop_at: int | None = None  # the last of the processes gets SIGTERM at this step


@register_objective("toy_objective", ToyConfig)
class ToyObjective(nn.Module):
    """Removes noise: mean color of every patch, from a noisy image."""

    def __init__(self, encoder: nn.Module, config: ToyConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.head = nn.Linear(encoder.embed_dim, 3)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def views(self, batch: Any) -> dict[str, Any]:
        image = batch["image"]
        noise = normal(batch["key"], "toy/noise", image[0].numel()).view_as(image)
        target = nn.functional.avg_pool2d(image, 4).flatten(2).transpose(1, 2)
        views = {"image": image + self.config.noise * noise, "gsd": batch["gsd"], "target": target}
        return {**views, "index": batch["index"]}

    def forward(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        x = self.head(self.encoder(views["image"], views["gsd"]).tokens)
        error = (x - views["target"]).square().mean((1, 2))
        if self.config.poison is not None:
            error = torch.where(views["index"] == self.config.poison, float("inf"), error)
        if self.config.explode_at is not None and int(self.steps) >= self.config.explode_at:
            error = error * float("inf")
        return {"total": error.mean(), "plain": error.mean().detach()}

    def after_step(self, step: int, total_steps: int) -> None:
        self.steps.fill_(step)
        if step == self.config.stop_at and os.environ.get("RANK") == str(int(os.environ["WORLD_SIZE"]) - 1):
            os.kill(os.getpid(), signal.SIGTERM)

    @torch.no_grad()
    def images(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        side = views["image"].shape[-1] // 4
        made = self.head(self.encoder(views["image"], views["gsd"]).tokens)
        return {"input": views["image"], "made": made.transpose(1, 2).unflatten(2, (side, side))}


def write_images(folder: Path, count: int = 24, side: int = 16) -> Path:
    """PNG files with a gradient and noise, in two class folders."""
    generator = np.random.default_rng(0)
    for i in range(count):
        ramp = np.linspace(0, 120, side)[:, None, None] * generator.uniform(0.2, 1, 3)
        image = (ramp + generator.uniform(0, 100, (side, side, 3))).astype(np.uint8)
        path = folder / "ab"[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


RECIPE: dict[str, Any] = {
    "name": "toy",
    "sensor": "rgb_aerial",
    "data": {"gsd": 0.5, "cache": "memory"},
    "encoder": {"name": "toy_encoder"},
    "objective": {"name": "toy_objective"},
    "optimizer": {"lr": 0.01},
    "training": {
        "steps": 12,
        "batch_size": 8,
        "warmup_steps": 2,
        "checkpoint_every": 4,
        "log_every": 1,
        "images_every": 0,
        "monitor_every": 0,
        "tensorboard": False,
        "device": "cpu",
    },
}


def recipe_data(**sections: Any) -> dict[str, Any]:
    """The recipe with keys of its sections replaced: `recipe_data(training={"steps": 3}, seed=1)`."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in RECIPE.items()}
    for key, value in sections.items():
        data[key] = (
            {**data[key], **value} if isinstance(value, dict) and isinstance(data.get(key), dict) else value
        )
    return data


def command_line() -> None:
    """`swath` with this file's method registered."""
    from swath.cli import main

    main.COMMANDS = ("pretrain",)  # the others need not be imported
    torch.set_num_threads(1)
    main.run()


if __name__ == "__main__":
    command_line()


SCALE_MAE: dict[str, Any] = {
    "encoder": {"name": "vit_micro_patch8", "options": {"depth": 1, "embed_dim": 16, "heads": 2}},
    "objective": {
        "name": "scale_mae",
        "options": {
            "source_size": 16,
            "decoder_dim": 16,
            "decoder_depth": 1,
            "decoder_heads": 2,
            "fcn_dim": 16,
        },
    },
}
