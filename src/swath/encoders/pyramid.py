"""A feature pyramid of any encoder: maps at strides 4, 8, 16 and 32, whatever it has by itself.

What dense tasks (detection, segmentation, change) stand on. Every level takes a map of the encoder and
brings it to its own stride:

- encoders with a hierarchy (Swin, CNNs) give the level's map as it is;
- a plain transformer gives the maps after four of its blocks, all of one stride. The levels above that
  stride are learned: a transposed convolution halves the stride and the channels; the levels below are
  max-pooled. That is the simple pyramid of ViTDet (Li et al., "Exploring Plain Vision Transformer Backbones
  for Object Detection", arXiv 2203.16527), on several layers as BEiT and MAE do it for segmentation; ViTDet's
  own is ``pyramid(vit, layers=[12, 12, 12, 12])``;
- where a patch is no power of two (14, 15), the nearest one stands for it above, and the map is then
  resampled, bilinearly, to the exact stride.

Images may have any size. What the encoder needs to divide them is padded on at the right and at the bottom,
as 0, which is what nodata is in normalized images, and cut off the maps again: cell (i, j) of a map of stride
s always is about the pixels from (i s, j s) to (i s + s, j s + s), and a map has H / s x W / s cells,
rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swath.encoders.protocol import Encoder, IntermediateFeatures, size_divisor

STRIDES = (4, 8, 16, 32)


def build_pyramid(
    encoder: nn.Module,
    sensor: str | None = None,
    *,
    layers: Sequence[int] | None = None,
    transpose: bool = False,
) -> FeaturePyramid:
    """The feature pyramid on an encoder.

    Args:
        encoder: Any that keeps the encoder protocol.
        sensor: Only for an encoder whose patches differ by sensor: whose the pyramid is made for. Images of
            its other sensors are resampled to the strides.
        layers: Four blocks of a plain transformer, 1 is the first; by default spread evenly, ending with the
            last. Encoders with a hierarchy have no such choice.
        transpose: The encoder wants its images transposed (`Contract.transpose`): upright images are turned
            for it and its maps turned back. (`Contract.normalize` of such a contract has turned them already;
            leave that to one of the two.)

    Returns:
        A module with attributes ``strides`` (4, 8, 16, 32) and ``channels``, called as ``pyramid(image, gsd,
        sensor)`` for four maps [B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])].

    Raises:
        ValueError: `layers` of an encoder that has none, or not four of those that it has.
        ContractError: The patches differ by sensor, and `sensor` is none of them.
    """
    if not isinstance(encoder, Encoder):
        raise TypeError(f"{type(encoder).__name__} is no encoder: it lacks embed_dim, strides or channels")
    own = encoder.strides
    if isinstance(encoder, IntermediateFeatures):
        depth = encoder.depth
        if layers is None:
            layers = [ceil(depth * (level + 1) / len(STRIDES)) for level in range(len(STRIDES))]
        if len(layers) != len(STRIDES) or not set(layers) <= set(range(1, depth + 1)):
            raise ValueError(f"layers are four numbers from 1 to {depth}, not {list(layers)}")
        patches = set(getattr(encoder, "patch_sizes", {None: own[0]}).values())
        patch = size_divisor(encoder, sensor) if len(patches) > 1 else own[0]
        return FeaturePyramid(encoder, [(encoder.embed_dim, patch)] * len(STRIDES), layers, None, transpose)
    if layers is not None:
        raise ValueError(f"{type(encoder).__name__} has a hierarchy of maps: there are no layers to choose")
    # Each level from the coarsest map that is not coarser than it; where there is none, from the finest.
    sources = [max((i for i, s in enumerate(own) if s <= stride), default=0) for stride in STRIDES]
    plan = [(encoder.channels[i], own[i]) for i in sources]
    return FeaturePyramid(encoder, plan, None, sources, transpose)


class FeaturePyramid(nn.Module):
    """An encoder with maps at strides 4, 8, 16, 32; made by `pyramid`.

    Attributes:
        encoder: The encoder.
        strides: (4, 8, 16, 32).
        channels: Of each map.
    """

    def __init__(
        self,
        encoder: nn.Module,
        plan: Sequence[tuple[int, int]],
        layers: Sequence[int] | None,
        sources: Sequence[int] | None,
        transpose: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.transpose = transpose
        self._layers = layers
        self._sources = sources
        self.levels = nn.ModuleList(
            _Level(channels, stride, to) for (channels, stride), to in zip(plan, STRIDES, strict=True)
        )
        self.strides: tuple[int, ...] = STRIDES
        self.channels: tuple[int, ...] = tuple(level.channels for level in self.levels)  # type: ignore[misc]

    def train_what_shows(self, levels: Sequence[int], bands: int, sensor: str | None = None) -> list[str]:
        """Freeze what the maps of some levels do not depend on: nothing could be learned there.

        Such as the last stage of a CNN where nobody looks at its map. Distributed training waits for the
        gradient of every parameter that is not frozen, so none may be left that never gets one. What depends
        on what is seen from one backward pass over a tiny image.

        Args:
            levels: Indices of the maps that are looked at.
            bands: Of the images.
            sensor: As the encoder wants it.

        Returns:
            Names of the parameters that were frozen.
        """
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        side = max(size_divisor(self.encoder, sensor), STRIDES[-1])
        was = self.training
        self.eval()  # no statistics change, and no block is skipped at random
        with torch.enable_grad():
            at = named[0][1]
            image = torch.zeros(1, bands, side, side, device=at.device, dtype=at.dtype)
            maps = self(image, torch.ones(1, device=at.device), sensor)
            total = torch.stack([maps[level].float().sum() for level in levels]).sum()
            found = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
        self.train(was)
        unseen = [(name, p) for (name, p), gradient in zip(named, found, strict=True) if gradient is None]
        for _, parameter in unseen:
            parameter.requires_grad_(False)
        return [name for name, _ in unseen]

    def forward(self, image: Tensor, gsd: Tensor, sensor: str | None = None) -> list[Tensor]:
        """Four maps, finest first.

        Args:
            image: [B, C, H, W] normalized float, of any H and W.
            gsd: [B], metres per pixel relative to the reference GSD.
            sensor: As the encoder wants it.
        """
        if self.transpose:
            image = image.transpose(2, 3)
        height, width = image.shape[2:]
        step = size_divisor(self.encoder, sensor)
        image = F.pad(image, (0, -width % step, 0, -height % step))
        if self._sources is None:
            assert isinstance(self.encoder, IntermediateFeatures)
            assert self._layers is not None
            maps = self.encoder.intermediate(image, gsd, sensor, layers=self._layers)
        else:
            every = self.encoder(image, gsd, sensor).maps
            maps = [every[i] for i in self._sources]
        result = []
        for x, level, stride in zip(maps, self.levels, STRIDES, strict=True):
            cells = (-(-height // stride), -(-width // stride))
            x = level(x, image.shape[2] // x.shape[2], cells)
            result.append(x.transpose(2, 3) if self.transpose else x)
        return result


class _Level(nn.Module):
    """From a map of about `stride` to one of exactly `to`."""

    def __init__(self, channels: int, stride: int, to: int) -> None:
        super().__init__()
        self.target = to
        power = round(log2(stride / to))  # times that the stride is halved (or doubled, where negative)
        self.factor = 2.0**-power
        self.channels = channels >> max(power, 0)
        self.up = nn.Sequential()
        for halving in range(power):
            if halving:
                self.up.append(LayerNorm2d(channels))
                self.up.append(nn.GELU())
            self.up.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
            channels //= 2
        self.pool = 2 ** max(-power, 0)

    def forward(self, x: Tensor, stride: int, cells: tuple[int, int]) -> Tensor:
        """Map [B, C, h, w] of `stride` pixels a cell -> [B, channels, *cells]."""
        x = self.up(x)
        if self.pool > 1:
            x = F.max_pool2d(x, self.pool, ceil_mode=True)
        factor = stride * self.factor / self.target
        if factor != 1:
            # Repeat the last cells, so that the resampled map reaches as far as the image does.
            missing = [max(0, ceil(n / factor) - side) for n, side in zip(cells, x.shape[2:], strict=True)]
            x = F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
            x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
        return x[:, :, : cells[0], : cells[1]]


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a map [B, C, h, w]."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
