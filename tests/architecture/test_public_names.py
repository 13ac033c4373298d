"""The public names of `swath` resolve, and type checkers see the same."""

from __future__ import annotations

import ast
from importlib import import_module

import pytest

import swath
from helpers.source_tree import PACKAGE


@pytest.mark.parametrize("name", sorted(swath._PUBLIC))
def test_public_name_resolves(name: str) -> None:
    thing = getattr(swath, name)
    assert thing is getattr(import_module(swath._PUBLIC[name]), name)
    assert thing.__doc__


def test_type_checkers_see_the_same_public_names() -> None:
    """The lazy table and the TYPE_CHECKING block of `swath/__init__.py` are two copies of one truth."""
    seen = {}
    for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("swath."):
            seen |= {alias.name: node.module for alias in node.names}
    assert seen == swath._PUBLIC


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = swath.no_such_thing
