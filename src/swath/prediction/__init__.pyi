from .options import PredictionOptions as PredictionOptions
from .run import PredictReport as PredictReport
from .run import predict_scenes as predict_scenes
from .tile_loop import RuntimeOptions as RuntimeOptions
from .writers import OutputWriter as OutputWriter
from .writers import register_writer as register_writer

__all__ = [
    "OutputWriter",
    "PredictReport",
    "PredictionOptions",
    "RuntimeOptions",
    "predict_scenes",
    "register_writer",
]
