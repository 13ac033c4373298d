"""Downstream tasks: heads on an encoder's features, their data, losses and measures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
