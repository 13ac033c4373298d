"""From decoded chips to rows: the encoder's part of an embedding run, the same under every engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.archive.ingest.chip_ids import ChipSource
from swath.archive.ingest.read import ChipMetadata, DecodedChips
from swath.archive.table.rows import schema
from swath.datasets.chip import Batch
from swath.errors import ContractError, Problem


class Embedder(Protocol):
    """What embedding needs of a model; `swath.models.Model` has it."""

    id: str
    contract: Any

    def embed(
        self,
        images: Tensor,
        gsd: Tensor | None = None,
        sensor: str | None = None,
        valid: Tensor | None = None,
        *,
        batch_size: int = 64,
    ) -> Tensor:
        """[N, C, H, W] in the sensor's unit -> [N, D] float32."""
        ...


@dataclass(slots=True)
class EncodedChips:
    """What has become of some chips.

    Attributes:
        count: How many chips.
        rows: Tables in the archive's schema, of chips that were embedded.
        same: Tables without ``embedding``, of chips whose file was touched but whose pixels are what they
            were; their vectors are in the archive.
        screened: Chips left out because too few pixels are valid.
        clouded: Chips left out because too many pixels are cloud.
        cloud_known: Chips of which the share of cloud is known.
        problems: (path, reason) of chips that could not be read.
        refused: (path, reason) of chips that the model refuses, or has no finite embedding for.
    """

    count: int = 0
    rows: list[pa.Table] = field(default_factory=list)
    same: list[pa.Table] = field(default_factory=list)
    screened: int = 0
    clouded: int = 0
    cloud_known: int = 0
    problems: list[Problem] = field(default_factory=list)
    refused: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class ChipEncoder:
    """Turns what the readers hand over into rows.

    Attributes:
        model: Gives the vectors.
        chips: By index.
        described: How windows became the model's input, as JSON.
        embedded_pixels: Pixel hash by chip id, for chips embedded from an older state of their file.
    """

    model: Embedder
    chips: Sequence[ChipSource]
    described: str
    embedded_pixels: Mapping[str, str]

    def __call__(self, part: DecodedChips) -> EncodedChips:
        """Embed one part."""
        done = EncodedChips(
            part.count,
            screened=part.screened,
            clouded=part.clouded,
            cloud_known=part.cloud_known,
            problems=part.problems,
        )
        for batch, places in part.batches:
            same = [self.embedded_pixels.get(self.chips[place.index].id) == place.pixels for place in places]
            if any(same):
                kept = [place for place, it_is in zip(places, same, strict=True) if it_is]
                done.same.append(self._rows(None, batch["sensor"], kept))
                changed = torch.tensor([not it_is for it_is in same])
                places = [place for place, it_is in zip(places, same, strict=True) if not it_is]
                batch = {
                    "image": batch["image"][changed],
                    "gsd": batch["gsd"][changed],
                    "valid": batch["valid"][changed],
                    "sensor": batch["sensor"],
                }
            if places:
                rows, bad = self._embed(batch, places)
                done.rows.append(rows)
                done.refused += bad
        return done

    def _embed(self, batch: Batch, places: Sequence[ChipMetadata]) -> tuple[pa.Table, list[Problem]]:
        """Rows of a batch, and the chips that the model refuses or has no finite embedding for."""
        refused: dict[int, str] = {}
        try:
            found = _vectors(self.model, batch)
        except ContractError:
            found, refused = _vectors_one_by_one(self.model, batch)
        problems = []
        finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(found), axis=1)
        for position, place in enumerate(places):
            if not finite[position]:
                source = self.chips[place.index].source
                reason = refused.get(position, "its embedding is not finite; check its pixels")
                problems.append((source, f"{source}: {reason}"))
        kept = [place for place, fine in zip(places, finite, strict=True) if fine]
        return self._rows(found[finite], batch["sensor"], kept), problems

    def _rows(
        self, vectors: NDArray[np.float32] | None, sensor: str, places: Sequence[ChipMetadata]
    ) -> pa.Table:
        """Rows in the archive's schema; without vectors, in the schema less ``embedding``."""
        named = [self.chips[place.index] for place in places]
        windows = [
            {"column": w.column, "row": w.row, "width": w.width, "height": w.height}
            for w in (chip.window for chip in named)
        ]
        values: dict[str, Any] = {
            "id": [chip.id for chip in named],
            "geometry": [place.geometry for place in places],
            "bbox": [place.bbox for place in places],
            "datetime": [place.time for place in places],
            "sensor": [sensor] * len(places),
            "gsd": [place.gsd for place in places],
            "source": [chip.source for chip in named],
            "files": [list(chip.files) if len(chip.files) > 1 else None for chip in named],
            "window": windows,
            "valid_fraction": [place.valid_fraction for place in places],
            "cloud_fraction": [place.cloud_fraction for place in places],
            "label": [chip.label for chip in named],
            "model_id": [self.model.id] * len(places),
            "preprocessing": [self.described] * len(places),
            "fingerprint": [
                f"{chip.fingerprint}:{place.pixels}" for chip, place in zip(named, places, strict=True)
            ],
        }
        columns = schema(1 if vectors is None else vectors.shape[1])
        if vectors is None:
            columns = columns.remove(columns.get_field_index("embedding"))
        else:
            flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float32())
            values["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        return pa.table(
            [
                values[f.name] if isinstance(values[f.name], pa.Array) else pa.array(values[f.name], f.type)
                for f in columns
            ],
            schema=columns,
        )


def _vectors(model: Embedder, batch: Batch) -> NDArray[np.float32]:
    """[B, D] of a whole batch in one forward pass."""
    vectors = model.embed(
        batch["image"],
        gsd=batch["gsd"],
        sensor=batch["sensor"],
        valid=batch["valid"],
        batch_size=len(batch["image"]),
    )
    numbers: NDArray[np.float32] = vectors.detach().to("cpu", torch.float32).numpy()
    return numbers


def _vectors_one_by_one(model: Embedder, batch: Batch) -> tuple[NDArray[np.float32], dict[int, str]]:
    """[B, D] with NaN where the model refuses an image, and its reasons by position.

    One image that does not fit the contract must not cost the others of its batch, nor the run.
    """
    found: list[NDArray[np.float32] | None] = []
    refused: dict[int, str] = {}
    for position in range(len(batch["image"])):
        one = slice(position, position + 1)
        single: Batch = {
            "image": batch["image"][one],
            "gsd": batch["gsd"][one],
            "valid": batch["valid"][one],
            "sensor": batch["sensor"],
        }
        try:
            found.append(_vectors(model, single)[0])
        except ContractError as error:
            refused[position] = str(error)
            found.append(None)
    dimensions = next((len(vector) for vector in found if vector is not None), 1)
    empty = np.full(dimensions, np.nan, dtype=np.float32)
    return np.stack([empty if vector is None else vector for vector in found]), refused
