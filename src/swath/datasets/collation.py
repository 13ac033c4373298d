"""Samples to batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.protocol import PairedSample, Sample
from swath.errors import ImageryError


def collate(samples: Sequence[Sample] | Sequence[PairedSample]) -> Batch:
    """Stack samples of one sensor and one size into a batch; paired samples into a paired batch.

    Samples without an image (see `Sample`) are left out, so a batch may be shorter than asked for, and empty
    ([0, C, H, W]) where nothing of it could be read. What was left out, and why, is listed under
    ``problems``, a key that is only there when there is something in it.

    Raises:
        ImageryError: Two sensors, or two sizes, or paired samples among others.
    """
    paired = ["sensors" in sample or "shapes" in sample for sample in samples]
    if any(paired):
        if not all(paired):
            raise ImageryError("a batch holds paired samples or samples of one sensor, not both")
        return _collate_pairs(cast("Sequence[PairedSample]", samples))
    return _collate_images(cast("Sequence[Sample]", samples))


def _collate_pairs(samples: Sequence[PairedSample]) -> Batch:
    good = [sample for sample in samples if "sensors" in sample]
    names = list(good[0]["sensors"]) if good else list(samples[0]["shapes"])
    for sample in good:
        if set(sample["sensors"]) != set(names):
            raise ImageryError(
                f"a batch holds places seen by the same sensors, but these are {names} and "
                f"{list(sample['sensors'])}"
            )
    inner: dict[str, Batch] = {}
    for name in names:
        if good:
            inner[name] = _collate_images([sample["sensors"][name] for sample in good])
        else:
            nothing: Sample = {"sensor": name, "shape": samples[0]["shapes"][name]}
            inner[name] = _collate_images([nothing])
    batch: Batch = {
        "sensors": inner,
        "index": torch.tensor([sample["index"] for sample in good], dtype=torch.int64),
        "key": torch.tensor([sample["key"] for sample in good], dtype=torch.int64),
    }
    if good and all("label" in sample for sample in good):
        batch["label"] = stack_labels([sample["label"] for sample in good])
    problems = [sample["problem"] for sample in samples if "problem" in sample]
    if problems:
        batch["problems"] = problems
    return batch


def map_tensors(batch: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
    """A batch, paired or not, with `function` applied to each of its tensors; all else as it is."""

    def walk(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        return {k: walk(v) for k, v in value.items()} if isinstance(value, dict) else value

    return cast(Batch, walk(batch))


def split_by_sensor(batch: Batch) -> dict[str, Batch]:
    """The batches of each sensor: of a paired batch those in it, of another the batch itself."""
    return batch["sensors"] if "sensors" in batch else {batch.get("sensor", ""): batch}


def stack_labels(labels: Sequence[int | Tensor]) -> Tensor:
    """Class indices as [B] int64, multi-hot labels as [B, K] float32."""
    if labels and isinstance(labels[0], Tensor):
        return torch.stack([torch.as_tensor(label, dtype=torch.float32) for label in labels])
    return torch.tensor(labels, dtype=torch.int64)


def _collate_images(samples: Sequence[Sample]) -> Batch:
    good = [sample for sample in samples if "image" in sample]
    problems = [sample["problem"] for sample in samples if "problem" in sample]
    sensors = sorted({sample["sensor"] for sample in samples})
    if len(sensors) != 1:
        raise ImageryError(f"a batch holds images of one sensor, but these are of {sensors}")
    shapes = sorted({tuple(sample["image"].shape) for sample in good})
    if len(shapes) > 1:
        raise ImageryError(f"samples of different shapes {shapes} in one batch; choose one size with size=")
    shape = samples[0]["shape"] if not good else shapes[0]
    height, width = shape[-2:]
    batch: Batch = {
        "image": _stack([sample["image"] for sample in good], shape, torch.float32),
        "gsd": torch.tensor([sample["gsd"] for sample in good], dtype=torch.float32),
        "valid": _stack([sample["valid"] for sample in good], (height, width), torch.bool),
        "sensor": sensors[0],
        "index": torch.tensor([sample["index"] for sample in good], dtype=torch.int64),
        "key": torch.tensor([sample["key"] for sample in good], dtype=torch.int64),
    }
    if all("label" in sample for sample in good):
        batch["label"] = stack_labels([sample["label"] for sample in good])
    if good and all("mask" in sample for sample in good):
        batch["mask"] = torch.stack([sample["mask"] for sample in good])
    if any("time" in sample for sample in good):
        times = [sample.get("time", float("nan")) for sample in good]
        batch["time"] = torch.tensor(times, dtype=torch.float64)
    if good and all("window" in sample for sample in good):
        batch["window"] = torch.tensor([sample["window"] for sample in good], dtype=torch.int64)
        batch["scene"] = torch.tensor([sample["scene"] for sample in good], dtype=torch.int64)
    if problems:
        batch["problems"] = problems
    return batch


def _stack(tensors: list[Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.stack(tensors) if tensors else torch.empty((0, *shape), dtype=dtype)
