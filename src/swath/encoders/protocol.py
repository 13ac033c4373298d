"""What every encoder promises, and the registry that finds one by name.

An encoder is an ``nn.Module`` called as ``encoder(image, gsd, sensor)``. It takes any number of bands that
it was built for, any (also non-square) size that is a multiple of its coarsest stride, and one GSD a sample.
``check_encoder`` (in `swath.encoders.check`) runs the promise against any implementation, ours or yours.

An encoder that masked objectives can train beside (`MaskableEncoder`) can moreover mark hidden cells with a
token of the objective's; all families of Swath can, but the one with branches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from swath.registry import Registry


@dataclass(slots=True)
class EncoderFeatures:
    """What an encoder makes of a batch of B images of H x W pixels.

    Attributes:
        pooled: [B, D] one embedding an image, by the encoder's own pooling.
        maps: Dense maps, finest first; `maps[i]` is [B, channels[i], H / strides[i], W / strides[i]].
        tokens: [B, N, D] patch tokens in row-major order, without class token; None for CNNs.
        cls: [B, D] class token after the final norm; None where the encoder has none.
    """

    pooled: Tensor
    maps: list[Tensor]
    tokens: Tensor | None = None
    cls: Tensor | None = None


@runtime_checkable
class Encoder(Protocol):
    """The protocol. D is `embed_dim`; `strides` and `channels` describe `Features.maps`, finest first."""

    embed_dim: int
    strides: tuple[int, ...]
    channels: tuple[int, ...]

    def __call__(self, image: Tensor, gsd: Tensor, sensor: str | None = None) -> EncoderFeatures:
        """Encode.

        Args:
            image: [B, C, H, W] normalized float.
            gsd: [B] float32, metres per pixel divided by the model's reference GSD (so 1 at the reference).
            sensor: Which sensor the images are from; may be None for an encoder of a single sensor.
        """
        ...


@runtime_checkable
class MaskableEncoder(Encoder, Protocol):
    """Optional: an encoder in which hidden cells can be marked, early, by a learned token.

    The token belongs to whoever trains the encoder (an objective), so that an encoder in use carries none:
    ``token = nn.Parameter(torch.zeros(encoder.mask_token_shape))``.

    Attributes:
        mask_stride: Side of a cell in pixels; masks are [B, H / mask_stride, W / mask_stride].
        mask_token_shape: Shape of the token: [1, 1, D] where cells are a sequence of tokens (ViT: D is
            `embed_dim`; Swin: of its first stage), [1, D, 1, 1] where they are a map (CNN: of its stem).
    """

    mask_stride: int
    mask_token_shape: tuple[int, ...]

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
        """Encode with hidden cells marked.

        The token acts on the embedding of the pixels: after the patch embedding of a ViT (before positions)
        or a Swin, after the stem of a CNN (before its first stage). It hides nothing by itself: what the
        pixels of a hidden cell hold is for the caller to fill, or to let `replace` discard. (In a CNN the
        stem has looked over the cells' borders by then.)

        Args:
            image: [B, C, H, W] normalized float.
            gsd: [B], as for a call.
            sensor: As for a call.
            token: Of shape `mask_token_shape`.
            mask: [B, H / mask_stride, W / mask_stride], 1 (or True) where hidden; of any type.
            replace: The token takes the place of the embedding of a hidden cell; by default it is added.

        Returns:
            As from a call; the same as from a call where nothing is hidden.

        Raises:
            ValueError: The mask does not have the images' cells.
        """
        ...


@runtime_checkable
class IntermediateFeatures(Encoder, Protocol):
    """Optional: an encoder of equal layers and a single map, whose inner layers can be looked at (ViTs).

    Attributes:
        depth: Number of layers.
    """

    depth: int

    def intermediate(
        self, image: Tensor, gsd: Tensor, sensor: str | None = None, *, layers: Sequence[int]
    ) -> list[Tensor]:
        """The map after each of `layers`.

        Args:
            image: [B, C, H, W] normalized float.
            gsd: [B], as for a call.
            sensor: As for a call.
            layers: Numbers from 1 to `depth`, in any order, also repeated.

        Returns:
            For each of `layers` a map [B, D, H / stride, W / stride] that has passed the encoder's final
            norm; after layer `depth` it is the one of `Features.maps`.

        Raises:
            ValueError: There is no such layer.
        """
        ...


def size_divisor(encoder: nn.Module, sensor: str | None) -> int:
    """The side in pixels of which a sensor's images must be multiples.

    It is the coarsest stride, or what an encoder's own `min_size` says where its patches differ by sensor.
    """
    own = getattr(encoder, "min_size", None)
    return int(max(encoder.strides)) if own is None else int(own(sensor))  # type: ignore[arg-type]


encoders: Registry[Callable[..., nn.Module]] = Registry("encoder", "swath.encoders")
register_encoder = encoders.register


def create_model(name: str, **options: Any) -> nn.Module:
    """Build the encoder called `name`, freshly initialized.

    Args:
        name: One of `list_models()`.
        **options: Keyword arguments of its constructor, such as ``bands=4`` or
            ``bands={"sentinel1_grd": 2, "sentinel2_l2a": 12}``.
    """
    return encoders.get(name)(**options)


def list_models(pattern: str = "*") -> list[str]:
    """Names of all encoders that match a shell pattern such as ``"vit_*"``."""
    from fnmatch import fnmatch

    encoders.load_all()  # a module registers a family and announces one name of it
    return [name for name in encoders.names() if fnmatch(name, pattern)]
