"""Features of a labelled data set at several image scales: what every score is computed from.

A **featurizer** turns a batch, as data sets collate it, into one vector an image. A `Part` is a data set and
which of its images take part (a fold, a split). `extract` reads every image once and makes from it the
features of all featurizers at all scales, by area resampling, with the GSD following the resampling.

Legend: N images, B in a batch, C bands, D feature dimensions; a side is that of a square image in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swath.encoders import Features
from swath.encoders.pooling import pool
from swath.errors import ContractError, ImageryError
from swath.imagery.chip import Batch
from swath.imagery.samples import ImageDataset, Problem
from swath.models.model import Model

Progress = Callable[[int, int], None]  # (images done, images in all)
GsdMode = Literal["metres", "relative"]


class Featurizer(Protocol):
    """Anything that describes images by vectors: a model, or a baseline that needs no training.

    Attributes:
        name: In tables and files; unique in an evaluation.
        min_side: Sides must be multiples of it.
        settings: What its features depend on, JSON-safe; goes into the configuration's hash.
    """

    name: str
    min_side: int
    settings: dict[str, Any]

    def fit(self, part: Part, side: int) -> None:
        """Look at images of the bank (never of the queries) where features depend on data."""
        ...

    def __call__(self, batch: Batch) -> Tensor:
        """[B, D] float features of a batch in the sensor's unit."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Some images of a labelled data set: the bank or the queries.

    Attributes:
        dataset: With labels.
        indices: [N] positions in it.
        name: What to call it in reports ("train", "val").
    """

    dataset: ImageDataset
    indices: NDArray[np.int64]
    name: str

    @property
    def labels(self) -> NDArray[np.int64]:
        """[N] class indices."""
        labels = self.dataset.labels
        if labels is None:
            raise ImageryError(
                f"the {self.name} images have no labels: use class folders or a CSV with a class column"
            )
        return np.asarray(labels)[self.indices]

    @property
    def paths(self) -> list[str]:
        """The images' files, in the order of `indices`."""
        return [self.dataset.paths[i] for i in self.indices]


@dataclass(slots=True)
class Extracted:
    """Features of one part.

    Attributes:
        features: (featurizer name, side) -> [N, D] float32, N the images that could be read.
        labels: [N] int64.
        indices: [N] their positions in the data set.
        problems: (file, reason) of images that could not be read.
    """

    features: dict[tuple[str, int], Tensor]
    labels: Tensor
    indices: NDArray[np.int64]
    problems: list[Problem] = field(default_factory=list)


class ModelFeaturizer:
    """A model as a featurizer.

    Args:
        model: The model.
        name: In tables; the model's by default.
        pooling: "mean", "moments" or "cls" instead of the model's own.
        gsd_mode: How scale is told to the model; by default as its contract says. ``metres``: the data's GSD.
            ``relative``: in units of the contract's reference, by the side alone: 1 at the contract's
            reference size or, where it has none, at the images' native side. (Whether true metres help a
            given model on given data is to be measured, not assumed.)
        shares: Another featurizer of the same model; encodings of its last batch are used again. For
            several poolings, of which each costs nearly nothing then (see `read_outs`).
    """

    def __init__(
        self,
        model: Model,
        name: str | None = None,
        pooling: str | None = None,
        gsd_mode: GsdMode | None = None,
        *,
        shares: ModelFeaturizer | None = None,
    ) -> None:
        self.model = model
        self.name = name or model.name
        self.pooling = pooling or model.pooling
        self.gsd_mode: GsdMode = gsd_mode or model.contract.gsd_mode
        self.min_side = model.min_size
        self.settings: dict[str, Any] = {
            "model": model.id,
            "pooling": self.pooling or "the encoder's own",
            "gsd_mode": self.gsd_mode,
        }
        self._checked = False
        if shares is not None and (shares.model is not model or shares.gsd_mode != self.gsd_mode):
            raise ContractError(
                f"{self.name} cannot share the encodings of {shares.name}: another model or GSD"
            )
        self._source: ModelFeaturizer = shares or self
        self._keeps = False
        if shares is not None:
            shares._keeps = True
        self._last: tuple[Tensor, Features] | None = None

    def fit(self, part: Part, side: int) -> None:
        """A model is trained already."""

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        """[B, D] embeddings.

        Raises:
            ContractError: The images do not fit the model's contract (looked at in the first batch).
        """
        return pool(self._source._encode(batch), self.pooling)

    def _encode(self, batch: Batch) -> Features:
        """Of this batch; at once if it is the last one again."""
        if self._last is not None and self._last[0] is batch["image"]:
            return self._last[1]
        contract = self.model.contract
        if not self._checked:
            contract.check(batch["image"], batch["sensor"], valid=batch.get("valid"))
            self._checked = True
        count, width = len(batch["image"]), batch["image"].shape[-1]
        gsd: Any = batch["gsd"]
        if self.gsd_mode == "relative" and contract.reference_size is not None:
            gsd = contract.reference_size / width
        elif self.gsd_mode == "relative":
            gsd = gsd * contract.reference_gsd
        # Says once when a scale is one that training has never seen.
        found = self.model.encode_batch({**batch, "gsd": contract.gsd(gsd, count, width)})
        if self._keeps:
            self._last = (batch["image"], found)
        return found


