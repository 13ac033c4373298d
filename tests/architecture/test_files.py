"""Files stay short enough to be read from top to bottom."""

from __future__ import annotations

import ast

from helpers.source_tree import PACKAGE, modules, syntax_tree

LONGEST_FILE, LONGEST_FUNCTION = 500, 100

# Still longer; the set only ever gets smaller.
LONG_FUNCTIONS: set[str] = set()


def test_no_file_is_over_500_lines() -> None:
    files = [
        path
        for ending in ("py", "js", "css")
        for path in PACKAGE.rglob(f"*.{ending}")
        if "vendor" not in path.parts
    ]
    long = {
        str(path.relative_to(PACKAGE))
        for path in files
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST_FILE
    }
    assert not long


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_function_has_over_100_lines_of_code() -> None:
    long = {
        f"{name}.{node.name}"
        for name, path in modules().items()
        for node in ast.walk(syntax_tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and code_lines(node) > LONGEST_FUNCTION
    }
    assert long == LONG_FUNCTIONS
