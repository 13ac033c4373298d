"""Tiny drawings of rotated rectangles, as batches for detectors, and a small encoder to look at them."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

from swath.encoders.protocol import EncoderFeatures
from swath.tasks.detection.rotated_boxes import le90, rotated_iou, to_xyxy


def drawn_batch(images: int = 2, side: int = 96, count: int = 3, seed: int = 0) -> dict:
    """Long (class 0, bright) and short (class 1, dark) rectangles on noise, apart from one another."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(images, 3, side, side, generator=generator) * 0.1
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    all_boxes, all_labels = [], []
    for i in range(images):
        boxes = torch.zeros(0, 5)
        labels: list[int] = []
        while len(boxes) < count:
            label = len(boxes) % 2
            u = torch.rand(3, generator=generator)
            length, width = ((34.0, 12.0), (20.0, 16.0))[label]
            box = torch.tensor([[20 + u[0] * (side - 40), 20 + u[1] * (side - 40), length, width, 0]])
            box[0, 4] = (u[2] - 0.5) * math.pi
            grown = box + torch.tensor([0, 0, 6.0, 6.0, 0])
            if len(boxes) and float(rotated_iou(grown, boxes).max()) > 0:
                continue
            boxes, labels = torch.cat([boxes, box]), [*labels, label]
            cos, sin = math.cos(float(box[0, 4])), math.sin(float(box[0, 4]))
            dx, dy = x - box[0, 0], y - box[0, 1]
            inside = ((dx * cos + dy * sin).abs() <= length / 2) & ((dy * cos - dx * sin).abs() <= width / 2)
            image[i, :, inside] += 1.5 if label == 0 else -1.5
        all_boxes.append(le90(boxes))
        all_labels.append(torch.tensor(labels))
    return {
        "image": image,
        "gsd": torch.ones(images),
        "sensor": "rgb_aerial",
        "key": torch.arange(images),
        "obb": all_boxes,
        "bbox_xyxy": [to_xyxy(boxes) for boxes in all_boxes],
        "label": all_labels,
    }


class SmallEncoder(nn.Module):
    """Five convolutions that keep the encoder protocol."""

    embed_dim, strides, channels = 48, (4, 8, 16, 32), (24, 32, 48, 48)

    def __init__(self, bands: int = 3) -> None:
        super().__init__()
        widths = (bands, 16, *self.channels)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(4, b), nn.GELU())
            for a, b in pairwise(widths)
        )

    def forward(self, image, gsd, sensor=None):
        maps = []
        for layer in self.layers:
            image = layer(image)
            maps.append(image)
        return EncoderFeatures(pooled=maps[-1].mean((2, 3)), maps=maps[1:])