def read_outs(model: Model, poolings: Sequence[str], name: str | None = None) -> list[ModelFeaturizer]:
    """Featurizers of one model, one a pooling, that encode each batch once; called "NAME, POOLING"."""
    found: list[ModelFeaturizer] = []
    for pooling in poolings:
        label = f"{name or model.name}, {pooling}"
        found.append(ModelFeaturizer(model, label, pooling, shares=found[0] if found else None))
    return found


def resize_batch(batch: Batch, side: int) -> Batch:
    """Resize a batch to side x side pixels by area; `gsd` grows by the geometric mean of the two factors.

    A pixel of the result is the mean of the valid pixels that it covers, and valid where they cover half of
    it. Where `side` is larger than the image, pixels are repeated.
    """
    image = batch["image"]
    height, width = image.shape[2:]
    if (height, width) == (side, side):
        return batch
    ready: Batch = {**batch, "gsd": batch["gsd"] * ((height * width) ** 0.5 / side)}
    valid = batch.get("valid")
    if valid is None or bool(valid.all()):
        ready["image"] = _area(image.float(), side)
        if valid is not None:
            ready["valid"] = torch.ones(len(image), side, side, dtype=torch.bool, device=image.device)
        return ready
    mask = valid.unsqueeze(1)
    covered = _area(mask.float(), side)
    total = _area(image.float().masked_fill(~mask, 0.0), side)
    ready["valid"] = covered[:, 0] > 0.4999  # so that exactly a half survives rounding
    ready["image"] = torch.where(ready["valid"].unsqueeze(1), total / covered.clamp_min(1e-6), 0.0)
    return ready


def _area(image: Tensor, side: int) -> Tensor:
    return F.interpolate(image, size=(side, side), mode="area")


def extract(
    featurizers: Sequence[Featurizer],
    part: Part,
    sides: Sequence[int],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Extracted:
    """Features of all images of `part` by all featurizers at all sides; every image is read once.

    Images that cannot be read are left out and listed.

    Raises:
        ContractError: A side that does not fit a featurizer (`usable_sides` tells beforehand), or images
            that do not fit a model's contract.
        ImageryError: Not one image could be read.
    """
    _, refused = usable_sides(sides, featurizers)
    if refused:
        raise ContractError("; ".join(refused))
    rows: dict[tuple[str, int], list[Tensor]] = {(f.name, s): [] for f in featurizers for s in sides}
    kept: list[Tensor] = []
    problems: list[Problem] = []
    done = 0
    for count, batch in _batches(part, batch_size):
        problems.extend(batch.get("problems", []))
        if len(batch["image"]):
            kept.append(batch["index"])
            for side in sides:
                scaled = resize_batch(batch, side)
                for featurizer in featurizers:
                    rows[featurizer.name, side].append(featurizer(scaled).float().cpu())
        done += count
        if progress is not None:
            progress(done, len(part.indices))
    if not kept:
        reason = f"; the first: {problems[0][1]}" if problems else ""
        raise ImageryError(f"none of the {len(part.indices)} {part.name} images could be read{reason}")
    indices = torch.cat(kept).numpy()
    labels = torch.as_tensor(np.asarray(part.dataset.labels)[indices], dtype=torch.int64)
    return Extracted({key: torch.cat(parts) for key, parts in rows.items()}, labels, indices, problems)


def _batches(part: Part, size: int) -> Iterator[tuple[int, Any]]:
    """(images asked for, batch), each read by a second thread while the one before is worked on."""
    chunks = [part.indices[start : start + size] for start in range(0, len(part.indices), size)]
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(part.dataset.get_batch, chunks[0]) if chunks else None
        for chunk, following in zip(chunks, [*chunks[1:], None], strict=True):
            assert coming is not None
            batch = coming.result()
            coming = reader.submit(part.dataset.get_batch, following) if following is not None else None
            yield len(chunk), batch


def usable_sides(sides: Sequence[int], featurizers: Sequence[Featurizer]) -> tuple[list[int], list[str]]:
    """Sides that all featurizers can take, and for each other one the reason why it is refused."""
    good, refused = [], []
    for side in sides:
        misfit = next((f for f in featurizers if side < f.min_side or side % f.min_side), None)
        if misfit is None:
            good.append(side)
            continue
        step = misfit.min_side
        if side < step:
            refused.append(f"{side} px is less than one patch of {misfit.name} ({step} px)")
        else:
            near = round(side / step) * step
            refused.append(f"{side} px is no multiple of {misfit.name}'s patch ({step} px); {near} would be")
    return good, refused
