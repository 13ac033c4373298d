"""BIT: change detection with a few semantic tokens of each date (Chen et al., arXiv 2103.00208).

The map of each date is summed up in L tokens by attention over its places; the tokens of both dates look at
each other in a transformer; then every place of each map looks at its date's refined tokens. What differs
between the two maps is classified. Sizes are the paper's, which CMID's protocol takes too: maps of 32
channels at stride 8, 4 tokens, one encoder and eight decoder layers of 8 heads 64 wide.

Legend: B places (image pairs), C channels, L tokens, N map cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swath.tasks.dense.heads import Norm, conv_norm_relu

LEVEL = 2  # of the pyramid: stride 16, the third stage of a CNN


class BIT(nn.Module):
    """The head, for the maps of two dates."""

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        *,
        width: int = 32,
        tokens: int = 4,
        encoder_layers: int = 1,
        decoder_layers: int = 8,
        heads: int = 8,
        head_width: int = 64,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels[LEVEL], width, 3, padding=1)
        self.attend = nn.Conv2d(width, tokens, 1, bias=False)
        self.positions = nn.Parameter(torch.randn(1, 2 * tokens, width) * 0.02)
        self.encoder = nn.ModuleList(_Layer(width, heads, head_width) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(_Layer(width, heads, head_width) for _ in range(decoder_layers))
        self.classify = nn.Sequential(
            conv_norm_relu(width, width, 3, norm), nn.Conv2d(width, classes, 3, padding=1)
        )

    def forward(self, before: Sequence[Tensor], after: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Maps of both dates, finest first -> logits [B, K, *size]."""
        maps = [self.reduce(F.interpolate(m[LEVEL], scale_factor=2, mode="nearest")) for m in (before, after)]
        tokens = torch.cat([self._tokens(m) for m in maps], dim=1) + self.positions
        for layer in self.encoder:
            tokens = layer(tokens, None)
        refined = []
        for m, own in zip(maps, tokens.chunk(2, dim=1), strict=True):
            places = m.flatten(2).transpose(1, 2)
            for layer in self.decoder:
                places = layer(places, own)
            refined.append(places.transpose(1, 2).reshape(m.shape))
        difference = F.interpolate((refined[0] - refined[1]).abs(), scale_factor=2, mode="nearest")
        full = F.interpolate(difference, size=tuple(size), mode="bilinear", align_corners=True)
        return self.classify(full)  # type: ignore[no-any-return]

    def _tokens(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, L, C], each a weighted mean over places."""
        weights = self.attend(x).flatten(2).softmax(dim=2)
        return torch.einsum("bln,bcn->blc", weights, x.flatten(2))


class _Layer(nn.Module):
    """Attention to `context` (None: to itself) and an MLP, each normed before and added."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key_value = nn.Linear(width, 2 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """x [B, N, C], context [B, L, C]."""
        normed = self.norm1(x)
        other = normed if context is None else self.norm1(context)
        q = self._split(self.query(normed))
        k, v = (self._split(half) for half in self.key_value(other).chunk(2, dim=-1))
        seen = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        """[B, N, heads * d] -> [B, heads, N, d]."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
