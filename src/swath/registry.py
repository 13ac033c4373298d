"""Names to things: encoders, objectives, sensors and tasks register here and are found by name.

A registry knows its members from two sides: what the importing process has registered with the decorator,
and what installed packages announce under an entry-point group (``swath.encoders``, ``swath.objectives``,
...). The entry point's *value* is a module; importing it runs the decorators in it. Nothing is imported
before a name is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
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
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make the decorated object known as `name`; a name is taken only once."""

        def decorate(member: T) -> T:
            if name in self._members and self._members[name] is not member:
                raise ValueError(f"the {self.kind} name {name!r} is already registered")
            self._members[name] = member
            return member

        return decorate

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            for entry in entry_points(group=self.group):
                entry.load()

    def names(self) -> list[str]:
        """All known names, sorted."""
        self._load()
        return sorted(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._members

    def get(self, name: str) -> T:
        """The member called `name`.

        Raises:
            SwathError: No such member; the message suggests the nearest name.
        """
        self._load()
        if name not in self._members:
            raise SwathError(f"unknown {self.kind} {name!r}.{suggest(name, self.names())}")
        return self._members[name]
