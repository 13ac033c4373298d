"""What the authors of CMID do to RGB photographs: color jitter, blur, noise, solarization, gray.

Habits of photography rather than physics of a sensor, so only for display values of 8 bits in red, green and
blue; `swath.augmentations.photometric` has what other sensors allow. In this order, as torchvision and
albumentations define the steps:

1. with chance 0.8 brightness, contrast, saturation (factors of up to 0.4, 0.4, 0.2 about 1) and hue (up to a
   tenth of the circle), in random order;
2. Gaussian blur, sigma 0.1 to 2 pixels;
3. with chance 0.6 Gaussian noise of variance 10 to 50 in each value;
4. with chance 0.2 values from 128 on inverted; 5. with chance 0.2 gray.

Values stay within 0 to 255 but are not rounded to whole numbers, and the blur's kernel is not cut off at 3 to
7 pixels. Legend: B samples, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swath.augmentations.blur import gaussian_blur
from swath.augmentations.photometric_options import is_rgb_photograph
from swath.datasets.chip import Batch
from swath.errors import RecipeError
from swath.keyed_random import normal, uniform
from swath.sensors.sensor import Sensor

_LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601)


class RgbColorJitter:
    """The changes above, for a sensor of 8-bit red, green and blue in any order.

    Raises:
        RecipeError: Another sensor.
    """

    def __init__(self, sensor: Sensor) -> None:
        if not is_rgb_photograph(sensor):
            raise RecipeError(
                "photometric: paper is for photographs in red, green and blue of 8 bits (unit uint8), not "
                f"for sensor {sensor.name!r} with {len(sensor.bands)} bands in {sensor.unit}; auto takes "
                "what a sensor's physics allows"
            )
        colors = [band.common_name for band in sensor.bands]
        self._rgb = [colors.index(name) for name in ("red", "green", "blue")]
        self._back = [self._rgb.index(place) for place in range(3)]
        self._mean = torch.tensor(sensor.mean).view(-1, 1, 1)
        self._std = torch.tensor(sensor.std).view(-1, 1, 1)

    def __call__(self, batch: Batch, stream: str = "photometric") -> Batch:
        """Change a normalized batch; arguments and result as of `PhotometricAugmentation`."""
        image, key = batch["image"].float(), batch["key"].to(batch["image"].device)
        mean, std = self._mean.to(image.device), self._std.to(image.device)
        valid = batch.get("valid")
        shown = torch.ones_like(image[:, :1], dtype=torch.bool) if valid is None else valid.unsqueeze(1)
        x = ((image * std + mean) / 255).clamp(0, 1)[:, self._rgb]

        def draw(name: str, count: int = 1) -> Tensor:
            return uniform(key, f"{stream}/{name}", count)[..., None, None]

        x = torch.where(draw("jitter") < 0.8, _jittered(x, shown, draw("order", 4), draw("amounts", 4)), x)
        x = gaussian_blur(x, 0.1 + 1.9 * draw("blur"), shown)
        deviation = (10 + 40 * draw("noise/variance")).sqrt() / 255
        noise = normal(key, f"{stream}/noise/pixels", x[0].numel()).view(x.shape)
        x = torch.where(draw("noise") < 0.6, (x + deviation * noise).clamp(0, 1), x)
        x = torch.where((draw("solarize") < 0.2) & (x >= 128 / 255), 1 - x, x)
        x = torch.where(draw("grey") < 0.2, _gray(x).expand_as(x), x)
        x = (x[:, self._back] * 255 - mean) / std
        return {**batch, "image": x.masked_fill(~shown, 0.0)}


def _jittered(x: Tensor, shown: Tensor, order: Tensor, amounts: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue of [B, 3, H, W] in 0 to 1, each sample in its own order."""
    turns = order[..., 0, 0].argsort(dim=1)
    amount = amounts * 2 - 1
    for turn in range(4):
        done = (
            x * (1 + 0.4 * amount[:, :1]),
            _mean_gray(x, shown).lerp(x, 1 + 0.4 * amount[:, 1:2]),
            _gray(x).lerp(x, 1 + 0.2 * amount[:, 2:3]),
            shift_hue(x, 0.1 * amount[:, 3:]),
        )
        which = turns[:, turn, None, None, None]
        x = sum((torch.where(which == i, one, 0.0) for i, one in enumerate(done)), torch.zeros(())).clamp(
            0, 1
        )
    return x


def _gray(x: Tensor) -> Tensor:
    luma = torch.tensor(_LUMA, device=x.device).view(3, 1, 1)
    return (x * luma).sum(dim=1, keepdim=True)


def _mean_gray(x: Tensor, shown: Tensor) -> Tensor:
    weight = shown.to(x.dtype)
    total = (_gray(x) * weight).sum(dim=(2, 3), keepdim=True)
    return total / weight.sum(dim=(2, 3), keepdim=True).clamp_min(1)


def shift_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn hues, keeping saturation and value (HSV).

    Args:
        x: [B, 3, H, W] red, green, blue in 0 to 1.
        turn: [B, 1, 1, 1] share of the circle.
    """
    high, low = x.amax(dim=1, keepdim=True), x.amin(dim=1, keepdim=True)
    chroma = high - low
    safe = chroma.clamp_min(1e-8)
    red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
    hue = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # Over the six sixths of the circle each color is a trapezium; red's middle is at 0, green's 2, blue's 4.
    place = hue + 6 * turn - torch.tensor([0.0, 2.0, 4.0], device=x.device).view(3, 1, 1)
    distance = ((place + 3) % 6 - 3).abs()
    return low + chroma * (2 - distance).clamp(0, 1)
