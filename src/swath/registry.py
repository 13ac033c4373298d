"""Names to things: encoders, objectives, sensors and tasks register here and are found by name.

A registry knows its members from two sides: what the importing process has registered with the decorator,
and what installed packages announce under an entry-point group (``swath.encoders``, ``swath.objectives``,
...). An entry point's *name* is that of a member and its *value* a module; importing the module runs the
decorators in it, which may register more members. Only the module that holds the requested name is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from swath.errors import SwathError, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """A named collection that others can extend.

    Args:
        kind: What the members are, in the singular, for messages ("encoder").
        group: Entry-point group that packages announce members under.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._members: dict[str, T] = {}
        self._waiting: list[EntryPoint] | None = None
        self._failed: dict[str, str] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make the decorated object known as `name`; a name is taken only once."""

        def decorate(member: T) -> T:
            if name in self._members and self._members[name] is not member:
                raise ValueError(f"the {self.kind} name {name!r} is already registered")
            self._members[name] = member
            return member

        return decorate

    def names(self) -> list[str]:
        """Registered and announced names, sorted; nothing is imported."""
        return sorted({*self._members, *(entry.name for entry in self._announced())})

    def load_all(self) -> None:
        """Import everything that is announced; a plug-in that fails is named in the log and left out."""
        for entry in self._announced():
            self._load(entry)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def find(self, name: str) -> T | None:
        """The member that is registered or announced as `name`, or None; nothing else is imported.

        Raises:
            SwathError: The plug-in that announces the name cannot be imported.
        """
        for entry in self._announced():
            if name not in self._members and entry.name == name:
                self._load(entry)
        if name not in self._members and name in self._failed:
            raise SwathError(f"{self.kind} {name!r} cannot be used: {self._failed[name]}")
        return self._members.get(name)

    def get(self, name: str) -> T:
        """The member called `name`.

        A module may register more names than it announces, so an unknown name imports one announced module
        after the other, the likely ones first, until one of them registers it.

        Raises:
            SwathError: No such member (the message suggests the nearest name), or its plug-in cannot be
                imported.
        """
        self.find(name)

        def unlikely(entry: EntryPoint) -> tuple[bool, bool]:
            return not name.startswith(entry.name), _package(entry) != "swath"

        for entry in sorted(self._announced(), key=unlikely):
            if name not in self._members:
                self._load(entry)
        if name in self._members:
            return self._members[name]
        failed = "".join(f" Not available: {reason}." for reason in self._failed.values())
        raise SwathError(f"unknown {self.kind} {name!r}.{suggest(name, self.names())}{failed}")

    def _announced(self) -> list[EntryPoint]:
        """Entry points that have not been imported yet."""
        if self._waiting is None:
            self._waiting = list(entry_points(group=self.group))
        return list(self._waiting)

    def _load(self, entry: EntryPoint) -> None:
        try:
            entry.load()
        except Exception as error:  # a plug-in may raise anything; those of others still work
            reason = f"entry point {entry.name!r} of package {_package(entry)!r} fails on import: {error!r}"
            self._failed[entry.name] = reason
            logging.getLogger(__name__).warning("%s %r is left out: %s", self.kind, entry.name, reason)
        if self._waiting and entry in self._waiting:
            self._waiting.remove(entry)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "?"
