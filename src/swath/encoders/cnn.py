"""Convolutional networks of timm behind the encoder protocol: ResNets, and whatever is built like them.

timm draws the network (its names, its initialization); nothing is ever downloaded. Of the network we keep
what leads to the maps of strides 4, 8, 16 and 32, in timm's names, so that weights of the field load into an
encoder of one sensor, and ours load there.

A convolution counts in pixels: it takes no notice of the GSD. With several sensors each has a stem of its
own (all before the first stage) and the stages are shared; their BatchNorm then keeps one running average
over all sensors, which in evaluation is right only for sensors seen equally often in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swath.cpu.batch_norm import ChannelsLastBatchNorm2d
from swath.cpu.linear import cpu_matmul
from swath.encoders.inputs import check_band_count, check_size, resolve_sensor
from swath.encoders.mask_token import MaskTokenEncoder, insert_mask_token
from swath.encoders.protocol import EncoderFeatures, register_encoder
from swath.errors import SwathError, suggest

STRIDES = (4, 8, 16, 32)


class CNN(MaskTokenEncoder):
    """A convolutional network of timm's, without its classifier.

    `Features.maps` are timm's feature maps at strides 4, 8, 16, 32; `pooled` is the mean over the last.

    Args:
        bands: Number of bands of the one sensor, or a mapping sensor name -> number of bands; then every
            sensor has its own stem and shares all else.
        architecture: Name of a timm model that is a chain of stages with those strides (``resnet50``,
            ``resnext50_32x4d``, ``regnety_016``, ``convnext_tiny``, ...), without a tag of weights.
        options: Further arguments of timm's constructor, such as ``{"layers": [1, 1, 1, 1], "channels":
            [32, 64, 128, 256]}`` of a ResNet.

    Raises:
        SwathError: timm has no such model, or it is not such a chain.
        ContractError: (when called) a sensor it was not built for, a wrong number of bands, a size that is
            not a multiple of 32.
    """

    mask_stride = STRIDES[0]

    def __init__(
        self,
        bands: int | Mapping[str, int] = 3,
        *,
        architecture: str = "resnet50",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        counts = dict(bands) if isinstance(bands, Mapping) else {"": bands}
        self.bands = dict(bands) if isinstance(bands, Mapping) else bands
        self.architecture = architecture
        self.options = dict(options or {})
        with torch.device("meta"):
            plan: Any = _timm_stages(architecture, 3, options or {})
        self._maps: dict[str, str] = dict(plan.return_layers)
        stem, token_dim = _stem(plan, architecture)
        self.strides: tuple[int, ...] = STRIDES
        self.channels: tuple[int, ...] = tuple(plan.feature_info.channels())
        self.embed_dim = self.channels[-1]
        self.mask_token_shape: tuple[int, ...] = (1, token_dim, 1, 1)
        self._stem = stem
        self._body = [name for name in plan if name not in stem]
        if isinstance(bands, Mapping):
            self.stems = nn.ModuleDict()
        for index, (sensor, count) in enumerate(counts.items()):
            network = _timm_stages(architecture, count, options or {})
            parts = {name: network[name] for name in stem}
            if isinstance(bands, Mapping):
                self.stems[sensor] = nn.ModuleDict(parts)
                parts = {}
            if index == 0:
                parts |= {name: network[name] for name in self._body}
            for name, part in parts.items():
                self.add_module(name, part)
        for layer in self.modules():
            if type(layer) is nn.BatchNorm2d:
                layer.__class__ = ChannelsLastBatchNorm2d
            elif type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and layer.padding == (0, 0):
                layer.__class__ = PointwiseConv2d
        # timm's norms with an activation inside are left as they are
        self._exact = all(
            type(m) is ChannelsLastBatchNorm2d for m in self.modules() if isinstance(m, nn.BatchNorm2d)
        )

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
        """Maps [B, channels[i], H / strides[i], W / strides[i]], finest first.

        Args:
            image: [B, C, H, W] normalized.
            gsd: [B]; not looked at.
            sensor: Name of the images' sensor, needed when the encoder has several.
            token: [1, D, 1, 1], put after the stem at the cells that `mask` hides.
            mask: [B, H / 4, W / 4], 1 where hidden; needs `token`.
            replace: The token takes the place of what the stem gives; by default it is added.
        """
        sensor, count = self._sensor(sensor)
        check_band_count(image, count, sensor)
        check_size(image, STRIDES[-1], "cells of the coarsest map")
        # Channels innermost saves a tenth to a third of the CPU time. In training only where every BatchNorm
        # keeps its precision in that layout.
        if not self.training or (self._exact and image.device.type == "cpu"):
            image = image.contiguous(memory_format=torch.channels_last)
        x = image
        maps = []
        for name, part in self._chain(sensor):
            x = part(x)
            if mask is not None and name == self._stem[-1]:
                if token is None:
                    raise ValueError("a mask needs its token")
                x = insert_mask_token(x, token, mask, replace=replace)
            if name in self._maps:
                maps.append(x)
        return maps

    def _chain(self, sensor: str | None) -> Iterator[tuple[str, nn.Module]]:
        stem = self if sensor is None else self.stems[sensor]
        for name in self._stem:
            yield name, getattr(stem, name)
        for name in self._body:
            yield name, getattr(self, name)

    def first_convolution(self, sensor: str | None = None) -> nn.Conv2d:
        """The layer that the pixels of a sensor meet first."""
        name, _ = self._sensor(sensor)
        stem = nn.ModuleList(part for _, part in self._chain(name))
        return next(layer for layer in stem.modules() if isinstance(layer, nn.Conv2d))

    def _sensor(self, sensor: str | None) -> tuple[str | None, int]:
        """The sensor whose stem serves (None where one serves all), and its number of bands."""
        if isinstance(self.bands, int):
            return None, self.bands
        sensor = resolve_sensor(list(self.bands), sensor)
        return sensor, self.bands[sensor]

    def features_of(self, maps: list[Tensor], image: Tensor) -> EncoderFeatures:
        """`Features` of `encode`'s maps."""
        return EncoderFeatures(pooled=maps[-1].mean(dim=(2, 3)), maps=maps)


