"""Does an image hold what its unit says? Told from the values, because a tensor says nothing else.

Only mistakes that are beyond doubt are refused: a factor of thousands (digital numbers taken for
reflectance), another scale (radar power taken for decibels), images that somebody has standardized already. A
dark, cloudy or saturated scene passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from swath.errors import ContractError
from swath.sensors.sensor import Sensor

_LOOKED_AT = 65536  # values of a band that are enough to tell its unit


@dataclass(frozen=True, slots=True)
class _Values:
    """What there is to know about the finite, valid values of some bands."""

    least: float
    most: float
    median: float
    below_zero: float  # share of values under -0.05
    whole: bool  # all are integers


def check_unit_range(
    sensor: Sensor, image: Tensor, valid: Tensor | None = None, where: str = "the images"
) -> None:
    """Refuse images whose values cannot be in the unit that the sensor states.

    Args:
        sensor: States the unit of each band.
        image: [B, C, H, W].
        valid: [B, H, W] bool; other pixels are not looked at.
        where: What to call the imagery in a message (a file).

    Raises:
        ContractError: With the range found and what to do.
    """
    if sensor.unit == "uint8" and image.dtype == torch.uint8:
        return
    for unit in dict.fromkeys(band.unit for band in sensor.bands):
        rows = [i for i, band in enumerate(sensor.bands) if band.unit == unit]
        names = ", ".join(sensor.bands[i].name for i in rows)
        of = f"band {names} of sensor" if len(rows) < len(sensor.bands) else "sensor"
        wanted = f"{where}: {of} {sensor.name!r} is in {unit} for this model"
        # Display values and raw numbers are integers by nature; everything else was scaled to its unit.
        if not image.is_floating_point() and unit not in ("uint8", "DN"):
            raise ContractError(
                f"{wanted}, but these are integers ({_dtype(image)}), as files store them. "
                "Convert with swath.sensors.units.to_unit(stored, sensor), which applies the "
                "bands' scale and offset."
            )
        values = _look(image[:, rows], valid)
        if values is None:
            continue
        mean = [band.mean for band in sensor.bands if band.unit == unit and band.mean is not None]
        expected = sum(mean) / len(mean) if mean else None
        problem = _PROBLEMS[unit](values, expected) if unit in _PROBLEMS else None
        if problem:
            raise ContractError(
                f"{wanted}, but the values lie between {values.least:.4g} and "
                f"{values.most:.4g} (median {values.median:.4g}), which {problem}"
            )


def _dtype(image: Tensor) -> str:
    return str(image.dtype).removeprefix("torch.")


def _look(image: Tensor, valid: Tensor | None) -> _Values | None:
    """Statistics of a sample of the values; None where there is nothing but no data or zeros."""
    batch, _, height, width = image.shape
    step = max(1, round((batch * height * width / _LOOKED_AT) ** 0.5))  # spread over the image, not its top
    seen = image[:, :, ::step, ::step]
    if not seen.is_floating_point():
        seen = seen.to(torch.float32)
    keep = torch.isfinite(seen)
    if valid is not None:
        keep = keep & valid[:, None, ::step, ::step]
    values = seen[keep].to(torch.float32)
    if values.numel() == 0 or not bool(values.any()):
        return None
    least, most = torch.aminmax(values)
    return _Values(
        least=float(least),
        most=float(most),
        median=float(values.median()),
        below_zero=float((values < -0.05).float().mean()),
        whole=bool((values == values.round()).all()),
    )


_STANDARDIZED = (
    "looks as if the images were standardized already. Hand them over in their unit; the model does the rest."
)


def _reflectance(v: _Values, mean: float | None) -> str | None:
    # Sun glint and snow reach 2; the darkest water in digital numbers of 1/10,000 is still tens.
    if v.median > 5 or v.most > 50:
        return (
            "looks like digital numbers. Convert with swath.sensors.units.to_unit(stored, sensor); for "
            "Sentinel-2 that is (DN + offset) / 10000."
        )
    # Dark water and night still vary by more than this; DN of the darkest scene by hundreds.
    if v.most - v.least < 1e-3 and min(abs(v.median), abs(v.median + 0.1)) < 1e-3:
        return (
            "looks like reflectance that was scaled already before the sensor's scale was applied. Give a "
            "sensor with scale 1 (YAML)."
        )
    if v.below_zero > 0.15:
        if v.least >= -0.1001:  # -1000 / 10000
            return (
                "looks as if an offset of -1000 was applied that these files do not have (Sentinel-2 before "
                "processing baseline 04.00): leave offset_dn out."
            )
        return _STANDARDIZED
    return None


def _decibels(v: _Values, mean: float | None) -> str | None:
    # Not one pixel below 0 dB happens in no scene, while power is never negative.
    if v.least >= 0:
        return (
            "looks like linear power: backscatter in dB is mostly negative. Convert with "
            "10 * torch.log10(images), zero power being no data."
        )
    if v.least > -4 and v.most < 4.5 and mean is not None and mean < -6:
        return _STANDARDIZED
    return None


def _linear(v: _Values, mean: float | None) -> str | None:
    if v.below_zero > 0.01:
        return "looks like dB: power is never negative. Convert with 10 ** (images / 10)."
    return None


def _display(v: _Values, mean: float | None) -> str | None:
    if v.least < -0.5:
        return _STANDARDIZED
    if v.most <= 1.0 and not v.whole:
        return "looks like a share of 1. Multiply by 255, or hand over the uint8 images."
    if v.most <= 6.0 and not v.whole:
        return _STANDARDIZED
    if v.most > 256:
        return "looks like more than 8 bits. Scale to 0 to 255 as the training images were (mind stretch)."
    return None


def _kelvin(v: _Values, mean: float | None) -> str | None:
    if v.median < 100:
        return "looks like degrees Celsius. Add 273.15."
    return None


def _raw(v: _Values, mean: float | None) -> str | None:
    if v.most <= 5 and not v.whole and mean is not None and mean > 50:
        return "looks scaled (reflectance?). The model was trained on raw numbers as they are stored."
    return None


_PROBLEMS = {
    "reflectance": _reflectance,
    "dB": _decibels,
    "linear": _linear,
    "uint8": _display,
    "kelvin": _kelvin,
    "DN": _raw,
}
