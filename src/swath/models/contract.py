"""The contract: what a model was trained on, and so what it may be shown.

It travels with the weights. It names the sensors with their bands, units and statistics, says how ground
sample distances (GSD) are counted, and which of them training has seen. `Contract.check` refuses imagery that
does not fit, in words that say how to put it right; `Contract.normalize`, the one place where Swath
normalizes pixels, turns what fits into what an encoder takes. Nothing is reordered, rescaled or filled up in
silence.

Legend: B samples, C bands, H x W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, Self, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from torch import Tensor

from swath.datasets.chip import Batch
from swath.errors import ContractError, ImageryError, suggest
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.sensors.value_range import check_unit_range


class GsdRangeWarning(UserWarning):
    """Imagery has a ground sample distance that the model never saw."""


class Contract(BaseModel):
    """What a model may be shown.

    Attributes:
        sensors: By name; each with the statistics that images are standardized with.
        gsd_mode: What a GSD means to this model. ``metres``: metres per pixel on the ground. ``relative``:
            how much coarser an image is than at its native resolution, or than `reference_size` pixels over
            the same scene (the official Scale-MAE weights never saw metres).
        reference_gsd: The encoder's positions are multiplied by gsd / reference_gsd; 1 in relative mode.
        gsd_range: Smallest and largest GSD that training has seen, in the mode's unit; None where unknown.
        reference_size: Relative mode: width in pixels at which an image's GSD is 1, so that the default for
            another width is reference_size / width. None: images must come with their GSD.
        transpose: Rows and columns are swapped before the encoder sees an image (and back in its maps): the
            official CSMAE weights were trained so. Users of a model never meet it.

    Raises:
        ContractError: No sensor, a sensor without statistics, or values that contradict each other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    sensors: dict[str, Sensor]
    gsd_mode: Literal["metres", "relative"] = "metres"
    reference_gsd: float = Field(default=1.0, gt=0)
    gsd_range: tuple[float, float] | None = None
    reference_size: int | None = Field(default=None, gt=0)
    transpose: bool = False

    _warned: set[str] = PrivateAttr(default_factory=set)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.sensors:
            raise ContractError("a contract names at least one sensor")
        for name, sensor in self.sensors.items():
            if name != sensor.name:
                raise ContractError(f"the contract calls sensor {sensor.name!r} by another name, {name!r}")
            missing = [band.name for band in sensor.bands if band.mean is None]
            if missing:
                raise ContractError(
                    f"sensor {name!r} has no mean and std for band {', '.join(missing)}, so images cannot be "
                    f"standardized. Estimate them with `swath inspect DIR --sensor {name} --statistics "
                    "my_sensor.yaml` and name that file as the sensor."
                )
        if self.gsd_mode == "relative" and self.reference_gsd != 1:
            raise ContractError("reference_gsd is 1 in relative mode, where GSD is a ratio; leave it out")
        if self.gsd_mode == "metres" and self.reference_size is not None:
            raise ContractError("reference_size has a meaning in relative mode only; leave it out")
        if self.gsd_range is not None and not 0 < self.gsd_range[0] <= self.gsd_range[1]:
            raise ContractError(f"gsd_range is 0 < smallest <= largest, not {self.gsd_range}")
        return self

    @classmethod
    def of(cls, *sensors: str | Sensor, **options: Any) -> Contract:
        """A contract for these sensors, given by name or as they are."""
        found = [get_sensor(sensor) for sensor in sensors]
        return cls(sensors={sensor.name: sensor for sensor in found}, **options)

    def to_dict(self) -> dict[str, Any]:
        """As plain, JSON-safe data (in a model's config.json)."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: Any, where: str = "contract") -> Contract:
        """Build from `to_dict`'s data and check.

        Raises:
            ContractError: A key is unknown, missing or wrong; `where` (a file) is named.
        """
        if not isinstance(data, dict) or not isinstance(data.get("sensors"), dict):
            raise ContractError(f"{where}: a contract is a mapping with `sensors` in it")
        try:
            sensors = {name: Sensor.from_dict(sensor, where) for name, sensor in data["sensors"].items()}
            return cls.model_validate({**data, "sensors": sensors})
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()]
            raise ContractError(f"{where}: not a valid contract: {'; '.join(problems)}") from None
        except ImageryError as error:
            raise ContractError(str(error)) from None

    # ---- what fits

    def sensor(self, sensor: str | Sensor | None = None) -> Sensor:
        """The contract's own definition of `sensor`.

        Args:
            sensor: A name, a `Sensor`, or None where the model has just one.

        Raises:
            ContractError: The model does not know it, knows another version of it, or must be told which.
        """
        names = sorted(self.sensors)
        if sensor is None:
            if len(names) == 1:
                return self.sensors[names[0]]
            raise ContractError(
                f"this model knows the sensors {', '.join(names)}: say which one the images are from, "
                f"such as sensor={names[0]!r}"
            )
        name = sensor if isinstance(sensor, str) else sensor.name
        if name not in self.sensors:
            raise ContractError(
                f"this model was not trained on sensor {name!r}.{suggest(name, names)} If the images hold "
                "the bands of one of these in its unit, open them with that sensor."
            )
        own = self.sensors[name]
        if isinstance(sensor, Sensor):
            check_band_names(own, sensor.band_names)
            for ours, theirs in zip(own.bands, sensor.bands, strict=True):
                if ours.unit != theirs.unit:
                    raise ContractError(
                        f"sensor {own.name!r}: band {ours.name} is in {ours.unit} for this model but in "
                        f"{theirs.unit} in the sensor given; open the images with the model's own sensor "
                        f"(model.contract.sensors[{own.name!r}])"
                    )
        return own

    def check(
        self,
        image: Tensor,
        sensor: str | Sensor | None = None,
        *,
        bands: Sequence[str] | None = None,
        valid: Tensor | None = None,
        where: str = "the images",
    ) -> Sensor:
        """Refuse pixels that do not fit. (What there is to say about their scale, `gsd` says.)

        Args:
            image: [B, C, H, W], in the unit that the sensor states, before normalization. A sample of its
                values is looked at, which on a GPU waits for it.
            sensor: What it was taken with; may be left out where the model has one sensor.
            bands: Names of the image's bands in its order, where known. A tensor cannot tell its order:
                only with names can a wrong one be found.
            valid: [B, H, W] bool; other pixels are not looked at.
            where: What to call the imagery in a message (a file).

        Returns:
            The contract's definition of the sensor.

        Raises:
            ContractError: Unknown sensor, wrong number or order of bands, or values in another unit.
        """
        own = self.sensor(sensor)
        if image.ndim != 4:
            raise ContractError(f"{where}: [N, bands, height, width] is wanted, not {list(image.shape)}")
        check_band_names(own, bands if bands is not None else image.shape[1], where)
        if bands is not None:
            check_band_names(own, image.shape[1], where)
        check_unit_range(own, image, valid, where)
        return own

    def gsd(self, gsd: Any, count: int, width: int) -> Tensor:
        """GSD [count] of images `width` pixels wide, from what the caller states.

        Args:
            gsd: In the contract's mode: a number, [count] numbers, or None: in relative mode the default is
                reference_size / width; metres cannot be guessed.
            count: Number of images.
            width: Their width in pixels.

        Raises:
            ContractError: It is missing, not positive, or neither one nor `count` numbers.

        Warns:
            ScaleWarning: Once, where it lies outside the range that the model was trained on.
        """
        if gsd is None:
            if self.gsd_mode == "metres" or self.reference_size is None:
                raise ContractError(self._gsd_missing())
            gsd = self.reference_size / width
        stated = torch.as_tensor(gsd, dtype=torch.float32).reshape(-1)
        if stated.numel() not in (1, count):
            raise ContractError(f"{stated.numel()} GSDs for {count} images: give one, or one an image")
        wrong = stated[~(torch.isfinite(stated) & (stated > 0))]
        if wrong.numel():
            raise ContractError(f"a GSD is a positive number, not {float(wrong[0]):g}")
        self._warn_of_scale(float(stated.min()), float(stated.max()))
        return stated.expand(count)

    def _gsd_missing(self) -> str:
        seen = f" (it was trained on {self._span()})" if self.gsd_range else ""
        if self.gsd_mode == "metres":
            return (
                f"the GSD is missing. This model sees scale in metres per pixel{seen}: give gsd=, one number "
                "or one an image. Georeferenced files carry it; for others it is the width of the ground "
                "that the image shows, divided by its pixels."
            )
        return (
            f"the GSD is missing. This model counts scale relative to an image's native resolution{seen}: "
            "give gsd=1.0 for images as they are, 2.0 for images shrunk to half their side."
        )

    def _warn_of_scale(self, low: float, high: float) -> None:
        if self.gsd_range is None or "gsd" in self._warned:
            return
        # A thousandth of room: the ends themselves come back through float32.
        below, above = low < 0.999 * self.gsd_range[0], high > 1.001 * self.gsd_range[1]
        if below or above:
            self._warned.add("gsd")
            unit = " m" if self.gsd_mode == "metres" else ""
            warnings.warn(
                f"images of GSD {low if below else high:.4g}{unit} lie outside the {self._span()} that this "
                "model was trained on; expect weaker embeddings, or resample the images. (Said once.)",
                GsdRangeWarning,
                stacklevel=6,  # the caller of Model.embed
            )

    def _span(self) -> str:
        low, high = self.gsd_range or (0.0, 0.0)
        unit = " m" if self.gsd_mode == "metres" else ""
        return f"{low:.4g}{unit}" if low == high else f"{low:.4g} to {high:.4g}{unit}"

    # ---- what an encoder takes

    def normalize(self, batch: Batch) -> Batch:
        """Standardize a batch as the encoder was trained on it, on the batch's own device.

        Args:
            batch: `image` [B, C, H, W] in the sensor's unit (integer or float), `gsd` [B], and optionally
                `valid` [B, H, W] and `sensor`. Or a paired batch, whose sensors are standardized one by one.
                It is left as it is.

        Returns:
            A batch with `image` float32, (x - mean) / std for each band and 0 where not valid; `valid`, which
            excludes NaN and infinity too; `gsd` divided by the reference GSD; and `sensor`.

        Raises:
            ContractError: Unknown sensor, or wrong number of bands. (`check` looks closer.)
        """
        if "sensors" in batch:
            pair = {name: self.normalize(one) for name, one in batch["sensors"].items()}
            return cast(Batch, {**batch, "sensors": pair})
        own = self.sensor(batch.get("sensor"))
        image = batch["image"]
        check_band_names(own, image.shape[1])
        scale, shift = _affine(tuple(own.mean), tuple(own.std), image.device)
        normal = torch.addcmul(shift, image.to(torch.float32), scale)
        valid = batch.get("valid")
        if image.is_floating_point():
            finite = torch.isfinite(normal).all(dim=1)
            valid = finite if valid is None else valid & finite
        if valid is None:
            valid = torch.ones_like(image[:, 0], dtype=torch.bool)
        elif image.device.type != "cpu" or not bool(valid.all()):  # a look is cheaper than a copy on a CPU
            # Not a product with the mask: NaN times 0 is NaN.
            normal = normal.masked_fill(~valid.unsqueeze(1), 0.0)
        if self.transpose:
            normal, valid = normal.transpose(2, 3).contiguous(), valid.transpose(1, 2)
        gsd = batch["gsd"].to(torch.float32) / self.reference_gsd
        return cast(Batch, {**batch, "image": normal, "valid": valid, "gsd": gsd, "sensor": own.name})

    def denormalize(self, image: Tensor, sensor: str | None = None) -> Tensor:
        """Normalized [B, C, H, W] back to the sensor's unit, for pictures."""
        own = self.sensor(sensor)
        scale, shift = _affine(tuple(own.mean), tuple(own.std), image.device)
        return (image - shift) / scale


