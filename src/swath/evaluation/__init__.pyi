from .data.opening import open_eval_data as open_eval_data
from .data.splits import TrainTestSplit as TrainTestSplit
from .features.cache import FeatureCache as FeatureCache
from .features.protocol import FeatureExtractor as FeatureExtractor
from .measures.intervals import Estimate as Estimate
from .protocols.results import EvaluationResult as EvaluationResult
from .suites.config import list_suites as list_suites

__all__ = [
    "Estimate",
    "EvaluationResult",
    "FeatureCache",
    "FeatureExtractor",
    "TrainTestSplit",
    "list_suites",
    "open_eval_data",
]
