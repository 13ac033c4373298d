"""From a map of patch tokens to pixels.

In two bands, Scale-MAE's up-sampling pyramid (section 3), and a linear alternative for small budgets; in one,
CMID's single layer (`PixelShuffleHead`).

The first two are channels-last ([B, H, W, C]), so a transposed convolution whose kernel equals its stride is
one matrix product and a shuffle of pixels, a 1 x 1 convolution is a matrix product, and a norm over channels
is the ordinary LayerNorm. After the last 3 x 3 convolution nothing mixes pixels any more, and only the masked
patches, which alone count in the loss, are carried on.

Shape letters: B samples, g x g patches of p pixels, M masked ones, d decoder width, C bands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from swath.cpu.linear import OneDnnLinear, onednn_linear
from swath.encoders.vit import EPS
from swath.objectives.losses.reconstruction import take_patches


class Upsample(nn.Module):
    """Transposed convolution with kernel = stride = `factor`: every pixel becomes factor x factor pixels.

    The weight is [factor * factor * outputs, inputs], rows ordered (row, column, output).
    """

    def __init__(self, inputs: int, outputs: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.weight = nn.Parameter(torch.empty(factor * factor * outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        bound = 1 / math.sqrt(outputs * factor * factor)  # torch's for a transposed convolution
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """[..., h, w, inputs] -> [..., h * factor, w * factor, outputs], with a GELU after it if asked."""
        f = self.factor
        *lead, height, width, _ = x.shape
        x = onednn_linear(x, self.weight, self.bias.repeat(f * f))
        if f == 1:
            return F.gelu(x) if gelu else x
        x = x.view(-1, height, width, f, f, x.shape[-1] // (f * f))
        x = _shuffled_gelu(x) if gelu else x.transpose(2, 3)
        return x.reshape(*lead, height * f, width * f, x.shape[-1])


class _ShuffledGelu(torch.autograd.Function):
    """GELU that reads [n, h, w, f, f, c] and writes [n, h, f, w, f, c]: the shuffle costs nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        moved = x.transpose(2, 3)
        return torch.ops.aten.gelu.out(moved, out=x.new_empty(moved.shape))  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        grad = grads[0].transpose(2, 3)
        into = torch.empty_like(x)
        return torch.ops.aten.gelu_backward.grad_input(grad, x, grad_input=into)  # type: ignore[no-any-return]


