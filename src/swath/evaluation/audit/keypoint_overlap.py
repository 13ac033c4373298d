"""Images that show a part of the same ground, shifted against one another and perhaps at another scale.

Scene collections are cut from mosaics, and neighbors overlap: no hash of the whole image sees it, and few
embeddings do. What sees it is what stitches panoramas: **landmarks** (corners that stand out), a small
normalized patch around each as its description, and agreement. Two images of the same ground have several
landmarks that match *under one shift*. Each such suspicion is then verified on the pixels: the detail of
the part that both images would share has to correlate.

Images of different GSD are compared at the coarser one of the two. Rotations are not searched here (cuts of
one mosaic have none); copies that were turned as a whole are found by `near_duplicates`.

Legend: B images, M landmarks, D numbers of a description.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swath.evaluation.audit.near_duplicates import correlation, detail, weighted_shifts

_APART = 9  # pixels: of landmarks closer than this, the weaker one is dropped
_MOST = 96  # landmarks of one image
_PATCH, _SAMPLES = 24, 8  # a description is a patch of 24 x 24 pixels at 8 x 8 points
SMALLEST = 48  # pixels: a reduced image below this side is not described
_ALIKE = 0.86  # cosine of two descriptions of one landmark
_AGREE = 3  # pixels within which shifts agree
_VOTES = 2  # landmarks that have to agree before pixels are checked


@dataclass(slots=True)
class Keypoints:
    """Landmarks of many images at one GSD.

    Attributes:
        image: [M] int64, whose landmark it is.
        place: [M, 2] float32, row and column in pixels at this GSD.
        description: [M, D] float32, unit length.
        native: [M] bool, whether the image has this GSD itself and was not reduced to it.
    """

    image: Tensor
    place: Tensor
    description: Tensor
    native: Tensor


@dataclass(frozen=True, slots=True)
class ImageOverlap:
    """Ground that two images share.

    Attributes:
        query: Number of the query.
        train: Number of the train image.
        fraction: Shared area over that of the smaller image on the ground, 0 to 1.
        correlation: Of the detail of that area in both.
        scale: GSD of the coarser over that of the finer one.
    """

    query: int
    train: int
    fraction: float
    correlation: float
    scale: float


def gsd_levels(
    gsds: NDArray[np.float64], *, tolerance: float = 0.06, max_count: int = 8
) -> NDArray[np.float64]:
    """Distinct GSDs, ascending: those within `tolerance` count as one (its geometric mean).

    More than `most` of them give an empty array: comparing all with all would be no search any more, and
    images are compared as they are.
    """
    levels: list[list[float]] = []
    for value in np.sort(gsds):
        if levels and value <= levels[-1][0] * (1 + tolerance):
            levels[-1].append(float(value))
        else:
            levels.append([float(value)])
    return (
        np.array([np.exp(np.mean(np.log(level))) for level in levels])
        if len(levels) <= max_count
        else np.array([])
    )


def reduced(shades: Tensor, factor: float) -> Tensor:
    """Gray images [B, H, W] reduced by a factor of 1 or more, by area with antialiasing."""
    if factor < 1.03:
        return shades
    size = (round(shades.shape[1] / factor), round(shades.shape[2] / factor))
    return F.interpolate(shades[:, None], size=size, mode="bilinear", antialias=True, align_corners=False)[
        :, 0
    ]


def detect_keypoints(shades: Tensor, image: Sequence[int], native: bool) -> Keypoints:
    """The landmarks of gray images [B, H, W]: corners by Shi and Tomasi (1994), the strongest first."""
    smooth = detail(shades, coarse=8.0, fine=1.0)
    dy, dx = torch.gradient(smooth, dim=(1, 2))
    box = torch.stack([dx * dx, dy * dy, dx * dy], dim=1)
    xx, yy, xy = weighted_shifts(box, [0.2] * 5).unbind(dim=1)
    strength = (xx + yy) / 2 - ((xx - yy).square() / 4 + xy.square()).sqrt()  # the smaller eigenvalue
    margin = _PATCH // 2
    inside = torch.zeros_like(strength)
    inside[:, margin:-margin, margin:-margin] = 1
    strength = strength * inside
    peak = _largest_near(strength, _APART)
    strength = torch.where((strength == peak) & (strength > 1e-4), strength, 0.0)
    best = strength.flatten(1).topk(min(_MOST, strength[0].numel()), dim=1)
    keep = best.values > 0
    owner = torch.arange(len(shades))[:, None].expand_as(keep)[keep]
    row, column = best.indices[keep] // shades.shape[2], best.indices[keep] % shades.shape[2]
    blurred = weighted_shifts(smooth, [1 / 3] * 3)
    step = _PATCH // _SAMPLES
    offset = torch.arange(_SAMPLES) * step - margin + step // 2
    patch = blurred[
        owner[:, None, None], (row[:, None] + offset)[:, :, None], (column[:, None] + offset)[:, None, :]
    ].flatten(1)
    patch = patch - patch.mean(dim=1, keepdim=True)
    return Keypoints(
        torch.as_tensor(image)[owner],
        torch.stack([row, column], dim=1).float(),
        F.normalize(patch, dim=1),
        torch.full((len(owner),), native),
    )


def _largest_near(images: Tensor, reach: int) -> Tensor:
    """[B, H, W] the largest value within `reach` pixels in both directions; values are not negative."""
    for axis in (1, 2):
        padding = (reach, reach) if axis == 2 else (0, 0, reach, reach)
        window = F.pad(images, padding)
        length = 1  # how many neighbors `window` has the maximum of; doubled while it is short of all
        while length < 2 * reach + 1:
            step = min(length, 2 * reach + 1 - length)
            size = window.shape[axis] - step
            window = torch.maximum(window.narrow(axis, 0, size), window.narrow(axis, step, size))
            length += step
        images = window
    return images


def concat_keypoints(parts: Sequence[Keypoints]) -> Keypoints:
    """Landmarks of several batches together."""
    return Keypoints(
        torch.cat([p.image for p in parts]),
        torch.cat([p.place for p in parts]),
        torch.cat([p.description for p in parts]),
        torch.cat([p.native for p in parts]),
    )


def describe_keypoints(
    shades: Tensor, gsd: Sequence[float], image: Sequence[int], levels: NDArray[np.float64]
) -> Iterator[tuple[int, Keypoints]]:
    """(level, landmarks) of gray images [B, H, W] at their own GSD and at every coarser level.

    Args:
        shades: The images.
        gsd: Of each.
        image: Number of each.
        levels: Of `gsd_levels`; empty for one level that all images are of.
    """
    if not len(levels):
        yield 0, detect_keypoints(shades, image, native=True)
        return
    own = np.abs(np.log(np.asarray(gsd)[:, None] / levels[None])).argmin(axis=1)
    for mine in np.unique(own):
        chosen = np.flatnonzero(own == mine)
        for level in range(mine, len(levels)):
            factor = float(levels[level] / levels[mine])
            if min(shades.shape[1:]) / factor < SMALLEST:
                break
            smaller = reduced(shades[torch.from_numpy(chosen)], factor)
            yield level, detect_keypoints(smaller, [image[i] for i in chosen.tolist()], native=level == mine)


def match_keypoints(
    test: Keypoints, train: Keypoints, *, chunk: int = 2048
) -> list[tuple[int, int, float, float, int]]:
    """(query, train image, rows, columns, votes): shifts that two landmarks or more agree on.

    The shift leads from places in the query to places in the train image. Pairs of which both images were
    reduced are left to the finer level.
    """
    votes: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for asked in (True, False):
        rows = (test.native == asked).nonzero()[:, 0]
        columns = torch.arange(len(train.image)) if asked else train.native.nonzero()[:, 0]
        known = train.description[columns].T
        for part in torch.split(rows, chunk):
            alike = (test.description[part] @ known >= _ALIKE).nonzero()
            first, second = part[alike[:, 0]], columns[alike[:, 1]]
            shift = (train.place[second] - test.place[first]).tolist()
            for q, b, (dy, dx) in zip(
                test.image[first].tolist(), train.image[second].tolist(), shift, strict=True
            ):
                votes[q, b].append((dy, dx))
    found = []
    for (q, b), shifts in votes.items():
        if len(shifts) < _VOTES:
            continue
        points = np.array(shifts)
        agree = np.abs(points[:, None] - points[None]).max(axis=2) <= _AGREE
        center = int(agree.sum(axis=1).argmax())
        count = int(agree[center].sum())
        if count >= _VOTES:
            dy, dx = np.median(points[agree[center]], axis=0)
            found.append((q, b, float(dy), float(dx), count))
    return found


def shared_part(
    query: Tensor, train: Tensor, shift: tuple[float, float], *, search: int = 2
) -> tuple[float, float]:
    """(correlation, share) of two gray images [H, W] at one GSD, at the best shift near the one suspected.

    The share is that of the smaller image's area. (0, 0) where less than 16 pixels overlap in a direction.
    """
    first, second = detail(query[None], coarse=6.0, fine=1.0)[0], detail(train[None], coarse=6.0, fine=1.0)[0]
    best = (0.0, 0.0)
    for dy in range(round(shift[0]) - search, round(shift[0]) + search + 1):
        for dx in range(round(shift[1]) - search, round(shift[1]) + search + 1):
            top, left = max(0, -dy), max(0, -dx)
            height = min(first.shape[0] - top, second.shape[0] - max(0, dy))
            width = min(first.shape[1] - left, second.shape[1] - max(0, dx))
            if min(height, width) < 16:
                continue
            a = first[top : top + height, left : left + width]
            b = second[max(0, dy) :, max(0, dx) :][:height, :width]
            value = float(correlation(a[None], b[None])[0])
            fraction = height * width / min(first.numel(), second.numel())
            best = max(best, (value, fraction))
    return best


def verify_overlaps(
    suspects: Sequence[tuple[int, int, float, float, int]],
    shade_of: Callable[[str, int], Tensor],
    factors: Callable[[int, int], tuple[float, float]],
    *,
    minimum: float = 0.8,
) -> list[ImageOverlap]:
    """Those suspicions whose pixels agree.

    Args:
        suspects: Of `suspected_shifts`.
        shade_of: ("query" or "bank", number) -> gray image [H, W] at its own GSD.
        factors: (query, train image) -> by what each has to be reduced to the GSD of the suspicion.
        minimum: Correlation of the detail that counts as the same ground.
    """
    found = []
    for q, b, dy, dx, _ in suspects:
        ours, theirs = factors(q, b)
        first, second = (
            reduced(shade_of("query", q)[None], ours)[0],
            reduced(shade_of("train", b)[None], theirs)[0],
        )
        value, fraction = shared_part(first, second, (dy, dx))
        if value >= minimum:
            found.append(ImageOverlap(q, b, fraction, value, max(ours, theirs)))
    return found
