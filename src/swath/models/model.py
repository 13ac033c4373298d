"""A trained model in use: imagery in its sensor's unit in, embeddings out.

Legend: N images, B of them at a time, C bands, H x W pixels, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from swath.datasets.chip import Batch
from swath.datasets.collation import map_tensors
from swath.encoders.pooling import pool
from swath.encoders.protocol import EncoderFeatures, size_divisor
from swath.errors import ContractError
from swath.models.contract import Contract
from swath.sensors.sensor import Sensor


class Model(nn.Module):
    """An encoder with its contract.

    Attributes:
        encoder: Any `swath.encoders.Encoder`.
        contract: Which imagery it takes.
        name: Short name of the model.
        id: The name and 12 digits of a hash over everything that decides an embedding (weights, encoder,
            contract, pooling): what an archive remembers. Ends in "unsaved" before `save_model`.
        pooling: How features become one embedding ("mean", "mean_std", "cls"), or None for the encoder's own.
        config: The model directory's config.json (empty for a model that was never saved).
        output: What `answer` gives: "embedding"; of models that do a task "probabilities" or "detections".
        dates: Images that are looked at together: 1, or 2 of a model that finds changes.
    """

    output: str = "embedding"
    dates: int = 1

    def __init__(
        self,
        encoder: nn.Module,
        contract: Contract,
        *,
        name: str = "model",
        fingerprint: str = "unsaved",
        pooling: str | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.contract = contract
        self.name = name
        self.id = f"{name}-{fingerprint[:12]}"
        self.pooling = pooling
        self.config = config or {}
        self.eval()

    def __repr__(self) -> str:
        """Name, sensors, GSD range and width of an embedding; ``print(model.encoder)`` shows the layers."""
        low, high = self.contract.gsd_range or (None, None)
        gsd = "any" if low is None else f"{low:g} to {high:g}"
        unit = " m" if low is not None and self.contract.gsd_mode == "metres" else ""
        return (
            f"{type(self).__name__}({self.name!r}, sensors={list(self.contract.sensors)}, "
            f"gsd={gsd + unit!r}, embed_dim={self.embed_dim})"
        )

    @property
    def embed_dim(self) -> int:
        """Length of one embedding under the model's own pooling."""
        return self.embed_dim_of(self.pooling)

    def embed_dim_of(self, pooling: str | None) -> int:
        """Length of one embedding under `pooling`."""
        width = int(cast(Any, self.encoder).embed_dim)
        return 2 * width if pooling == "mean_std" else width

    @property
    def encoder_model(self) -> Model:
        """The model that embeds: itself, or the encoder of one that does a task."""
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.encoder.parameters()).device

    @property
    def min_size(self) -> int:
        """The side, in pixels, of which height and width must be multiples."""
        return int(max(cast(Any, self.encoder).strides))

    @torch.inference_mode()
    def embed(
        self,
        images: Any,
        gsd: Any = None,
        sensor: str | Sensor | None = None,
        valid: Any = None,
        *,
        bands: Sequence[str] | None = None,
        batch_size: int = 64,
        pooling: str | None = None,
    ) -> Tensor:
        """Embeddings [N, D], float32, on the CPU, as the encoder gives them (not scaled to unit length).

        One image gives the same as in a batch, to rounding.

        Args:
            images: Array or tensor [N, C, H, W], or [C, H, W] for one image, in the sensor's unit, bands in
                its order; H and W multiples of `min_size`.
            gsd: Metres per pixel (in relative mode: how much coarser than the reference), one number or one
                an image. May be left out in relative mode where the model has a reference size.
            sensor: What the images were taken with; may be left out where the model knows one sensor.
            valid: [N, H, W] bool, False for nodata; NaN and infinity count as nodata by themselves.
            bands: Names of the images' bands in their order, to be compared with the sensor's.
            batch_size: Images at a time; the result does not depend on it.
            pooling: "mean", "mean_std" or "cls" instead of the model's own.

        Raises:
            ContractError: The imagery does not fit the contract; the message says how to put it right.
        """
        batch = self._batch(images, gsd, sensor, valid, bands)
        parts = [
            self.embed_batch(_rows(batch, start, start + batch_size), pooling=pooling).float().cpu()
            for start in range(0, len(batch["image"]), max(1, batch_size))
        ]
        return torch.cat(parts) if parts else torch.empty(0, self.embed_dim_of(pooling or self.pooling))

    def embed_file(
        self,
        path: str | Path,
        *,
        gsd: float | str | None = None,
        sensor: str | Sensor | None = None,
        pooling: str | None = None,
    ) -> Tensor:
        """Embedding [D] of a whole raster or photograph, read as the contract asks for.

        Rows and columns at the end that do not fill `min_size` are left out.

        Args:
            path: An image file.
            gsd: Metres per pixel, if the file does not state it.
            sensor: What it was taken with; may be left out where the model knows one sensor.
            pooling: "mean", "mean_std" or "cls" instead of the model's own.

        Raises:
            ImageryError: The file cannot be read, lacks bands of the sensor, or has no GSD.
            ContractError: The model does not know the sensor, or the image is smaller than `min_size`.
        """
        from swath.datasets.opening import open_dataset

        known = self.contract.sensor(sensor)
        if gsd is None and self.contract.gsd_mode == "relative":
            gsd = "relative"
        batch = open_dataset(path, sensor=known, gsd=gsd, layout="images").get_batch([0])
        step = size_divisor(self.encoder, known.name)
        height, width = (max(step, side // step * step) for side in batch["image"].shape[2:])
        cut = {name: batch[name][..., :height, :width] for name in ("image", "valid") if name in batch}
        return self.embed(cut["image"], batch["gsd"], known, cut.get("valid"), pooling=pooling)[0]

    def features(
        self,
        images: Any,
        gsd: Any = None,
        sensor: str | Sensor | None = None,
        valid: Any = None,
        *,
        bands: Sequence[str] | None = None,
    ) -> EncoderFeatures:
        """Tokens, maps and pooled embedding of images in one go, on the model's device.

        With gradients if they are enabled. Arguments and errors as for `embed`.
        """
        batch = self._batch(images, gsd, sensor, valid, bands)
        return self._encode(self.contract.normalize(_to(batch, self.device)))

    def forward(self, images: Any, gsd: Any = None, sensor: str | None = None) -> Tensor:
        """Embeddings [N, D] on the model's device, with gradients if they are enabled."""
        return pool(self.features(images, gsd, sensor), self.pooling)

    def embed_batch(self, batch: Batch, *, pooling: str | None = None) -> Tensor:
        """Embeddings [B, D], on the model's device, of a batch as data sets collate it.

        Does not look at values: for loops that have checked their imagery (`Contract.check`) once.
        """
        return pool(self.encode_batch(batch), pooling or self.pooling)

    def encode_batch(self, batch: Batch) -> EncoderFeatures:
        """All that the encoder says of such a batch, on the model's device; several poolings may share it."""
        return self._encode(self.contract.normalize(_to(batch, self.device)))

    def infer(self, image: Tensor, gsd: Tensor, sensor: str) -> Tensor:
        """What the model is for, as a function of tensors alone, which can be exported: embeddings [B, D].

        Args:
            image: [B, C, H, W] normalized, no data 0, as the user sees it (not transposed).
            gsd: [B] relative to the reference.
            sensor: Name of the images' sensor.
        """
        if self.contract.transpose:
            image = image.transpose(2, 3)
        return pool(self.encoder(image, gsd, sensor), self.pooling)

    def _encode(self, ready: Batch) -> EncoderFeatures:
        height, width = ready["image"].shape[2:]
        step = size_divisor(self.encoder, ready["sensor"])
        if height % step or width % step:
            fit = [max(step, side // step * step) for side in (height, width)]
            raise ContractError(
                f"images of {height} x {width} pixels: this model takes multiples of {step}. Crop them, or "
                f"resize them and state the new GSD, to {fit[0]} x {fit[1]} for example."
            )
        features: EncoderFeatures = self.encoder(ready["image"], ready["gsd"], ready["sensor"])
        return _transposed(features) if self.contract.transpose else features

    def _batch(
        self, images: Any, gsd: Any, sensor: str | Sensor | None, valid: Any, bands: Sequence[str] | None
    ) -> Batch:
        try:
            image = torch.as_tensor(images)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ContractError(
                f"images are one array or tensor [N, bands, height, width] of numbers ({error})"
            ) from None
        if image.ndim == 3:
            image = image.unsqueeze(0)
        if valid is not None:
            valid = torch.as_tensor(valid, dtype=torch.bool)
            valid = valid.unsqueeze(0) if valid.ndim == 2 else valid
            wanted = [len(image), *image.shape[2:]]
            if list(valid.shape) != wanted:
                raise ContractError(f"valid is {list(valid.shape)}, but for these images {wanted} is wanted")
            valid = valid.to(image.device)
        own = self.contract.check(image, sensor, bands=bands, valid=valid)
        if image.dtype not in (torch.uint8, torch.float32):
            image = image.to(torch.float32)
        batch: Batch = {
            "image": image,
            "gsd": self.contract.gsd(gsd, len(image), image.shape[3]),
            "sensor": own.name,
        }
        if valid is not None:
            batch["valid"] = valid
        return batch


def _rows(batch: Batch, start: int, stop: int) -> Batch:
    return cast(Batch, {k: v[start:stop] if isinstance(v, Tensor) else v for k, v in batch.items()})


def _to(batch: Batch, device: torch.device) -> Batch:
    return map_tensors(batch, lambda x: x.to(device, non_blocking=True))


def _transposed(features: EncoderFeatures) -> EncoderFeatures:
    """Undo `Contract.transpose`: maps and tokens of the image as the caller has it."""
    maps = [grid.transpose(2, 3) for grid in features.maps]
    tokens = features.tokens
    if tokens is not None:
        # Tokens are the finest or the coarsest map, whichever has as many places.
        height, width = next(m.shape[2:] for m in maps if m.shape[2] * m.shape[3] == tokens.shape[1])
        tokens = tokens.reshape(len(tokens), width, height, -1).transpose(1, 2).flatten(1, 2)
    return EncoderFeatures(pooled=features.pooled, maps=maps, tokens=tokens, cls=features.cls)
