from . import evaluate as evaluate
from ._version import __version__ as __version__
from .archive.archive import Archive as Archive
from .archive.ingest.embed import embed as embed
from .archive.query.filters import Filter as Filter
from .catalog.catalog import build_catalog as build_catalog
from .datasets.chip import Chip as Chip
from .datasets.opening import open_dataset as open_dataset
from .datasets.pairs.opening import open_pairs as open_pairs
from .encoders.protocol import create_model as create_model
from .encoders.protocol import list_models as list_models
from .models.contract import Contract as Contract
from .models.directory import load_model as load_model
from .models.export.hub import from_pretrained as from_pretrained
from .models.export.registry import export as export
from .models.importers.import_weights import import_weights as import_weights
from .models.model import Model as Model
from .prediction.run import predict as predict
from .sensors.registry import get_sensor as get_sensor
from .sensors.registry import list_sensors as list_sensors
from .sensors.registry import register_sensor as register_sensor
from .sensors.sensor import Sensor as Sensor
from .serving.client import Client as Client
from .serving.server import serve as serve
from .tasks.finetuning import finetune as finetune
from .tasks.model import TaskModel as TaskModel
from .training.pretraining import pretrain as pretrain

__all__ = [
    "Archive",
    "Chip",
    "Client",
    "Contract",
    "Filter",
    "Model",
    "Sensor",
    "TaskModel",
    "__version__",
    "build_catalog",
    "create_model",
    "embed",
    "evaluate",
    "export",
    "finetune",
    "from_pretrained",
    "get_sensor",
    "import_weights",
    "list_models",
    "list_sensors",
    "load_model",
    "open_dataset",
    "open_pairs",
    "predict",
    "pretrain",
    "register_sensor",
    "serve",
]
