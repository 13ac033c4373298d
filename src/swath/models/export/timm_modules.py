"""Our encoders where a network of timm is expected: by what it gives, or by name.

`TimmBackbone` is what ``timm.create_model(..., features_only=True)`` gives: called with images it returns a
list of maps, finest first, and its ``feature_info`` tells channels and strides. `TimmClassifier` is what it
gives without ``features_only``. `register_with_timm` gives a model directory a name in timm's registry, by
which whatever builds its backbones through timm finds it; segmentation-models-pytorch (as ``tu-NAME``) and
TorchGeo's tasks do::

    register_with_timm("swath_coast", "runs/first/model", gsd=0.3, scale=255)
    timm.create_model("swath_coast", pretrained=True, features_only=True)
    torchgeo.trainers.ClassificationTask(model="swath_coast", weights=True, in_channels=3, num_classes=10)
    torchgeo.trainers.SemanticSegmentationTask(model="unet", backbone="tu-swath_coast", weights=True, ...)

timm's networks know neither sensor nor scale, so both are fixed here; a GSD a batch can still be given to
``FeatureMaps(image, gsd)``. Images come in the sensor's unit (divided by `scale`, if the pipeline does so)
and are standardized inside, by the contract: do not standardize them before. The first batch is checked.

Legend: B images, C bands, H x W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from swath.datasets.chip import Batch
from swath.encoders.pooling import pool
from swath.encoders.protocol import EncoderFeatures, create_model, size_divisor
from swath.encoders.pyramid import STRIDES, build_pyramid
from swath.errors import ContractError
from swath.models.directory import load_encoder, read_config
from swath.models.model import Model


class _Prepared(nn.Module):
    """Images as others have them -> a normalized batch; what both kinds of networks begin with."""

    def __init__(self, model: Model, gsd: float | None, sensor: str | None, scale: float) -> None:
        super().__init__()
        if not scale > 0:
            raise ContractError(f"scale is a positive number, not {scale:g}")
        self.contract = model.contract.model_copy(update={"transpose": False})
        self.transpose = model.contract.transpose
        self.sensor = model.contract.sensor(sensor).name
        self.scale = scale
        self._gsd = gsd
        self._looked = False
        if gsd is not None or model.contract.reference_size is None:
            self.contract.gsd(gsd, 1, STRIDES[-1])  # a GSD that is missing is missed now

    def ready(self, image: Tensor, gsd: Any = None) -> Batch:
        """[B, C, H, W] as they come -> normalized, upright."""
        image = image.float() * self.scale
        if not self._looked:
            self.contract.check(image, self.sensor)
            self._looked = True
        own = self.contract.gsd(self._gsd if gsd is None else gsd, len(image), image.shape[3])
        batch: Batch = {"image": image, "gsd": own.to(image.device), "sensor": self.sensor}
        return self.contract.normalize(batch)


class TimmBackbone(_Prepared):
    """A model as a backbone of dense tasks: maps at strides 4, 8, 16 and 32 of images of any size.

    Args:
        model: Whose encoder it is (shared, not copied).
        gsd: Metres per pixel of the images (in relative mode: how much coarser than the reference).
        sensor: What they were taken with; may be left out where the model knows one sensor.
        scale: What brings pixels into the sensor's unit: 255 where they were divided by it.
        out_indices: Which of the four maps, counted from the finest; negative ones from the coarsest.
        layers: Of a plain transformer, the four blocks they come from; by default spread evenly.

    Attributes:
        feature_info: timm's, with ``channels()`` and ``reduction()`` of the maps that are given.
        output_fmt: "NCHW".

    Raises:
        ContractError: An unknown sensor; a model in metres without a GSD.
    """

    output_fmt = "NCHW"

    def __init__(
        self,
        model: Model,
        gsd: float | None = None,
        sensor: str | None = None,
        *,
        scale: float = 1.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        layers: Sequence[int] | None = None,
    ) -> None:
        from timm.models import FeatureInfo

        super().__init__(model, gsd, sensor, scale)
        count = len(STRIDES)
        if not out_indices or not all(-count <= i < count for i in out_indices):
            raise ValueError(f"out_indices are numbers from 0 to {count - 1}, not {list(out_indices)}")
        self.out_indices = tuple(sorted(i % count for i in out_indices))
        self.pyramid = build_pyramid(model.encoder, self.sensor, layers=layers, transpose=self.transpose)
        told = [
            {"num_chs": channels, "reduction": stride, "module": f"pyramid.levels.{i}"}
            for i, (channels, stride) in enumerate(
                zip(self.pyramid.channels, self.pyramid.strides, strict=True)
            )
        ]
        self.feature_info = FeatureInfo(told, self.out_indices)

    def forward(self, image: Tensor, gsd: Any = None) -> list[Tensor]:
        """Maps [B, channels[i], ceil(H / stride), ceil(W / stride)], finest first.

        Args:
            image: [B, C, H, W] in the sensor's unit, divided by `scale`.
            gsd: Of these images, one number or one an image, in place of the fixed one.
        """
        batch = self.ready(image, gsd)
        maps = self.pyramid(batch["image"], batch["gsd"], self.sensor)
        return [maps[i] for i in self.out_indices]


class TimmClassifier(_Prepared):
    """A model with a linear layer on its embedding, as timm's classifiers are.

    Args:
        model: Whose encoder it is (shared, not copied).
        num_classes: 0: the embedding itself.
        gsd: As of `TimmBackbone`.
        sensor: As there.
        scale: As there.

    Attributes:
        num_features: D, the length of an embedding.
    """

    def __init__(
        self,
        model: Model,
        num_classes: int = 0,
        gsd: float | None = None,
        sensor: str | None = None,
        *,
        scale: float = 1.0,
    ) -> None:
        super().__init__(model, gsd, sensor, scale)
        self.encoder, self.pooling = model.encoder, model.pooling
        self.num_features = self.head_hidden_size = model.embed_dim
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Another head, freshly initialized."""
        self.num_classes = num_classes
        self.head: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def forward_features(self, image: Tensor) -> Tensor:
        """Embeddings [B, D]; what the encoder needs to divide the images is padded, as nodata."""
        batch = self.ready(image)
        step = size_divisor(self.encoder, self.sensor)
        image = batch["image"]
        padded = nn.functional.pad(image, (0, -image.shape[3] % step, 0, -image.shape[2] % step))
        padded = padded.transpose(2, 3) if self.transpose else padded
        return pool(cast(EncoderFeatures, self.encoder(padded, batch["gsd"], self.sensor)), self.pooling)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits [B, K] of embeddings."""
        return features if pre_logits else self.head(features)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, K], or embeddings [B, D] without classes."""
        return self.forward_head(self.forward_features(image))


