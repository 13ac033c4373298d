"""Locks between processes: an empty file beside the data, locked while somebody writes.

The operating system holds the lock, so it ends with its process, however that ends; the file stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from swath.errors import SwathError


@contextmanager
def exclusive_lock(
    path: Path, error: type[SwathError], occupied: str, *, timeout: float = 0.0
) -> Iterator[None]:
    """Hold a lock against other processes, and against other threads of this one.

    Args:
        path: The lock file; it is created where it is missing, and never written to.
        error: Raised when the lock cannot be had.
        occupied: What is said of its holder, such as "is training in this folder".
        timeout: Seconds to wait for it.
    """
    if path.is_symlink():  # filelock refuses a link as well, with an error number only
        raise error(f"{path}: is a symbolic link, and a lock is a file of its own; remove the link")
    # Forked children, such as loader workers, give up their copy of the lock: filelock sees to that.
    lock = FileLock(path, thread_local=False, poll_interval=0.02, fallback_to_soft=False)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise error(f"{path.parent}: {_holder(path)} {occupied}") from None
    except OSError as failure:
        raise error(f"{path}: cannot be locked ({failure.strerror or failure})") from None
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """The process that holds the lock; Linux lists it by the numbers of device and file."""
    try:
        status = path.stat()
        file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            _, kind, _, _, process, place, *_ = line.split()
            if kind == "FLOCK" and place == file:
                return f"process {process}"
    except (OSError, ValueError, AttributeError):  # not Linux, or a list in another form
        pass
    return "another process"
