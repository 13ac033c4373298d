"""Marking hidden cells with a token: how, and the two ways in which an encoder that can is called."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from swath.encoders.protocol import EncoderFeatures


class MaskTokenEncoder(nn.Module):
    """Base of encoders that fulfill `MaskableEncoder`: a call and a call with hidden cells are one encoding.

    A subclass has `encode(image, gsd, sensor, *, token, mask, replace)`, which makes whatever its family
    makes of images, and `features_of`, which makes `Features` of that.
    """

    def forward(self, image: Tensor, gsd: Tensor, sensor: str | None = None) -> EncoderFeatures:
        """Encode images [B, C, H, W] with GSD [B] (relative to the reference); see `Features`."""
        return self.features_of(self.encode(image, gsd, sensor), image)

    def masked(
        self,
        image: Tensor,
        gsd: Tensor,
        sensor: str | None = None,
        *,
        token: Tensor,
        mask: Tensor,
        replace: bool = False,
    ) -> EncoderFeatures:
        """Encode with hidden cells marked by `token`; see `MaskableEncoder`."""
        encoded = self.encode(image, gsd, sensor, token=token, mask=mask, replace=replace)
        return self.features_of(encoded, image)

    def encode(
        self,
        image: Tensor,
        gsd: Tensor,
        sensor: str | None = None,
        *,
        token: Tensor | None = None,
        mask: Tensor | None = None,
        replace: bool = False,
    ) -> Any:
        """What the family makes of images, with hidden cells marked where there is a `mask`."""
        raise NotImplementedError

    def features_of(self, encoded: Any, image: Tensor) -> EncoderFeatures:
        """`Features` of what `encode` gave for these images."""
        raise NotImplementedError


def insert_mask_token(x: Tensor, token: Tensor, mask: Tensor, *, replace: bool = False) -> Tensor:
    """Mark hidden cells of a feature map with a learned token.

    Args:
        x: Features of all cells, [B, N, D] in row-major order, or [B, D, h, w].
        token: [1, 1, D] or [1, D, 1, 1], whichever has as many axes as `x`.
        mask: [B, h, w], 1 (or True) where hidden; of any type.
        replace: The token takes the place of what a hidden cell holds; otherwise it is added to it.

    Raises:
        ValueError: The mask has another number of samples or of cells.
    """
    tokens = x.ndim == 3
    cells = (len(x), x.shape[1]) if tokens else (len(x), *x.shape[2:])
    given = (len(mask), mask[0].numel()) if tokens else tuple(mask.shape)
    if cells != given or mask.ndim != 3:
        raise ValueError(f"the mask is {tuple(mask.shape)}, but there are {cells} samples and cells to mask")
    where = (mask.reshape(*cells, 1) if tokens else mask.unsqueeze(1)).to(x.dtype)
    token = token.to(x.dtype)
    return x * (1 - where) + token * where if replace else x + token * where
