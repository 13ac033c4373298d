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
    "Archive": "swath.archive.store",
    "Chip": "swath.imagery.chip",
    "Sensor": "swath.imagery.sensors",
    "create_model": "swath.encoders",
    "from_pretrained": "swath.models.hub",
    "get_sensor": "swath.imagery.sensors",
    "list_models": "swath.encoders",
    "list_sensors": "swath.imagery.sensors",
    "load_model": "swath.models",
    "open_dataset": "swath.imagery.datasets",
    "open_pairs": "swath.imagery.open_pairs",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from swath.archive.store import Archive as Archive
    from swath.encoders import create_model as create_model
    from swath.encoders import list_models as list_models
    from swath.imagery.chip import Chip as Chip
    from swath.imagery.datasets import open_dataset as open_dataset
    from swath.imagery.open_pairs import open_pairs as open_pairs
    from swath.imagery.sensors import Sensor as Sensor
    from swath.imagery.sensors import get_sensor as get_sensor
    from swath.imagery.sensors import list_sensors as list_sensors
    from swath.models import load_model as load_model
    from swath.models.hub import from_pretrained as from_pretrained


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'swath' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
