"""Texture as a target: how much of which pattern a hidden patch holds, not where exactly it lies.

The high band of a hidden patch is mostly unpredictable in phase: nobody can know from its surroundings at
which pixel a furrow or a roof edge runs, so a pixel loss on it soon teaches nothing but zero. Its
statistics *can* be known. This target convolves the patch with fixed filters, rectifies both signs, averages
over the patch and whitens the result: the features that make random convolutional features strong (Coates
and Ng 2011; Rolf et al. 2021), asked for from context. Ours; not in the Scale-MAE paper, and off by default.

Legend: B samples, M hidden patches of P x P target pixels with C bands, K filters of k x k pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swath.errors import TrainingError

_WHITENING = 0.05  # added to the variances of the patches' principal components; images have unit variance
_THRESHOLD = 0.5  # a response counts for what exceeds this
_STEP = 2  # pixels between two looks of a filter


def whitened_patches(images: Tensor, size: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Filters made of random image patches, whitened (ZCA) and of unit length before the last whitening.

    Args:
        images: [N, C, H, W] normalized, at the scale at which the filters are meant to look.
        size: Side k of the filters.
        count: How many.
        seed: Which.

    Returns:
        kernel [count, C, k, k] and bias [count]; their response has mean 0 over patches.
    """
    generator = torch.Generator().manual_seed(seed)
    images = images.detach().float().cpu()
    wanted = max(20_000, 10 * count)
    height, width = images.shape[2] - size + 1, images.shape[3] - size + 1
    which = torch.randint(len(images), (wanted,), generator=generator)
    row = torch.randint(height, (wanted,), generator=generator)
    column = torch.randint(width, (wanted,), generator=generator)
    step = torch.arange(size)
    patches = images[
        which[:, None, None], :, (row[:, None] + step)[:, :, None], (column[:, None] + step)[:, None, :]
    ]  # [wanted, k, k, C]
    flat = patches.permute(0, 3, 1, 2).flatten(1).double()
    mean = flat.mean(dim=0)
    values, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    whiten = vectors @ torch.diag((values.clamp_min(0) + _WHITENING).rsqrt()) @ vectors.T
    chosen = F.normalize((flat[:count] - mean) @ whiten, dim=1)
    kernel = chosen @ whiten
    bias = -(kernel @ mean)
    return kernel.float().view(count, images.shape[1], size, size), bias.float()


@torch.no_grad()
def whiten_first_layer(layer: nn.Conv2d, images: Tensor) -> None:
    """Begin an encoder's first layer as whitened patches of the data: filters that answer to what is there.

    Args:
        layer: Of k x k pixels; its bias, if it has one, makes the mean response 0.
        images: [N, C, H, W] normalized, as the encoder will see them.
    """
    kernel, bias = whitened_patches(images, layer.kernel_size[0], layer.out_channels, seed=3)
    layer.weight.copy_(kernel)
    if layer.bias is not None:
        layer.bias.copy_(bias)


class TextureTarget(nn.Module):
    """Whitened energies of fixed filters in a patch; fitted once to images, then part of the checkpoint.

    Args:
        bands: Number of bands C.
        count: Number of filters K; the target has 2 K numbers a patch.
        size: Side of a filter in target pixels.
    """

    kernel: Tensor
    bias: Tensor
    mean: Tensor
    whiten: Tensor
    fitted: Tensor

    def __init__(self, bands: int, count: int = 64, size: int = 6) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.zeros(count, bands, size, size))
        self.register_buffer("bias", torch.zeros(count))
        self.register_buffer("mean", torch.zeros(2 * count))
        self.register_buffer("whiten", torch.zeros(2 * count, 2 * count))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.dim = 2 * count

    @torch.no_grad()
    def fit(self, targets: Tensor, patch: int) -> None:
        """Choose filters and statistics from target images [N, C, T, T], cut into patches of `patch`."""
        count, _, size, _ = self.kernel.shape
        kernel, bias = whitened_patches(targets, size, count, seed=5)
        self.kernel.copy_(kernel)
        self.bias.copy_(bias)
        batch, bands, height, width = targets.shape
        cut = targets.reshape(batch, bands, height // patch, patch, width // patch, patch)
        energy = self._energy(cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, bands, patch, patch)).double()
        mean = energy.mean(dim=0)
        covariance = (energy - mean).T @ (energy - mean) / len(energy)
        values, vectors = torch.linalg.eigh(covariance)
        self.mean.copy_(mean)
        self.whiten.copy_(vectors @ torch.diag((values.clamp_min(0) + 0.02 * values.mean()).rsqrt()))
        self.fitted.fill_(True)

    @torch.no_grad()
    def forward(self, patches: Tensor) -> Tensor:
        """Patches [B, M, P, P, C] of target images -> targets [B, M, 2 K] float32.

        Raises:
            TrainingError: The target was never fitted.
        """
        if not bool(self.fitted):
            raise TrainingError("the texture target needs `objective.prepare(batch)` before the first step")
        batch, count = patches.shape[:2]
        energy = self._energy(patches.flatten(0, 1).permute(0, 3, 1, 2))
        return ((energy - self.mean) @ self.whiten).view(batch, count, self.dim)

    def _energy(self, patches: Tensor) -> Tensor:
        response = F.conv2d(patches.float(), self.kernel, self.bias, stride=_STEP).flatten(2)
        above = (response - _THRESHOLD).relu_().mean(dim=2)
        below = response.neg_().sub_(_THRESHOLD).relu_().mean(dim=2)
        # The root evens out the long tail of strong textures.
        return torch.cat([above, below], dim=1).add_(0.01).sqrt_()
