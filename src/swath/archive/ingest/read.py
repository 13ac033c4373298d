"""Reading the chips of an embedding run in loader workers: pixels, place and time; screening."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch
from torch.utils.data import DataLoader

from swath.archive.ingest.chip_ids import ChipSource
from swath.datasets.chip import Batch
from swath.datasets.collation import collate
from swath.datasets.protocol import ImageDataset, Sample
from swath.errors import ImageryError, Problem
from swath.geo.footprint import footprint_geometry
from swath.rasters.cloud_mask import cloud_fraction


@dataclass(frozen=True, slots=True)
class ChipFilter:
    """Which chips are left out.

    Attributes:
        min_valid: Those with a smaller share of valid pixels, and always those without any.
        max_cloud: Those with a larger share of cloud, where it is known.
    """

    min_valid: float = 0.5
    max_cloud: float = 1.0


@dataclass(slots=True)
class ChipMetadata:
    """What a row says beside its embedding.

    Attributes:
        pixels: Hash of all that the embedding follows from (for one model): pixels, valid mask and GSD.
    """

    index: int
    gsd: float
    valid_fraction: float
    cloud_fraction: float | None
    pixels: str
    geometry: bytes | None
    bbox: dict[str, float] | None
    time: datetime | None


@dataclass(slots=True)
class DecodedChips:
    """What a worker made of one list of chips: batches (one a shape), and what is not in them."""

    count: int
    batches: list[tuple[Batch, list[ChipMetadata]]]
    screened: int
    problems: list[Problem]
    clouded: int = 0
    cloud_known: int = 0


class PendingChips:
    """The chips to embed as a map-style data set of (sample, place): no place without pixels, no sample
    where there is too much cloud to read it."""

    def __init__(
        self,
        dataset: ImageDataset,
        chips: Sequence[ChipSource],
        pending: Sequence[int],
        reference_size: int | None = None,
        screen: ChipFilter = ChipFilter(),
    ) -> None:
        self.reference_size = reference_size
        self.screen = screen
        self.dataset = dataset
        self.chips = [chips[index] for index in pending]
        self.pending = list(pending)

    def __len__(self) -> int:
        return len(self.pending)

    def __getitem__(self, position: int) -> tuple[Sample | None, ChipMetadata | None]:
        index, chip = self.pending[position], self.chips[position]
        try:
            cloud = None if chip.header is None else cloud_fraction(chip.header, chip.window)
            if cloud is not None and cloud > self.screen.max_cloud:
                return None, None  # before its pixels are read
            sample = self.dataset[index]
            if "image" not in sample:
                return sample, None
            ring, taken = chip.place()
        except ImageryError as error:
            return {"index": index, "problem": (chip.source, str(error))}, None
        if self.reference_size is not None:
            sample["gsd"] = self.reference_size / sample["image"].shape[-1]
        geometry, bbox = footprint_geometry(ring) if ring is not None else (None, None)
        valid = float(sample["valid"].to(torch.float32).mean())
        place = ChipMetadata(index, sample["gsd"], valid, cloud, _pixel_hash(sample), geometry, bbox, taken)
        return sample, place


def _pixel_hash(sample: Sample) -> str:
    """Of what the embedding follows from."""
    image, valid = sample["image"].contiguous().numpy(), sample["valid"].contiguous().numpy()
    known = hashlib.blake2b(f"{image.dtype} {image.shape} {sample['gsd']:.9g}".encode(), digest_size=16)
    known.update(image.data)
    known.update(valid.data)
    return known.hexdigest()


class Collate:
    """Screens samples and stacks those of one shape."""

    def __init__(self, screen: ChipFilter) -> None:
        self.screen = screen

    def __call__(self, items: Sequence[tuple[Sample | None, ChipMetadata | None]]) -> DecodedChips:
        """One part of what `PendingChips` gave."""
        part = DecodedChips(len(items), [], 0, [])
        groups: dict[tuple[int, ...], list[tuple[Sample, ChipMetadata]]] = {}
        for sample, place in items:
            if sample is None:
                part.clouded += 1
                part.cloud_known += 1
            elif place is None:
                if sample.get("empty", False):
                    part.screened += 1
                else:
                    part.problems.append(sample["problem"])
            elif place.valid_fraction < self.screen.min_valid or place.valid_fraction == 0:
                part.screened += 1
            else:
                part.cloud_known += place.cloud_fraction is not None
                groups.setdefault(tuple(sample["image"].shape), []).append((sample, place))
        for group in groups.values():
            part.batches.append((collate([sample for sample, _ in group]), [place for _, place in group]))
        return part


def prefetch_chips(source: PendingChips, batch_size: int, workers: int | None) -> Iterator[DecodedChips]:
    """Decoded batches in order, read ahead by workers."""
    if not len(source):
        return iter(())
    if workers is None:
        workers = min(os.cpu_count() or 1, 8, -(-len(source) // batch_size))
    loader: DataLoader[Any] = DataLoader(
        source,  # type: ignore[arg-type]  # map-style, without torch's base class
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=Collate(source.screen),
        prefetch_factor=2 if workers else None,
    )
    with warnings.catch_warnings():
        # LanceDB warns that its threads do not survive a fork; the workers never use it.
        warnings.filterwarnings("ignore", message="lancedb fork support")
        return iter(loader)
