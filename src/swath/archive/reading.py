"""Reading the chips of an embedding run in loader workers: pixels, place and time, screening by validity."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch
from torch.utils.data import DataLoader

from swath.archive.places import footprint_geometry
from swath.archive.sources import ChipSource
from swath.errors import ImageryError
from swath.imagery.chip import Batch
from swath.imagery.samples import ImageDataset, Problem, Sample, collate


@dataclass(slots=True)
class Place:
    """What a row says beside its embedding."""

    index: int
    gsd: float
    valid_fraction: float
    geometry: bytes | None
    bbox: dict[str, float] | None
    time: datetime | None


@dataclass(slots=True)
class Part:
    """What a worker made of one list of chips: batches (one a shape), and what is not in them."""

    count: int
    batches: list[tuple[Batch, list[Place]]]
    screened: int
    problems: list[Problem]


class Pending:
    """The chips to embed as a map-style data set of (sample, place)."""

    def __init__(
        self,
        dataset: ImageDataset,
        chips: Sequence[ChipSource],
        pending: Sequence[int],
        reference_size: int | None,
    ) -> None:
        self.reference_size = reference_size
        self.dataset = dataset
        self.chips = [chips[index] for index in pending]
        self.pending = list(pending)

    def __len__(self) -> int:
        return len(self.pending)

    def __getitem__(self, position: int) -> tuple[Sample, Place | None]:
        index = self.pending[position]
        sample = self.dataset[index]
        if "image" not in sample:
            return sample, None
        try:
            ring, taken = self.chips[position].place()
        except ImageryError as error:
            return {"index": index, "problem": (self.chips[position].source, str(error))}, None
        if self.reference_size is not None:
            sample["gsd"] = self.reference_size / sample["image"].shape[-1]
        geometry, bbox = footprint_geometry(ring) if ring is not None else (None, None)
        valid = float(sample["valid"].to(torch.float32).mean())
        return sample, Place(index, sample["gsd"], valid, geometry, bbox, taken)


class Collate:
    """Screens samples by validity and stacks those of one shape."""

    def __init__(self, min_valid: float) -> None:
        self.min_valid = min_valid

    def __call__(self, items: Sequence[tuple[Sample, Place | None]]) -> Part:
        """One part of what `Pending` gave."""
        part = Part(len(items), [], 0, [])
        groups: dict[tuple[int, ...], list[tuple[Sample, Place]]] = {}
        for sample, place in items:
            if place is None:
                if sample.get("empty", False):
                    part.screened += 1
                else:
                    part.problems.append(sample["problem"])
            elif place.valid_fraction < self.min_valid or place.valid_fraction == 0:
                part.screened += 1
            else:
                groups.setdefault(tuple(sample["image"].shape), []).append((sample, place))
        for group in groups.values():
            part.batches.append((collate([sample for sample, _ in group]), [place for _, place in group]))
        return part


def read_ahead(source: Pending, batch_size: int, workers: int | None, min_valid: float) -> Iterator[Part]:
    """Decoded batches in order, read ahead by workers."""
    if not len(source):
        return iter(())
    if workers is None:
        workers = min(os.cpu_count() or 1, 8, -(-len(source) // batch_size))
    loader: DataLoader[Any] = DataLoader(
        source,  # type: ignore[arg-type]
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=Collate(min_valid),
        prefetch_factor=2 if workers else None,
    )
    with warnings.catch_warnings():
        # LanceDB warns that its threads do not survive a fork; the workers never use it.
        warnings.filterwarnings("ignore", message="lancedb fork support")
        return iter(loader)
