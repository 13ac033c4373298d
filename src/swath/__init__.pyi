from . import evaluate as evaluate
from ._version import __version__ as __version__
from .archive.archive import Archive as Archive
from .datasets.chip import Chip as Chip
from .datasets.opening import open_dataset as open_dataset
from .datasets.pairs.opening import open_pairs as open_pairs
from .encoders import create_model as create_model
from .encoders import list_models as list_models
from .models import load_model as load_model
from .models.export.hub import from_pretrained as from_pretrained
from .sensors.registry import get_sensor as get_sensor
from .sensors.registry import list_sensors as list_sensors
from .sensors.sensor import Sensor as Sensor

__all__ = [
    "Archive",
    "Chip",
    "Sensor",
    "__version__",
    "create_model",
    "evaluate",
    "from_pretrained",
    "get_sensor",
    "list_models",
    "list_sensors",
    "load_model",
    "open_dataset",
    "open_pairs",
]