def check_band_names(own: Sensor, bands: int | Sequence[str], where: str = "the images") -> None:
    """Refuse a wrong number of bands or, where their names are known, wrong bands or a wrong order.

    Raises:
        ContractError: With the indexing that puts a wrong order right.
    """
    wanted = list(own.band_names)
    if isinstance(bands, int):
        if bands != len(wanted):
            raise ContractError(
                f"{where}: {bands} bands, but sensor {own.name!r} has {len(wanted)} for this model "
                f"({', '.join(wanted)}). Select these bands, in this order."
            )
        return
    given = list(bands)
    if given == wanted:
        return
    missing = [name for name in wanted if name not in given]
    if missing:
        raise ContractError(
            f"{where}: band {', '.join(missing)} of sensor {own.name!r} is not there; this model wants "
            f"{', '.join(wanted)} and there are {', '.join(given)}"
        )
    order = [given.index(name) for name in wanted]
    raise ContractError(
        f"{where}: the bands are {', '.join(given)}; of sensor {own.name!r} this model wants "
        f"{', '.join(wanted)}, in this order: images[:, {order}]"
    )


@lru_cache(maxsize=64)
def _affine(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(x - mean) / std as x * scale + shift, each [C, 1, 1]; computed in float64, kept on the device."""
    with torch.inference_mode(False):  # they outlive the call; training may be the next to use them
        scale = 1.0 / torch.tensor(std, dtype=torch.float64)
        shift = -torch.tensor(mean, dtype=torch.float64) * scale
        a, b = (t.to(torch.float32).view(-1, 1, 1).to(device) for t in (scale, shift))
    return a, b
