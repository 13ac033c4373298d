"""Features that nobody trained: what a model must beat before its training counts for anything.

From cheap to strong: channel statistics, color histograms, raw pixels, and random convolutional features
(RCF): the mean rectified response to random whitened patches (Coates and Ng 2011; for satellite imagery Rolf
et al. 2021, "A generalizable and accessible approach to machine learning with global satellite imagery"). A
randomly initialized copy of the model's own encoder shows how much of its score is architecture.

Legend: B images, C bands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from swath.datasets.chip import Batch
from swath.encoders import create_model
from swath.errors import ImageryError, SwathError, suggest
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.extract import resize_batch
from swath.evaluation.features.model import ModelFeatureExtractor
from swath.evaluation.features.protocol import FeatureExtractor, GsdMode
from swath.models.model import Model

_IDENTITY = "swath.evaluation.features.baselines/1"  # for the cache: another number when features change
_SAMPLE = 256  # train images that are enough for band statistics and for drawing patches,
_VALUES = 50_000_000  # or fewer where they are large: this many values at most


class ImageStatistics:
    """Mean and standard deviation of each band over the image, in the sensor's unit: [B, 2 C]."""

    name = "image statistics"
    min_image_size = 1
    identity, learns = _IDENTITY, False

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"baseline": "mean and std of each band"}

    def fit(self, part: EvalSubset, image_size: int) -> None:
        """Nothing depends on data."""

    def __call__(self, batch: Batch) -> Tensor:
        """[B, 2 C] features; only valid pixels count."""
        image, weight = _masked(batch)
        total = weight.sum(dim=(2, 3)).clamp_min(1.0)
        mean = (image * weight).sum(dim=(2, 3)) / total
        spread = ((image - mean[:, :, None, None]).square() * weight).sum(dim=(2, 3)) / total
        return torch.cat([mean, spread.sqrt()], dim=1)


class ColorHistogram:
    """Share of the pixels in 8 equal bins of each band: [B, 8 C].

    The bins span 0 to 256 for display values and mean +- 2.5 standard deviations of the train split for
    other units; what lies beyond counts in the outermost.
    """

    name = "color histogram"
    min_image_size = 1
    identity = _IDENTITY

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"baseline": "histogram of each band", "bins": 8}

    def fit(self, part: EvalSubset, image_size: int) -> None:
        """Choose the bins' range."""
        sensor = part.dataset.sensor
        if sensor.unit == "uint8":
            self.low, self.width = torch.zeros(len(sensor.bands), 1, 1), torch.tensor(32.0)
        else:
            mean, std = _band_statistics(_sample(part, image_size))
            self.low, self.width = mean - 2.5 * std, 5 * std / 8

    def __call__(self, batch: Batch) -> Tensor:
        """[B, 8 C] features; only valid pixels count."""
        image, weight = _masked(batch)
        bins = ((image - self.low) / self.width).floor().clamp(0, 7)
        total = weight.sum(dim=(2, 3)).clamp_min(1.0)
        fractions = [((bins == i) * weight).sum(dim=(2, 3)) / total for i in range(8)]
        return torch.stack(fractions, dim=2).flatten(1)


class RawPixels:
    """The image itself, area-resized to 16 x 16 pixels: [B, 256 C]."""

    name = "raw pixels"
    min_image_size = 1
    identity = _IDENTITY

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"baseline": "pixels at 16 x 16"}

    def fit(self, part: EvalSubset, image_size: int) -> None:
        """Measure mean and standard deviation of each band over images of the train split."""
        self.mean, self.std = _band_statistics(_sample(part, image_size))

    def __call__(self, batch: Batch) -> Tensor:
        """[B, 256 C] features."""
        return _standard(resize_batch(batch, 16), self.mean, self.std).flatten(1)


