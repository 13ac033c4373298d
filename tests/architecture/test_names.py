"""Public names use the field's words, and no public class name stands in two modules."""

from __future__ import annotations

import ast
from collections import defaultdict

from helpers.avoided_words import uses
from helpers.source_tree import modules, package_of, syntax_tree


def test_public_names_hold_no_word_to_avoid() -> None:
    assert not [str(use) for use in uses()]


def test_a_class_name_stands_in_one_module() -> None:
    """Private names too, inside one package."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module, path in modules().items():
        for node in syntax_tree(path).body:
            if isinstance(node, ast.ClassDef):
                scope = package_of(module) if node.name.startswith("_") else ""
                places[scope, node.name].append(module)
    assert not {name: found for (_, name), found in places.items() if len(found) > 1}
