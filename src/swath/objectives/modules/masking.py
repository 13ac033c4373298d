"""Which patches or blocks a masked objective shows and which it asks for.

Random masks come from one uniform number a patch, sorted: pure functions of the numbers, which come from the
samples' keys (or from a test). Shape letters: B samples, N patches, K kept, M = N - K masked, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PatchMasking:
    """A split of N patches into kept and masked ones, sample by sample.

    Attributes:
        shuffle: [B, N] int64, patch indices, kept ones first.
        restore: [B, N] int64, the inverse permutation: where in `shuffle` each patch is.
        num_visible: How many of each sample's patches are kept (K).
    """

    shuffle: Tensor
    restore: Tensor
    num_visible: int

    @property
    def keep(self) -> Tensor:
        """[B, K] indices of the patches shown, in shuffled order."""
        return self.shuffle[:, : self.num_visible]

    @property
    def hidden(self) -> Tensor:
        """[B, M] indices of the patches to predict, in shuffled order."""
        return self.shuffle[:, self.num_visible :]

    @property
    def mask(self) -> Tensor:
        """[B, N] bool, True where a patch is hidden."""
        return self.restore >= self.num_visible


def random_masking(noise: Tensor, ratio: float) -> PatchMasking:
    """Keep the floor(N (1 - ratio)) patches with the smallest noise.

    Args:
        noise: [B, N] uniform numbers; equal ones keep their order.
        ratio: Share of patches to hide, in [0, 1).
    """
    shuffle = noise.argsort(dim=1, stable=True)
    kept = int(noise.shape[1] * (1 - ratio))
    return PatchMasking(shuffle=shuffle, restore=shuffle.argsort(dim=1), num_visible=kept)


def fill_masked(visible: Tensor, mask_token: Tensor, masking: PatchMasking) -> Tensor:
    """Kept tokens back at their places, the mask token at all others.

    Args:
        visible: [B, K, D] tokens in the order of `masking.keep`, without class token.
        mask_token: [1, 1, D].
        masking: The split.

    Returns:
        [B, N, D] in row-major order.
    """
    batch, count, dim = visible.shape
    fill = mask_token.to(visible.dtype).expand(batch, masking.restore.shape[1] - count, dim)
    return torch.cat([visible, fill], dim=1).gather(1, masking.restore.unsqueeze(-1).expand(-1, -1, dim))


def mask_pixels(mask: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Patch mask [B, N] as pixels [B, 1, grid_h * side, grid_w * side], each patch `patch` pixels wide."""
    mask = mask.view(-1, 1, *grid)
    return mask.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


def random_blocks(noise: Tensor, ratio: float) -> Tensor:
    """[B, N] bool: the ceil(ratio N) blocks with the smallest of the uniform numbers [B, N] are hidden."""
    count = -int(-noise.shape[1] * ratio // 1)
    order = noise.argsort(dim=1, stable=True)
    hidden = torch.zeros_like(noise, dtype=torch.bool)
    return hidden.scatter(1, order[:, :count], True)


def fill_with_mean(image: Tensor, hidden: Tensor, valid: Tensor | None = None) -> Tensor:
    """The image [B, C, H, W] whose pixels `hidden` [B, 1, H, W] hold the mean of each band over the whole.

    Args:
        image: Normalized.
        hidden: Bool.
        valid: [B, H, W] bool; the mean is of valid pixels, 0 where none is.
    """
    if valid is None:
        mean = image.mean(dim=(2, 3), keepdim=True)
    else:
        weight = valid.unsqueeze(1).to(image.dtype)
        count = weight.sum(dim=(2, 3), keepdim=True).clamp_min(1.0)
        mean = (image * weight).sum(dim=(2, 3), keepdim=True) / count
    return torch.where(hidden, mean, image)
