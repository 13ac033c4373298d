"""Augmentation of batches with any number of bands, in which the ground sample distance stays true.

Every function takes a batch and returns a new one, on the batch's own device. Random numbers come from
`batch["key"]` and the name of the decision (`stream`) alone, so a sample is cut the same way whatever the
batch size, worker or rank. Works before and after normalization; uint8 images come back as float32 from
anything that interpolates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from swath.datasets.chip import Batch
from swath.keyed_random import uniform

Filter = Literal["area", "bilinear", "bicubic"]
# Reach of each antialiased filter in source pixels, at a scale of one.
_REACH = {"area": 0.5, "bilinear": 1.0, "bicubic": 2.0}


def crop_boxes(
    key: Tensor,
    height: int,
    width: int,
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (1.0, 1.0),
    stream: str = "crop",
) -> list[tuple[int, int, int, int]]:
    """Random crops, whole pixels, one a sample: (top, left, height, width).

    The area is uniform in `scale` (as a share of the image), the logarithm of width / height uniform in
    `ratio`, the place uniform; a crop that would not fit is cut to the image.
    """
    u = uniform(key.cpu(), stream, 4).double()
    area = (scale[0] + (scale[1] - scale[0]) * u[:, 0]) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * u[:, 1])
    tall = torch.sqrt(area / aspect).clamp(1, height)
    wide = torch.sqrt(area * aspect).clamp(1, width)
    if ratio == (1.0, 1.0):  # a square stays one in a frame that is narrower than it
        tall = wide = torch.minimum(tall, wide)
    tall, wide = tall.round().long(), wide.round().long()
    top = (u[:, 2] * (height - tall + 1)).long()
    left = (u[:, 3] * (width - wide + 1)).long()
    return cast(
        list[tuple[int, int, int, int]], [tuple(b) for b in torch.stack([top, left, tall, wide], 1).tolist()]
    )


def random_resized_crop(
    batch: Batch,
    size: int | tuple[int, int],
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (1.0, 1.0),
    filter: Filter = "bicubic",
    stream: str = "crop",
) -> Batch:
    """Cut a random part of every image and resize it to `size`.

    Args:
        batch: With `image` [B, C, H, W], `gsd`, `key` and, optionally, `valid`.
        size: Side, or (height, width), of the result in pixels.
        scale: Range of the crop's share of the image area.
        ratio: Range of the crop's width / height.
        filter: Interpolation, antialiased where it shrinks.
        stream: Name of the decision; two crops of one sample need two names.

    Returns:
        The batch with `image` and `valid` of the new size and each sample's `gsd` multiplied by its crop's
        pixels per new pixel (geometric mean over the two axes).
    """
    height, width = batch["image"].shape[-2:]
    boxes = crop_boxes(batch["key"], height, width, scale=scale, ratio=ratio, stream=stream)
    return _resample(batch, boxes, (size, size) if isinstance(size, int) else size, filter)


def resize_images(batch: Batch, size: int | tuple[int, int], *, filter: Filter = "area") -> Batch:
    """Resize whole images to `size` (side, or height and width); `gsd` follows."""
    height, width = batch["image"].shape[-2:]
    boxes = [(0, 0, height, width)] * len(batch["image"])
    return _resample(batch, boxes, (size, size) if isinstance(size, int) else size, filter)


def _resample(
    batch: Batch, boxes: list[tuple[int, int, int, int]], size: tuple[int, int], filter: Filter
) -> Batch:
    if filter not in _REACH:
        raise ValueError(f"filter is 'area', 'bilinear' or 'bicubic', not {filter!r}")
    image = batch["image"] if batch["image"].is_floating_point() else batch["image"].float()
    valid = batch.get("valid")
    whole = [True] * len(image) if valid is None else valid.flatten(1).all(dim=1).tolist()
    new = image.new_empty(*image.shape[:2], *size)
    new_valid = torch.ones(len(image), *size, dtype=torch.bool, device=image.device)
    for i, (top, left, tall, wide) in enumerate(boxes):
        window = (slice(i, i + 1), slice(None), slice(top, top + tall), slice(left, left + wide))
        piece = image[window]
        if whole[i]:
            new[i] = _interpolate(piece, size, filter)[0]
        else:
            assert valid is not None
            new[i], new_valid[i] = _interpolate_valid(piece, valid[:, None][window], size, filter)
    factor = torch.tensor(
        [math.sqrt(tall * wide / (size[0] * size[1])) for _, _, tall, wide in boxes], dtype=torch.float32
    )
    changed = batch.copy()
    changed["image"] = new
    changed["gsd"] = batch["gsd"] * factor.to(batch["gsd"].device)
    if valid is not None:
        changed["valid"] = new_valid
    return changed


def _interpolate(image: Tensor, size: tuple[int, int], filter: Filter) -> Tensor:
    if image.shape[-2:] == size:
        return image
    if filter == "area":
        return F.interpolate(image, size=size, mode="area")
    return F.interpolate(image, size=size, mode=filter, align_corners=False, antialias=True)


def _interpolate_valid(
    image: Tensor, valid: Tensor, size: tuple[int, int], filter: Filter
) -> tuple[Tensor, Tensor]:
    """One image [1, C, h, w] with nodata -> its resampled pixels and which of them are valid.

    Area averages are taken over the valid pixels and are valid where those are half or more. Other filters
    overshoot at edges, so there a pixel is valid only if all that it is made of is.
    """
    weight = valid.to(image.dtype)
    if filter == "area":
        share = _interpolate(weight, size, filter)
        mean = _interpolate(image * weight, size, filter) / share.clamp_min(1e-6)
        good = share >= 0.5
    else:
        reach = [
            math.ceil(_REACH[filter] * max(1.0, old / new))
            for old, new in zip(image.shape[-2:], size, strict=True)
        ]
        bad = F.max_pool2d(1 - weight, (2 * reach[0] + 1, 2 * reach[1] + 1), stride=1, padding=tuple(reach))
        good = F.interpolate(bad, size=size, mode="nearest-exact") == 0
        mean = _interpolate(image * weight, size, filter)
    return torch.where(good, mean, 0)[0], good[0, 0]


def paired_random_crop(
    sensors: Mapping[str, Batch],
    *,
    size: int | None = None,
    scale: tuple[float, float] = (0.2, 1.0),
    filter: Filter = "bicubic",
    stream: str = "crop",
) -> dict[str, Batch]:
    """Cut the same ground out of the images of all sensors.

    Args:
        sensors: Sensor name -> batch of the same places; sizes may differ, keys do not.
        size: Side of the results in pixels; by default each sensor's images keep their own size.
        scale: Range of the crop's share of the area.
        filter: Interpolation.
        stream: Name of the decision.

    Boxes are drawn in whole pixels of the coarsest sensor, and lie on whole pixels of the others where those
    are a whole number of times finer; otherwise they are rounded, to less than half a fine pixel.
    """
    coarsest = min(sensors.values(), key=lambda batch: batch["image"].shape[-1])
    height, width = coarsest["image"].shape[-2:]
    boxes = crop_boxes(coarsest["key"], height, width, scale=scale, stream=stream)
    cut = {}
    for name, batch in sensors.items():
        tall, wide = batch["image"].shape[-2:]
        finer = (tall / height, wide / width)
        own = []
        for top, left, h, w in boxes:
            first, last = (round(top * finer[0]), round(left * finer[1])), (top + h, left + w)
            end = (round(last[0] * finer[0]), round(last[1] * finer[1]))
            own.append((*first, end[0] - first[0], end[1] - first[1]))
        cut[name] = _resample(batch, own, (tall, wide) if size is None else (size, size), filter)
    return cut


def random_flip_rotate(
    batch: Batch, *, rotate: bool = True, diagonal: bool = True, stream: str = "orientation"
) -> Batch:
    """Flip every image at random, left to right and, with `rotate`, also up to down and over the diagonal.

    With `rotate` the eight orientations of a square are equally likely (right-angle rotations and their
    mirror images; four where height and width differ, or without `diagonal`). Pixels move and keep their
    values; `gsd` stays.
    """
    coin = uniform(batch["key"], stream, 3).to(batch["image"].device) < 0.5
    square = diagonal and batch["image"].shape[-1] == batch["image"].shape[-2]
    changed = batch.copy()
    changed["image"] = _orient(batch["image"], coin, rotate, square)
    if "valid" in batch:
        changed["valid"] = _orient(batch["valid"], coin, rotate, square)
    return changed


def _orient(x: Tensor, coin: Tensor, rotate: bool, square: bool) -> Tensor:
    if x.device.type == "cpu":
        return _orient_in_groups(x, coin, rotate, square)
    shape = (-1, *(1,) * (x.ndim - 1))
    x = torch.where(coin[:, 0].view(shape), x.flip(-1), x)
    if rotate:
        x = torch.where(coin[:, 1].view(shape), x.flip(-2), x)
        if square:
            x = torch.where(coin[:, 2].view(shape), x.transpose(-1, -2), x)
    return x


def _orient_in_groups(x: Tensor, coin: Tensor, rotate: bool, square: bool) -> Tensor:
    """The same for a CPU: a sample is moved once, where `torch.where` reads and writes all three times."""
    new = torch.empty_like(x)
    for i, (across, down, over) in enumerate(coin.tolist()):
        one = x[i].flip(-1) if across else x[i]
        one = one.flip(-2) if rotate and down else one
        new[i] = one.transpose(-1, -2) if rotate and square and over else one
    return new
