"""What tasks do to their training images beside cropping; all of it a function of the samples' keys.

Legend: B images, T dates, C bands, H x W pixels, K classes.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from swath.augmentations.geometric import random_flip_rotate
from swath.augmentations.photometric import make_photometric
from swath.augmentations.photometric_options import Photometric
from swath.datasets.chip import Batch
from swath.keyed_random import uniform
from swath.objectives.protocol import ObjectiveConfig
from swath.sensors.sensor import Sensor


class AugmentConfig(ObjectiveConfig):
    """How training images are changed, in place and in color.

    Attributes:
        orientation: ``flip`` left to right; ``all`` eight orientations of a square, which for views from
            above are equally likely; or ``none``.
        photometric: As of objectives: none, auto (all that the sensor's physics allows, moderately), or the
            strength of each change, such as ``{gain: 0.2}``. Two dates are changed independently.
    """

    orientation: Literal["none", "flip", "all"] = "all"
    photometric: Photometric = "none"


class TaskAugmentation:
    """A config and what it means for a sensor.

    Raises:
        RecipeError: A photometric change that the sensor's physics does not allow.
    """

    def __init__(self, config: AugmentConfig, sensor: Sensor) -> None:
        self._orientation = config.orientation
        self._change = make_photometric(config.photometric, sensor)

    def __call__(self, batch: Batch) -> Batch:
        """A normalized batch, its `mask` along with it, oriented and colored at random.

        Args:
            batch: `image` [B, C, H, W] or [B, T, C, H, W], `key`; optionally `valid` and `mask` [B, H, W].
        """
        if self._orientation != "none":
            batch = _oriented(batch, rotate=self._orientation == "all")
        if self._change is None:
            return batch
        image = batch["image"]
        dates = image.unbind(1) if image.ndim == 5 else [image]
        changed = [
            self._change(cast(Batch, {**batch, "image": one}), f"photometric/{date}")["image"]
            for date, one in enumerate(dates)
        ]
        return cast(Batch, {**batch, "image": torch.stack(changed, 1) if image.ndim == 5 else changed[0]})


def _oriented(batch: Batch, rotate: bool) -> Batch:
    """Everything that has pixels goes through one call as bands of one image, so that nothing can differ."""
    every: dict[str, Any] = dict(batch)
    image = every["image"]
    rest = [name for name in ("valid", "mask") if name in every]
    flat = [image.flatten(1, -3), *(every[name].unsqueeze(1).to(image.dtype) for name in rest)]
    whole = cast(Batch, {"image": torch.cat(flat, dim=1), "key": every["key"]})
    turned = random_flip_rotate(whole, rotate=rotate)["image"]
    bands = flat[0].shape[1]
    every["image"] = turned[:, :bands].reshape(*image.shape[:-2], *turned.shape[2:])
    for i, name in enumerate(rest):
        every[name] = turned[:, bands + i].to(every[name].dtype)
    return cast(Batch, every)


# ------------------------------------------------------------------------------------- images of two images


class MixConfig(ObjectiveConfig):
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): labels are mixed as images are.

    Attributes:
        mixup: Parameter of the Beta distribution of shares; 0: never.
        cutmix: The same for boxes; 0: never. Where both are wanted, either is as likely.
        probability: Share of images that are mixed.
    """

    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    probability: float = Field(default=1.0, ge=0, le=1)


def mixup_cutmix(image: Tensor, target: Tensor, key: Tensor, config: MixConfig) -> tuple[Tensor, Tensor]:
    """Every image mixed with its partner, counted from the batch's other end.

    Args:
        image: [B, C, H, W].
        target: [B, K] shares of classes, or labels of 0 and 1.
        key: [B].
        config: How.

    Returns:
        The mixed images and targets.
    """
    if not (config.mixup or config.cutmix):
        return image, target
    u = uniform(key, "mix", 4).to(image.device)
    chosen = u[:, 0] < config.probability
    cut = u[:, 1] < (0.5 if config.mixup and config.cutmix else float(config.cutmix > 0))
    share = torch.where(cut, _beta(key, config.cutmix), _beta(key, config.mixup)).to(image.device)
    # CutMix: a box of 1 - share of the area with its center anywhere, cut to the image; the share follows.
    height, width = image.shape[2:]
    reach = torch.sqrt(1 - share) / 2
    rows = (torch.arange(height, device=image.device) + 0.5) / height
    columns = (torch.arange(width, device=image.device) + 0.5) / width
    inside = ((rows - u[:, 2:3]).abs() < reach[:, None])[:, :, None] & (
        (columns - u[:, 3:4]).abs() < reach[:, None]
    )[:, None, :]
    own = torch.where(cut[:, None, None], (~inside).float(), share[:, None, None].expand(-1, height, width))
    own = torch.where(chosen[:, None, None], own, 1.0)
    mixed = image * own[:, None] + image.flip(0) * (1 - own[:, None])
    share = own.mean(dim=(1, 2))[:, None]
    return mixed, target * share + target.flip(0) * (1 - share)


def _beta(key: Tensor, parameter: float, tries: int = 16) -> Tensor:
    """[B] numbers of Beta(parameter, parameter), by Joehnk's method: the first pair that is accepted."""
    if parameter == 0:
        return torch.ones(len(key))
    u = uniform(key.cpu(), "mix/share", 2 * tries).double() ** (1 / parameter)
    x, total = u[:, :tries], u[:, :tries] + u[:, tries:]
    first = (total <= 1).int().argmax(dim=1, keepdim=True)
    chosen = (x / total.clamp_min(1e-300)).gather(1, first)[:, 0]
    return torch.where((total <= 1).any(dim=1), chosen, 0.5).float()
