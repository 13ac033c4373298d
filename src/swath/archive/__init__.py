"""Tables of embeddings that grow: what is stored, searched, compared over time and exchanged."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
