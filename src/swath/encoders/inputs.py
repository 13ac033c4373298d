"""What every family asks of its images before the first layer: a sensor that it knows, bands, a size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from swath.errors import ContractError, suggest


def resolve_sensor(names: Sequence[str], sensor: str | None) -> str:
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


def sensor_module(module: nn.Module, sensor: str | None) -> nn.Module:
    """A sensor's member of a `ModuleDict` by sensor name; or the module itself, which then is for all."""
    if isinstance(module, nn.ModuleDict):
        return module[resolve_sensor(list(module), sensor)]
    return module


def check_band_count(image: Tensor, bands: int, sensor: str | None) -> None:
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
