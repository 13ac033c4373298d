"""Files that stay open between reads: a few per thread, closed in forked processes."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any

from swath.errors import ImageryError
from swath.rasters.remote import is_remote
from swath.rasters.safe_open import DEFAULT_LIMITS, OpenRaster, ReadLimits, open_checked

OPEN_FILES = 64  # kept open for each thread


class _Handles(threading.local):
    """The open files of one thread, the least recently used closed first."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.files: OrderedDict[tuple[str, int | None], tuple[tuple[int, ...], OpenRaster]] = OrderedDict()


_handles = _Handles()


# What a forked child inherits is neither used nor closed there: the parent may have been inside GDAL.
_inherited: list[Any] = []


def open_cached(path: str, limits: ReadLimits = DEFAULT_LIMITS, overview: int | None = None) -> OpenRaster:
    """`path`, opened now or kept open from before; opened again when the file has been replaced."""
    if _handles.pid != os.getpid():
        _inherited.append(_handles.files)
        _handles.__init__()  # type: ignore[misc]
    stamp: tuple[int, ...] = ()  # a remote file counts as unchanged as long as it is open
    if not is_remote(path):
        try:
            status = os.stat(path)  # noqa: PTH116 (called for every window; Path costs twice as much)
        except OSError as error:
            raise ImageryError(f"{path}: cannot be opened: {error.strerror}") from None
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    key = (path, overview)
    held = _handles.files.get(key)
    if held is not None and held[0] == stamp and held[1].limits == limits:
        _handles.files.move_to_end(key)
        return held[1]
    if held is not None:
        del _handles.files[key]
        held[1].dataset.close()
    fresh = open_checked(path, limits, overview)
    _handles.files[key] = (stamp, fresh)
    while len(_handles.files) > OPEN_FILES:
        _, (_, oldest) = _handles.files.popitem(last=False)
        oldest.dataset.close()
    return fresh


def close_all() -> None:
    """Close the files that this thread keeps open."""
    while _handles.pid == os.getpid() and _handles.files:
        _, (_, held) = _handles.files.popitem()
        held.dataset.close()
