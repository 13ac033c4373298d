"""Features of a labelled data set at several image scales: what every score is computed from.

A **featurizer** turns a batch, as data sets collate it, into one vector an image. A `Part` is a data set and
which of its images take part (a fold, a split). `extract` reads every image once and makes from it the
features of all featurizers at all scales, by area resampling, with the GSD following the resampling.

Legend: N images, B in a batch, C bands, D feature dimensions; a side is that of a square image in pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.protocol import ImageDataset, Problem
from swath.encoders import EncoderFeatures
from swath.encoders.pooling import pool
from swath.errors import ContractError, ImageryError
from swath.models.model import Model

if TYPE_CHECKING:
    from swath.evaluation.features.cache import FeatureCache

Progress = Callable[[int, int], None]  # (images done, images in all)
GsdMode = Literal["metres", "relative"]


class FeatureExtractor(Protocol):
    """Anything that describes images by vectors: a model, or a baseline that needs no training.

    Attributes:
        name: In tables and files; unique in an evaluation.
        min_side: Sides must be multiples of it.
        settings: What its features depend on, JSON-safe; goes into the configuration's hash.

    Two further attributes let its features be cached (`swath.evaluation.features.cache`); without them they
    are computed every time:

    - ``identity``: a string that differs whenever the features of the same image may, such as a hash of the
      weights (settings need not be repeated in it);
    - ``learns``: whether `fit` looks at images (taken to be true where it is not said).
    """

    name: str
    min_side: int
    settings: dict[str, Any]

    def fit(self, part: EvalSubset, side: int) -> None:
        """Look at images of the bank (never of the queries) where features depend on data."""
        ...

    def __call__(self, batch: Batch) -> Tensor:
        """[B, D] float features of a batch in the sensor's unit."""
        ...


@dataclass(frozen=True, slots=True)
class EvalSubset:
    """Some images of a labelled data set: the bank or the queries.

    Attributes:
        dataset: With labels.
        indices: [N] positions in it.
        name: What to call it in reports ("train", "val").
        groups: [N] names of the ground (scene, city, sequence) that images share; "" for one of its own.
            What is learned from this part never validates on a group that it was fitted to.
    """

    dataset: ImageDataset
    indices: NDArray[np.int64]
    name: str
    groups: NDArray[Any] | None = None

    @property
    def labels(self) -> NDArray[Any]:
        """[N] int64 class indices, or [N, K] float32 of 0 and 1 where images have several labels."""
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
class FeatureSet:
    """Features of one part.

    Attributes:
        features: (featurizer name, side) -> [N, D] float32, N the images that could be read.
        labels: [N] int64 class indices, or [N, K] float32 of 0 and 1.
        indices: [N] their positions in the data set.
        problems: (file, reason) of images that could not be read.
    """

    features: dict[tuple[str, int], Tensor]
    labels: Tensor
    indices: NDArray[np.int64]
    problems: list[Problem] = field(default_factory=list)


