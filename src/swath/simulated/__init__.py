"""Simulated scenes with labels: drawn by code, documented as simulated, never evidence for a claim.

Two simulators. `aerial` draws RGB scenes of one class each, with natural sizes in metres. The others make
landscapes (`landscape`: fields, woods, water, towns, with labels, mask and boxes) that any sensor can look at
(`optical`, `radar`, `sensing`), alone, in pairs (`pairs`) or at two dates (`change`); `writing` puts them
into files.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
