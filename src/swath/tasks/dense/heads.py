"""Heads for pixels on a feature pyramid: UPerNet, FPN, linear, and the auxiliary FCN.

All take maps at strides 4, 8, 16, 32 (`swath.encoders.pyramid`) and give logits at stride 4 or coarser;
`upsample` brings them to the images' size. Written after the papers.

Legend: B images, K classes, maps [B, C_i, H / s_i, W / s_i].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "group"]
Head = Literal["upernet", "fpn", "linear"]


def build_head(name: Head, channels: Sequence[int], classes: int, width: int, norm: Norm) -> nn.Module:
    """The head called `name`, for maps of `channels`; its maps inside have `width` channels."""
    if name == "linear":
        return LinearHead(channels, classes)
    return (UPerNet if name == "upernet" else FPNHead)(channels, classes, width, norm)


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, to (height, width)."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def conv_norm_relu(inside: int, outside: int, size: int, norm: Norm) -> nn.Sequential:
    """Convolution, normalization, ReLU.

    ``group``: groups of 16 channels (or of one where 16 do not divide), for batches too small for statistics.
    """
    groups = outside // 16 if outside % 16 == 0 else outside
    after = nn.BatchNorm2d(outside) if norm == "batch" else nn.GroupNorm(groups, outside)
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, padding=size // 2, bias=False), after, nn.ReLU(inplace=True)
    )


class UPerNet(nn.Module):
    """Pyramid pooling on the coarsest map, then a feature pyramid, then all levels together.

    Xiao et al., "Unified Perceptual Parsing for Scene Understanding" (arXiv 1807.10221); CMID fine-tunes it
    with `width` 512 and pools of 1, 2, 3 and 6 cells.
    """

    pools = (1, 2, 3, 6)

    def __init__(self, channels: Sequence[int], classes: int, width: int = 256, norm: Norm = "batch") -> None:
        super().__init__()
        *finer, last = channels
        # A single cell has no spread for BatchNorm to divide by in a batch of one: groups there, always.
        self.pooled = nn.ModuleList(
            conv_norm_relu(last, width, 1, "group" if cells == 1 else norm) for cells in self.pools
        )
        self.bottleneck = conv_norm_relu(last + width * len(self.pools), width, 3, norm)
        self.lateral = nn.ModuleList(conv_norm_relu(c, width, 1, norm) for c in finer)
        self.smooth = nn.ModuleList(conv_norm_relu(width, width, 3, norm) for _ in finer)
        self.fuse = conv_norm_relu(width * len(channels), width, 3, norm)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps, finest first -> logits [B, K, H / 4, W / 4]."""
        return self.classify(self.features(maps))  # type: ignore[no-any-return]

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """What the classifier sees: [B, width, H / 4, W / 4]."""
        *finer, last = maps
        size = last.shape[2:]
        pooled = [
            upsample(conv(F.adaptive_avg_pool2d(last, cells)), size)
            for cells, conv in zip(self.pools, self.pooled, strict=True)
        ]
        x = self.bottleneck(torch.cat([last, *pooled], dim=1))
        levels = [x]
        for own, lateral in zip(reversed(finer), reversed(self.lateral), strict=True):
            x = lateral(own) + upsample(x, own.shape[2:])
            levels.insert(0, x)
        levels[:-1] = [smooth(level) for smooth, level in zip(self.smooth, levels[:-1], strict=True)]
        top = levels[0].shape[2:]
        fused: Tensor = self.fuse(torch.cat([upsample(level, top) for level in levels], dim=1))
        return fused


class FPNHead(nn.Module):
    """Semantic FPN: a feature pyramid whose levels are brought to stride 4 and added.

    Kirillov et al., "Panoptic Feature Pyramid Networks" (arXiv 1901.02446), section 3.1.
    """

    def __init__(self, channels: Sequence[int], classes: int, width: int = 128, norm: Norm = "batch") -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        # A level at stride 4 * 2^n takes n steps of convolution and doubling; the first one convolution.
        self.steps = nn.ModuleList(
            nn.ModuleList(conv_norm_relu(width, width, 3, norm) for _ in range(max(1, level)))
            for level in range(len(channels))
        )
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps, finest first -> logits [B, K, H / 4, W / 4]."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + upsample(levels[i], levels[i - 1].shape[2:])
        total = torch.zeros_like(levels[0])
        for level, steps in enumerate(self.steps):
            x = levels[level]
            for number, step in enumerate(cast(nn.ModuleList, steps)):
                x = step(x)
                if level:
                    x = upsample(x, maps[level - 1 - number].shape[2:])
            total = total + x
        return self.classify(total)  # type: ignore[no-any-return]


class LinearHead(nn.Module):
    """All levels beside each other and one linear map: what the features can do by themselves."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(sum(channels), affine=False)
        self.classify = nn.Conv2d(sum(channels), classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps, finest first -> logits [B, K, H / 4, W / 4]."""
        size = maps[0].shape[2:]
        return self.classify(self.norm(torch.cat([upsample(x, size) for x in maps], dim=1)))  # type: ignore[no-any-return]


class FCNHead(nn.Module):
    """One convolution and a classifier on one level: the auxiliary head of UPerNet's usual training.

    Long et al. (arXiv 1411.4038); CMID has it on the level of stride 16, 256 wide, its loss times 0.4.
    """

    def __init__(self, channels: int, classes: int, width: int = 256, norm: Norm = "batch") -> None:
        super().__init__()
        self.convolution = conv_norm_relu(channels, width, 3, norm)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, h, w] -> logits [B, K, h, w]."""
        return self.classify(self.convolution(x))  # type: ignore[no-any-return]
