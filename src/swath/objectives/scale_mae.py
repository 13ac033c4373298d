"""Scale-MAE: a masked autoencoder that knows how large a pixel is (Reed et al., ICCV 2023, arXiv 2212.14532).

1. A random crop of the image is the *target*; shrunk to half its side it is the *source*. Both know their
   GSD, so crops of many sizes show the encoder many scales.
2. Three quarters of the source's patches are hidden. The encoder sees the others, with positions measured on
   the ground (`swath.encoders.positions`).
3. A light transformer fills the hidden patches in, and a convolutional pyramid turns the tokens into pixels
   twice: low frequencies at the source's size, high frequencies at the target's, twice as large.
4. The loss compares both with the bands of the target, at hidden patches only.

The class token goes into the encoder but not into the decoder, so its output is never trained: pool the mean
of the patch tokens instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from swath.augmentations.geometric import random_flip_rotate, random_resized_crop
from swath.cpu.linear import OneDnnLinear
from swath.datasets.chip import Batch
from swath.encoders.positions import gsd_positions
from swath.encoders.vit import EPS, Block, ViT, init_weights
from swath.errors import RecipeError
from swath.keyed_random import uniform
from swath.objectives.losses.chunked import chunked_loss
from swath.objectives.losses.reconstruction import (
    area_resize,
    low_pass,
    masked_area_resize,
    patch_loss,
    take_patches,
)
from swath.objectives.losses.texture import TextureTarget, whiten_first_layer
from swath.objectives.modules.masking import PatchMasking, fill_masked, mask_pixels, random_masking
from swath.objectives.modules.pixel_decoder import FrequencyBandDecoder, LinearHeads
from swath.objectives.protocol import Losses, ObjectiveConfig, register_objective

_ONE_SENSOR = "pixels"  # key of the output layer when the encoder does not tell sensors apart


class ScaleMAEConfig(ObjectiveConfig):
    """Options of Scale-MAE. Sizes are in pixels; the target's side is always twice the source's.

    The released code and the paper build the two bands differently; `frequency` chooses. With T the target's
    side, area(n) the area average to n x n and up() bilinear enlargement:

    - "released": low = area(T / 2); high = target - up(area(high_pass)), by default with T / 64, which is 7
      for 448. Squared errors. With `low_pass` = n, low = area(T / 2) of area(n): the code's band_config
      [b1, b2] is high_pass b1, and low_pass 224 if b2 is 224 (any other b2 has no effect there).
    - "paper": low = up(area(low_pass)) at T / 2, with T / 32 (14 for 448); high = target -
      up(area(high_pass)), with T / 8 (56). Absolute error for high, squared for low.
    """

    source_size: int = Field(224, gt=0, description="Side of the image that the encoder sees.")
    source_filter: Literal["area", "bilinear"] = Field(
        "area",
        description="How the target becomes the source; 'bilinear' is the released code's, which aliases.",
    )
    crop_scale: tuple[float, float] = Field((0.2, 1.0), description="Range of a crop's share of the image.")
    orientation: Literal["none", "flip", "dihedral"] = Field(
        "dihedral", description="Random orientation: none, left-right flips, or all eight of a square."
    )
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="Share of patches hidden from the encoder.")

    decoder_dim: int = Field(512, gt=0, description="Width of the decoder's transformer.")
    decoder_depth: int = Field(3, ge=0, description="Its blocks.")
    decoder_heads: int = Field(16, gt=0, description="Its attention heads.")
    head: Literal["pyramid", "linear"] = Field(
        "pyramid",
        description="From tokens to pixels: the paper's convolutions, or one linear map a band (ours).",
    )
    fcn_dim: int = Field(512, gt=0, description="Width of the pyramid's heads.")
    fcn_layers: int = Field(2, ge=0, description="Residual blocks in each of them.")
    independent_heads: bool = Field(True, description="One head for each band, or one for both.")
    progressive: bool = Field(False, description="High branch continues from the low one.")

    frequency: Literal["released", "paper"] = Field("released", description="Construction of the bands.")
    low_pass: int | None = Field(None, gt=0, description="See above; None is the default of `frequency`.")
    high_pass: int | None = Field(None, gt=0, description="See above; None is the default of `frequency`.")
    high_loss: Literal["l1", "l2"] | None = Field(None, description="None: l2 in released, l1 in paper.")
    high_weight: float = Field(1.0, ge=0, description="Weight of the high band's loss.")
    texture_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of predicting each hidden patch's texture energies (ours; see texture).",
    )
    patch_init: Literal["xavier", "whitened"] = Field(
        "xavier",
        description="The patch embedding begins as in MAE, or as whitened patches of the data (ours).",
    )

    head_chunk: int | None = Field(
        None,
        gt=0,
        description="Samples whose pixels are computed at a time; None chooses by memory. The result is the "
        "same up to the order of sums.",
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, data: Any) -> Any:
        """Put numbers for defaults that depend on other options, so that a stored recipe shows them."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        target = 2 * int(data.get("source_size", 224))
        paper = data.get("frequency", "released") == "paper"
        if data.get("high_pass") is None:
            data["high_pass"] = max(1, target // (8 if paper else 64))
        if data.get("low_pass") is None and paper:
            data["low_pass"] = max(1, target // 32)
        if data.get("high_loss") is None:
            data["high_loss"] = "l1" if paper else "l2"
        return data

    @model_validator(mode="after")
    def _check(self) -> ScaleMAEConfig:
        target = 2 * self.source_size
        assert self.high_pass is not None
        if not 1 <= self.high_pass < target:
            raise ValueError(f"high_pass must lie below the target's side {target}, not {self.high_pass}")
        if self.frequency == "paper" and not 1 <= (self.low_pass or 0) < self.source_size:
            raise ValueError(f"low_pass must lie below source_size {self.source_size}, not {self.low_pass}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale must be 0 < low <= high <= 1, not {list(self.crop_scale)}")
        if self.decoder_dim % self.decoder_heads or self.decoder_dim % 4:
            raise ValueError(
                f"decoder_dim {self.decoder_dim} must be a multiple of decoder_heads {self.decoder_heads} "
                "and of 4"
            )
        if self.head == "pyramid" and self.fcn_dim % 4:
            raise ValueError(f"fcn_dim must be a multiple of 4, not {self.fcn_dim}")
        if self.head == "linear":
            unused = {"fcn_dim", "fcn_layers", "independent_heads", "progressive"} & self.model_fields_set
            changed = [
                name for name in unused if getattr(self, name) != type(self).model_fields[name].default
            ]
            if changed:
                raise ValueError(f"{', '.join(sorted(changed))}: only head 'pyramid' has this; remove it")
        return self


@register_objective("scale_mae", ScaleMAEConfig)
class ScaleMAE(nn.Module):
    """Masked autoencoding at known scale: low and high frequencies from a quarter of the patches.

    Args:
        encoder: A ViT of this library.
        config: Options.

    Raises:
        RecipeError: Encoder and options do not fit together.
    """

    def __init__(self, encoder: nn.Module, config: ScaleMAEConfig) -> None:
        super().__init__()
        if not isinstance(encoder, ViT):
            raise RecipeError(
                f"scale_mae hides patches from the encoder, and {type(encoder).__name__} cannot do that; "
                "use a vit_*"
            )
        p = encoder.patch_size
        if config.source_size % p or p % 2:
            raise RecipeError(
                f"objective.source_size {config.source_size} must be a multiple of the encoder's patch size "
                f"{p}, and the patch size even"
            )
        if int((config.source_size // p) ** 2 * (1 - config.mask_ratio)) == 0:
            raise RecipeError(f"objective.mask_ratio {config.mask_ratio} leaves no patch to see")
        self.encoder = encoder
        self.config = config
        bands = encoder.bands if isinstance(encoder.bands, dict) else {_ONE_SENSOR: encoder.bands}
        self.decoder = ScaleMAEDecoder(encoder.embed_dim, p, bands, config)
        self.texture: TextureTarget | None = None
        if (config.texture_weight or config.patch_init == "whitened") and len(bands) > 1:
            raise RecipeError(
                "objective.texture_weight and patch_init 'whitened' learn their filters from one sensor; "
                f"this encoder has {', '.join(bands)}"
            )
        if config.texture_weight:
            self.texture = TextureTarget(next(iter(bands.values())))
            if 2 * p < self.texture.kernel.shape[-1]:
                raise RecipeError(
                    "objective.texture_weight needs patches of at least "
                    f"{self.texture.kernel.shape[-1]} target pixels, and a patch of {p} has {2 * p}"
                )
            self.texture_head = OneDnnLinear(config.decoder_dim, self.texture.dim)
            init_weights(self.texture_head)

    def views(self, batch: Batch) -> dict[str, Any]:
        """Normalized batch -> target crop, source, their GSDs and the numbers that decide the mask.

        Returns:
            `image` [B, C, S, S] and its `gsd` [B]; `target` [B, C, 2S, 2S], its `valid` [B, 2S, 2S] and
            `target_gsd` [B]; `noise` [B, N]; `sensor`.
        """
        size = 2 * self.config.source_size
        crop = random_resized_crop(batch, size, scale=self.config.crop_scale, stream="scale_mae/crop")
        return self.view(self.oriented(crop, "scale_mae/orientation"), "scale_mae/mask")

    def view(self, crop: Batch, stream: str) -> dict[str, Any]:
        """The view of a crop of the target's size; `stream` names the decision of what is hidden."""
        size, valid = self.config.source_size, crop.get("valid")
        weight = None if valid is None else valid[:, None].float()
        if self.config.source_filter == "area":
            image, _ = masked_area_resize(crop["image"], weight, (size, size))
        else:
            image = F.interpolate(crop["image"], size=(size, size), mode="bilinear", align_corners=True)
        patches = (size // self._patch) ** 2
        return {
            "image": image,
            "gsd": crop["gsd"] * 2,
            "target": crop["image"],
            "target_gsd": crop["gsd"],
            "valid": valid,
            "noise": uniform(crop["key"], stream, patches).to(image.device),
            "sensor": crop.get("sensor"),
        }

    def oriented(self, batch: Batch, stream: str) -> Batch:
        """The batch in each sample's random orientation."""
        if self.config.orientation == "none":
            return batch
        rotate = self.config.orientation == "dihedral"
        return random_flip_rotate(batch, rotate=rotate, stream=stream)

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Fit what is fitted to data before the first step (texture target, whitened patch embedding).

        Args:
            batch: Some hundred normalized samples, the same on every rank.
        """
        if self.texture is None and self.config.patch_init == "xavier":
            return
        views = ScaleMAE.views(self, batch)  # whatever other views a descendant makes
        if self.texture is not None:
            self.texture.fit(views["target"], 2 * self._patch)
        if self.config.patch_init == "whitened":
            whiten_first_layer(self.encoder.first_convolution(views.get("sensor")), views["image"])

    def forward(self, views: Mapping[str, Any]) -> Losses:
        """Losses of the views; `total` = low + high_weight * high (+ texture). Means over samples."""
        masking = random_masking(views["noise"], self.config.mask_ratio)
        return self.compare(self.decode(views, masking), masking, views)

    def compare(self, tokens: Tensor, masking: PatchMasking, views: Mapping[str, Any]) -> Losses:
        """Losses, as `forward`, of decoded tokens [B, g_h, g_w, d] against the target of `views`."""
        grid = (tokens.shape[1], tokens.shape[2])
        low, high, low_weight, high_weight = self.targets(views["target"], views.get("valid"))
        sensor = self._sensor(views)

        def patches(x: Tensor | None) -> Tensor | None:
            return None if x is None else take_patches(x.permute(0, 2, 3, 1), masking.hidden, grid)

        kind = self.config.high_loss or "l2"

        def low_loss(x: Tensor, hidden: Tensor, low: Tensor, weight: Tensor, *_: Tensor) -> Tensor:
            return patch_loss(self.decoder.pixels.low(x, hidden, sensor), low, weight, "l2").sum()

        def high_loss(
            x: Tensor, hidden: Tensor, _l: Tensor, _w: Tensor, high: Tensor, weight: Tensor
        ) -> Tensor:
            error = patch_loss(self.decoder.pixels.high(x, hidden, sensor), high, weight, kind)
            return self.config.high_weight * error.sum()

        sums = chunked_loss(
            self.decoder.pixels,
            (low_loss, high_loss),
            tokens,
            (masking.hidden, patches(low), patches(low_weight), patches(high), patches(high_weight)),
            self._chunk(tokens),
        )
        total, low_part, high_part = (sums / len(tokens)).unbind()
        losses = {"total": total, "low": low_part.detach(), "high": high_part.detach()}
        if self.texture is not None:
            texture = self.config.texture_weight * self._texture_loss(tokens, masking, grid, views)
            losses |= {"total": total + texture, "texture": texture.detach()}
        return losses

    def _texture_loss(
        self, tokens: Tensor, masking: PatchMasking, grid: tuple[int, int], views: Mapping[str, Any]
    ) -> Tensor:
        """Squared error of the hidden patches' texture energies; a patch with any nodata is left out."""
        assert self.texture is not None
        hidden = tokens.flatten(1, 2).gather(1, masking.hidden[..., None].expand(-1, -1, tokens.shape[-1]))
        target = views["target"].permute(0, 2, 3, 1)
        wanted = self.texture(take_patches(target, masking.hidden, grid))
        error = (self.texture_head(hidden).float() - wanted).square().mean(dim=2)
        valid = views.get("valid")
        if valid is None:
            mean: Tensor = error.mean()
            return mean
        whole = take_patches(valid.unsqueeze(-1), masking.hidden, grid).flatten(2).all(dim=2).float()
        mean = ((error * whole).sum(dim=1) / whole.sum(dim=1).clamp_min(1.0)).mean()
        return mean

    def decode(self, views: Mapping[str, Any], masking: PatchMasking, latent: Tensor | None = None) -> Tensor:
        """Views -> decoded token map [B, g_h, g_w, d], before it becomes pixels.

        Args:
            views: From `views`.
            masking: Which patches are seen.
            latent: [B, 1 + K, D], the encoder's tokens of those, where they are at hand already.
        """
        image, gsd = views["image"], views["gsd"]
        if latent is None:
            latent = self.encoder.encode(image, gsd, views.get("sensor"), keep=masking.keep)
        grid = (image.shape[2] // self._patch, image.shape[3] // self._patch)
        x: Tensor = self.decoder(latent, masking, self.encoder.step(gsd), grid)
        return x

    @torch.no_grad()
    def targets(
        self, target: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The two bands of a target image.

        Args:
            target: [B, C, T, T'].
            valid: [B, T, T'] bool, or None when all is valid.

        Returns:
            low [B, C, T / 2, T' / 2], high [B, C, T, T'] and their weights [B, 1, ...] (or None).
        """
        config = self.config
        full = (target.shape[2], target.shape[3])
        half = (full[0] // 2, full[1] // 2)

        def length(n: int) -> tuple[int, int]:  # options speak of a square target of the configured size
            scale = n / (2 * config.source_size)
            return max(1, round(full[0] * scale)), max(1, round(full[1] * scale))

        assert config.high_pass is not None
        target = target.float()
        weight = None if valid is None else valid[:, None].float()
        low_weight = None if weight is None else area_resize(weight, half)
        if config.low_pass is None:
            low, _ = masked_area_resize(target, weight, half)
        elif config.frequency == "released":
            small, share = masked_area_resize(target, weight, length(config.low_pass))
            low, _ = masked_area_resize(small, share, half)
        else:
            low = low_pass(target, weight, length(config.low_pass), half)
        high = target - low_pass(target, weight, length(config.high_pass), full)
        return low, high, low_weight, weight

    @torch.no_grad()
    def images(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        """Input, what was visible of it, both predicted bands, their combination (also with the visible
        patches of the input pasted in, as people know it from MAE), and the target.

        `combined` is the high band on what the low prediction says lies beneath it. In "paper" the bands
        leave a gap between `low_pass` and `high_pass`, which no prediction fills.
        """
        masking = random_masking(views["noise"], self.config.mask_ratio)
        tokens = self.decode(views, masking)
        sensor = self._sensor(views)
        low = self.decoder.pixels.low(tokens, None, sensor).permute(0, 3, 1, 2).float()
        high = self.decoder.pixels.high(tokens, None, sensor).permute(0, 3, 1, 2).float()
        full = (high.shape[2], high.shape[3])
        assert self.config.high_pass is not None
        scale = self.config.high_pass / (2 * self.config.source_size)
        beneath = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))
        hidden = mask_pixels(masking.mask, (tokens.shape[1], tokens.shape[2]), self._patch)
        combined = high + low_pass(low, None, beneath, full)
        hidden_there = F.interpolate(hidden.float(), size=full, mode="nearest-exact") > 0.5
        visible = F.interpolate(views["image"].float(), size=full, mode="nearest-exact")
        return {
            "input": views["image"],
            "masked": views["image"] * ~hidden,
            "low": low,
            "high": high,
            "combined": combined,
            "and visible": torch.where(hidden_there, combined, visible),
            "target": views["target"],
        }

    def after_step(self, step: int, total_steps: int) -> None:
        """Nothing: there is no teacher."""

    @property
    def _patch(self) -> int:
        return self.encoder.patch_size

    def _sensor(self, views: Mapping[str, Any]) -> str:
        if not isinstance(self.encoder.bands, dict):
            return _ONE_SENSOR
        sensor = views.get("sensor")
        return sensor if sensor is not None else next(iter(self.encoder.bands))

    def _chunk(self, tokens: Tensor) -> int:
        """Samples at a time: few on a CPU, where what fits the cache is quick; many on a GPU."""
        if self.config.head_chunk is not None:
            return self.config.head_chunk
        pixels = tokens.shape[1] * tokens.shape[2] * self._patch**2
        width = self.config.fcn_dim // 2 if self.config.head == "pyramid" else 8
        budget = 2**26 if tokens.device.type == "cpu" else 2**31
        return max(1, min(len(tokens), budget // (pixels * width * 4)))


class ScaleMAEDecoder(nn.Module):
    """From the encoder's tokens of the visible patches to the pixels of all.

    Args:
        encoder_dim: Width of the encoder.
        patch_size: Side p of its patches.
        bands: Sensor name -> number of bands.
        config: Options.
    """

    def __init__(
        self, encoder_dim: int, patch_size: int, bands: Mapping[str, int], config: ScaleMAEConfig
    ) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.embed = OneDnnLinear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.Sequential(*(Block(dim, config.decoder_heads) for _ in range(config.decoder_depth)))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        init_weights(self)
        nn.init.normal_(self.mask_token, std=0.02)
        self.pixels: FrequencyBandDecoder | LinearHeads
        if config.head == "pyramid":
            self.pixels = FrequencyBandDecoder(
                dim,
                config.fcn_dim,
                config.fcn_layers,
                patch_size,
                bands,
                independent=config.independent_heads,
                progressive=config.progressive,
            )
        else:
            self.pixels = LinearHeads(dim, patch_size, bands)

    def forward(self, latent: Tensor, masking: PatchMasking, gsd: Tensor, grid: tuple[int, int]) -> Tensor:
        """Encoder tokens [B, 1 + K, D], class token first, -> token map [B, g_h, g_w, d]."""
        x = fill_masked(self.embed(latent)[:, 1:], self.mask_token, masking)
        position = gsd_positions(*grid, x.shape[-1], gsd, cls=False)
        x = self.norm(self.blocks((x + position).to(self.mask_token.dtype)))
        tokens: Tensor = x.view(len(x), *grid, x.shape[-1])
        return tokens
