"""Keep memory that a training step frees, for the next step to use.

A step allocates and frees the same large temporaries over and over. By default the C library asks the
system for each of them and gives it back at once, so every step pays for fresh zeroed pages: a GELU over 50
MB took 26 ms that way and 6 ms on kept memory, and the kernel used a third of a small model's CPU time. On a
GPU torch's own caching allocator does what this module asks of the C library.
"""

from __future__ import annotations

import ctypes
import sys

# glibc's <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1  # mallopt takes a C int


def retain_freed_memory() -> bool:
    """Tell the C library to keep freed memory in the process rather than return it to the system.

    Holds for the whole process from the call on, and costs that the process keeps the memory of its largest
    moment. Call it once, before the work begins; the training engine and long embedding runs do.

    Returns:
        Whether it took effect: True with glibc (Linux), False elsewhere, where nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    # Only glibc has this symbol; another C library (musl) may have a `mallopt` that means something else.
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return all(
        library.mallopt(option, value) == 1
        for option, value in ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, _LARGEST))
    )


__all__ = ["retain_freed_memory"]
