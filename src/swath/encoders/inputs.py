"""What every family asks of its images before the first layer: a sensor that it knows, bands, a size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from swath.errors import ContractError, suggest


def pick_sensor(names: Sequence[str], sensor: str | None) -> str:
    """The sensor meant, of those that an encoder knows; None is enough where there is only one.

    Raises:
        ContractError: None where there are several, or a sensor that it does not know.
    """
    if sensor is None and len(names) == 1:
        return names[0]
    if sensor is None:
        raise ContractError(f"this encoder knows the sensors {', '.join(names)}: say which one")
    if sensor not in names:
        raise ContractError(f"this encoder has no sensor {sensor!r}.{suggest(sensor, list(names))}")
    return sensor


def of_sensor(module: nn.Module, sensor: str | None) -> nn.Module:
    """A sensor's member of a `ModuleDict` by sensor name; or the module itself, which then is for all."""
    if isinstance(module, nn.ModuleDict):
        return module[pick_sensor(list(module), sensor)]
    return module


def check_bands(image: Tensor, bands: int, sensor: str | None) -> None:
    """Raise `ContractError` unless images [B, C, H, W] have as many bands as the encoder takes."""
    if image.shape[1] != bands:
        named = f" for sensor {sensor!r}" if sensor else ""
        raise ContractError(
            f"the encoder takes {bands} bands{named}, but the images have {image.shape[1]}; "
            "select the sensor's bands in its order"
        )


def check_size(image: Tensor, stride: int, what: str = "patches") -> None:
    """Raise `ContractError` unless images [B, C, H, W] divide into cells of `stride` pixels."""
    height, width = image.shape[2:]
    if height % stride or width % stride:
        raise ContractError(
            f"images of {height} x {width} pixels do not divide into {stride} x {stride} {what}; "
            f"resize or pad them to {-(-height // stride) * stride} x {-(-width // stride) * stride}"
        )


def put_token(x: Tensor, token: Tensor, mask: Tensor, *, replace: bool = False) -> Tensor:
    """Mark hidden cells of a feature map with a learned token.

    Args:
        x: Features of all cells, [B, N, D] in row-major order, or [B, D, h, w].
        token: [1, 1, D] or [1, D, 1, 1], whichever has as many axes as `x`.
        mask: [B, h, w], 1 (or True) where hidden; of any type.
        replace: The token takes the place of what a hidden cell holds; otherwise it is added to it.

    Raises:
        ValueError: The mask has another number of samples or of cells.
    """
    tokens = x.ndim == 3
    cells = (len(x), x.shape[1]) if tokens else (len(x), *x.shape[2:])
    given = (len(mask), mask[0].numel()) if tokens else tuple(mask.shape)
    if cells != given or mask.ndim != 3:
        raise ValueError(f"the mask is {tuple(mask.shape)}, but there are {cells} samples and cells to mask")
    where = (mask.reshape(*cells, 1) if tokens else mask.unsqueeze(1)).to(x.dtype)
    token = token.to(x.dtype)
    return x * (1 - where) + token * where if replace else x + token * where
