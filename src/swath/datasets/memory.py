"""Whether what is to be kept in memory fits."""

from __future__ import annotations

from pathlib import Path

from swath.errors import ImageryError


def check_memory(required: int) -> None:
    """Refuse a cache that would not fit (where the system tells what is free)."""
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
        free = int(meminfo.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return
    if required > 0.9 * free:
        raise ImageryError(
            f"cache='memory' needs {required / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB are free; use "
            "cache='none' (with loader workers), or a smaller size="
        )
