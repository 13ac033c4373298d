"""Prediction: a task model over whole scenes of any size, to maps, polygons, boxes and tables."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
