from .check import check_objective as check_objective
from .protocol import Objective as Objective
from .protocol import ObjectiveConfig as ObjectiveConfig
from .protocol import register_objective as register_objective

__all__ = [
    "Objective",
    "ObjectiveConfig",
    "check_objective",
    "register_objective",
]
