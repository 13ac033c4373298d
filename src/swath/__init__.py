"""Swath: representations of Earth-observation imagery that know their scale and their sensor.

Public names are listed in `__init__.pyi` and loaded on first use, so ``import swath`` costs milliseconds::

    import swath

    model = swath.load_model("runs/first/model")
    vectors = model.embed(images, gsd=10.0, sensor="sentinel2_l2a")  # [N, D]
"""

import lazy_loader

from swath._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
