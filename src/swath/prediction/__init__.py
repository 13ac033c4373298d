"""Prediction: a task model over whole scenes of any size, to maps, polygons, boxes and tables."""

from swath.prediction.options import PredictionOptions
from swath.prediction.run import PredictReport, predict_scenes

__all__ = ["PredictReport", "PredictionOptions", "predict_scenes"]
