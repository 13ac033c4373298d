"""Vision Transformer for several sensors: what is each sensor's own, and what all share, is two numbers.

The encoder of CSMAE (Hackstein et al., "Exploring Masked Autoencoders for Sensor-Agnostic Image Retrieval in
Remote Sensing", arXiv 2401.07782). Every sensor has its own patch embedding and class token. Then come
`specific_depth` blocks of its own and `common_depth` blocks that all sensors go through, one sensor at a
time: tokens of two sensors never meet in one attention. The paper's *sensor-specific* encoder is 10 + 2
blocks, its *sensor-common* one 0 + 12. (The released code's configuration files say 12 + 0 for the common
one, which shares no block at all; its released weights are 0 + 12.)

Because the branches do not interact, one sensor alone is enough at inference, and only its branch runs.

Shape letters: B samples, C bands, N patches, K kept patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from swath.encoders.inputs import check_band_count, check_size, resolve_sensor
from swath.encoders.positions import gsd_positions
from swath.encoders.protocol import EncoderFeatures, register_encoder
from swath.encoders.vit import EPS, Block, PatchEmbed, collect_layer_maps, init_weights

ONLY = "images"  # what a single sensor is called whose name was not given


class MultiSensorViT(nn.Module):
    """Vision Transformer with branches: own beginnings for each sensor, a common end.

    Args:
        bands: Sensor name -> number of bands; or the number of bands of a single sensor, of any name.
        patch_size: Side of a patch in pixels, of all sensors or by sensor name. Sensors whose patches cover
            the same ground have equal grids of tokens, whatever their resolutions.
        embed_dim: Width D, a multiple of 4 and of `heads`.
        specific_depth: Blocks of each sensor's own, with a norm of their own after them.
        common_depth: Blocks that all sensors share; with 0 only the last norm is shared.
        heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over D.
        pooling: "mean": the patch tokens' mean through a norm of its own (`fc_norm`); "cls": the class token.
        scale_aware: Positions are distances on the ground, from each sensor's GSD (ours). False: they count
            patches, whatever the GSD (the paper).

    Raises:
        ContractError: (when called) an unknown sensor, a wrong number of bands, a size that is not a
            multiple of the sensor's patch.
    """

    def __init__(
        self,
        bands: int | Mapping[str, int],
        *,
        patch_size: int | dict[str, int] = 15,
        embed_dim: int = 768,
        specific_depth: int = 0,
        common_depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        pooling: Literal["mean", "cls"] = "mean",
        scale_aware: bool = False,
    ) -> None:
        super().__init__()
        if pooling not in ("mean", "cls"):
            raise ValueError(f"pooling is 'mean' or 'cls', not {pooling!r}")
        if embed_dim % 4:
            raise ValueError(f"embed_dim must be a multiple of 4 for the position encoding, not {embed_dim}")
        if specific_depth < 0 or common_depth < 0 or specific_depth + common_depth == 0:
            raise ValueError("specific_depth and common_depth are not negative, and not both 0")
        self.bands = dict(bands) if isinstance(bands, Mapping) else {ONLY: bands}
        self.patch_sizes = _patch_sizes(patch_size, self.bands)
        self.embed_dim = embed_dim
        self.depth = specific_depth + common_depth
        self.strides: tuple[int, ...] = (max(self.patch_sizes.values()),)
        self.channels: tuple[int, ...] = (embed_dim,)
        self.pooling = pooling
        self.scale_aware = scale_aware
        self.patch_embed = nn.ModuleDict(
            {name: PatchEmbed(count, self.patch_sizes[name], embed_dim) for name, count in self.bands.items()}
        )
        self.cls_token = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(1, 1, embed_dim)) for name in self.bands}
        )
        self.specific = nn.ModuleDict()
        if specific_depth:
            self.specific = nn.ModuleDict(
                {
                    name: nn.Sequential(
                        *(Block(embed_dim, heads, mlp_ratio) for _ in range(specific_depth)),
                        nn.LayerNorm(embed_dim, eps=EPS),
                    )
                    for name in self.bands
                }
            )
        self.blocks = nn.Sequential(*(Block(embed_dim, heads, mlp_ratio) for _ in range(common_depth)))
        self.norm = nn.LayerNorm(embed_dim, eps=EPS)
        self.fc_norm = nn.LayerNorm(embed_dim, eps=EPS) if pooling == "mean" else None
        init_weights(self)
        for token in self.cls_token.values():
            nn.init.normal_(token, std=0.02)

    def forward(self, image: Tensor, gsd: Tensor, sensor: str | None = None) -> EncoderFeatures:
        """Encode images [B, C, H, W] of one sensor with GSD [B] (relative to the reference)."""
        sensor = self.sensor(sensor)
        tokens = self.encode({sensor: image}, {sensor: gsd})[sensor]
        patches = tokens[:, 1:]
        grid_h, grid_w = self.grid(image, sensor)
        return EncoderFeatures(
            pooled=self.head(tokens),
            maps=[patches.transpose(1, 2).reshape(image.shape[0], self.embed_dim, grid_h, grid_w)],
            tokens=patches,
            cls=tokens[:, 0],
        )

    def encode(
        self,
        images: Mapping[str, Tensor],
        gsd: Mapping[str, Tensor],
        keep: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Tokens after the final norm, class token first, of the sensors given.

        Args:
            images: Sensor name -> [B, C, H, W] normalized; sizes may differ between sensors.
            gsd: Sensor name -> [B] relative to the reference.
            keep: Sensor name -> [B, K] flat indices of the patches to look at; all by default.

        Returns:
            Sensor name -> [B, 1 + N or K, D], patches in the order of `keep`.
        """
        streams = {}
        for name, image in images.items():
            x = self._begin(name, image, gsd[name], None if keep is None else keep[name])
            streams[name] = self.specific[name](x) if self.specific else x
        first, *rest = (x.shape[1] for x in streams.values())
        if all(length == first for length in rest):  # equally long: through the common blocks in one go
            together = self.norm(self.blocks(torch.cat(list(streams.values()))))
            parts = together.split([x.shape[0] for x in streams.values()])
            return dict(zip(streams, parts, strict=True))
        return {name: self.norm(self.blocks(x)) for name, x in streams.items()}

    def intermediate(
        self, image: Tensor, gsd: Tensor, sensor: str | None = None, *, layers: Sequence[int]
    ) -> list[Tensor]:
        """Maps [B, D, H / p, W / p] of one sensor after the blocks `layers`; see `IntermediateFeatures`."""
        sensor = self.sensor(sensor)
        blocks: list[nn.Module] = list(self.blocks)
        if self.specific:
            own = self.specific[sensor]
            assert isinstance(own, nn.Sequential)
            blocks = [*own[:-2], own[-2:], *blocks]  # the last of its own together with their norm
        x = self._begin(sensor, image, gsd, None)
        return collect_layer_maps(x, blocks, self.norm, layers, self.grid(image, sensor))

    def head(self, tokens: Tensor) -> Tensor:
        """From `encode`'s tokens [B, 1 + K, D] to one embedding an image [B, D]."""
        if self.fc_norm is None:
            return tokens[:, 0]
        pooled: Tensor = self.fc_norm(tokens[:, 1:].mean(dim=1))
        return pooled

    def grid(self, image: Tensor, sensor: str) -> tuple[int, int]:
        """Rows and columns of patches of a sensor's images [B, C, H, W].

        Raises:
            ContractError: The size is not a multiple of the sensor's patch.
        """
        p = self.patch_sizes[sensor]
        check_size(image, p, f"patches of {sensor}")
        return image.shape[2] // p, image.shape[3] // p

    def step(self, gsd: Tensor, sensor: str) -> Tensor:
        """Distance [B] between neighboring patches, in units of position: 1 unless scale-aware.

        Scale-aware, it is one where GSD is the reference and the patch the largest of all sensors'.
        """
        if not self.scale_aware:
            return torch.ones_like(gsd)
        return gsd * (self.patch_sizes[sensor] / self.strides[0])

    def sensor(self, sensor: str | None) -> str:
        """The sensor meant; None is enough where there is only one."""
        names = list(self.bands)
        return ONLY if names == [ONLY] else resolve_sensor(names, sensor)

    def min_size(self, sensor: str | None) -> int:
        """Side in pixels of which the height and width of a sensor's images are multiples."""
        return self.patch_sizes[self.sensor(sensor)]

    def _begin(self, sensor: str, image: Tensor, gsd: Tensor, keep: Tensor | None) -> Tensor:
        """Patch embedding, position and class token: what goes into the first block."""
        embed = self.patch_embed[self.sensor(sensor)]
        assert isinstance(embed, PatchEmbed)
        check_band_count(image, embed.proj.in_channels, sensor)
        step = self.step(gsd, sensor)
        position = gsd_positions(
            *self.grid(image, sensor), self.embed_dim, step, cls=False, at=keep, centered=True
        )
        x = (embed(image, keep) + position).to(embed.proj.weight.dtype)
        return torch.cat([self.cls_token[sensor].expand(x.shape[0], -1, -1), x], dim=1)


def _patch_sizes(patch_size: int | Mapping[str, int], bands: Mapping[str, int]) -> dict[str, int]:
    if isinstance(patch_size, int):
        return dict.fromkeys(bands, patch_size)
    if set(patch_size) != set(bands):
        raise ValueError(f"patch_size names the sensors {sorted(patch_size)}, but there are {sorted(bands)}")
    return {name: patch_size[name] for name in bands}


# name: (width, heads). The paper's is "base"; "nano" and "micro" are ours, for work without a GPU.
_SIZES = {"nano": (128, 4), "micro": (192, 3), "tiny": (192, 3), "small": (384, 6), "base": (768, 12),
          "large": (1024, 16)}  # fmt: skip
register_encoder("vit_multi_sensor")(MultiSensorViT)  # of any size
for _name, (_dim, _heads) in _SIZES.items():
    register_encoder(f"vit_multi_sensor_{_name}")(partial(MultiSensorViT, embed_dim=_dim, heads=_heads))
