"""Objectives: one pretraining method a file, beside the parts that they share."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
