"""Features of a labeled data set at several image scales: what every score is computed from.

A **feature extractor** turns a batch, as data sets collate it, into one vector an image. A `Part` is a data
set and which of its images take part (a split, a split). `extract` reads every image once and makes from it
the features of all feature extractors at all scales, by area resampling, with the GSD following the
resampling.

Legend: N images, B in a batch, C bands, D feature dimensions; a side is that of a square image in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.errors import ContractError, ImageryError, Problem
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.buffer import CHUNK, FeatureBuffer
from swath.evaluation.features.model import ModelFeatureExtractor
from swath.evaluation.features.protocol import FeatureExtractor, FeatureSet, Progress
from swath.models.model import Model

if TYPE_CHECKING:
    from swath.evaluation.features.cache import FeatureCache


def pooling_variants(
    model: Model, poolings: Sequence[str], name: str | None = None
) -> list[ModelFeatureExtractor]:
    """Feature extractors of one model, one a pooling, that encode each batch once; called "NAME, POOLING"."""
    found: list[ModelFeatureExtractor] = []
    for pooling in poolings:
        label = f"{name or model.name}, {pooling}"
        found.append(ModelFeatureExtractor(model, label, pooling, fractions=found[0] if found else None))
    return found


def resize_batch(batch: Batch, image_size: int) -> Batch:
    """Resize a batch to side x side pixels by area; `gsd` grows by the geometric mean of the two factors.

    A pixel of the result is the mean of the valid pixels that it covers, and valid where they cover half of
    it. Where `side` is larger than the image, pixels are repeated.
    """
    image = batch["image"]
    height, width = image.shape[2:]
    if (height, width) == (image_size, image_size):
        return batch
    ready: Batch = {**batch, "gsd": batch["gsd"] * ((height * width) ** 0.5 / image_size)}
    valid = batch.get("valid")
    if valid is None or bool(valid.all()):
        ready["image"] = _area(image.float(), image_size)
        if valid is not None:
            ready["valid"] = torch.ones(
                len(image), image_size, image_size, dtype=torch.bool, device=image.device
            )
        return ready
    mask = valid.unsqueeze(1)
    covered = _area(mask.float(), image_size)
    total = _area(image.float().masked_fill(~mask, 0.0), image_size)
    ready["valid"] = covered[:, 0] > 0.4999  # so that exactly a half survives rounding
    ready["image"] = torch.where(ready["valid"].unsqueeze(1), total / covered.clamp_min(1e-6), 0.0)
    return ready


def _area(image: Tensor, image_size: int) -> Tensor:
    return F.interpolate(image, size=(image_size, image_size), mode="area")


def extract_features(
    extractors: Sequence[FeatureExtractor],
    part: EvalSubset,
    image_sizes: Sequence[int],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    cache: FeatureCache | None = None,
    train: tuple[EvalSubset, int] | None = None,
    fit: Callable[[FeatureExtractor], None] | None = None,
) -> FeatureSet:
    """Features of all images of `part` by all feature extractors at all sides; every image is read at most
    once.

    Images that cannot be read are left out and listed.

    Args:
        extractors: What describes the images.
        part: The images.
        image_sizes: That they are resized to.
        batch_size: Images at a time; features do not depend on it.
        progress: Called with (images done, images in all).
        cache: Where features are looked for, and kept.
        train: Part and side that feature extractors are fitted to, for the cache.
        fit: Called with a feature extractor before its features are computed (not if all are in the cache).

    Raises:
        ContractError: A side that does not fit a feature extractor (`usable_sides` tells beforehand), or
            images that do not fit a model's contract.
        ImageryError: Not one image could be read.
    """
    _, refused = supported_image_sizes(image_sizes, extractors)
    if refused:
        raise ContractError("; ".join(refused))
    shelves: dict[tuple[str, int], FeatureBuffer] = {
        (f.name, image_size): cache.entry(f, part, image_size, train)
        if cache is not None
        else FeatureBuffer()
        for f in extractors
        for image_size in image_sizes
    }
    step, total = cache.chunk if cache is not None else CHUNK, len(part.indices)
    chunks = [range(start, min(start + step, total)) for start in range(0, total, step)]
    missing = [[key for key, entry in shelves.items() if not entry.has(i)] for i in range(len(chunks))]
    requested = {name for keys in missing for name, _ in keys}
    for extractor in extractors:
        if fit is not None and extractor.name in requested:
            fit(extractor)

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
                for image_size in dict.fromkeys(image_size for _, image_size in rows):
                    scaled = resize_batch(batch, image_size)
                    for extractor in extractors:
                        if (extractor.name, image_size) in rows:
                            rows[extractor.name, image_size].append(extractor(scaled).float().cpu())
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
    features = {key: concat_chunks(entry, chunks, kept) for key, entry in shelves.items()}
    labels = torch.as_tensor(np.asarray(part.dataset.labels)[indices])
    labels = labels.to(torch.float32 if labels.ndim == 2 else torch.int64)
    return FeatureSet(features, labels, indices, problems)


def concat_chunks(entry: FeatureBuffer, chunks: list[range], positions: list[NDArray[np.int64]]) -> Tensor:
    """[N, D] features of the images that could be read; those of earlier runs may be of more images."""
    parts = []
    for chunk, own, rows in zip(chunks, positions, entry.rows(chunks), strict=True):
        if len(own):
            parts.append(rows if len(rows) == len(own) else rows[own - chunk.start])
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
    image_sizes: Sequence[int], extractors: Sequence[FeatureExtractor]
) -> tuple[list[int], list[str]]:
    """Sides that all feature extractors can take, and for each other one the reason why it is refused."""
    good, refused = [], []
    for image_size in image_sizes:
        misfit = next(
            (f for f in extractors if image_size < f.min_image_size or image_size % f.min_image_size), None
        )
        if misfit is None:
            good.append(image_size)
            continue
        step = misfit.min_image_size
        if image_size < step:
            refused.append(f"{image_size} px is less than one patch of {misfit.name} ({step} px)")
        else:
            near = round(image_size / step) * step
            refused.append(
                f"{image_size} px is no multiple of {misfit.name}'s patch ({step} px); {near} would be"
            )
    return good, refused
