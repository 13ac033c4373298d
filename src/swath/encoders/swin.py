"""Swin Transformer: attention within windows, and a pyramid of maps; any bands, any size, any window.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", arXiv 2103.14030.
Parameter names and the order of channels in patch merging are those of timm's `SwinTransformer`, so weights
of the field load and ours load there. There is no dropout, no stochastic depth, no fixed image size, and no
state outside the parameters.

How windows meet the edge of a map, axis by axis:

- a side that is not larger than the window is one window of that side, and windows do not shift along it;
- a larger side is padded at its end (right, bottom) to a multiple of the window. As in the field's code the
  padding is zeros before the projection to queries, keys and values, and takes part as keys.

Shape letters: B samples, H x W cells of a map, C channels, W' windows of N cells, h heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swath.cpu.linear import OneDnnLinear
from swath.encoders.inputs import check_band_count, check_size, sensor_module
from swath.encoders.mask_token import MaskTokenEncoder, insert_mask_token
from swath.encoders.positions import gsd_positions
from swath.encoders.protocol import EncoderFeatures, register_encoder
from swath.encoders.vit import Mlp, PatchEmbed

EPS = 1e-5  # of every LayerNorm
FAR = -100.0  # added to scores between cells that only the shift made neighbors; exp(-100) is nothing


class WindowPartition(NamedTuple):
    """How a map of H x W cells falls into windows: constants, shared by all blocks of one shape.

    Attributes:
        padded: Height and width after padding.
        area: Cells N of one window.
        order: [W' * N] cells of the padded map, window by window.
        place: [H * W] where each cell of the map stands in `order`.
        offsets: [N * N] rows of the table of relative positions, for all pairs within a window.
        mask: [W', 1, N, N] additive scores, `FAR` between cells from opposite edges; None without a shift.
    """

    padded: tuple[int, int]
    area: int
    order: Tensor
    place: Tensor
    offsets: Tensor
    mask: Tensor | None


@lru_cache(maxsize=128)
@torch.inference_mode(False)  # tensors born under inference mode cannot serve a later backward pass
def partition_windows(
    height: int, width: int, window: int, shifted: bool, device: torch.device
) -> WindowPartition:
    """The windows of a map of `height` x `width` cells; `shifted` by half a window or not."""
    sides = [min(window, side) for side in (height, width)]
    padded = [-(-side // w) * w for side, w in zip((height, width), sides, strict=True)]
    shifts = [
        window // 2 if shifted and side > window else 0 for side in (height, width)
    ]  # along a side of one window there is nothing to shift to
    rows, columns = (
        # The cyclic shift: place i of the shifted axis holds cell (i + shift) modulo its length.
        ((torch.arange(length) + shift) % length).view(-1, side)
        for length, shift, side in zip(padded, shifts, sides, strict=True)
    )
    # [vertical windows, horizontal windows, window height, window width]
    order = (rows[:, None, :, None] * padded[1] + columns[None, :, None, :]).flatten()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    place = place.view(*padded)[:height, :width].flatten()

    row, column = (torch.arange(side) for side in sides)
    row, column = row.repeat_interleave(sides[1]), column.repeat(sides[0])
    reach = window - 1
    offsets = (row[:, None] - row + reach) * (2 * window - 1) + (column[:, None] - column + reach)

    mask = None
    if any(shifts):
        # Cells beyond the seam came from the other edge.
        beyond = [
            (torch.arange(length) >= length - shift).view(-1, side)
            for length, shift, side in zip(padded, shifts, sides, strict=True)
        ]
        region = (2 * beyond[0][:, None, :, None].int() + beyond[1][None, :, None, :].int()).flatten(0, 1)
        region = region.flatten(1)
        mask = torch.where(region[:, :, None] == region[:, None, :], 0.0, FAR).unsqueeze(1).to(device)
    return WindowPartition(
        (padded[0], padded[1]),
        sides[0] * sides[1],
        order.to(device),
        place.to(device),
        offsets.flatten().to(device),
        mask,
    )


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias for every relative position."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} cannot be divided among {heads} heads")
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = OneDnnLinear(dim, 3 * dim)
        self.proj = OneDnnLinear(dim, dim)

    def forward(self, x: Tensor, windows: WindowPartition) -> Tensor:
        """Tokens [B, W' * N, C], window by window, to as many."""
        batch, length, dim = x.shape
        count, area, heads = length // windows.area, windows.area, self.heads
        bias = self.relative_position_bias_table[windows.offsets].view(area, area, heads).permute(2, 0, 1)
        if windows.mask is None:
            bias = bias.expand(count, -1, -1, -1)
        else:
            bias = bias + windows.mask
        # Windows and heads are one axis: then one bias serves all samples without being copied for each.
        q, k, v = (
            self.qkv(x)
            .view(batch, count, area, 3, heads, dim // heads)
            .permute(3, 0, 1, 4, 2, 5)
            .reshape(3, batch, count * heads, area, dim // heads)
            .unbind(0)
        )
        x = biased_attention(q, k, v, bias.reshape(1, count * heads, area, area))
        x = x.view(batch, count, heads, area, -1).transpose(2, 3).reshape(batch, length, dim)
        out: Tensor = self.proj(x)
        return out


def biased_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, fused where that is the faster way.

    Args:
        q: [B, G, N, d].
        k: [B, G, N, d].
        v: [B, G, N, d].
        bias: [1, G, N, N].
    """
    if q.device.type == "cpu" and bias.requires_grad and not torch.compiler.is_compiling():
        # torch's fused CPU kernel gives no gradient to a bias; its substitute is slower than this by a fifth.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias
        out: Tensor = scores.softmax(dim=-1).to(v.dtype) @ v
        return out
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))


class SwinBlock(nn.Module):
    """Pre-norm transformer block whose attention looks within windows."""

    def __init__(self, dim: int, heads: int, window: int, mlp_ratio: float, *, shifted: bool) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Map as tokens [B, H * W, C], to the same."""
        windows = partition_windows(height, width, self.window, self.shifted, x.device)
        y = self.norm1(x)
        if windows.padded != (height, width):
            down, right = windows.padded[0] - height, windows.padded[1] - width
            y = F.pad(y.unflatten(1, (height, width)), (0, 0, 0, right, 0, down)).flatten(1, 2)
        y = self.attn(_take(y, windows.order), windows)
        x = x + _take(y, windows.place)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


def _take(x: Tensor, order: Tensor) -> Tensor:
    """Tokens [B, L, C] in another order."""
    return x.index_select(1, order)


class PatchMerging(nn.Module):
    """Every 2 x 2 cells to one, of twice the width. Cells go column by column, channels innermost."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=EPS)
        self.reduction = OneDnnLinear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Map as tokens [B, H * W, C] -> [B, H / 2 * W / 2, 2 C]."""
        x = x.view(x.shape[0], height // 2, 2, width // 2, 2, -1).permute(0, 1, 3, 4, 2, 5)
        out: Tensor = self.reduction(self.norm(x.flatten(3).flatten(1, 2)))
        return out


class SwinStage(nn.Module):
    """Patch merging (but in the first stage), then blocks, every second one with shifted windows."""

    def __init__(
        self, dim: int, depth: int, heads: int, window: int, mlp_ratio: float, *, merge: bool
    ) -> None:
        super().__init__()
        self.downsample = PatchMerging(dim // 2) if merge else None
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, window, mlp_ratio, shifted=index % 2 == 1) for index in range(depth)
        )

    def forward(self, x: Tensor, height: int, width: int) -> tuple[Tensor, int, int]:  # noqa: D102
        if self.downsample is not None:
            x = self.downsample(x, height, width)
            height, width = height // 2, width // 2
        for block in self.blocks:
            x = block(x, height, width)
        return x, height, width


class SwinPatchEmbed(PatchEmbed):
    """Patch embedding with a norm."""

    def __init__(self, bands: int, patch_size: int, dim: int) -> None:
        super().__init__(bands, patch_size, dim)
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, image: Tensor, keep: Tensor | None = None) -> Tensor:  # noqa: D102
        out: Tensor = self.norm(super().forward(image, keep))
        return out


class Swin(MaskTokenEncoder):
    """Swin Transformer (v1).

    `Features.maps` are the outputs of the stages at strides p, 2p, 4p, ... of a patch of side p; only the
    last has passed a norm (the field's `norm`, CMID's `norm3`). `pooled` is the mean over the last map, and
    `tokens` is that map as a sequence.

    Args:
        bands: Number of bands of the one sensor, or a mapping sensor name -> number of bands; then every
            sensor has its own patch embedding and shares all else.
        patch_size: Side of a patch in pixels.
        embed_dim: Width of the first stage; every further stage doubles it. `Swin.embed_dim`, the width of
            an embedding, is that of the last.
        depths: Blocks of each stage.
        heads: Attention heads of each stage.
        window: Side of a window in cells.
        mlp_ratio: Hidden width of the MLPs over that of their stage.
        scale_aware: Add GSD positions (`gsd_positions`, measured to the middle of a patch) after the patch
            embedding (ours). Without them Swin knows no absolute position and ignores the GSD.

    Raises:
        ContractError: (when called) a sensor it was not built for, a wrong number of bands, a size that is
            not a multiple of the coarsest stride.
    """

    def __init__(
        self,
        bands: int | Mapping[str, int] = 3,
        *,
        patch_size: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        mlp_ratio: float = 4.0,
        scale_aware: bool = False,
    ) -> None:
        super().__init__()
        if len(depths) != len(heads) or not depths:
            raise ValueError(f"depths and heads are one number a stage, not {list(depths)} and {list(heads)}")
        if scale_aware and embed_dim % 4:
            raise ValueError(f"embed_dim must be a multiple of 4 for the position encoding, not {embed_dim}")
        widths = [embed_dim * 2**stage for stage in range(len(depths))]
        self.bands = dict(bands) if isinstance(bands, Mapping) else bands
        self.patch_size = patch_size
        self.embed_dim = widths[-1]
        self.strides: tuple[int, ...] = tuple(patch_size * 2**stage for stage in range(len(depths)))
        self.channels: tuple[int, ...] = tuple(widths)
        self.mask_stride = patch_size
        self.mask_token_shape: tuple[int, ...] = (1, 1, embed_dim)
        self.scale_aware = scale_aware
        self.patch_embed: nn.Module
        if isinstance(bands, Mapping):
            self.patch_embed = nn.ModuleDict(
                {name: SwinPatchEmbed(count, patch_size, embed_dim) for name, count in bands.items()}
            )
        else:
            self.patch_embed = SwinPatchEmbed(bands, patch_size, embed_dim)
        self.layers = nn.ModuleList(
            SwinStage(width, depth, count, window, mlp_ratio, merge=stage > 0)
            for stage, (width, depth, count) in enumerate(zip(widths, depths, heads, strict=True))
        )
        self.norm = nn.LayerNorm(self.embed_dim, eps=EPS)
        self._init_weights()

    def encode(
        self,
        image: Tensor,
        gsd: Tensor,
        sensor: str | None = None,
        *,
        token: Tensor | None = None,
        mask: Tensor | None = None,
        replace: bool = False,
    ) -> list[Tensor]:
        """Maps [B, channels[i], H / strides[i], W / strides[i]] of all stages, finest first.

        Args:
            image: [B, C, H, W] normalized.
            gsd: [B] relative to the reference GSD.
            sensor: Name of the images' sensor, needed when the encoder has several.
            token: [1, 1, D], put at the patches that `mask` hides.
            mask: [B, H / p, W / p], 1 where hidden; needs `token`.
            replace: The token takes the embedding's place; by default it is added.
        """
        embed = self._patch_embed(sensor)
        check_band_count(image, embed.proj.in_channels, sensor)
        check_size(image, self.strides[-1], "cells of the coarsest map")
        height, width = image.shape[2] // self.patch_size, image.shape[3] // self.patch_size
        x: Tensor = embed(image)
        if mask is not None:
            if token is None:
                raise ValueError("a mask needs its token")
            x = insert_mask_token(x, token, mask, replace=replace)
        if self.scale_aware:
            x = x + gsd_positions(height, width, x.shape[-1], gsd, cls=False, centered=True)
        x = x.to(embed.proj.weight.dtype)
        maps = []
        for stage in self.layers:
            x, height, width = stage(x, height, width)
            out = self.norm(x) if stage is self.layers[-1] else x
            maps.append(out.transpose(1, 2).unflatten(2, (height, width)))
        return maps

    def first_convolution(self, sensor: str | None = None) -> nn.Conv2d:
        """The layer that the pixels of a sensor meet first: its patch embedding."""
        return self._patch_embed(sensor).proj

    def _patch_embed(self, sensor: str | None) -> SwinPatchEmbed:
        embed = sensor_module(self.patch_embed, sensor)
        assert isinstance(embed, SwinPatchEmbed)
        return embed

    def features_of(self, maps: list[Tensor], image: Tensor) -> EncoderFeatures:
        """`Features` of `encode`'s maps."""
        tokens = maps[-1].flatten(2).transpose(1, 2)
        return EncoderFeatures(pooled=tokens.mean(dim=1), maps=maps, tokens=tokens)

    def _init_weights(self) -> None:
        """As the field does: linear maps and biases of relative position normal with 0.02, cut at 2."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, WindowAttention):
                nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)


register_encoder("swin")(Swin)  # of any size
# name: (width of the first stage, depths, heads, window). "nano" is ours, for work without a GPU: images of
# 64 pixels fall into its windows without padding.
_SIZES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...], int]] = {
    "swin_nano": (32, (2, 2, 2, 2), (1, 2, 4, 8), 4),
    "swin_tiny_patch4_window7": (96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "swin_small_patch4_window7": (96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "swin_base_patch4_window7": (128, (2, 2, 18, 2), (4, 8, 16, 32), 7),
    "swin_large_patch4_window7": (192, (2, 2, 18, 2), (6, 12, 24, 48), 7),
}
for _name, (_dim, _depths, _heads, _window) in _SIZES.items():
    register_encoder(_name)(partial(Swin, embed_dim=_dim, depths=_depths, heads=_heads, window=_window))
