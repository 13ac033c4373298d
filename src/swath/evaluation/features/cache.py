"""Features are computed once: a cache on disk, keyed by the content of all that decides them.

A key is a hash over the feature extractor (its weights, its settings: pooling, GSD mode, contract), the
images (each file's path, size and time of change, with sensor, GSD and how it is fitted to a size; of other
data sets the pixels themselves), the side that they are resized to, and, for feature extractors that are
fitted to the train split, that split too. Versions of software are no part of it. Whatever changes, another
key is
requested: nothing is ever stale.

    FOLDER/ab/abcdef....npy    [N, D] float32, memory-mapped when read
    FOLDER/ab/abcdef....json   what it is, for people
    FOLDER/ab/abcdef..../      chunks of images while a run is under way; a killed run goes on from them

Every file appears whole or not at all. A chunk with an image that could not be read is not kept, so the next
run looks at it again. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.buffer import CHUNK, FeatureBuffer
from swath.evaluation.features.hashing import images_hash
from swath.evaluation.features.protocol import FeatureExtractor
from swath.files import atomic_path, write_json

FORMAT = 1


def default_cache_dir() -> Path:
    """``swath/features`` in the user's cache folder (XDG_CACHE_HOME, or ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swath" / "features"


class FeatureCache:
    """A folder of features.

    Args:
        folder: Created when something is written.
        chunk: Images that are written together while a run is under way.

    Attributes:
        reused: Rows of features that were found.
        computed: Rows of features that were not.
    """

    def __init__(self, folder: str | Path | None = None, *, chunk: int = CHUNK) -> None:
        self.folder = Path(folder) if folder is not None else default_cache_dir()
        self.chunk = chunk
        self.reused = self.computed = 0
        self._parts: list[tuple[EvalSubset, str]] = []

    def entry(
        self,
        extractor: FeatureExtractor,
        part: EvalSubset,
        image_size: int,
        fitted_to: tuple[EvalSubset, int] | None,
        state: str | None = None,
    ) -> FeatureBuffer:
        """Where the features of `part` are kept, or will be.

        Args:
            extractor: Cached if it has an `identity`; otherwise its features stay in memory.
            part: The images.
            image_size: That they are resized to.
            fitted_to: Bank and side that the feature extractor is (or would be) fitted to.
            state: What was done to the images before they were resized, such as a degradation; None: nothing.
        """
        identity = getattr(extractor, "identity", None)
        if identity is None or (getattr(extractor, "learns", True) and fitted_to is None):
            return FeatureBuffer()
        about: dict[str, Any] = {
            "format": FORMAT,
            "identity": identity,
            "settings": extractor.settings,
            "images": self._part(part),
            "image_size": image_size,
        }
        if state is not None:
            about["state"] = state
        if getattr(extractor, "learns", True) and fitted_to is not None:
            about["fitted_to"] = [self._part(fitted_to[0]), fitted_to[1]]
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        path = self.folder / key[:2] / key
        return CacheEntry(path, len(part.indices), self, {**about, "name": extractor.name})

    def _part(self, part: EvalSubset) -> str:
        found = next((digest for known, digest in self._parts if known is part), None)
        if found is None:
            found = images_hash(part)
            self._parts.append((part, found))
        return found


class CacheEntry(FeatureBuffer):
    """Features on disk."""

    def __init__(self, path: Path, images: int, cache: FeatureCache, about: dict[str, Any]) -> None:
        super().__init__()
        self._file = path.with_name(path.name + ".npy")
        self._chunks, self._images, self._cache, self._about = path, images, cache, about
        self._stored = self._open(self._file, images)
        self._partial = False

    def has(self, chunk: int) -> bool:
        """Whether the features of that chunk are here, from this run or an earlier one."""
        if self._stored is None and chunk not in self._rows:
            rows = self._open(self._chunk(chunk), min(self._cache.chunk, self._images))
            if rows is not None:
                self._rows[chunk] = rows
                self._cache.reused += len(rows)
        return self._stored is not None or chunk in self._rows

    def put(self, chunk: int, rows: Tensor, *, whole: bool) -> None:
        """Keep features in memory and, if whole, on disk."""
        super().put(chunk, rows, whole=whole)
        self._cache.computed += len(rows)
        self._partial |= not whole
        if whole:
            self._save(self._chunk(chunk), rows.numpy())

    def rows(self, chunks: list[range]) -> list[Tensor]:
        """Features of each chunk; all of them go into one file."""
        if self._stored is not None:
            self._cache.reused += self._images
            return [self._stored[chunk.start : chunk.stop] for chunk in chunks]
        found = super().rows(chunks)
        if not self._partial and all(len(rows) for rows in found):
            write_json(self._file.with_suffix(".json"), self._about)
            self._save(self._file, torch.cat(found).numpy())
            shutil.rmtree(self._chunks, ignore_errors=True)
        return found

    def _chunk(self, number: int) -> Path:
        return self._chunks / f"{self._cache.chunk}_{number:06}.npy"

    @staticmethod
    def _save(path: Path, rows: NDArray[Any]) -> None:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, rows, allow_pickle=False)

    @staticmethod
    def _open(path: Path, max_count: int) -> Tensor | None:
        """The rows in a file, mapped; None where there are none (or a file that was cut short)."""
        try:
            # Copy-on-write: what is read is the file, what is written stays in this process.
            rows = np.load(path, mmap_mode="c", allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):
            return None
        fits = rows.ndim == 2 and 0 < len(rows) <= max_count and rows.dtype == np.float32
        return torch.from_numpy(rows) if fits else None
