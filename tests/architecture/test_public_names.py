"""What packages offer: every name of a stub resolves, is documented, and stands in `__all__`."""

from __future__ import annotations

import ast
from importlib import import_module

import pytest

import swath
from helpers.source_tree import PACKAGE, public_names, syntax_tree

STUBS = sorted(
    ".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.pyi")
)

# Parts of the program that nobody imports from, and `samples`, which is one module.
WITHOUT_NAMES = {"cli", "cpu", "demo", "reporting", "samples", "tiling"}


@pytest.mark.parametrize("package", STUBS)
def test_public_names_resolve_and_are_documented(package: str) -> None:
    offered = import_module(package)
    names = public_names(package)
    for name, full in names.items():
        thing = getattr(offered, name)
        module, _, attribute = full.rpartition(".")
        assert thing is getattr(import_module(module), attribute)
        if not name.startswith("__") and not isinstance(thing, (dict, tuple, str)):
            first = (thing.__doc__ or "").strip().split("\n\n")[0]
            assert first[:1].isupper(), f"{full}: its docstring does not begin with a sentence: {first!r}"
            assert first.endswith((".", ":")), (
                f"{full}: its docstring does not begin with a sentence: {first!r}"
            )
    assert set(names) <= set(dir(offered))


def test_every_package_lists_its_public_names() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages - {stub.rpartition(".")[2] for stub in STUBS} == WITHOUT_NAMES


@pytest.mark.parametrize("package", STUBS)
def test_a_stub_lists_what_it_imports(package: str) -> None:
    stub = PACKAGE.parent.joinpath(*package.split("."), "__init__.pyi")
    listed = [
        ast.literal_eval(node.value)
        for node in syntax_tree(stub).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"  # type: ignore[attr-defined]
    ]
    assert sorted(listed[0]) == sorted(public_names(package))


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = swath.no_such_thing
