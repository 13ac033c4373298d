"""From the tokens of one sensor's visible patches to the pixels of another sensor's, or of its own.

CSMAE's decoder, and the losses of what it rebuilds. One *run* of it takes the tokens of one source sensor;
several reconstructions can be read off the same run where they differ only in the target sensor's last layer
and in which patches are scored.

Legend: B places, N patches of an image, K visible, M scored ones, D encoder's, d decoder's width, P numbers a
patch (p * p * C, pixel by pixel with the band fastest).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from swath.cpu.linear import OneDnnLinear
from swath.encoders.positions import gsd_positions
from swath.encoders.vit import Block, init_weights
from swath.objectives.losses.chunked import chunked_loss
from swath.objectives.modules.masking import PatchMasking, fill_masked

EPS = 1e-5  # of the decoder's norms; the encoder's is 1e-6
_TOKENS = 2048  # at a time, on a CPU: a matrix product is at its best, and memory small


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """Where the tokens of a run stand, and which patches come out of it.

    Attributes:
        grid: Rows and columns of patches of the target.
        num_visible: K, where source and target have the same grid: tokens are filled in at their places, and
            all N patches come out. None across different grids: the scored patches are asked for.
        tensors: What differs from sample to sample. Same grid: step [B] between patches (see
            `gsd_positions`), and a split's `shuffle` and `restore` [B, N]. Across grids: positions of the
            tokens [B, K, d], and of the patches asked for [B, M, d].
    """

    grid: tuple[int, int]
    num_visible: int | None
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class ReconstructionTarget:
    """What one reconstruction is compared with.

    Attributes:
        sensor: The target.
        weight: Of its loss, above 0.
        scored: [B, M] flat indices of the target's patches that count.
        pixels: [B, M, P] those patches.
        valid: [B, M, P] which of their numbers count, 1 or 0; None: all.
    """

    sensor: str
    weight: float
    scored: Tensor
    pixels: Tensor
    valid: Tensor | None


class CrossSensorDecoder(nn.Module):
    """A light transformer over visible tokens and mask tokens, and a linear layer a target sensor.

    Args:
        encoder_dim: D.
        dim: d.
        depth: Number of blocks.
        heads: Their attention heads.
        pixels: Target sensor -> numbers a patch P.
    """

    def __init__(self, encoder_dim: int, dim: int, depth: int, heads: int, pixels: Mapping[str, int]) -> None:
        super().__init__()
        self.embed = OneDnnLinear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, eps=EPS) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.pred = nn.ModuleDict({name: OneDnnLinear(dim, count) for name, count in pixels.items()})
        init_weights(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Tensor, place: TokenLayout) -> Tensor:
        """Tokens [B, 1 + K, D], class token first -> patches: all [B, N, d], or those asked for [B, M, d]."""
        x = self.embed(latent)
        cls, tokens = x[:, :1], x[:, 1:]
        if place.num_visible is None:
            seen, asked = place.tensors
            patches = torch.cat([tokens + seen, self.mask_token + asked], dim=1)
            return self._run(cls, patches)[:, seen.shape[1] :]
        step, shuffle, restore = place.tensors
        patches = fill_masked(tokens, self.mask_token, PatchMasking(shuffle, restore, place.num_visible))
        return self._run(
            cls, patches + gsd_positions(*place.grid, x.shape[-1], step, cls=False, centered=True)
        )

    def _run(self, cls: Tensor, patches: Tensor) -> Tensor:
        x = torch.cat([cls, patches], dim=1).to(self.mask_token.dtype)
        decoded: Tensor = self.norm(self.blocks(x)[:, 1:])
        return decoded


def reconstruction_losses(
    decoder: CrossSensorDecoder,
    latent: Tensor,
    place: TokenLayout,
    targets: Sequence[ReconstructionTarget],
    kind: Literal["l1", "l2"],
) -> tuple[Tensor, Tensor]:
    """Losses of reconstructions that share a run of a decoder.

    Some samples at a time go through the decoder, forward and backward (`chunked_loss`), so that its
    activations, which would be most of all memory, need room for a part of one run only.

    Args:
        decoder: With an output layer for every wanted sensor.
        latent: [B, 1 + K, D] of the source's visible patches.
        place: Where they stand.
        targets: What comes out is compared with these.
        kind: Absolute or squared error.

    Returns:
        Their weighted sum, a mean over samples, and each one alone, not weighted and without gradient.
    """
    own = len(place.tensors)

    def losses(x: Tensor, *tensors: Tensor) -> Tensor:
        patches = decoder(x, replace(place, tensors=tensors[:own]))
        parts = []
        for number, one in enumerate(targets):
            start = own + 3 * number
            scored, pixels, valid = tensors[start : start + 3]
            some = (
                patches if place.num_visible is None else _take(patches, scored)
            )  # only these become pixels
            prediction = decoder.pred[one.sensor](some).float()
            parts.append(one.weight * _error(prediction, pixels, valid, kind).sum())
        return torch.stack(parts)

    extras: list[Tensor | None] = [*place.tensors]
    for one in targets:
        extras += [one.scored, one.pixels, one.valid]
    chunk = len(latent) if latent.is_cuda else max(1, _TOKENS // (place.grid[0] * place.grid[1]))
    sums = chunked_loss(decoder, [losses], latent, extras, chunk) / len(latent)
    scale = torch.tensor([1 / one.weight for one in targets], device=sums.device)
    return sums[0], (sums[1:] * scale).detach()


def _take(patches: Tensor, index: Tensor) -> Tensor:
    return patches.gather(1, index.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


def _error(prediction: Tensor, target: Tensor, valid: Tensor | None, kind: Literal["l1", "l2"]) -> Tensor:
    """Mean error [B] over the valid numbers of patches [B, M, P]; 0 where none is."""
    error = prediction - target
    error = error.square() if kind == "l2" else error.abs()
    if valid is None:
        return error.mean(dim=(1, 2))
    return (error * valid).sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp_min(1.0)


def patchify_rows(image: Tensor, grid: tuple[int, int]) -> Tensor:
    """Image [B, C, H, W] -> patches [B, N, P]."""
    batch, bands, height, width = image.shape
    image = image.reshape(batch, bands, grid[0], height // grid[0], grid[1], width // grid[1])
    return image.permute(0, 2, 4, 3, 5, 1).reshape(batch, grid[0] * grid[1], -1)


def take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Rows [B, N, P] at [B, M] -> [B, M, P]: whole rows are copied, where `gather` looks up every number."""
    batch, count, width = rows.shape
    flat = index + count * torch.arange(batch, device=index.device)[:, None]
    return rows.reshape(batch * count, width).index_select(0, flat.flatten()).view(batch, -1, width)


def normalize_patches(patches: Tensor, valid: Tensor | None) -> Tensor:
    """Patches [B, M, P] over their own mean and (unbiased) deviation, of what is valid."""
    if valid is None:
        mean, var = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
    else:
        count = valid.sum(dim=-1, keepdim=True)
        mean = (patches * valid).sum(dim=-1, keepdim=True) / count.clamp_min(1.0)
        var = ((patches - mean).square() * valid).sum(dim=-1, keepdim=True) / (count - 1).clamp_min(1.0)
    return (patches - mean) / (var + 1e-6).sqrt()