class ModelFeatureExtractor:
    """A model as a featurizer.

    Args:
        model: The model.
        name: In tables; the model's by default.
        pooling: "mean", "moments" or "cls" instead of the model's own.
        gsd_mode: How scale is told to the model; by default as its contract says. ``metres``: the data's GSD.
            ``relative``: in units of the contract's reference, by the side alone: 1 at the contract's
            reference size or, where it has none, at the images' native side. (Whether true metres help a
            given model on given data is to be measured, not assumed.)
        reference_side: Relative mode: side in pixels at which GSD is 1, instead of the contract's.
        statistics: ``bank`` standardises bands by mean and standard deviation over the bank, instead of by
            the contract's.
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
        reference_side: int | None = None,
        statistics: Literal["contract", "bank"] = "contract",
        shares: ModelFeatureExtractor | None = None,
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
        if reference_side is not None:
            self.settings["gsd"] = f"{reference_side} / side"
        if statistics == "bank":
            self.settings["statistics"] = "of the bank"
        self.learns = statistics == "bank"
        self._reference_side = reference_side
        self._reader = model  # the model with the statistics that images are standardised by
        self._checked = False
        if shares is not None and (shares.model is not model or shares.gsd_mode != self.gsd_mode):
            raise ContractError(
                f"{self.name} cannot share the encodings of {shares.name}: another model or GSD"
            )
        self._source: ModelFeatureExtractor = shares or self
        self._keeps = False
        if shares is not None:
            shares._keeps = True
        self._last: tuple[Tensor, EncoderFeatures] | None = None
        self._identity: tuple[Any, str] | None = None

    @classmethod
    def scale_mae(cls, model: Model, name: str | None = None) -> ModelFeatureExtractor:
        """A model as Scale-MAE's released evaluation reads it, whatever its contract says.

        The class token after the last norm; positions by 224 / side; bands standardised by the data's own
        statistics (theirs are constants of each data set, ours are measured on the bank).
        """
        return cls(model, name, "cls", "relative", reference_side=224, statistics="bank")

    @property
    def identity(self) -> str:
        """Hash of the encoder's weights and structure, and of the contract."""
        from swath.evaluation.features.cache import module_hash

        source = self._source
        # Weights that were changed in place since then have another version.
        state = [(p.data_ptr(), p._version) for p in self.model.encoder.parameters()]
        if source._identity is None or source._identity[0] != state:
            contract = {k: v for k, v in self.model.contract.to_dict().items() if k != "gsd_range"}
            text = module_hash(self.model.encoder) + json.dumps(contract, sort_keys=True)
            source._identity = state, hashlib.sha256(text.encode()).hexdigest()
        return source._identity[1]

    def fit(self, part: EvalSubset, side: int) -> None:
        """A model is trained already; only the bands' statistics may be those of the bank."""
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


def pooling_variants(
    model: Model, poolings: Sequence[str], name: str | None = None
) -> list[ModelFeatureExtractor]:
    """Featurizers of one model, one a pooling, that encode each batch once; called "NAME, POOLING"."""
    found: list[ModelFeatureExtractor] = []
    for pooling in poolings:
        label = f"{name or model.name}, {pooling}"
        found.append(ModelFeatureExtractor(model, label, pooling, shares=found[0] if found else None))
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


CHUNK = 512  # images whose features are kept together


class FeatureBuffer:
    """Features of some images by one featurizer at one side, a chunk at a time; in memory."""

    def __init__(self) -> None:
        self._rows: dict[int, Tensor] = {}

    def has(self, chunk: int) -> bool:
        """Whether the features of that chunk need not be computed."""
        return chunk in self._rows

    def put(self, chunk: int, rows: Tensor, *, whole: bool) -> None:
        """Keep features; `whole` unless images of the chunk could not be read."""
        self._rows[chunk] = rows

    def rows(self, chunks: list[range]) -> list[Tensor]:
        """Features [n, D] of each chunk, once all are there; no rows where nothing could be read."""
        return [self._rows.get(number, torch.empty(0, 0)) for number in range(len(chunks))]


