"""Data sets whose samples are whole image files: judged by header, read on demand or once into memory.

Legend: N images, B samples, C bands, H x W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.collation import collate
from swath.datasets.image_reading import is_plain_uint8, read_header_any, read_image_file
from swath.datasets.memory import check_memory
from swath.datasets.protocol import Epoch, Sample
from swath.errors import ImageryError, Problem, suggest
from swath.keyed_random import sample_keys, uniform
from swath.rasters.pillow_reader import (
    MAX_PICTURE_PIXELS,
)
from swath.rasters.read import SceneHeader
from swath.rasters.resampling import Kernel, resample
from swath.rasters.sensor_scene import OVERRIDE, match_scene_to_sensor, resolve_gsd
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.sensors.units import Array, Valid

Fit = Literal["center_crop", "random_crop", "resize"]
Cache = Literal["none", "memory"]
Gsd = float | Literal["relative"] | None
Array64 = NDArray[np.float64]


class _Probe(NamedTuple):
    """What the header of a usable file says; `unfit` is set where it is sound but not of the sensor."""

    height: int
    width: int
    gsd: float | None = None
    unfit: str | None = None


class ImageFileDataset:
    """A data set of image files, each one a sample; the base of the layouts below.

    Args:
        paths: The files.
        sensor: What they were taken with: a registered name, a YAML path or a `Sensor`.
        gsd: Metres per pixel: one number for all, one a file, ``"relative"`` (1.0 at native resolution), or
            None to compute it from each file's georeference.
        labels: Of each file, if known: [N] class indices, or [N, K] of 0 and 1 where a file has several.
        classes: Names of the classes.
        size: Output size, one number or (height, width); None keeps the files' own size, which then has to
            be the same for all.
        resize_mode: How an image gets to `size`: ``center_crop``, ``random_crop`` (drawn anew each epoch), or
            ``resize`` (area average when shrinking, bilinear when enlarging; the GSD follows).
        cache: ``memory`` decodes everything once, when the data set is made.
        seed: Seed of the samples' keys.
        offset_dn: Added to stored values before scaling, see
            `swath.rasters.sensor_scene.match_scene_to_sensor`.
        max_pixels: Largest image accepted.
        workers: Threads that check headers and fill the cache; None for as many as there are CPUs.

    Attributes:
        sensor, classes, labels, paths: Of the usable files; `labels[i]` and `paths[i]` belong to `self[i]`.
        problems: (path, reason) of the files left out.

    Raises:
        ImageryError: No usable image; unknown GSD; band counts or sizes that do not agree.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        sensor: str | Path | Sensor,
        gsd: Gsd | Sequence[float] = None,
        labels: Sequence[int] | NDArray[Any] | None = None,
        classes: Sequence[str] | None = None,
        size: int | tuple[int, int] | None = None,
        resize_mode: Fit = "center_crop",
        cache: Cache = "none",
        seed: int = 0,
        offset_dn: float | None = None,
        max_pixels: int = MAX_PICTURE_PIXELS,
        workers: int | None = None,
        problems: Iterable[Problem] = (),
    ) -> None:
        if resize_mode not in ("center_crop", "random_crop", "resize"):
            raise ImageryError(
                f"resize_mode={resize_mode!r}:"
                f"{suggest(str(resize_mode), ['center_crop', 'random_crop', 'resize'])}"
            )
        if cache not in ("none", "memory"):
            raise ImageryError(f"cache={cache!r}:{suggest(str(cache), ['none', 'memory'])}")
        self.sensor = get_sensor(sensor)
        self.classes = list(classes) if classes is not None else None
        self.size = (size, size) if isinstance(size, int) else size
        self.resize_mode = resize_mode
        self.seed = seed
        self.problems: list[Problem] = list(problems)
        self._max_pixels = max_pixels
        self.offset_dn = offset_dn
        self._epoch = Epoch()

        names = [os.fspath(path) for path in paths]
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            probes = list(pool.map(self._probe, names))
            keep = self._agree(names, probes)
            self.paths = [names[i] for i in keep]
            usable = [probe for i in keep if isinstance(probe := probes[i], _Probe)]
            self.shapes = np.array([(probe.height, probe.width) for probe in usable], dtype=np.int64)
            self.gsds = self._gsds(gsd, keep, [probe.gsd for probe in usable])
            self.labels: NDArray[Any] | None = None
            if labels is not None:
                given = np.asarray(labels)
                self.labels = given.astype(np.int64 if given.ndim == 1 else np.float32)[keep]
            self._images: Tensor | list[Tensor] | None = None
            self._valid: Tensor | list[Tensor] | None = None
            self._factors = np.ones(len(keep))  # how much the fitting has coarsened each cached image
            if cache == "memory":
                self._fill_cache(pool)

    # ---- what a loader calls

    def __len__(self) -> int:
        return len(self.paths)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that random crops and keys belong to."""
        self._epoch.set(epoch)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`; only ``index`` and ``problem`` in it when the file cannot be decoded."""
        index = range(len(self))[index]  # negative indices, and IndexError
        key = sample_keys(self.seed, self._epoch.get(), torch.tensor([index]))
        try:
            if self._images is not None and self._valid is not None:
                image, valid, factor = self._images[index], self._valid[index], float(self._factors[index])
            else:
                image, valid, factor = self._fitted(*self._read(index))
        except ImageryError as error:
            height, width = self.size or self.shapes[index]
            shape = (len(self.sensor.bands), int(height), int(width))
            return {
                "index": index,
                "problem": (self.paths[index], str(error)),
                "sensor": self.sensor.name,
                "shape": shape,
            }
        if self.size is not None and self.resize_mode == "random_crop":
            image, valid = _random_crop(image, valid, self.size, key)
        sample: Sample = {
            "image": image,
            "gsd": float(self.gsds[index]) * factor,
            "valid": valid,
            "sensor": self.sensor.name,
            "index": index,
            "key": int(key),
        }
        if self.labels is not None:
            label = self.labels[index]
            sample["label"] = int(label) if self.labels.ndim == 1 else torch.from_numpy(label.copy())
        return sample

    def get_batch(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Batch:
        """The samples at `indices` as one batch: a single gather where the images are cached."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        if not isinstance(self._images, Tensor) or not isinstance(self._valid, Tensor):
            return collate([self[int(row)] for row in rows])
        gsd = torch.from_numpy(self.gsds * self._factors)
        batch: Batch = {
            "image": self._images[rows],
            "gsd": gsd[rows].to(torch.float32),
            "valid": self._valid[rows],
            "sensor": self.sensor.name,
            "index": rows,
            "key": sample_keys(self.seed, self._epoch.get(), rows),
        }
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels)[rows]
        return batch

    # ---- headers

    def _probe(self, path: str) -> _Probe | str:
        """What a file's header says, or why it cannot be used."""
        try:
            header = self._header(path)
        except ImageryError as error:
            return str(error)
        probe = _Probe(header.height, header.width, header.gsd)
        try:
            match_scene_to_sensor(header, self.sensor, gsd="relative", offset_dn=self.offset_dn)
        except ImageryError as error:
            return probe._replace(unfit=str(error))
        return probe

    def _header(self, path: str) -> SceneHeader:
        return read_header_any(path, max_pixels=self._max_pixels)

    def _agree(self, names: list[str], probes: list[_Probe | str]) -> list[int]:
        """Indices of the usable files; the others become problems. Raises where files contradict."""
        keep: list[int] = []
        unfit: list[tuple[str, str]] = []
        smallest = self.size if self.size is not None and self.resize_mode != "resize" else (1, 1)
        for i, probe in enumerate(probes):
            if isinstance(probe, str):
                self.problems.append((names[i], probe))
            elif probe.unfit is not None:
                unfit.append((names[i], probe.unfit))
            elif probe.height < smallest[0] or probe.width < smallest[1]:
                self.problems.append((names[i], self._too_small(names[i], probe)))
            else:
                keep.append(i)
        if unfit:
            # Not a matter of a broken file: half of a folder left out in silence would be another data set.
            beside = f", while {names[keep[0]]} fits" if keep else ""
            raise ImageryError(
                f"{unfit[0][1]} ({len(unfit)} of {len(names)} files do not fit this sensor{beside}.)"
            )
        if not keep:
            reason = f"; the first of {len(self.problems)} problems: {self.problems[0][1]}"
            raise ImageryError("no usable image" + (reason if self.problems else " was found"))
        if self.size is None:
            first = {
                (p.height, p.width): names[i] for i in reversed(keep) if isinstance(p := probes[i], _Probe)
            }
            if len(first) > 1:
                (small, a), *_, (large, b) = sorted(first.items())
                raise ImageryError(
                    f"images of {len(first)} different sizes, such as {small[1]} x {small[0]} in {a} and "
                    f"{large[1]} x {large[0]} in {b}: choose one with size=, and resize_mode='center_crop', "
                    "'random_crop' or 'resize'"
                )
        return keep

    def _too_small(self, name: str, probe: _Probe) -> str:
        return (
            f"{name}: {probe.width} x {probe.height} pixels are fewer than the crop of {self.size}; "
            "choose a smaller size=, or resize_mode='resize'"
        )

    def _gsds(self, gsd: Gsd | Sequence[float], keep: list[int], found: list[float | None]) -> Array64:
        """Native GSD [N] of the usable files."""
        if gsd is None or isinstance(gsd, str | float | int):
            stated: list[float | str | None] = [gsd] * len(keep)
        else:  # of each file alone, and so it counts
            stated = [f"{OVERRIDE}{float(gsd[index])}" for index in keep]
        values = [
            resolve_gsd(one, own, path) or own
            for one, own, path in zip(stated, found, self.paths, strict=True)
        ]
        return np.array(values, dtype=np.float64)

    # ---- pixels

    def _read(self, index: int) -> tuple[Array, Valid]:
        """Decoded image [C, H, W] in the sensor's unit, and valid [H, W]."""
        path = self.paths[index]
        image, valid = read_image_file(
            path, self.sensor, offset_dn=self.offset_dn, max_pixels=self._max_pixels
        )
        if valid.shape != tuple(self.shapes[index]):
            raise ImageryError(f"{path}: the file has changed since the data set was made")
        return image, valid

    def _fitted(self, image: Array, valid: Valid) -> tuple[Tensor, Tensor, float]:
        """The part of getting to `size` that is the same in every epoch, and its GSD factor."""
        factor = 1.0
        height, width = valid.shape
        if self.size is not None and self.resize_mode == "resize":
            factor = float(np.sqrt(height / self.size[0] * width / self.size[1]))
            if valid.shape != self.size:
                shrinks = self.size[0] <= height and self.size[1] <= width
                kernel: Kernel = "area" if shrinks else "bilinear"
                image, valid = resample(image, valid, (0, height), (0, width), self.size, kernel)
        elif self.size is not None and self.resize_mode == "center_crop":
            top, left = (height - self.size[0]) // 2, (width - self.size[1]) // 2
            window = (slice(top, top + self.size[0]), slice(left, left + self.size[1]))
            image, valid = image[:, *window], valid[window]
        return torch.from_numpy(image), torch.from_numpy(valid), factor

    def _fill_cache(self, pool: ThreadPoolExecutor) -> None:
        """Decode everything; leave out (and report) what turns out to be broken."""
        ragged = self.size is not None and self.resize_mode == "random_crop"
        pixels = self.shapes.prod(axis=1)
        if self.size is not None and not ragged:
            pixels = np.full(len(self), self.size[0] * self.size[1])
        item = 1 if is_plain_uint8(self.sensor) else 4
        check_memory(int((pixels * (item * len(self.sensor.bands) + 1)).sum()))

        def load(index: int) -> tuple[Tensor, Tensor, float] | ImageryError:
            try:
                return self._fitted(*self._read(index))
            except ImageryError as error:
                return error

        images: list[Tensor] = []
        valids: list[Tensor] = []
        factors: list[float] = []
        keep: list[int] = []
        whole: tuple[Tensor, Tensor] | None = None
        for i, loaded in enumerate(pool.map(load, range(len(self)))):
            if isinstance(loaded, ImageryError):
                self.problems.append((self.paths[i], str(loaded)))
                continue
            image, valid, factor = loaded
            if ragged:
                images.append(image)
                valids.append(valid)
            else:  # into one block at once: the images are never in memory twice
                if whole is None:
                    whole = (
                        torch.empty((len(self), *image.shape), dtype=image.dtype),
                        torch.empty((len(self), *valid.shape), dtype=torch.bool),
                    )
                whole[0][len(keep)] = image
                whole[1][len(keep)] = valid
            factors.append(factor)
            keep.append(i)
        if not keep:
            raise ImageryError(f"no image could be decoded; the first problem is: {self.problems[-1][1]}")
        self.paths = [self.paths[i] for i in keep]
        self.shapes, self.gsds = self.shapes[keep], self.gsds[keep]
        self.labels = None if self.labels is None else self.labels[keep]
        self._factors = np.array(factors)
        if whole is None:
            self._images, self._valid = images, valids
        else:
            self._images, self._valid = whole[0][: len(keep)], whole[1][: len(keep)]
            if bool(self._valid.all()):  # one True seen from everywhere, instead of a byte a pixel
                self._valid = torch.ones((), dtype=torch.bool).expand(self._valid.shape)


def _random_crop(image: Tensor, valid: Tensor, size: tuple[int, int], key: Tensor) -> tuple[Tensor, Tensor]:
    room = torch.tensor([image.shape[1] - size[0] + 1, image.shape[2] - size[1] + 1])
    top, left = (uniform(key, "fit/crop", 2)[0] * room).long().tolist()
    window = (slice(top, top + size[0]), slice(left, left + size[1]))
    return image[:, *window], valid[window]
