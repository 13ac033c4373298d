"""Classification data sets of TorchGeo as data sets of Swath.

    torchgeo:EuroSAT          any `NonGeoClassificationDataset` by the name of its class

Needs the package torchgeo (the extra ``swath[torchgeo]``). TorchGeo finds the files, knows the classes and
the published splits, and reads the pixels; here they only change their clothes: a tensor of floats becomes
one in the sensor's unit, with a GSD and a mask of valid pixels.

Legend: N images, C bands, H x W pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.chip import Batch
from swath.datasets.collation import collate
from swath.datasets.image_reading import is_plain_uint8
from swath.datasets.protocol import Epoch, Sample
from swath.errors import ImageryError, Problem, SwathError, suggest
from swath.keyed_random import sample_keys
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.sensors.units import to_unit

PREFIX = "torchgeo:"

# What TorchGeo's sets are taken with and at which GSD; any other is RGB, of a GSD that the user states.
_SENSORS = {
    "EuroSAT": "sentinel2_eurosat",
    "EuroSAT100": "sentinel2_eurosat",
    "EuroSATSpatial": "sentinel2_eurosat",
}
_GSDS = {"EuroSAT": 10.0, "EuroSAT100": 10.0, "EuroSATSpatial": 10.0, "UCMerced": 0.3048}
_SPLITS = ("train", "val", "test")


class TorchGeoImages:
    """A TorchGeo data set seen as a `swath.datasets.protocol.ImageDataset`.

    Args:
        dataset: A `torchgeo.datasets.NonGeoClassificationDataset`, or anything like it: samples are mappings
            with ``image`` [C, H, W] (stored values) and ``label``; ``classes``; and ``imgs`` or ``targets``,
            so that labels are known without reading images.
        sensor: What its bands are, in their order; values are converted by its scale and offset.
        gsd: Metres per pixel, or ``"relative"``.
        seed: Of the samples' keys.

    Raises:
        ImageryError: No labels without reading images, or other bands than the sensor's.
    """

    def __init__(
        self,
        dataset: Any,
        sensor: str | Sensor,
        gsd: float | Literal["relative"],
        *,
        seed: int = 0,
    ) -> None:
        self._of, self.seed = dataset, seed
        self.sensor = get_sensor(sensor)
        self.gsd = 1.0 if gsd == "relative" else float(gsd)
        self.problems: list[Problem] = []
        self._epoch = Epoch()
        name = type(dataset).__name__
        listed = getattr(dataset, "imgs", None)
        targets = [label for _, label in listed] if listed else getattr(dataset, "targets", None)
        if targets is None or not getattr(dataset, "classes", None):
            raise ImageryError(
                f"{PREFIX}{name} does not list classes and labels without reading its images; export it to "
                "class folders or a CSV table, and give that"
            )
        self.classes: list[str] | None = [str(label) for label in dataset.classes]
        self.labels: NDArray[Any] | None = np.asarray(targets, dtype=np.int64)
        self.paths = (
            [str(path) for path, _ in listed] if listed else [f"{name}[{i}]" for i in range(len(self))]
        )
        bands = int(dataset[0]["image"].shape[0])
        if bands != len(self.sensor.bands):
            raise ImageryError(
                f"{PREFIX}{name} has {bands} bands, sensor {self.sensor.name!r} {len(self.sensor.bands)}; "
                "name the sensor that it was taken with (--sensor)"
            )

    def __len__(self) -> int:
        return len(self._of)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that keys belong to."""
        self._epoch.set(epoch)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`; only ``index`` and ``problem`` in it where TorchGeo cannot read it."""
        index = range(len(self))[index]
        try:
            found = self._of[index]
        except (OSError, ValueError, RuntimeError, SyntaxError) as error:  # what Pillow and rasterio raise
            return {
                "index": index,
                "problem": (self.paths[index], str(error)),
                "sensor": self.sensor.name,
                "shape": (len(self.sensor.bands), 1, 1),
            }
        stored = torch.as_tensor(found["image"])
        valid = torch.isfinite(stored).all(dim=0) if stored.is_floating_point() else None
        values = stored.numpy()
        if is_plain_uint8(self.sensor):  # TorchGeo hands out pictures as floats of 0 to 255
            values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return {
            "image": torch.from_numpy(to_unit(values, self.sensor)),
            "gsd": self.gsd,
            "valid": torch.ones(values.shape[1:], dtype=torch.bool) if valid is None else valid,
            "sensor": self.sensor.name,
            "index": index,
            "key": int(sample_keys(self.seed, self._epoch.get(), torch.tensor([index]))),
            "label": int(found["label"]),
        }

    def get_batch(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Batch:
        """The samples at `indices` as one batch."""
        return collate([self[int(index)] for index in indices])


def open_torchgeo(
    name: str,
    root: str | Path,
    *,
    sensor: str | Sensor | None = None,
    gsd: float | Literal["relative"] | None = None,
    seed: int = 0,
) -> dict[str, TorchGeoImages]:
    """A classification data set of TorchGeo by the name of its class; split -> data set.

    Args:
        name: Such as EuroSAT (with or without the prefix); nothing is downloaded.
        root: The folder that TorchGeo calls its root.
        sensor: Default: what is known of the set, else rgb_aerial.
        gsd: Metres per pixel; may be left out where it is known.
        seed: Of the samples' keys.

    Returns:
        train, val and test where the set has published splits; otherwise one data set called "all".

    Raises:
        ImageryError: TorchGeo has no such classification set, the files are not there, or the GSD is unknown.
    """
    made = _class(name)
    short = made.__name__
    gsd = gsd if gsd is not None else _GSDS.get(short)
    if gsd is None:
        raise ImageryError(
            f"{PREFIX}{short}: its GSD is not known here; state it (--gsd 0.3), or --gsd-mode relative"
        )
    sensor = sensor or sensor_of_torchgeo(short)
    splits = _SPLITS if "split" in inspect.signature(made).parameters else ("all",)
    found = {}
    for split in splits:
        options = {} if split == "all" else {"split": split}
        try:
            dataset = made(root=str(root), **options)
        except Exception as error:  # DatasetNotFoundError, and whatever a set raises of its own
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ImageryError(
                f"{PREFIX}{short} cannot be opened in {root} ({reason}). Get it with TorchGeo: "
                f"torchgeo.datasets.{short}(root={str(root)!r}, download=True)"
            ) from None
        found[split] = TorchGeoImages(dataset, sensor, gsd, seed=seed)
    return found


def sensor_of_torchgeo(name: str) -> str:
    """What is known to have taken a set of TorchGeo; rgb_aerial where nothing is."""
    short = name.removeprefix(PREFIX).casefold()
    return next((sensor for known, sensor in _SENSORS.items() if known.casefold() == short), "rgb_aerial")


def _class(name: str) -> Any:
    """The class of that name among TorchGeo's classification data sets."""
    try:
        import torchgeo.datasets as sets
    except ImportError:
        raise SwathError(
            "data sets of TorchGeo need the package torchgeo: pip install '.[torchgeo]'"
        ) from None
    wanted = name.removeprefix(PREFIX)
    base = sets.NonGeoClassificationDataset
    known = {
        key: value
        for key in sets.__all__
        if inspect.isclass(value := getattr(sets, key)) and issubclass(value, base) and value is not base
    }
    folded = {key.casefold(): value for key, value in known.items()}
    if wanted.casefold() not in folded:
        raise ImageryError(
            f"TorchGeo has no classification data set {wanted!r}.{suggest(wanted, list(known))}"
        )
    return folded[wanted.casefold()]