def extract_features(
    featurizers: Sequence[FeatureExtractor],
    part: EvalSubset,
    sides: Sequence[int],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    cache: FeatureCache | None = None,
    bank: tuple[EvalSubset, int] | None = None,
    fit: Callable[[FeatureExtractor], None] | None = None,
) -> FeatureSet:
    """Features of all images of `part` by all featurizers at all sides; every image is read at most once.

    Images that cannot be read are left out and listed.

    Args:
        featurizers: What describes the images.
        part: The images.
        sides: That they are resized to.
        batch_size: Images at a time; features do not depend on it.
        progress: Called with (images done, images in all).
        cache: Where features are looked for, and kept.
        bank: Part and side that featurizers are fitted to, for the cache.
        fit: Called with a featurizer before its features are computed (not if all are in the cache).

    Raises:
        ContractError: A side that does not fit a featurizer (`usable_sides` tells beforehand), or images
            that do not fit a model's contract.
        ImageryError: Not one image could be read.
    """
    _, refused = supported_image_sizes(sides, featurizers)
    if refused:
        raise ContractError("; ".join(refused))
    shelves: dict[tuple[str, int], FeatureBuffer] = {
        (f.name, side): cache.shelf(f, part, side, bank) if cache is not None else FeatureBuffer()
        for f in featurizers
        for side in sides
    }
    step, total = cache.chunk if cache is not None else CHUNK, len(part.indices)
    chunks = [range(start, min(start + step, total)) for start in range(0, total, step)]
    missing = [[key for key, shelf in shelves.items() if not shelf.has(i)] for i in range(len(chunks))]
    wanted = {name for keys in missing for name, _ in keys}
    for featurizer in featurizers:
        if fit is not None and featurizer.name in wanted:
            fit(featurizer)

    kept = [np.arange(chunk.start, chunk.stop) for chunk in chunks]  # positions that could be read
    problems: list[Problem] = []
    done = sum(len(chunk) for chunk, keys in zip(chunks, missing, strict=True) if not keys)
    if progress is not None and done:
        progress(done, total)
    for number, batches in _chunks_of_batches(part, chunks, missing, batch_size):
        rows: dict[tuple[str, int], list[Tensor]] = {key: [] for key in missing[number]}
        seen: list[Tensor] = []
        unread = len(problems)
        for count, batch in batches:
            problems.extend(batch.get("problems", []))
            if len(batch["image"]):
                seen.append(batch["index"])
                for side in dict.fromkeys(side for _, side in rows):
                    scaled = resize_batch(batch, side)
                    for featurizer in featurizers:
                        if (featurizer.name, side) in rows:
                            rows[featurizer.name, side].append(featurizer(scaled).float().cpu())
            done += count
            if progress is not None:
                progress(done, total)
        if not seen:
            kept[number] = kept[number][:0]
            continue
        whole = len(problems) == unread
        if not whole:
            read = np.isin(part.indices[kept[number]], torch.cat(seen).numpy())
            kept[number] = kept[number][read]
        for key, parts in rows.items():
            shelves[key].put(number, torch.cat(parts), whole=whole)
    indices = part.indices[np.concatenate(kept)] if kept else part.indices
    if not len(indices):
        reason = f"; the first: {problems[0][1]}" if problems else ""
        raise ImageryError(f"none of the {total} {part.name} images could be read{reason}")
    features = {key: concat_chunks(shelf, chunks, kept) for key, shelf in shelves.items()}
    labels = torch.as_tensor(np.asarray(part.dataset.labels)[indices])
    labels = labels.to(torch.float32 if labels.ndim == 2 else torch.int64)
    return FeatureSet(features, labels, indices, problems)


def concat_chunks(shelf: FeatureBuffer, chunks: list[range], kept: list[NDArray[np.int64]]) -> Tensor:
    """[N, D] features of the images that could be read; those of earlier runs may be of more images."""
    parts = []
    for chunk, positions, rows in zip(chunks, kept, shelf.rows(chunks), strict=True):
        if len(positions):
            parts.append(rows if len(rows) == len(positions) else rows[positions - chunk.start])
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _chunks_of_batches(
    part: EvalSubset, chunks: list[range], missing: list[list[tuple[str, int]]], size: int
) -> Iterator[tuple[int, Iterator[tuple[int, Any]]]]:
    """(chunk, its batches) of the chunks that lack features; a second thread reads ahead of the work."""
    plan = [
        (number, part.indices[start : min(start + size, chunks[number].stop)])
        for number, keys in enumerate(missing)
        if keys
        for start in range(chunks[number].start, chunks[number].stop, size)
    ]
    if not plan:
        return
    with ThreadPoolExecutor(1) as reader:
        coming: Future[Any] | None = reader.submit(part.dataset.get_batch, plan[0][1])

        def batches() -> Iterator[tuple[int, tuple[int, Any]]]:
            nonlocal coming
            for (number, indices), following in zip(plan, [*plan[1:], None], strict=True):
                assert coming is not None
                batch = coming.result()
                coming = reader.submit(part.dataset.get_batch, following[1]) if following else None
                yield number, (len(indices), batch)

        for number, group in groupby(batches(), key=lambda item: item[0]):
            yield number, (batch for _, batch in group)


def supported_image_sizes(
    sides: Sequence[int], featurizers: Sequence[FeatureExtractor]
) -> tuple[list[int], list[str]]:
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
