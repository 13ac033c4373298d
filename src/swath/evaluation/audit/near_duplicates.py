"""Copies of an image under other names: the same bytes, or the same picture re-encoded, resized, turned.

Three steps from cheap to sure. A **perceptual hash** (dHash: is each pixel of a tiny gray image brighter than
its neighbor?) survives re-encoding, resizing and changes of brightness; hashes of all eight orientations of
a query meet those of the train split. A close hash is a suspicion only, because fields and water have hashes
that say little; so each suspicion is **verified on the pixels** by normalized cross-correlation of what
remains after the coarse brightness is taken out.

Any bands will do: each is standardized by its own image, and their mean is the gray that is used.

Legend: N train images, Q queries, B in a batch, S side of a thumbnail in pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from swath.datasets.chip import Batch
from swath.files import sha256

THUMBNAIL = 64  # pixels a side; what verification of whole images looks at
ORIENTATIONS = (
    "upright", "turned 90°", "turned 180°", "turned 270°",
    "mirrored", "mirrored, turned 90°", "mirrored, turned 180°", "mirrored, turned 270°",
)  # fmt: skip
_GRID = 8  # dHash compares 8 x 8 pairs of neighbors across and as many down: 128 bits


def standardized_gray(batch: Batch) -> Tensor:
    """[B, H, W] float32: the mean of the bands, each less its mean and over its deviation in its own image.

    Invalid pixels are 0, the mean. A band of one value says nothing and counts as 0.
    """
    image = batch["image"].float()
    valid = torch.isfinite(image).all(dim=1, keepdim=True)
    if "valid" in batch:
        valid = valid & batch["valid"].unsqueeze(1)
    weight = valid.float()
    total = weight.sum(dim=(2, 3), keepdim=True).clamp_min(1.0)
    image = image.masked_fill(~valid, 0.0)
    mean = image.sum(dim=(2, 3), keepdim=True) / total
    centered = (image - mean) * weight
    std = (centered.square().sum(dim=(2, 3), keepdim=True) / total).sqrt()
    flat = std <= 1e-6 * (mean.abs() + 1e-6)
    return (centered / std.clamp_min(1e-12)).masked_fill(flat, 0.0).mean(dim=1)


def thumbnails(shades: Tensor, image_size: int = THUMBNAIL) -> Tensor:
    """[B, S, S] of gray images [B, H, W], by area."""
    return F.interpolate(shades[:, None], size=(image_size, image_size), mode="area")[:, 0]


def perceptual_hashes(thumbs: Tensor) -> Tensor:
    """dHash as signs [B, 128] (1 or -1, int8) of thumbnails [B, S, S].

    The product of two is 128 less twice the number of bits that differ.
    """
    wide = F.interpolate(thumbs[:, None], size=(_GRID, _GRID + 1), mode="area")[:, 0]
    tall = F.interpolate(thumbs[:, None], size=(_GRID + 1, _GRID), mode="area")[:, 0]
    across, down = wide.diff(dim=2) > 0, tall.diff(dim=1) > 0
    bits = torch.cat([across.flatten(1), down.flatten(1)], dim=1)
    return torch.where(bits, 1, -1).to(torch.int8)


def orient(thumbs: Tensor, orientation: int) -> Tensor:
    """Square images [..., S, S] in one of the eight orientations (see `ORIENTATIONS`)."""
    mirrored = thumbs.flip(-1) if orientation >= 4 else thumbs
    return torch.rot90(mirrored, orientation % 4, dims=(-2, -1))


def close_hashes(
    test: Tensor, train: Tensor, *, bits: int = 16, chunk: int = 2048
) -> list[tuple[int, int, int]]:
    """Pairs of thumbnails [Q, S, S] and [N, S, S] whose hashes differ in at most `bits` of 128 bits.

    Returns:
        (query, train image, orientation of the query that the train image shows); each pair once, in the
        orientation that fits best.
    """
    known = perceptual_hashes(train).float()
    best: dict[tuple[int, int], tuple[int, int]] = {}
    for orientation in range(len(ORIENTATIONS)):
        asked = perceptual_hashes(orient(test, orientation)).float()
        for start in range(0, len(asked), chunk):
            agree = asked[start : start + chunk] @ known.T
            for row, column in (agree >= 128 - 2 * bits).nonzero().tolist():
                pair, score = (start + row, column), int(agree[row, column])
                if pair not in best or score > best[pair][0]:
                    best[pair] = (score, orientation)
    return [(*pair, orientation) for pair, (_, orientation) in sorted(best.items())]


def detail(shades: Tensor, *, coarse: float = 4.0, fine: float = 0.7) -> Tensor:
    """Images [B, H, W] without their coarse brightness and finest grain (a difference of Gaussians).

    Two fields are both bright above and dark below by chance; that their hedges coincide is no chance.

    Args:
        shades: Gray images.
        coarse: Standard deviation in pixels of what is taken out.
        fine: Of what is smoothed away: compression and resampling differ there.
    """
    return _blur(shades, fine) - _blur(shades, coarse)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [B, H, W]; a wide one is computed on a reduced image, which is as good and fast."""
    height, width = images.shape[1:]
    factor = int(sigma / 1.5)
    if factor > 1 and min(height, width) >= 2 * factor:
        size = (height // factor, width // factor)
        small = F.interpolate(images[:, None], size=size, mode="area")[:, 0]
        wide = _blur(small, sigma / factor)[:, None]
        return F.interpolate(wide, size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    reach = max(1, round(3 * sigma))
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-steps.square() / (2 * sigma**2))
    return weighted_shifts(images, (weights / weights.sum()).tolist())


def weighted_shifts(images: Tensor, weights: Sequence[float]) -> Tensor:
    """Images [..., H, W] correlated with `weights` (an odd number) along both axes; borders are repeated.

    A sum of shifted images: for one channel ten times as fast as a convolution of the library.
    """
    reach = len(weights) // 2
    for axis in (-1, -2):
        length = images.shape[axis]
        first, last = images.narrow(axis, 0, 1), images.narrow(axis, length - 1, 1)
        padded = torch.cat([first] * reach + [images] + [last] * reach, dim=axis)
        total = padded.narrow(axis, 0, length) * weights[0]
        for i, weight in enumerate(weights[1:], start=1):
            total.add_(padded.narrow(axis, i, length), alpha=weight)
        images = total
    return images


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """[B] normalized cross-correlation of images [B, H, W] of the same size; 0 where one is flat."""
    a, b = (x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True) for x in (first.double(), second.double()))
    length = (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()
    return torch.where(length > 1e-9, (a * b).sum(dim=1) / length.clamp_min(1e-30), 0.0)


def detail_correlations(test: Tensor, train: Tensor, suspects: Sequence[tuple[int, int, int]]) -> list[float]:
    """Correlation of the detail of each suspected pair of thumbnails; 1 for the same picture."""
    found: list[float] = []
    for start in range(0, len(suspects), 512):
        part = suspects[start : start + 512]
        first = torch.stack([orient(test[q], o) for q, _, o in part]).float()
        second = torch.stack([train[b] for _, b, _ in part]).float()
        found += correlation(detail(first), detail(second)).tolist()
    return found


def best_orientations(query: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """For pairs of thumbnails [B, S, S]: the largest correlation of their detail [B], and its orientation."""
    second = detail(train.float())
    scores = torch.stack(
        [correlation(detail(orient(query, o).float()), second) for o in range(len(ORIENTATIONS))]
    )
    best = scores.max(dim=0)
    return best.values, best.indices


def same_files(test: Sequence[str], train: Sequence[str]) -> list[tuple[int, int]]:
    """(query, bank file) of the same bytes; only files of one length are read."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, path in enumerate(train):
        by_size[Path(path).stat().st_size].append(i)
    digests: dict[str, str] = {}

    def digest(path: str) -> str:
        if path not in digests:
            digests[path] = sha256(path)
        return digests[path]

    found = []
    for i, path in enumerate(test):
        for j in by_size.get(Path(path).stat().st_size, []):
            if digest(path) == digest(train[j]):
                found.append((i, j))
    return found
