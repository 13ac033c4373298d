"""Scene classification: an image has one class, or any number of labels.

The head is what the literature fine-tunes with (MAE, CMID): the pooled features, normalized over the batch,
and one linear layer. Mixup, CutMix and label smoothing as in CMID's protocol on UC Merced.

Legend: B images, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from swath.augmentations.geometric import random_resized_crop
from swath.datasets.chip import Batch
from swath.encoders.pooling import Pooling, mean_std_pool, pool
from swath.encoders.protocol import EncoderFeatures, size_divisor
from swath.models.card import TaskCard
from swath.models.contract import Contract
from swath.objectives.protocol import Losses
from swath.sensors.sensor import Sensor
from swath.tasks.augmentation import AugmentConfig, MixConfig, TaskAugmentation, mixup_cutmix
from swath.tasks.classification.data import ClassificationDataConfig, open_classification
from swath.tasks.classification.report import class_examples
from swath.tasks.classification.scoring import score_images
from swath.tasks.dense.losses import weighted_cross_entropy
from swath.tasks.protocol import Task, TaskConfig, register_task
from swath.tasks.scores import TaskScores
from swath.tasks.splits import DataSplits


class ClassificationConfig(TaskConfig):
    """Options of the task ``classify``.

    Attributes:
        multilabel: Whether an image may have several labels, or none; the data tell.
        pooling: mean, mean_std or cls; left out: as the model does.
        norm: ``batch`` normalizes pooled features and learns no scale, as MAE's linear probing; or ``none``.
        dropout: Share of the pooled features that training drops.
        crop_scale: Share of an image's area that a training crop keeps; it is resized to the image's size.
        augment: Orientation and color.
        mixup: Mixup and CutMix.
        label_smoothing: Share of a target that is spread over all classes.
        class_weights: ``balanced`` counts rare classes more (see `swath.tasks.dense.losses.class_weights`),
            or a number a class.
    """

    multilabel: bool = False
    pooling: Pooling | None = None
    norm: Literal["batch", "none"] = "batch"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    crop_scale: tuple[float, float] = (0.5, 1.0)
    augment: AugmentConfig = AugmentConfig()
    mixup: MixConfig = MixConfig()
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None


@register_task("classify", ClassificationConfig)
class ClassificationTask(Task):
    """Classes or labels of whole images."""

    data_config = ClassificationDataConfig
    gsd_option = "data.size with data.resize_mode=resize"
    card: ClassVar[TaskCard | None] = TaskCard(
        "names the class of an image", "[N, bands, height, width]",
        "probabilities [N, {classes}] of the classes", "image-classification", "scene-classification",
        ("batch", "class"),
    )  # fmt: skip
    config: ClassificationConfig
    weights: Tensor | None

    def __init__(self, encoder: nn.Module, config: ClassificationConfig, contract: Contract) -> None:
        super().__init__(config, contract)
        self.encoder = encoder
        self.augment = TaskAugmentation(config.augment, contract.sensor())
        self.compares_samples = bool(config.mixup.mixup or config.mixup.cutmix)
        width = int(encoder.embed_dim) * (2 if config.pooling == "mean_std" else 1)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6) if config.norm == "batch" else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, len(config.classes))
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        weights = config.class_weights if isinstance(config.class_weights, tuple) else None
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    @classmethod
    def open_data(cls, data: Any, path: str | Path, sensor: Sensor, *, options: Any, seed: int) -> DataSplits:
        """See `Task`."""
        return open_classification(data, path, sensor, seed, options.classes)

    @classmethod
    def options_from_data(cls, splits: DataSplits) -> dict[str, Any]:
        """Labels with a row of zeros and ones per image are multi-label."""
        return {"multilabel": splits.train.labels.ndim == 2}

    def score(
        self,
        dataset: Any,
        contract: Contract,
        device: torch.device,
        *,
        scale: float = 1.0,
        intervals: bool = True,
    ) -> TaskScores:
        """See `Task`; images keep their size."""
        return score_images(self, contract, dataset, device)

    def report_sections(self, model: Any, dataset: Any, scores: TaskScores) -> list[str]:
        """The images with the worst and the best scores."""
        return [class_examples(model, dataset, scores)]

    def views(self, batch: Batch) -> Mapping[str, Any]:
        """`image` [B, C, H, W], `gsd` [B], and `target` [B, K]: shares of classes, or labels."""
        size = tuple(batch["image"].shape[2:])
        if self.config.crop_scale != (1.0, 1.0):
            batch = random_resized_crop(batch, size, scale=self.config.crop_scale)  # type: ignore[arg-type]
        batch = self.augment(batch)
        target = self._target(batch["label"])
        image, target = mixup_cutmix(batch["image"], target, batch["key"], self.config.mixup)
        return {"image": image, "gsd": batch["gsd"], "target": target}

    def forward(self, views: Mapping[str, Any]) -> Losses:
        """The loss as `total`, and the share of images (or labels) that are right as `accuracy`."""
        logits = self.logits(views["image"], views["gsd"]).float()
        target = views["target"]
        if self.config.multilabel:
            terms = F.binary_cross_entropy_with_logits(logits, target, weight=self.weights, reduction="none")
            return {"total": terms.mean(), "accuracy": ((logits > 0) == (target > 0.5)).float().mean()}
        total = weighted_cross_entropy(logits, target, self.weights)
        return {"total": total, "accuracy": (logits.argmax(1) == target.argmax(1)).float().mean()}

    def logits(self, image: Tensor, gsd: Tensor) -> Tensor:
        """[B, K] of normalized images of any size; what an encoder needs to divide them is padded, as 0."""
        step = size_divisor(self.encoder, self.sensor)
        image = F.pad(image, (0, -image.shape[3] % step, 0, -image.shape[2] % step))
        features: EncoderFeatures = self.encoder(
            image.transpose(2, 3) if self.transpose else image, gsd, self.sensor
        )
        if self.config.pooling == "mean_std":
            places = features.tokens
            places = features.maps[-1].flatten(2).transpose(1, 2) if places is None else places
            pooled = mean_std_pool(places, floor=1e-6)
        else:
            pooled = pool(features, self.config.pooling)
        return self.head(self.dropout(self.norm(pooled)))  # type: ignore[no-any-return]

    def predict(self, batch: Batch) -> Tensor:
        """Probabilities [B, K]; of several labels each by itself."""
        logits = self.logits(batch["image"], batch["gsd"]).float()
        return logits.sigmoid() if self.config.multilabel else logits.softmax(dim=1)

    def images(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        """The augmented images."""
        return {"image": views["image"]}

    def _target(self, label: Tensor) -> Tensor:
        count = len(self.config.classes)
        target = label.float() if label.ndim == 2 else F.one_hot(label, count).float()
        if self.config.label_smoothing and not self.config.multilabel:
            target = target * (1 - self.config.label_smoothing) + self.config.label_smoothing / count
        return target
