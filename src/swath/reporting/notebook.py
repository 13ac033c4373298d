"""What notebooks show of an object: one function per type, registered where it is written."""

from __future__ import annotations

from functools import singledispatch


@singledispatch
def to_html(thing: object) -> str:
    """HTML of an object; types register their own with ``@to_html.register``."""
    raise TypeError(f"nothing is registered for {type(thing).__name__}")


class NotebookRepr:
    """Base of what notebooks show by `to_html`."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return to_html(self)
