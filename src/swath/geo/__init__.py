"""Where on the Earth, and how large a pixel: CRS, grids, footprints, areas."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