def register_with_timm(
    name: str,
    path: str | Path,
    gsd: float | None = None,
    sensor: str | None = None,
    *,
    scale: float = 1.0,
) -> str:
    """Give the model in a directory a name in timm's registry, for this process.

    ``timm.create_model(name, pretrained=True)`` then reads it; with ``pretrained=False`` the weights are
    random. It takes ``features_only``, ``out_indices``, ``num_classes``, ``in_chans`` and ``scale``.

    Args:
        name: Letters, digits and underscores; none that timm has.
        path: A model directory; checksums are verified when it is read.
        gsd: As of `TimmBackbone`.
        sensor: As there.
        scale: As there.

    Returns:
        `name`.

    Raises:
        CheckpointError: No model directory.
        ContractError: The name; an unknown sensor; a model in metres without a GSD.
    """
    import timm

    if not name.isidentifier():
        raise ContractError(f"a name in timm's registry is letters, digits and underscores, not {name!r}")
    if timm.is_model(name):
        raise ContractError(f"timm has a model {name!r} already: choose another name")
    config = read_config(path)

    def entry(
        pretrained: bool = False,
        *,
        features_only: bool = False,
        num_classes: int = 0,
        in_chans: int | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        scale: float = scale,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
    ) -> nn.Module:
        model = load_encoder(path)
        if not pretrained:
            model.encoder = create_model(config["encoder"]["name"], **config["encoder"]["options"])
        bands = len(model.contract.sensor(sensor).bands)
        if in_chans is not None and in_chans != bands:
            raise ContractError(f"in_chans={in_chans}: {name} was trained on {bands} bands")
        if features_only:
            return TimmBackbone(model, gsd, sensor, scale=scale, out_indices=out_indices)
        return TimmClassifier(model, num_classes, gsd, sensor, scale=scale)

    _Prepared(load_encoder(path), gsd, sensor, scale)  # mistakes show now rather than when it is used
    entry.__name__ = name
    timm.models.register_model(entry)
    return name


__all__ = ["TimmBackbone", "TimmClassifier", "register_with_timm"]
