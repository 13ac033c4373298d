"""Rendered images in memory, up to a number of bytes; the least recently used are evicted first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable


class ImageCache:
    """Bytes by key, or None for an empty tile; thread-safe.

    Args:
        max_bytes: Size of the cache.
    """

    _OVERHEAD = 200  # bytes of an entry beside its content

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        self.hits = self.misses = 0
        self._entries: OrderedDict[Hashable, bytes | None] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> tuple[bool, bytes | None]:
        """Whether the key is cached, and its content."""
        with self._lock:
            if key not in self._entries:
                self.misses += 1
                return False, None
            self.hits += 1
            self._entries.move_to_end(key)
            return True, self._entries[key]

    def put(self, key: Hashable, content: bytes | None) -> None:
        """Store an entry, unless it is larger than the whole cache."""
        added = len(content or b"") + self._OVERHEAD
        if added > self.max_bytes:
            return
        with self._lock:
            if key in self._entries:
                self.size -= len(self._entries.pop(key) or b"") + self._OVERHEAD
            self._entries[key] = content
            self.size += added
            while self.size > self.max_bytes:
                _, evicted = self._entries.popitem(last=False)
                self.size -= len(evicted or b"") + self._OVERHEAD
