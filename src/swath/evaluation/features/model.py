"""Features of a model."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from swath.datasets.chip import Batch
from swath.encoders import EncoderFeatures
from swath.encoders.pooling import pool
from swath.errors import ContractError, ImageryError
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.protocol import GsdMode
from swath.models.model import Model

if TYPE_CHECKING:
    pass


class ModelFeatureExtractor:
    """A model as a feature extractor.

    Args:
        model: The model.
        name: In tables; the model's by default.
        pooling: "mean", "mean_std" or "cls" instead of the model's own.
        gsd_mode: How scale is given to the model; by default as its contract says. ``metres``: the data's
            GSD. ``relative``: in units of the contract's reference, by the side alone: 1 at the contract's
            reference size or, where it has none, at the images' native side. (Whether true metres help a
            given model on given data is to be measured, not assumed.)
        reference_side: Relative mode: side in pixels at which GSD is 1, instead of the contract's.
        statistics: ``bank`` standardizes bands by mean and standard deviation over the train split, instead
            of by the contract's.
        shares: Another feature extractor of the same model; encodings of its last batch are used again. For
            several poolings, of which each costs nearly nothing then (see `read_outs`).
    """

    def __init__(
        self,
        model: Model,
        name: str | None = None,
        pooling: str | None = None,
        gsd_mode: GsdMode | None = None,
        *,
        reference_image_size: int | None = None,
        statistics: Literal["contract", "train"] = "contract",
        fractions: ModelFeatureExtractor | None = None,
    ) -> None:
        self.model = model
        self.name = name or model.name
        self.pooling = pooling or model.pooling
        self.gsd_mode: GsdMode = gsd_mode or model.contract.gsd_mode
        self.min_image_size = model.min_size
        self.settings: dict[str, Any] = {
            "model": model.id,
            "pooling": self.pooling or "the encoder's own",
            "gsd_mode": self.gsd_mode,
        }
        if reference_image_size is not None:
            self.settings["gsd"] = f"{reference_image_size} / side"
        if statistics == "train":
            self.settings["statistics"] = "of the bank"
        self.learns = statistics == "train"
        self._reference_side = reference_image_size
        self._reader = model  # the model with the statistics that images are standardized by
        self._checked = False
        if fractions is not None and (fractions.model is not model or fractions.gsd_mode != self.gsd_mode):
            raise ContractError(
                f"{self.name} cannot share the encodings of {fractions.name}: another model or GSD"
            )
        self._source: ModelFeatureExtractor = fractions or self
        self._keeps = False
        if fractions is not None:
            fractions._keeps = True
        self._last: tuple[Tensor, EncoderFeatures] | None = None
        self._identity: tuple[Any, str] | None = None

    @classmethod
    def scale_mae(cls, model: Model, name: str | None = None) -> ModelFeatureExtractor:
        """A model as Scale-MAE's released evaluation reads it, whatever its contract says.

        The class token after the last norm; positions by 224 / side; bands standardized by the data's own
        statistics (theirs are constants of each data set, ours are measured on the train split).
        """
        return cls(model, name, "cls", "relative", reference_image_size=224, statistics="train")

    @property
    def identity(self) -> str:
        """Hash of the encoder's weights and structure, and of the contract."""
        from swath.evaluation.features.hashing import module_hash

        source = self._source
        # Weights that were changed in place since then have another version.
        state = [(p.data_ptr(), p._version) for p in self.model.encoder.parameters()]
        if source._identity is None or source._identity[0] != state:
            contract = {k: v for k, v in self.model.contract.to_dict().items() if k != "gsd_range"}
            text = module_hash(self.model.encoder) + json.dumps(contract, sort_keys=True)
            source._identity = state, hashlib.sha256(text.encode()).hexdigest()
        return source._identity[1]

    def fit(self, part: EvalSubset, image_size: int) -> None:
        """A model is trained already; only the bands' statistics may be those of the train split."""
        if self.learns:
            sensor = part.dataset.sensor
            measured = sensor.with_statistics(*_band_statistics(part), f"{part.name} images")
            contract = self.model.contract
            sensors = {**contract.sensors, sensor.name: measured}
            self._reader = Model(
                self.model.encoder,
                contract.model_copy(update={"sensors": sensors}),
                name=self.model.name,
                pooling=self.model.pooling,
            )

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        """[B, D] embeddings.

        Raises:
            ContractError: The images do not fit the model's contract (looked at in the first batch).
        """
        return pool(self._source._encode(batch), self.pooling)

    def _encode(self, batch: Batch) -> EncoderFeatures:
        """Of this batch; at once if it is the last one again."""
        if self._last is not None and self._last[0] is batch["image"]:
            return self._last[1]
        contract = self._reader.contract
        if not self._checked:
            contract.check(batch["image"], batch["sensor"], valid=batch.get("valid"))
            self._checked = True
        count, width = len(batch["image"]), batch["image"].shape[-1]
        gsd: Any = batch["gsd"]
        if self._reference_side is not None:
            gsd = contract.reference_gsd * self._reference_side / width
        elif self.gsd_mode == "relative" and contract.reference_size is not None:
            gsd = contract.reference_size / width
        elif self.gsd_mode == "relative":
            gsd = gsd * contract.reference_gsd
        # Says once when a scale is one that training has never seen.
        found = self._reader.encode_batch({**batch, "gsd": contract.gsd(gsd, count, width)})
        if self._keeps:
            self._last = (batch["image"], found)
        return found


def _band_statistics(part: EvalSubset) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each band over the valid pixels of all images of a part."""
    count, total, square = 0.0, torch.zeros(()), torch.zeros(())
    for start in range(0, len(part.indices), 64):
        batch = part.dataset.get_batch(part.indices[start : start + 64])
        image = batch["image"].double()
        valid = batch["valid"] if "valid" in batch else torch.ones_like(image[:, 0], dtype=torch.bool)
        values = image.movedim(1, 0)[:, valid]  # [C, pixels]
        count += values.shape[1]
        total, square = total + values.sum(dim=1), square + values.square().sum(dim=1)
    if not count:
        raise ImageryError(f"the {part.name} images have no valid pixel to measure bands on")
    mean = total / count
    return mean.tolist(), (square / count - mean.square()).clamp_min(1e-12).sqrt().tolist()
