"""How a batch is changed at random with its ground sample distance kept true."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
