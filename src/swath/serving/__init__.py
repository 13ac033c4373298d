"""How is an archive served over HTTP, to a map in the browser and to programs?

A request passes `http/security` (host, token, size), is validated by `http/routes` and `http/schemas`, and
runs in a worker pool (`workers/`) on the current state of the archive. Searches are those of `swath.archive`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
