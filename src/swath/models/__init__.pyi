from .contract import Contract as Contract
from .contract import GsdRangeWarning as GsdRangeWarning
from .directory import SavedObjective as SavedObjective
from .directory import load_encoder as load_encoder
from .directory import load_model as load_model
from .directory import load_objective as load_objective
from .directory import save_model as save_model
from .export.hub import from_pretrained as from_pretrained
from .export.registry import export_model as export_model
from .export.timm_modules import TimmBackbone as TimmBackbone
from .export.timm_modules import register_with_timm as register_with_timm
from .importers.import_weights import import_weights as import_weights
from .model import Model as Model

__all__ = [
    "Contract",
    "GsdRangeWarning",
    "Model",
    "SavedObjective",
    "TimmBackbone",
    "export_model",
    "from_pretrained",
    "import_weights",
    "load_encoder",
    "load_model",
    "load_objective",
    "register_with_timm",
    "save_model",
]
