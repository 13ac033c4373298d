"""From features of many places to one embedding an image.

The mean of the patch tokens says what there is; their standard deviation says how varied it is, which for
textures of the ground is half of the story (second-order statistics; Bovolo-style texture descriptors, and
"Deep TEN" pooling, rest on the same observation).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from swath.encoders.protocol import EncoderFeatures
from swath.errors import ContractError, suggest

Pooling = Literal["mean", "cls", "mean_std"]


def pool(features: EncoderFeatures, pooling: str | None = None) -> Tensor:
    """One embedding an image.

    Args:
        features: What an encoder returned for B images.
        pooling: "mean" of the patch tokens, or of the coarsest map for an encoder without tokens; "mean_std":
            that mean beside the standard deviation over places; "cls": the class token. None leaves it to
            the encoder (`Features.pooled`).

    Returns:
        [B, D], or [B, 2 D] for "mean_std".

    Raises:
        ContractError: "cls" of an encoder that has no class token, or an unknown name.
    """
    if pooling is None:
        return features.pooled
    if pooling not in get_args(Pooling):
        raise ContractError(f"unknown pooling {pooling!r}.{suggest(pooling, list(get_args(Pooling)))}")
    if pooling == "cls":
        if features.cls is None:
            raise ContractError("this encoder has no class token: use pooling 'mean' or 'moments'")
        return features.cls
    places = features.tokens if features.tokens is not None else features.maps[-1].flatten(2).transpose(1, 2)
    return places.mean(dim=1) if pooling == "mean" else mean_std_pool(places)


def mean_std_pool(tokens: Tensor, *, floor: float = 0.0) -> Tensor:
    """Mean and standard deviation over places: [B, N, D] -> [B, 2 D].

    Args:
        tokens: Features of N places.
        floor: Added to the variance. In training above 0: the root of 0 has no gradient.
    """
    mean = tokens.mean(dim=1)
    # Population form, so that an image of a single patch has spread 0 rather than NaN.
    spread = (tokens.float().var(dim=1, correction=0) + floor).sqrt()
    return torch.cat([mean, spread.to(mean.dtype)], dim=1)
