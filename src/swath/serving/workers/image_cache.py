"""Drawn pictures, kept in memory up to a number of bytes; the least recently used go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable


class ImageCache:
    """Bytes (or None, for "there is nothing") by key; any thread may ask.

    Args:
        most: Bytes kept.
    """

    _EACH = 200  # bytes that an entry costs beside its content

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self.hits = self.misses = 0
        self._entries: OrderedDict[Hashable, bytes | None] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> tuple[bool, bytes | None]:
        """Whether it is known, and what it is."""
        with self._lock:
            if key not in self._entries:
                self.misses += 1
                return False, None
            self.hits += 1
            self._entries.move_to_end(key)
            return True, self._entries[key]

    def put(self, key: Hashable, content: bytes | None) -> None:
        """Keep it; what is larger than the whole is not kept."""
        size = len(content or b"") + self._EACH
        if size > self.most:
            return
        with self._lock:
            if key in self._entries:
                self.held -= len(self._entries.pop(key) or b"") + self._EACH
            self._entries[key] = content
            self.held += size
            while self.held > self.most:
                _, gone = self._entries.popitem(last=False)
                self.held -= len(gone or b"") + self._EACH
