"""Features of places that several sensors see: one feature extractor a sensor, every image read once.

Legend: n places, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.protocol import ImageDataset
from swath.errors import ImageryError, Problem
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.baselines import ImageStatistics, RandomConvolutionalFeatures, random_init
from swath.evaluation.features.extract import resize_batch
from swath.evaluation.features.model import ModelFeatureExtractor
from swath.evaluation.features.protocol import FeatureExtractor, GsdMode, Progress
from swath.evaluation.retrieval.splits import RetrievalSplit
from swath.models.model import Model


@dataclass(frozen=True, slots=True)
class RetrievalModel:
    """What is scored: a way to embed the images of each sensor.

    Attributes:
        name: In tables; unique in an evaluation.
        by_sensor: Sensor name -> its feature extractor. A feature extractor that remembers what it was
            fitted on must not serve two sensors.
    """

    name: str
    by_sensor: Mapping[str, FeatureExtractor]

    @property
    def settings(self) -> dict[str, Any]:
        """What its features depend on, JSON-safe."""
        return {sensor: extractor.settings for sensor, extractor in self.by_sensor.items()}


def retrieval_model(
    model: Model,
    sensors: Sequence[str],
    *,
    name: str | None = None,
    pooling: str | None = None,
    gsd_mode: GsdMode | None = None,
) -> RetrievalModel:
    """A model that knows all these sensors.

    Raises:
        ContractError: It does not know one of them.
    """
    for sensor in sensors:
        model.contract.sensor(sensor)
    found = {sensor: ModelFeatureExtractor(model, name, pooling, gsd_mode) for sensor in sensors}
    return RetrievalModel(name or model.name, found)


def retrieval_baselines(
    sensors: Sequence[str],
    model: Model | None = None,
    *,
    pooling: str | None = None,
    gsd_mode: GsdMode | None = None,
) -> list[RetrievalModel]:
    """Image statistics and random convolutional features, one a sensor, and `model`'s encoder untrained."""
    found = [
        RetrievalModel("image statistics", {sensor: ImageStatistics() for sensor in sensors}),
        RetrievalModel("RCF", {sensor: RandomConvolutionalFeatures() for sensor in sensors}),
    ]
    if model is not None and model.config.get("encoder") is not None:
        untrained = random_init(model, pooling=pooling, gsd_mode=gsd_mode)
        found.insert(
            0,
            retrieval_model(untrained.model, sensors, name="random init", pooling=pooling, gsd_mode=gsd_mode),
        )
        settings = {key: untrained.settings[key] for key in ("model", "seed")}
        for extractor in found[0].by_sensor.values():
            extractor.settings |= settings
    return found


def extract_pair_features(
    candidates: Sequence[RetrievalModel], split: RetrievalSplit, batch_size: int, progress: Progress | None
) -> tuple[dict[tuple[str, str], Tensor], NDArray[np.int64], list[str]]:
    """Features of all places of a split by all candidates.

    Returns:
        (candidate, sensor) -> [n, D] float32 of the n places that could be read in every sensor; the
        positions of those places; and notes for a reader of the figures.

    Raises:
        ContractError: Images that do not fit a model's contract.
        ImageryError: Nothing could be read.
    """
    rows = np.unique(np.concatenate([split.queries, split.gallery]))
    sensors = [sensor.name for sensor in split.dataset.sensors]
    found: dict[tuple[str, str], Tensor] = {}
    read: dict[str, NDArray[np.int64]] = {}
    problems: list[Problem] = []
    notes: list[str] = []
    for turn, sensor in enumerate(sensors):
        view = split.dataset.only(sensor)
        extractors = {candidate.name: candidate.by_sensor[sensor] for candidate in candidates}
        fit, note = _sizer(view, rows, list(extractors.values()), sensor)
        notes += note
        native = fit(view.get_batch(rows[:1]))["image"].shape[2:]
        for extractor in extractors.values():
            extractor.fit(EvalSubset(view, split.gallery, "gallery"), round((native[0] * native[1]) ** 0.5))
        parts: dict[str, list[Tensor]] = {name: [] for name in extractors}
        kept: list[Tensor] = []
        for start in range(0, len(rows), batch_size):
            batch = view.get_batch(rows[start : start + batch_size])
            problems += batch.get("problems", [])
            if len(batch["image"]):
                kept.append(batch["index"])
                ready = fit(batch)
                for name, extractor in extractors.items():
                    parts[name].append(extractor(ready).float().cpu())
            if progress is not None:
                done = turn * len(rows) + min(start + batch_size, len(rows))
                progress(done, len(sensors) * len(rows))
        if not kept:
            raise ImageryError(f"no image of {sensor} could be read; the first: {problems[0][1]}")
        read[sensor] = torch.cat(kept).numpy()
        found |= {(name, sensor): torch.cat(values) for name, values in parts.items()}
    readable = rows[np.logical_and.reduce([np.isin(rows, places) for places in read.values()])]
    if not len(readable):
        raise ImageryError(f"no place could be read in all sensors; the first problem: {problems[0][1]}")
    aligned = {key: values[np.isin(read[key[1]], readable)] for key, values in found.items()}
    if problems:
        notes.append(
            f"{len(rows) - len(readable)} of {len(rows)} places are left out because an image of theirs "
            f"could not be read, the first: {problems[0][0]}: {problems[0][1]}"
        )
    return aligned, readable, notes


def _sizer(
    view: ImageDataset, rows: NDArray[np.int64], extractors: Sequence[FeatureExtractor], sensor: str
) -> tuple[Callable[[Batch], Batch], list[str]]:
    """How images of a sensor become multiples of everybody's patch (mostly not at all), and a note of it."""
    step = int(np.lcm.reduce([extractor.min_image_size for extractor in extractors]))
    height, width = view.get_batch(rows[:1])["image"].shape[2:]
    if height % step == 0 and width % step == 0:
        return lambda batch: batch, []
    image_size = max(step, round((height * width) ** 0.5 / step) * step)
    note = (
        f"{sensor}: images of {height} x {width} px area-resized to {image_size} x {image_size} "
        f"(patches of {step} px)"
    )
    return lambda batch: resize_batch(batch, image_size), [note]
