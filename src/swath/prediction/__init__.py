"""Prediction: a task model over whole scenes of any size, to maps, polygons, boxes and tables."""

from swath.prediction.options import Options
from swath.prediction.run import PredictReport, predict_scenes

__all__ = ["Options", "PredictReport", "predict_scenes"]
