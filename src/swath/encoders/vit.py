"""Vision Transformer with GSD-aware positions: any bands, any size, one GSD a sample.

Parameter names are timm's (`patch_embed.proj`, `blocks.0.attn.qkv`, ...), so weights of the field load. It
differs from timm in what it does *not* have: no stored position table (positions are a function of grid and
GSD), no fixed image size, no dropout, no state outside its parameters.

Shape letters: B samples, C bands, N = (H / p)(W / p) patches of side p, K kept patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swath.cpu.linear import OneDnnLinear, onednn_linear
from swath.encoders.inputs import check_band_count, check_size, sensor_module
from swath.encoders.mask_token import MaskTokenEncoder, insert_mask_token
from swath.encoders.positions import gsd_positions
from swath.encoders.protocol import EncoderFeatures, register_encoder

EPS = 1e-6  # of every LayerNorm; MAE's and its descendants' value (torch's default is 1e-5)


class Attention(nn.Module):
    """Multi-head self-attention, fused (`scaled_dot_product_attention`)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} cannot be divided among {heads} heads")
        self.heads = heads
        self.qkv = OneDnnLinear(dim, 3 * dim)
        self.proj = OneDnnLinear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        batch, length, dim = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(x.transpose(1, 2).reshape(batch, length, dim))
        return out


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = OneDnnLinear(dim, hidden)
        self.fc2 = OneDnnLinear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, eps: float = EPS) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class PatchEmbed(nn.Module):
    """Patches of p x p pixels, as a linear map of their pixels; stored as the convolution that it equals."""

    def __init__(self, bands: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(bands, dim, patch_size, stride=patch_size)

    def forward(self, image: Tensor, keep: Tensor | None = None) -> Tensor:
        """Image [B, C, H, W] -> tokens [B, N, D]; with `keep` [B, K] only those, in that order."""
        patches = patchify(image, self.proj.kernel_size[0])
        if keep is not None:
            # A masked objective throws three patches in four away: before the multiplication, not after.
            patches = patches.gather(1, keep.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        return onednn_linear(patches, self.proj.weight.flatten(1), self.proj.bias)


def patchify(image: Tensor, patch_size: int) -> Tensor:
    """Image [B, C, H, W] -> patches [B, N, C * p * p], row-major, channels first within a patch."""
    batch, bands, height, width = image.shape
    p = patch_size
    image = image.reshape(batch, bands, height // p, p, width // p, p)
    return image.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, bands * p * p)


class ViT(MaskTokenEncoder):
    """Vision Transformer (Dosovitskiy et al. 2021) with the GSD position encoding of Scale-MAE.

    Args:
        bands: Number of bands of the one sensor, or a mapping sensor name -> number of bands; then every
            sensor has its own patch embedding and shares all else.
        patch_size: Side of a patch in pixels.
        embed_dim: Width D, a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over D.
        pooling: What `Features.pooled` is: "mean" of the patch tokens or the "cls" token, both after the
            final norm. Mean by default: Scale-MAE never trains what its class token puts out.
        scale_aware: Positions are distances on the ground; otherwise they count patches, whatever the GSD.

    Raises:
        ContractError: (when called) a sensor it was not built for, a wrong number of bands, a size that is
            not a multiple of the patch.
    """

    def __init__(
        self,
        bands: int | Mapping[str, int] = 3,
        *,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        pooling: Literal["mean", "cls"] = "mean",
        scale_aware: bool = True,
    ) -> None:
        super().__init__()
        if pooling not in ("mean", "cls"):
            raise ValueError(f"pooling is 'mean' or 'cls', not {pooling!r}")
        if embed_dim % 4:
            raise ValueError(f"embed_dim must be a multiple of 4 for the position encoding, not {embed_dim}")
        self.bands = dict(bands) if isinstance(bands, Mapping) else bands
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.depth = depth
        self.strides: tuple[int, ...] = (patch_size,)
        self.channels: tuple[int, ...] = (embed_dim,)
        self.mask_stride = patch_size
        self.mask_token_shape: tuple[int, ...] = (1, 1, embed_dim)
        self.pooling = pooling
        self.scale_aware = scale_aware
        self.patch_embed: nn.Module
        if isinstance(bands, Mapping):
            self.patch_embed = nn.ModuleDict(
                {name: PatchEmbed(count, patch_size, embed_dim) for name, count in bands.items()}
            )
        else:
            self.patch_embed = PatchEmbed(bands, patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.blocks = nn.ModuleList(Block(embed_dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=EPS)
        init_weights(self)
        nn.init.normal_(self.cls_token, std=0.02)

    def features_of(self, tokens: Tensor, image: Tensor) -> EncoderFeatures:
        """`Features` of `encode`'s tokens [B, 1 + N, D]."""
        cls, patches = tokens[:, 0], tokens[:, 1:]
        grid_h, grid_w = image.shape[2] // self.patch_size, image.shape[3] // self.patch_size
        return EncoderFeatures(
            pooled=patches.mean(dim=1) if self.pooling == "mean" else cls,
            maps=[patches.transpose(1, 2).reshape(image.shape[0], self.embed_dim, grid_h, grid_w)],
            tokens=patches,
            cls=cls,
        )

    def encode(
        self,
        image: Tensor,
        gsd: Tensor,
        sensor: str | None = None,
        keep: Tensor | None = None,
        *,
        token: Tensor | None = None,
        mask: Tensor | None = None,
        replace: bool = False,
    ) -> Tensor:
        """Tokens after the final norm, class token first: [B, 1 + N, D].

        Args:
            image: [B, C, H, W] normalized.
            gsd: [B] relative to the reference GSD.
            sensor: Name of the images' sensor, needed when the encoder has several.
            keep: [B, K] int64, flat indices of the patches to look at; the result is then [B, 1 + K, D] in
                that order. What masked autoencoders call.
            token: [1, 1, D], put at the patches that `mask` hides; see `masked`.
            mask: [B, H / p, W / p], 1 where hidden.
            replace: The token takes the embedding's place; by default it is added.
        """
        x = self.embed_patches(image, gsd, sensor, keep, token=token, mask=mask, replace=replace)
        cls = self.cls_token.expand(x.shape[0], -1, -1)  # its position is zero
        x = torch.cat([cls, x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)  # type: ignore[no-any-return]

    def intermediate(
        self, image: Tensor, gsd: Tensor, sensor: str | None = None, *, layers: Sequence[int]
    ) -> list[Tensor]:
        """Maps [B, D, H / p, W / p] after the blocks `layers`; see `IntermediateFeatures`."""
        x = self.embed_patches(image, gsd, sensor)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        grid = (image.shape[2] // self.patch_size, image.shape[3] // self.patch_size)
        return collect_layer_maps(x, list(self.blocks), self.norm, layers, grid)

    def embed_patches(
        self,
        image: Tensor,
        gsd: Tensor,
        sensor: str | None = None,
        keep: Tensor | None = None,
        *,
        token: Tensor | None = None,
        mask: Tensor | None = None,
        replace: bool = False,
    ) -> Tensor:
        """Patch embedding plus position, before the first block: [B, N or K, D]; see `encode`."""
        embed = self._patch_embed(sensor)
        check_band_count(image, embed.proj.in_channels, sensor)
        check_size(image, self.patch_size)
        x: Tensor = embed(image, keep)
        if mask is not None:
            if token is None or keep is not None:
                raise ValueError(
                    "a mask needs its token, and no `keep`: hidden patches are either marked or left out"
                )
            x = insert_mask_token(x, token, mask, replace=replace)
        grid_h, grid_w = image.shape[2] // self.patch_size, image.shape[3] // self.patch_size
        # The sum is taken in float32 even under autocast; then the residual stream has the weights' type.
        x = x + gsd_positions(grid_h, grid_w, self.embed_dim, self.step(gsd), cls=False, at=keep)
        return x.to(self.cls_token.dtype)

    def step(self, gsd: Tensor) -> Tensor:
        """[B] what the positions are told: the relative GSD, or 1 of an encoder that is not scale-aware."""
        return gsd if self.scale_aware else torch.ones_like(gsd)

    def first_convolution(self, sensor: str | None = None) -> nn.Conv2d:
        """The layer that the pixels of a sensor meet first: its patch embedding."""
        return self._patch_embed(sensor).proj

    def _patch_embed(self, sensor: str | None) -> PatchEmbed:
        embed = sensor_module(self.patch_embed, sensor)
        assert isinstance(embed, PatchEmbed)
        return embed


def collect_layer_maps(
    x: Tensor, blocks: Sequence[nn.Module], norm: nn.Module, layers: Sequence[int], grid: tuple[int, int]
) -> list[Tensor]:
    """Tokens [B, 1 + N, D] through `blocks`; of each of `layers` the patch tokens, normed, as [B, D, h, w].

    Raises:
        ValueError: A layer that is not among 1 ... number of blocks.
    """
    if not layers or not set(layers) <= set(range(1, len(blocks) + 1)):
        raise ValueError(f"layers are numbers from 1 to {len(blocks)}, not {list(layers)}")
    found = {}
    for number, block in enumerate(blocks[: max(layers)], 1):
        x = block(x)
        if number in layers:
            found[number] = norm(x[:, 1:]).transpose(1, 2).unflatten(2, grid)
    return [found[number] for number in layers]


def init_weights(module: nn.Module) -> None:
    """Initialize linear maps as MAE does: xavier-uniform weights, zero biases; norms to identity.

    A patch embedding counts as linear. Other convolutions keep torch's default.
    """
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, PatchEmbed):
            nn.init.xavier_uniform_(child.proj.weight.data.flatten(1))


# name: (width, depth, heads, patch sizes). "nano" and "micro" are ours, for work without a GPU.
_SIZES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "nano": (128, 4, 4, (4, 8)),
    "micro": (192, 6, 3, (4, 8, 16)),
    "tiny": (192, 12, 3, (8, 16)),
    "small": (384, 12, 6, (8, 16)),
    "base": (768, 12, 12, (8, 16)),
    "large": (1024, 24, 16, (14, 16)),
    "huge": (1280, 32, 16, (14,)),
}
register_encoder("vit")(ViT)  # of any size
for _name, (_dim, _depth, _heads, _patches) in _SIZES.items():
    for _patch in _patches:
        register_encoder(f"vit_{_name}_patch{_patch}")(
            partial(ViT, patch_size=_patch, embed_dim=_dim, depth=_depth, heads=_heads)
        )
