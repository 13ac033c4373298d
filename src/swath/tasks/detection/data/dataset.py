"""Data sets of images with boxes: one protocol for all annotation layouts, with tiles for large images.

A sample has what every sample of Swath has (`swath.datasets.protocol`), and

    bbox_xyxy [N, 4]  float32, left, top, right, bottom in pixels, cut at the image's edges
    obb       [N, 5]  float32, oriented boxes (`swath.tasks.detection.rotated_boxes`, le90), never cut: the
                      shape of an object does not change where the image ends
    label     [N]     int64 class indices
    difficult [N]     bool: neither learned from nor counted
    crowd     [N]     bool: of those, regions of many objects (COCO's ``iscrowd``), in which nothing that is
                      found counts as wrong

Upright annotations give upright `obb`; oriented ones give the `bbox_xyxy` that just holds them.

Large images are cut into tiles that overlap. A box belongs to every tile that shows at least `min_visible`
of its area; where a tile shows less of it, it is there as a difficult one, so that nobody learns that half a
ship is water.

Boxes that make no sense in their image (beyond its edges, without area, with their corners in the wrong
order, not numbers) are refused, with how many there are of each kind; or, with ``invalid_boxes="repair"``,
put right or left out by the rules of `fit_boxes`, each one listed in ``problems`` and counted in ``repairs``.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.image_files import Gsd
from swath.datasets.image_reading import is_raster
from swath.datasets.protocol import Epoch
from swath.errors import ImageryError, Problem, suggest
from swath.geo.grid import PixelWindow
from swath.keyed_random import sample_keys
from swath.rasters.pillow_reader import decode_image, read_image_header
from swath.rasters.read import SceneHeader, read_header
from swath.rasters.sensor_scene import OVERRIDE, SensorScene, match_scene_to_sensor
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.sensors.units import to_unit
from swath.tasks.detection.data.annotations import ImageBoxes, Layout, read_annotations
from swath.tasks.detection.rotated_boxes import from_xyxy, min_area_rect, rotated_iou

Array = NDArray[Any]
BOXES = ("bbox_xyxy", "obb", "label", "difficult", "crowd")  # what a sample and a batch say of their boxes
SLACK = 0.01  # pixels that a box may reach beyond its image by the rounding of its file


class DetectionSample(TypedDict, total=False):
    """One image or tile with its boxes; without `image` but with a `problem` where it cannot be read."""

    image: Tensor  # [C, H, W] uint8 or float32, in the sensor's unit
    gsd: float
    valid: Tensor  # [H, W] bool
    sensor: str
    index: int
    key: int
    bbox_xyxy: Tensor  # [N, 4]
    obb: Tensor  # [N, 5]
    label: Tensor  # [N] int64
    difficult: Tensor  # [N] bool
    crowd: Tensor  # [N] bool
    window: tuple[int, int, int, int]  # column, row, width, height in the image's own pixels
    source: str  # path of the image
    problem: Problem


class Boxes(TypedDict):
    """The boxes of one whole image, as tensors."""

    bbox_xyxy: Tensor  # [N, 4] float64
    obb: Tensor  # [N, 5] float64
    label: Tensor  # [N]
    difficult: Tensor  # [N]
    crowd: Tensor  # [N]


class DetectionDataset:
    """Annotated images, or tiles of them, as a map-style data set.

    Args:
        path: The annotations, see `swath.tasks.detection.data.annotations`.
        sensor: What the images were taken with.
        gsd: Metres per pixel of all images, "relative", the name of a number that the annotations state for
            each image ("gsd_m"), or None for what the files' georeference says.
        layout: Of the annotations.
        images: Folder of the images, where it is not the layout's own.
        classes: Class names in the order of their indices; by default those that the annotations name. Boxes
            of other classes are refused.
        where: Keep the images whose fields have these values: ``{"site": "SJER"}`` or ``{"site": ["SJER"]}``.
        tile: Side of tiles in pixels; None for whole images.
        overlap: Of neighboring tiles, in pixels. The last tile of a row ends with the image.
        min_visible: Least share of a box's area for it to belong to a tile.
        invalid_boxes: What to do about boxes that make no sense: "error" or "repair".
        cache: "memory" decodes every image once and keeps it.
        offset_dn: Added to stored values before scaling (Sentinel-2 files that do not say their baseline).
        seed: Of the samples' keys.
        workers: Threads that read the images' headers.

    Attributes:
        labels: None: labels belong to boxes here, not to images.
        classes: Class names.
        paths: The image of every sample.
        fields: What the annotations say besides about each image (not tile), such as ``site``.
        problems: (path, reason) of every image left out and every box put right or left out.
        repairs: How often each kind of repair was made.

    Raises:
        ImageryError: Nothing usable; boxes that make no sense; classes or fields that are not there.
    """

    labels = None
    collate = staticmethod(lambda samples: collate_detections(samples))

    def __init__(
        self,
        path: str | Path,
        sensor: str | Path | Sensor,
        gsd: Gsd | str = None,
        *,
        layout: Layout = "auto",
        images: str | Path | None = None,
        classes: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        tile: int | None = None,
        overlap: int = 0,
        min_visible: float = 0.5,
        invalid_boxes: Literal["error", "repair"] = "error",
        cache: Literal["none", "memory"] = "none",
        offset_dn: float | None = None,
        seed: int = 0,
        workers: int | None = None,
    ) -> None:
        if invalid_boxes not in ("error", "repair"):
            near = suggest(str(invalid_boxes), ["error", "repair"])
            raise ImageryError(f"invalid_boxes={invalid_boxes!r}:{near}")
        if tile is not None and not 0 <= overlap < tile:
            raise ImageryError(f"overlap={overlap}: from 0 to less than the tile's {tile} pixels is wanted")
        if not 0 < min_visible <= 1:
            raise ImageryError(f"min_visible={min_visible}: a share above 0 and up to 1 is wanted")
        self.sensor = get_sensor(sensor)
        self.seed, self.min_visible = seed, min_visible
        self._epoch = Epoch()
        self._cache = cache == "memory"
        self._kept: dict[str, tuple[Array, Array]] = {}  # whole images; without a cache the last one
        found = read_annotations(path, layout=layout, images=images)
        self.classes = list(classes) if classes is not None else found.classes
        self.problems: list[Problem] = list(found.problems)
        self.repairs: Counter[str] = Counter()
        chosen = [image for image in found.images if _matches(image, where or {})]
        if not chosen:
            raise ImageryError(f"{path}: none of {len(found.images)} images has {dict(where or {})}")
        self.scenes: list[SensorScene] = []
        self.fields: list[dict[str, Any]] = []
        self.boxes: list[Boxes] = []
        wrong: list[tuple[str, str]] = []
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            for image, scene in zip(
                chosen, pool.map(lambda one: self._scene(one, gsd, offset_dn), chosen), strict=True
            ):
                if isinstance(scene, ImageryError):
                    self.problems.append((str(image.path), str(scene)))
                    continue
                self.scenes.append(scene)
                self.fields.append(image.fields)
                size = (scene.header.height, scene.header.width)
                fitted, repairs = validate_boxes(image, size, self.classes)
                wrong += repairs
                self.boxes.append(fitted)
        if not self.scenes:
            raise ImageryError(f"{path}: no usable image; the first problem: {self.problems[0][1]}")
        self.repairs.update(kind for kind, _ in wrong)
        if wrong and invalid_boxes == "error":
            counts = ", ".join(f"{count} {kind}" for kind, count in self.repairs.most_common())
            raise ImageryError(
                f"{path}: boxes that make no sense: {counts}. The first: {wrong[0][1]}. Correct the "
                "annotations, or take invalid_boxes='repair', which puts right what can be, leaves out "
                "the rest and lists both"
            )
        self.problems += [(text.split(",")[0], f"{text} ({kind})") for kind, text in wrong]
        self.items: list[tuple[int, PixelWindow]] = [
            (i, window)
            for i, scene in enumerate(self.scenes)
            for window in tile_windows(scene.header.width, scene.header.height, tile, overlap)
        ]
        self.paths = [self.scenes[i].header.path for i, _ in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the keys belong to; seen by running loader workers too."""
        self._epoch.set(epoch)

    @property
    def epoch(self) -> int:
        """The epoch last chosen."""
        return self._epoch.get()

    def __getitem__(self, index: int) -> DetectionSample:
        """Sample `index`, read now; only a `problem` with its `index` where it cannot be read."""
        index = range(len(self))[index]
        number, window = self.items[index]
        key = int(sample_keys(self.seed, self.epoch, torch.tensor([index])))
        return self.sample(number, window, index=index, key=key, min_visible=self.min_visible)

    def get_batch(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> dict[str, Any]:
        """The samples at `indices` as one batch, see `collate_detections`."""
        return collate_detections([self[int(i)] for i in indices])

    def sample(
        self, number: int, window: PixelWindow, *, index: int, key: int, min_visible: float
    ) -> DetectionSample:
        """What a window of image `number` shows; or a `problem`."""
        scene = self.scenes[number]
        try:
            image, valid = self._read(scene, window)
        except ImageryError as error:
            return {"index": index, "source": scene.header.path, "problem": (scene.header.path, str(error))}
        sample: DetectionSample = {
            "image": torch.from_numpy(image),
            "gsd": scene.gsd(window, (window.height, window.width)),
            "valid": torch.from_numpy(valid),
            "sensor": self.sensor.name,
            "index": index,
            "key": key,
            "window": (window.column, window.row, window.width, window.height),
            "source": scene.header.path,
        }
        return sample | clip_boxes_to_window(self.boxes[number], window, min_visible)

    def truth(self, index: int) -> dict[str, Tensor]:
        """The boxes of sample `index` without its pixels, as metrics want them."""
        number, window = self.items[index]
        return dict(clip_boxes_to_window(self.boxes[number], window, self.min_visible))  # type: ignore[arg-type]

    def _scene(
        self, image: ImageBoxes, gsd: Gsd | str, offset_dn: float | None
    ) -> SensorScene | ImageryError:
        path = str(image.path)
        if isinstance(gsd, str) and gsd != "relative" and not gsd.startswith(OVERRIDE):
            stated = image.fields.get(gsd)
            try:
                gsd = f"{OVERRIDE}{float(stated)}"  # type: ignore[arg-type]  # of None a TypeError
            except (TypeError, ValueError):
                return ImageryError(f"{path}: its annotations state {gsd}={stated!r}, which is no number")
        try:
            if is_raster(path):
                header = read_header(path)
            else:
                found = read_image_header(path)
                header = SceneHeader(path, (path,), "picture", found.width, found.height, found.bands,
                                     found.dtype, ("",) * found.bands)  # fmt: skip
            return match_scene_to_sensor(header, self.sensor, gsd=gsd, offset_dn=offset_dn)
        except ImageryError as error:
            return error

    def _read(self, scene: SensorScene, window: PixelWindow) -> tuple[Array, Array]:
        path, picture = scene.header.path, scene.header.driver == "picture"
        if not picture and not self._cache:
            return scene.read(window)  # of a raster only what is wanted
        if path not in self._kept:
            if not self._cache:
                self._kept.clear()  # but tiles of one picture come one after the other
            if picture:
                stored, valid = decode_image(path)
                self._kept[path] = (to_unit(stored, self.sensor, scene.offset_dn), valid)
            else:
                self._kept[path] = scene.read(PixelWindow(0, 0, scene.header.width, scene.header.height))
        image, valid = self._kept[path]
        part = (
            slice(window.row, window.row + window.height),
            slice(window.column, window.column + window.width),
        )
        return image[:, *part].copy(), valid[part].copy()


def _matches(image: ImageBoxes, wanted: Mapping[str, Any]) -> bool:
    return all(
        image.fields.get(key) in (list(value) if isinstance(value, list | tuple | set) else [value])
        for key, value in wanted.items()
    )


def tile_windows(width: int, height: int, tile: int | None, overlap: int) -> list[PixelWindow]:
    """Windows that cover an image, row by row; a side that is shorter than a tile is one short window."""
    if tile is None:
        return [PixelWindow(0, 0, width, height)]

    def starts(length: int) -> list[int]:
        count = max(1, math.ceil((length - overlap) / (tile - overlap)))
        return [max(0, min(i * (tile - overlap), length - tile)) for i in range(count)]

    return [
        PixelWindow(x, y, min(tile, width), min(tile, height)) for y in starts(height) for x in starts(width)
    ]


def validate_boxes(
    image: ImageBoxes, size: tuple[int, int], classes: Sequence[str]
) -> tuple[Boxes, list[tuple[str, str]]]:
    """The boxes of an image of `size` (height, width), and what was done for it: (kind, where and what).

    Upright boxes: corners in the wrong order are put in order, and what reaches beyond the image is cut off.
    Oriented boxes are never cut. Left out are boxes that are not numbers, that have no area, and those that
    lie outside altogether.

    Raises:
        ImageryError: A class that is not among `classes`.
    """
    height, width = size
    index = {name: i for i, name in enumerate(classes)}
    frame = np.array([width, height, width, height], dtype=np.float64)
    rows: list[tuple[Tensor, Tensor, int, bool, bool]] = []
    repairs: list[tuple[str, str]] = []
    for box, name, where, difficult, crowd in zip(
        image.boxes, image.labels, image.where, image.difficult, image.crowd, strict=True
    ):
        if name not in index:
            raise ImageryError(
                f"{where}: class {name!r} is none of the data set's.{suggest(name, list(index))}"
            )
        if image.relative:
            box = box * frame[:2] if box.ndim == 2 else box * frame
        what = f"{where}: {np.array2string(box.flatten(), precision=2, separator=', ', max_line_width=200)}"
        if not np.isfinite(box).all():
            repairs.append(("not a number: left out", what))
            continue
        upright = box if box.ndim == 1 else np.concatenate([box.min(0), box.max(0)])
        if (upright[:2] > upright[2:]).any():
            repairs.append(("inverted: corners put in order", what))
            upright = np.concatenate(
                [np.minimum(upright[:2], upright[2:]), np.maximum(upright[:2], upright[2:])]
            )
        oriented = (
            min_area_rect(torch.from_numpy(box)) if box.ndim == 2 else from_xyxy(torch.from_numpy(upright))
        )
        if float(oriented[2:4].min()) <= 0:
            repairs.append(("without area: left out", what))
            continue
        cut = np.clip(upright, 0, frame)
        if (cut[:2] >= cut[2:]).any():
            repairs.append(("outside the image: left out", what))
            continue
        if np.abs(cut - upright).max() > SLACK and box.ndim == 1:
            repairs.append(("beyond the image's edge: cut off there", what))
        inside = torch.from_numpy(cut)
        turned = from_xyxy(inside) if box.ndim == 1 else oriented
        rows.append((inside, turned, index[name], difficult, crowd))
    fitted: Boxes = {
        "bbox_xyxy": torch.stack([row[0] for row in rows]) if rows else torch.zeros(0, 4).double(),
        "obb": torch.stack([row[1] for row in rows]) if rows else torch.zeros(0, 5).double(),
        "label": torch.tensor([row[2] for row in rows], dtype=torch.int64),
        "difficult": torch.tensor([row[3] for row in rows], dtype=torch.bool),
        "crowd": torch.tensor([row[4] for row in rows], dtype=torch.bool),
    }
    return fitted, repairs


def clip_boxes_to_window(boxes: Boxes, window: PixelWindow, min_visible: float) -> DetectionSample:
    """The boxes that a window shows, in its pixels; those that it shows too little of are difficult."""
    left, top, wide, high = window.column, window.row, window.width, window.height
    frame = torch.tensor([[left + wide / 2, top + high / 2, wide, high, 0.0]], dtype=torch.float64)
    share = rotated_iou(boxes["obb"], frame, of="first")[:, 0]
    seen = share > 1e-9
    edge = torch.tensor([wide, high, wide, high])
    upright = (boxes["bbox_xyxy"][seen] - torch.tensor([left, top, left, top])).clamp(min=0).minimum(edge)
    return {
        "bbox_xyxy": upright.float(),
        "obb": (boxes["obb"][seen] - torch.tensor([left, top, 0, 0, 0])).float(),
        "label": boxes["label"][seen],
        "difficult": boxes["difficult"][seen] | (share[seen] < min_visible - 1e-9),
        "crowd": boxes["crowd"][seen],
    }


def collate_detections(samples: Sequence[DetectionSample]) -> dict[str, Any]:
    """Samples as a batch: images padded at the right and bottom to the largest, boxes as lists.

    Padding is 0 and not `valid`, so that the contract's normalization makes it nodata; `size` has each
    image's own (height, width). Samples that could not be read are left out and listed under `problems`.

    Raises:
        ImageryError: Nothing could be read, or images of two sensors.
    """
    good = [sample for sample in samples if "image" in sample]
    problems = [sample["problem"] for sample in samples if "problem" in sample]
    if not good:
        raise ImageryError(f"no image of this batch could be read: {problems[0][1] if problems else 'empty'}")
    if len({sample["sensor"] for sample in good}) > 1:
        raise ImageryError("a batch holds images of one sensor")
    sizes = [(int(s["image"].shape[1]), int(s["image"].shape[2])) for s in good]
    height, width = (max(side) for side in zip(*sizes, strict=True))
    first = good[0]["image"]
    image = first.new_zeros(len(good), len(first), height, width)
    valid = torch.zeros(len(good), height, width, dtype=torch.bool, device=first.device)
    for i, (sample, (h, w)) in enumerate(zip(good, sizes, strict=True)):
        image[i, :, :h, :w], valid[i, :h, :w] = sample["image"], sample["valid"]
    batch: dict[str, Any] = {
        "image": image,
        "valid": valid,
        "gsd": torch.tensor([sample["gsd"] for sample in good], dtype=torch.float32),
        "sensor": good[0]["sensor"],
        "index": torch.tensor([sample["index"] for sample in good]),
        "key": torch.tensor([sample["key"] for sample in good], dtype=torch.int64),
        "size": sizes,
    }
    for key in BOXES:
        batch[key] = [sample[key] for sample in good]  # type: ignore[literal-required]
    return batch | ({"problems": problems} if problems else {})
