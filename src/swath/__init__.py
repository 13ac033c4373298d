"""Swath: representations of Earth-observation imagery that know their scale and their sensor.

The public API below is loaded on first use, so that ``import swath`` costs milliseconds::

    import swath
    model = swath.load_model("runs/first/model")
    vectors = model.embed(images, gsd=10.0, sensor="sentinel2_l2a")   # [N, D]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

# Public name -> module that defines it. Keep in step with the TYPE_CHECKING block (a test compares them).
_PUBLIC = {
    "Archive": "swath.archive.table.store",
    "Chip": "swath.datasets.chip",
    "Sensor": "swath.sensors.sensor",
    "create_model": "swath.encoders",
    "from_pretrained": "swath.models.export.hub",
    "get_sensor": "swath.sensors.sensor",
    "list_models": "swath.encoders",
    "list_sensors": "swath.sensors.sensor",
    "load_model": "swath.models",
    "open_dataset": "swath.datasets.opening",
    "open_pairs": "swath.datasets.pairs.opening",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from swath.archive.table.store import Archive as Archive
    from swath.datasets.chip import Chip as Chip
    from swath.datasets.opening import open_dataset as open_dataset
    from swath.datasets.pairs.opening import open_pairs as open_pairs
    from swath.encoders import create_model as create_model
    from swath.encoders import list_models as list_models
    from swath.models import load_model as load_model
    from swath.models.export.hub import from_pretrained as from_pretrained
    from swath.sensors.sensor import Sensor as Sensor
    from swath.sensors.sensor import get_sensor as get_sensor
    from swath.sensors.sensor import list_sensors as list_sensors


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'swath' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
