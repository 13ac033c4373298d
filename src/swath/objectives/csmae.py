"""CSMAE: masked autoencoders across sensors (Hackstein et al., arXiv 2401.07782).

1. A place is seen by several sensors, in co-registered images. Of each image half of the patches is hidden.
2. The encoder looks at each sensor's visible patches, one sensor at a time
   (`swath.encoders.multi_sensor`: what is each sensor's own there, and what all share, is the encoder's
   choice: sensor-*specific* or sensor-*common*).
3. Decoders rebuild hidden patches, of the same sensor (uni-modal) and of every other one (cross-modal), from
   one sensor's tokens alone (`swath.objectives.modules.cross_sensor_decoder`). Each *target* sensor has a
   decoder of its own, or all have a common one.
4. The embeddings of the masked views of one place are pulled together across sensors (NT-Xent).

The paper's four variants are SESD, SECD, CESD and CECD: Specific or Common Encoder, then Decoder.

Beyond the paper: any number of sensors; grids that differ (an aerial image at 3 m, a radar image at 10 m)
when the encoder is scale-aware, where the decoder asks for the target's patches by their place on the
ground; nodata.

Legend: B places, N patches of an image, K visible, M scored ones, P numbers a patch, D encoder's, d decoder's
width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from swath.augmentations.geometric import paired_random_crop, random_flip_rotate
from swath.datasets.chip import Batch
from swath.datasets.collation import split_by_sensor
from swath.encoders.multi_sensor import ONLY, MultiSensorViT
from swath.encoders.positions import gsd_positions
from swath.errors import ContractError, RecipeError, suggest
from swath.keyed_random import uniform
from swath.objectives.csmae_config import CSMAEConfig
from swath.objectives.losses.contrastive import nt_xent, paired_softplus
from swath.objectives.modules.cross_sensor_decoder import (
    CrossSensorDecoder,
    ReconstructionTarget,
    TokenLayout,
    normalize_patches,
    patchify_rows,
    reconstruction_losses,
    take_rows,
)
from swath.objectives.modules.masking import PatchMasking, mask_pixels, random_masking
from swath.objectives.protocol import Losses, register_objective


@dataclass(frozen=True, slots=True)
class DecodingPath:
    """One reconstruction: from a source sensor's tokens to patches of a target sensor.

    Attributes:
        source: Sensor whose tokens are decoded.
        target: Sensor whose patches are predicted.
        place: The split that says where on the target's grid the tokens stand; None: grids differ, and the
            target's patches are asked for by their place on the ground.
        scored: [B, M] flat indices of the target's patches that count in the loss.
        key: Equal for routes whose decoder sees the same: a common decoder then runs once for both.
    """

    source: str
    target: str
    place: PatchMasking | None
    scored: Tensor
    key: tuple[str, ...]


@register_objective("csmae", CSMAEConfig)
class CSMAE(nn.Module):
    """Masked autoencoding within and across sensors, with contrast between them.

    Args:
        encoder: A `MultiSensorViT`. With one sensor and without cross-modal losses this is a plain masked
            autoencoder.
        config: Options.

    Raises:
        RecipeError: Encoder and options do not fit together.
    """

    def __init__(self, encoder: nn.Module, config: CSMAEConfig) -> None:
        super().__init__()
        if not isinstance(encoder, MultiSensorViT):
            raise RecipeError(
                f"csmae needs an encoder with branches for sensors, and {type(encoder).__name__} has none; "
                "use a vit_multi_sensor_*"
            )
        names = list(encoder.bands)
        if len(names) == 1 and (config.crossmodal or config.mim_weight or config.mde_weight):
            raise RecipeError(
                f"objective: {names[0]} is the only sensor, so crossmodal must be false and mim_weight and "
                "mde_weight 0; or name more sensors"
            )
        if config.masking == "disjoint" and len(names) != 2:
            raise RecipeError(f"objective.masking: disjoint is for two sensors, and there are {len(names)}")
        for name in config.target_weights:
            if name not in names:
                raise RecipeError(f"objective.target_weights: {name!r} is no sensor.{suggest(name, names)}")
        self.encoder = encoder
        self.config = config
        self.compares_samples = bool(config.mim_weight)
        self._contrasts = bool(config.mim_weight or config.mde_weight)
        if encoder.fc_norm is not None and not self._contrasts:
            encoder.fc_norm.requires_grad_(False)  # nothing would train it; it stays the identity that it is
        self._weights = {name: config.target_weights.get(name, 1.0) for name in names}
        pixels = {n: encoder.patch_sizes[n] ** 2 * encoder.bands[n] for n in names if self._weights[n]}
        if not pixels:
            raise RecipeError("objective.target_weights are all 0: nothing is reconstructed")
        sizes = (encoder.embed_dim, config.decoder_dim, config.decoder_depth, config.decoder_heads)
        if config.decoder == "common":
            self.decoder = CrossSensorDecoder(*sizes, pixels)
        else:
            self.decoders = nn.ModuleDict(
                {name: CrossSensorDecoder(*sizes, {name: count}) for name, count in pixels.items()}
            )

    # ---- what is shown

    def views(self, batch: Batch) -> dict[str, Any]:
        """Normalized batch of pairs -> images of each sensor, oriented alike, and the numbers behind masks.

        Returns:
            `image`, `gsd`, `valid`, `noise`, each a mapping sensor -> [B, C, H, W], [B], [B, H, W], [B, N].

        Raises:
            ContractError: A sensor of the encoder is not in the batch.
        """
        sensors = split_by_sensor(batch)
        if list(self.encoder.bands) == [ONLY]:
            sensors = {ONLY: next(iter(sensors.values()))}
        missing = [name for name in self.encoder.bands if name not in sensors]
        if missing:
            raise ContractError(
                f"csmae trains on places seen by {', '.join(self.encoder.bands)}, but the data have no "
                f"{', '.join(missing)}: only {', '.join(sensors)}"
            )
        sensors = {name: sensors[name] for name in self.encoder.bands}
        if self.config.crop_scale is not None:
            sensors = paired_random_crop(sensors, scale=self.config.crop_scale, stream="csmae/crop")
        views: dict[str, Any] = {"image": {}, "gsd": {}, "valid": {}, "noise": {}}
        for name, one in sensors.items():
            if self.config.orientation != "none":
                diagonal = self.config.orientation == "dihedral"
                one = random_flip_rotate(one, diagonal=diagonal, stream="csmae/orientation")
            rows, columns = self.encoder.grid(one["image"], name)
            views["image"][name] = one["image"]
            views["gsd"][name] = one["gsd"]
            views["valid"][name] = one.get("valid")
            noise = uniform(batch["key"], f"csmae/mask/{name}", rows * columns)
            views["noise"][name] = noise.to(one["image"].device)
        return views

    def split(self, noise: Mapping[str, Tensor]) -> dict[str, PatchMasking]:
        """Which patches of each sensor are visible, from `noise` sensor -> [B, N]."""
        ratio, names = self.config.mask_ratio, list(noise)
        if self.config.masking == "random":
            return {name: random_masking(one, ratio) for name, one in noise.items()}
        first = random_masking(noise[names[0]], ratio)
        if self.config.masking == "identical":
            return dict.fromkeys(names, first)
        count = first.restore.shape[1]
        second = PatchMasking(
            shuffle=first.shuffle.flip(1),
            restore=count - 1 - first.restore,
            num_visible=int(
                count * (1 - (1 - ratio))
            ),  # rounded down like the first's: one may be seen by neither
        )
        return {names[0]: first, names[1]: second}

    # ---- what is asked

    def routes(
        self, splits: Mapping[str, PatchMasking], grids: Mapping[str, tuple[int, int]]
    ) -> Iterator[DecodingPath]:
        """All reconstructions, uni-modal and cross-modal, of a batch with these splits."""
        for target in splits:
            if not self._weights[target]:
                continue
            for source in splits:
                if source == target and self.config.unimodal:
                    yield DecodingPath(source, target, splits[source], splits[source].hidden, (source,))
                elif source != target and self.config.crossmodal:
                    yield self._across(source, target, splits, grids)

    def _across(
        self,
        source: str,
        target: str,
        splits: Mapping[str, PatchMasking],
        grids: Mapping[str, tuple[int, int]],
    ) -> DecodingPath:
        own, other = splits[source], splits[target]
        if grids[source] != grids[target]:
            return DecodingPath(source, target, None, other.hidden, (source, target))
        if self.config.reconstruction == "source":
            return DecodingPath(source, target, own, own.hidden, (source,))
        if self.config.reconstruction == "target":
            return DecodingPath(source, target, own, other.hidden, (source,))
        if self.config.masking != "identical":
            return DecodingPath(source, target, other, other.hidden, (source, "at", target))
        mirrored = PatchMasking(own.shuffle.flip(1), own.restore.shape[1] - 1 - own.restore, own.num_visible)
        return DecodingPath(source, target, mirrored, own.keep, (source, "mirrored"))

    def forward(self, views: Mapping[str, Any]) -> Losses:
        """Losses by name; `total` is their weighted sum. Reconstruction losses are means over samples."""
        grids = self._grids(views)
        splits = self.split(views["noise"])
        keep = {name: split.keep for name, split in splits.items()}
        latents = self.encoder.encode(views["image"], views["gsd"], keep)
        pixels = {name: self._pixels(views, name, grid) for name, grid in grids.items()}
        total: Any = 0.0
        losses: Losses = {}
        for group in self._grouped(self.routes(splits, grids)):
            first = group[0]
            loss, parts = reconstruction_losses(
                self._decoder(first.target),
                latents[first.source],
                self._place(first, keep, views["gsd"], grids),
                [self._wanted(route, *pixels[route.target]) for route in group],
                self.config.pixel_loss,
            )
            total = total + loss
            losses |= {
                f"{route.target}_from_{route.source}": p for route, p in zip(group, parts, strict=True)
            }
        if self._contrasts:
            pooled = {name: self.encoder.head(latent) for name, latent in latents.items()}
            pairs = [(pooled[a], pooled[b]) for a, b in combinations(pooled, 2)]
            if self.config.mim_weight:
                mim = torch.stack([nt_xent(a, b, self.config.temperature) for a, b in pairs]).mean()
                total, losses["mim"] = total + self.config.mim_weight * mim, mim.detach()
            if self.config.mde_weight:
                mde = torch.stack([paired_softplus(a, b) for a, b in pairs]).mean()
                total, losses["mde"] = total + self.config.mde_weight * mde, mde.detach()
        return {"total": total, **losses}

    def _grids(self, views: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
        grids = {name: self.encoder.grid(image, name) for name, image in views["image"].items()}
        if len(set(grids.values())) > 1:
            listed = ", ".join(f"{name} {rows} x {columns}" for name, (rows, columns) in grids.items())
            if not self.encoder.scale_aware:
                raise ContractError(
                    f"the sensors' grids of patches differ ({listed}), and this encoder counts patches. Set "
                    "encoder.options.scale_aware, or a patch_size for each sensor that covers the same ground"
                )
            if self.config.masking != "random" or (
                self.config.crossmodal and self.config.reconstruction != "target"
            ):
                raise ContractError(
                    f"the sensors' grids of patches differ ({listed}): use masking random and, across "
                    "sensors, reconstruction target"
                )
        return grids

    def _grouped(self, routes: Iterable[DecodingPath]) -> list[list[DecodingPath]]:
        """Routes that one run of a decoder serves: those that see the same, where the decoder is common."""
        groups: dict[tuple[str, ...], list[DecodingPath]] = {}
        for route in routes:
            key = route.key if self.config.decoder == "common" else (*route.key, "for", route.target)
            groups.setdefault(key, []).append(route)
        return list(groups.values())

    def _place(
        self,
        route: DecodingPath,
        keep: Mapping[str, Tensor],
        gsd: Mapping[str, Tensor],
        grids: Mapping[str, tuple[int, int]],
    ) -> TokenLayout:
        """Where the source's tokens stand for the decoder."""
        grid, step = grids[route.target], self.encoder.step(gsd[route.source], route.source)
        if route.place is not None:
            return TokenLayout(
                grid, route.place.num_visible, (step, route.place.shuffle, route.place.restore)
            )

        def positions(sensor: str, step: Tensor, at: Tensor) -> Tensor:
            return gsd_positions(
                *grids[sensor], self.config.decoder_dim, step, cls=False, at=at, centered=True
            )

        seen = positions(route.source, step, keep[route.source])
        there = self.encoder.step(gsd[route.target], route.target)
        return TokenLayout(grid, None, (seen, positions(route.target, there, route.scored)))

    def _decoder(self, target: str) -> CrossSensorDecoder:
        decoder = self.decoder if self.config.decoder == "common" else self.decoders[target]
        assert isinstance(decoder, CrossSensorDecoder)
        return decoder

    @torch.no_grad()
    def _pixels(
        self, views: Mapping[str, Any], sensor: str, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None]:
        """All patches of a sensor [B, N, P], and which of their numbers are valid (None: all)."""
        image, valid = views["image"][sensor], views["valid"].get(sensor)
        weight = None
        if valid is not None and not (valid.device.type == "cpu" and bool(valid.all())):
            weight = patchify_rows(valid.unsqueeze(1).float(), grid)
            weight = weight.repeat_interleave(image.shape[1], dim=2)  # the band is fastest
        return patchify_rows(image, grid).float(), weight

    @torch.no_grad()
    def _wanted(self, route: DecodingPath, patches: Tensor, valid: Tensor | None) -> ReconstructionTarget:
        """What a route is compared with, of all patches [B, N, P] of its target."""
        pixels = take_rows(patches, route.scored)
        some = None if valid is None else take_rows(valid, route.scored)
        if self.config.norm_pix:
            pixels = normalize_patches(pixels, some)
        return ReconstructionTarget(route.target, self._weights[route.target], route.scored, pixels, some)

    # ---- for the engine and for people

    def after_step(self, step: int, total_steps: int) -> None:
        """Nothing to do."""

    @torch.no_grad()
    def predictions(self, views: Mapping[str, Any]) -> dict[tuple[str, str], Tensor]:
        """Every reconstruction: (source, target) -> [B, N, p * p * C].

        Across different grids, patches that were not asked for are zero.
        """
        grids, splits = self._grids(views), self.split(views["noise"])
        keep = {name: split.keep for name, split in splits.items()}
        latents = self.encoder.encode(views["image"], views["gsd"], keep)
        found = {}
        for route in self.routes(splits, grids):
            decoder, place = self._decoder(route.target), self._place(route, keep, views["gsd"], grids)
            pixels = decoder.pred[route.target](decoder(latents[route.source], place))
            if route.place is None:
                rows, columns = grids[route.target]
                whole = pixels.new_zeros(len(pixels), rows * columns, pixels.shape[-1])
                index = route.scored.unsqueeze(-1).expand_as(pixels)
                pixels = whole.scatter(1, index, pixels)
            found[route.source, route.target] = pixels
        return found

    @torch.no_grad()
    def images(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        """For each sensor its image, what is visible of it, and what was rebuilt, from itself and others.

        Names begin with the sensor's, "sensor: what". In what was rebuilt from itself the visible patches
        are the image's own; a reconstruction from another sensor is shown whole.
        """
        splits = self.split(views["noise"])
        predictions = self.predictions(views)
        shown: dict[str, Tensor] = {}
        for name, image in views["image"].items():
            grid, side = self.encoder.grid(image, name), self.encoder.patch_sizes[name]
            hidden = mask_pixels(splits[name].mask, grid, side)
            shown[f"{name}: image"] = image
            shown[f"{name}: visible"] = image.masked_fill(hidden, 0.0)
            for (source, target), pixels in predictions.items():
                if target != name or self.config.norm_pix:  # standardized patches are not pixels to look at
                    continue
                rebuilt = pixels.float().view(len(image), *grid, side, side, -1)
                rebuilt = rebuilt.permute(0, 5, 1, 3, 2, 4).reshape(image.shape)
                if source == name:
                    rebuilt = torch.where(hidden, rebuilt, image)
                shown[f"{name}: from {'itself' if source == name else source}"] = rebuilt
        return shown