class RandomPatches:
    """Filters drawn from the train split, and what images answer to them; shared by the two forms of RCF.

    Args:
        count: Number of patches.
        size: Side of a patch in pixels.
        seed: Of the choice of patches.
    """

    def __init__(self, count: int = 512, *, size: int = 6, seed: int = 0) -> None:
        self.count, self.size, self.seed = count, size, seed
        self._fitted_to: tuple[EvalSubset, int] | None = None
        self._last: tuple[Tensor, tuple[Tensor, Tensor, Tensor]] | None = None

    def fit(self, part: EvalSubset, image_size: int) -> None:
        """Draw patches from train images at `side` pixels, whiten them (ZCA), scale each to length 1."""
        if self._fitted_to is not None and self._fitted_to[0] is part and self._fitted_to[1] == image_size:
            return
        self._fitted_to, self._last = (part, image_size), None
        images = _sample(part, max(image_size, self.size))
        self.mean, self.std = _band_statistics(images)
        images = torch.nan_to_num((images - self.mean) / self.std)
        generator = torch.Generator().manual_seed(self.seed)
        requested = max(20 * self.count, 20_000)  # for the covariance; the first `count` become filters
        span = images.shape[2] - self.size + 1
        which = torch.randint(len(images), (requested,), generator=generator)
        row = torch.randint(span, (requested,), generator=generator)
        column = torch.randint(span, (requested,), generator=generator)
        step = torch.arange(self.size)
        patches = images[
            which[:, None, None], :, (row[:, None] + step)[:, :, None], (column[:, None] + step)[:, None, :]
        ]  # [wanted, size, size, C]
        flat = patches.permute(0, 3, 1, 2).flatten(1)
        mean = flat.mean(dim=0)
        values, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
        whiten = vectors @ torch.diag((values.clamp_min(0) + 0.05).rsqrt()) @ vectors.T
        kernel = F.normalize((flat[: self.count] - mean) @ whiten, dim=1) @ whiten
        self.bias = -(kernel @ mean)
        self.kernel = kernel.view(self.count, images.shape[1], self.size, self.size)

    @torch.inference_mode()
    def predictions(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean over the image of relu(r), relu(r - 1) and relu(-r - 1) of responses r: [B, count] each."""
        if self._last is not None and self._last[0] is batch["image"]:
            return self._last[1]
        image = _standard(batch, self.mean, self.std)
        short = [max(0, self.size - image_size) for image_size in image.shape[2:]]
        if any(short):
            image = F.pad(image, (0, short[1], 0, short[0]))
        parts = []
        for start in range(0, len(image), 8):  # responses are 170 times as large as their image
            response = F.conv2d(image[start : start + 8], self.kernel, self.bias)
            rectified = F.relu(response), F.relu(response - 1), F.relu(-1 - response)
            parts.append([values.mean(dim=(2, 3)) for values in rectified])
        plain, up, down = (torch.cat(values) for values in zip(*parts, strict=True))
        self._last = batch["image"], (plain, up, down)
        return plain, up, down


class RandomConvolutionalFeatures:
    """Responses to random whitened patches of the train split, rectified and averaged over the image.

    Args:
        both_signs: [B, 2 * count] features relu(r - 1) and relu(-r - 1) of each response r, the stronger
            form; otherwise [B, count] features relu(r).
        patches: The filters; may be shared, which halves the work of scoring both forms.
    """

    min_image_size = 1
    identity = _IDENTITY

    def __init__(self, patches: RandomPatches | None = None, *, both_signs: bool = True) -> None:
        self.patches = patches or RandomPatches()
        self.both_signs, count = both_signs, self.patches.count
        self.name = f"RCF {2 * count}, +-ReLU" if both_signs else f"RCF {count}"
        self.settings: dict[str, Any] = {
            "baseline": "random convolutional features",
            "patches": count,
            "size": self.patches.size,
            "seed": self.patches.seed,
            "rectifier": "relu(r - 1), relu(-r - 1)" if both_signs else "relu(r)",
        }

    def fit(self, part: EvalSubset, image_size: int) -> None:
        """Draw the patches."""
        self.patches.fit(part, image_size)

    def __call__(self, batch: Batch) -> Tensor:
        """[B, count] or [B, 2 * count] features."""
        plain, up, down = self.patches.predictions(batch)
        return torch.cat([up, down], dim=1) if self.both_signs else plain


def random_init(
    model: Model, *, seed: int = 0, pooling: str | None = None, gsd_mode: GsdMode | None = None
) -> ModelFeatureExtractor:
    """The model's encoder, freshly initialized: same contract, same pooling, nothing learned.

    Raises:
        SwathError: The model does not say how its encoder is built (it was never saved).
    """
    encoder = model.config.get("encoder")
    if encoder is None:
        raise SwathError("this model does not say how its encoder is built, so it cannot be initialized anew")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = create_model(encoder["name"], **encoder["options"])
    fresh_model = Model(fresh.to(model.device), model.contract, pooling=model.pooling)
    extractor = ModelFeatureExtractor(fresh_model, name="random init", pooling=pooling, gsd_mode=gsd_mode)
    extractor.settings |= {"model": f"random initialization of {encoder['name']}", "seed": seed}
    return extractor


# Name on the command line (`baseline:rcf`) -> how to make it.
BASELINES: dict[str, Callable[[], FeatureExtractor]] = {
    "statistics": ImageStatistics,
    "histogram": ColorHistogram,
    "pixels": RawPixels,
    "rcf-plain": lambda: RandomConvolutionalFeatures(both_signs=False),
    "rcf": RandomConvolutionalFeatures,
}


def all_baselines() -> list[FeatureExtractor]:
    """One of each, from cheap to strong."""
    patches = RandomPatches()
    return [
        ImageStatistics(),
        ColorHistogram(),
        RawPixels(),
        RandomConvolutionalFeatures(patches, both_signs=False),
        RandomConvolutionalFeatures(patches),
    ]


def make_baseline(name: str) -> FeatureExtractor:
    """The baseline called `name`; see `BASELINES`."""
    if name not in BASELINES:
        raise SwathError(f"unknown baseline {name!r}.{suggest(name, list(BASELINES))}")
    return BASELINES[name]()


def _masked(batch: Batch) -> tuple[Tensor, Tensor]:
    """Images [B, C, H, W] with 0 where not valid, and weights [B, 1, H, W] that are 1 where valid."""
    image = batch["image"].float()
    valid = torch.isfinite(image).all(dim=1)
    if "valid" in batch:
        valid = valid & batch["valid"]
    mask = valid.unsqueeze(1)
    return image.masked_fill(~mask, 0.0), mask.float()


def _standard(batch: Batch, mean: Tensor, std: Tensor) -> Tensor:
    """Images with the train split's mean and standard deviation of each band taken out; 0 where not valid."""
    image, weight = _masked(batch)
    return (image - mean) / std * weight


def _sample(part: EvalSubset, image_size: int) -> Tensor:
    """Some images of the train split [n, C, side, side], NaN where not valid."""
    count = max(8, min(_SAMPLE, _VALUES // (len(part.dataset.sensor.bands) * image_size * image_size)))
    chosen = np.random.default_rng(0).permutation(part.indices)[:count]
    batch: Any = part.dataset.get_batch(chosen)
    if not len(batch["image"]):
        raise ImageryError(f"no {part.name} image could be read: {batch['problems'][0][1]}")
    batch = resize_batch(batch, image_size)
    image: Tensor = batch["image"].float()
    return image.masked_fill(~batch["valid"].unsqueeze(1), float("nan")) if "valid" in batch else image


def _band_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C, 1, 1] of the pixels that are not NaN."""
    mean = images.nanmean(dim=(0, 2, 3), keepdim=True)
    std = (images - mean).square().nanmean(dim=(0, 2, 3), keepdim=True).sqrt()
    return torch.nan_to_num(mean)[0], torch.nan_to_num(std, nan=1.0).clamp_min(1e-6)[0]
