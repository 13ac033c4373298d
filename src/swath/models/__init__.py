"""Models: directories of weights with the contract that travels with them."""

from swath.models.contract import Contract, GsdRangeWarning
from swath.models.directory import SavedObjective, load_encoder, load_model, load_objective, save_model
from swath.models.model import Model

__all__ = [
    "Contract",
    "GsdRangeWarning",
    "Model",
    "SavedObjective",
    "load_encoder",
    "load_model",
    "load_objective",
    "save_model",
]