def _shuffled_gelu(x: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # the compiler fuses by itself
        return F.gelu(x.transpose(2, 3))
    moved: Tensor = _ShuffledGelu.apply(x)
    return moved


class GroupedPairConv(nn.Module):
    """3 x 3 convolution in which output j sees only the inputs j and j + H/2, of H.

    The method's grouped convolution (two inputs a group) up to the order of channels. This order makes it a
    depthwise convolution, which is fast everywhere, and a sum of two halves. The weight is [H, 1, 3, 3].
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(2 * 9)
        self.weight = nn.Parameter(torch.empty(inputs, 1, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(inputs // 2).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, H] -> [B, h, w, H / 2]."""
        half = len(self.bias)
        bias = F.pad(self.bias, (0, half))
        x = F.conv2d(x.permute(0, 3, 1, 2), self.weight, bias, padding=1, groups=2 * half).permute(0, 2, 3, 1)
        first, second = torch.split(x, half, dim=-1)  # not two slices, whose gradients would be two full maps
        return first + second


class ConvBlock(nn.Module):
    """Residual block: GELU, 3 x 3, GELU, 1 x 1, beside a 1 x 1 shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pair = GroupedPairConv(dim)
        self.mix = OneDnnLinear(dim // 2, dim)
        self.skip = OneDnnLinear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        out: Tensor = self.mix(F.gelu(self.pair(F.gelu(x)))) + self.skip(x)
        return out


class FrequencyBandHead(nn.Module):
    """Head of one frequency band: [B, h, w, d] -> pixels, patch_size / 2 times as many along each axis."""

    def __init__(self, inputs: int, dim: int, layers: int, patch_size: int, bands: Mapping[str, int]) -> None:
        super().__init__()
        # Two steps with a 3 x 3 convolution between them: 4 x 2 at patch 16. A factor of two is kept for
        # the second where it divides.
        last = 2 if patch_size % 4 == 0 else 1
        self.proj = OneDnnLinear(inputs, dim)
        self.blocks = nn.Sequential(*(ConvBlock(dim) for _ in range(layers)))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.up = Upsample(dim, dim // 2, patch_size // 2 // last)
        self.pair = GroupedPairConv(dim // 2)
        self.mix = OneDnnLinear(dim // 4, dim // 2)
        self.pixels = nn.ModuleDict({name: Upsample(dim // 2, count, last) for name, count in bands.items()})

    def forward(self, x: Tensor, hidden: Tensor | None, grid: tuple[int, int], sensor: str) -> Tensor:
        """Pixels [B, H, W, C], or with `hidden` [B, M] those patches only, [B, M, h, w, C]."""
        x = self.norm(self.blocks(self.proj(x)))
        x = self.pair(self.up(x, gelu=True))
        if hidden is not None:
            x = take_patches(x, hidden, grid)
        x = F.gelu(self.mix(F.gelu(x)))
        out: Tensor = self.pixels[sensor](x)
        return out


class FrequencyBandDecoder(nn.Module):
    """Scale-MAE's two bands: low at the source's size, high at twice that.

    Args:
        inputs: Decoder width d.
        dim: Width of the heads; a multiple of 4.
        layers: Residual blocks in each head.
        patch_size: Side p of a patch in source pixels; even.
        bands: Sensor name -> number of bands.
        independent: A head for each band, or one for both.
        progressive: The high branch continues from the low one instead of starting at the tokens.
    """

    def __init__(
        self,
        inputs: int,
        dim: int,
        layers: int,
        patch_size: int,
        bands: Mapping[str, int],
        *,
        independent: bool = True,
        progressive: bool = False,
    ) -> None:
        super().__init__()
        self.independent = independent
        self.progressive = progressive
        self.low_up = Upsample(inputs, inputs, 2)
        if not progressive:
            self.high_up_first = Upsample(inputs, inputs, 2)
        self.high_norm = nn.LayerNorm(inputs, eps=EPS)
        self.high_up = Upsample(inputs, inputs, 2)
        self.head_high = FrequencyBandHead(inputs, dim, layers, patch_size, bands)
        if independent:
            self.head_low = FrequencyBandHead(inputs, dim, layers, patch_size, bands)

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Token map [B, g, g, d] -> low [B, 2g, 2g, d] and high [B, 4g, 4g, d] feature maps."""
        return self.low_up(x), self._high(x)

    def _high(self, x: Tensor) -> Tensor:
        start = self.low_up(x) if self.progressive else self.high_up_first(x)
        out: Tensor = self.high_up(F.gelu(self.high_norm(start)))
        return out

    def low(self, x: Tensor, hidden: Tensor | None, sensor: str) -> Tensor:
        """Token map [B, g, g, d] -> low pixels [B, p g, p g, C]; or [B, M, p, p, C], of patches `hidden`."""
        head = self.head_low if self.independent else self.head_high
        out: Tensor = head(self.low_up(x), hidden, (x.shape[1], x.shape[2]), sensor)
        return out

    def high(self, x: Tensor, hidden: Tensor | None, sensor: str) -> Tensor:
        """The same for high pixels: [B, 2p g, 2p g, C] or [B, M, 2p, 2p, C]."""
        out: Tensor = self.head_high(self._high(x), hidden, (x.shape[1], x.shape[2]), sensor)
        return out


class LinearHeads(nn.Module):
    """Each token predicts the pixels of its own patch linearly, in both bands, as in MAE.

    Not in the paper: it costs a hundredth of the pyramid, so a small budget goes to the encoder instead.
    """

    def __init__(self, inputs: int, patch_size: int, bands: Mapping[str, int]) -> None:
        super().__init__()
        self.to_low = nn.ModuleDict(
            {name: Upsample(inputs, count, patch_size) for name, count in bands.items()}
        )
        self.to_high = nn.ModuleDict(
            {name: Upsample(inputs, count, 2 * patch_size) for name, count in bands.items()}
        )

    def low(self, x: Tensor, hidden: Tensor | None, sensor: str) -> Tensor:
        """As `Pyramid.low`."""
        out: Tensor = self.to_low[sensor](_hidden(x, hidden))
        return out

    def high(self, x: Tensor, hidden: Tensor | None, sensor: str) -> Tensor:
        """As `Pyramid.high`."""
        out: Tensor = self.to_high[sensor](_hidden(x, hidden))
        return out


def _hidden(x: Tensor, hidden: Tensor | None) -> Tensor:
    """Tokens [B, g, g, d], or those of the patches `hidden`, [B, M, 1, 1, d]."""
    return x if hidden is None else take_patches(x, hidden, (x.shape[1], x.shape[2]))


class PixelShuffleHead(nn.Module):
    """CMID's: from a cell to the pixels it stands for, by a 1 x 1 convolution and a pixel shuffle."""

    def __init__(self, inputs: int, bands: int, stride: int) -> None:
        super().__init__()
        self.bands, self.stride = bands, stride
        self.proj = nn.Conv2d(inputs, bands * stride * stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, C, h * stride, w * stride]."""
        rows = onednn_linear(x.permute(0, 2, 3, 1), self.proj.weight.flatten(1), self.proj.bias)
        return F.pixel_shuffle(rows.permute(0, 3, 1, 2), self.stride)