class PointwiseConv2d(nn.Conv2d):
    """A 1 x 1 convolution by the faster of torch's matrix libraries (`swath.cpu.linear`).

    torch leaves it to the slower one if it has one thread and fewer than 16 images, but not if the kernel is
    dilated; which for a single pixel is no change.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        dilation = 2 if input.device.type == "cpu" and cpu_matmul() == "onednn" else 1
        return F.conv2d(input, self.weight, self.bias, self.stride, 0, dilation, self.groups)


def _timm_stages(architecture: str, bands: int, options: Mapping[str, Any]) -> Any:
    """timm's network up to its last map, as the chain that its forward pass is (`FeatureListNet`)."""
    import timm  # takes seconds to import
    from timm.models import FeatureListNet

    if architecture not in (names := timm.list_models()):  # without tags: nothing to download
        raise SwathError(f"timm has no model {architecture!r}.{suggest(architecture, names)}")
    if "pretrained" in options:
        raise SwathError("an encoder starts without weights: load them with load_state_dict")
    wanted = "a chain of stages with maps at strides 4, 8, 16 and 32"
    try:
        every: Any = timm.create_model(architecture, in_chans=bands, features_only=True, **options)
        reductions = list(every.feature_info.reduction())
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise SwathError(f"timm's {architecture!r} gives no feature maps ({error}): take {wanted}") from None
    if type(every) is not FeatureListNet or not set(STRIDES) <= set(reductions):
        kind = type(every).__name__
        raise SwathError(
            f"timm's {architecture!r} is not {wanted} (it is a {kind} with strides {reductions}); "
            "resnet, resnext, regnet and convnext models are"
        )
    if tuple(reductions) == STRIDES:
        return every
    indices = [reductions.index(stride) for stride in STRIDES]
    return timm.create_model(architecture, in_chans=bands, features_only=True, out_indices=indices, **options)


def _stem(plan: Any, architecture: str) -> tuple[list[str], int]:
    """Names of what comes before the first stage at stride 4, where a mask token goes, and its channels."""
    x = torch.empty(2, 3, 64, 64, device="meta")
    names: list[str] = []
    try:
        for name, part in plan.eval().items():
            if x.shape[-1] * STRIDES[0] == 64 and name in plan.return_layers:
                return names, x.shape[1]
            x = part(x)
            names.append(name)
    except (RuntimeError, AssertionError) as error:
        raise SwathError(f"timm's {architecture!r} does not take images of any size ({error})") from None
    raise SwathError(f"timm's {architecture!r} has no stage that starts at stride 4, where a mask token goes")


register_encoder("cnn")(CNN)  # any of timm's that fits
for _depth in (18, 34, 50, 101, 152):
    register_encoder(f"resnet{_depth}")(partial(CNN, architecture=f"resnet{_depth}"))
# Ours, for work without a GPU: a ResNet-18 of half the width.
register_encoder("resnet_nano")(
    partial(CNN, architecture="resnet18", options={"channels": (32, 64, 128, 256)})
)
