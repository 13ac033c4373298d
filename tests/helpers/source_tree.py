"""The package's own sources as the architecture tests read them: modules and who imports whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "swath"

# Each package (folder or single module) may import those before it and itself, never a later one.
# Packages in one tuple do not import each other.
ORDER = (
    ("errors", "samples", "_version"),
    ("registry", "files", "locks", "keyed_random"),
    ("yaml_io", "renames"),
    ("geo",),
    ("sensors",),
    ("rasters",),
    ("catalog",),
    ("datasets",),
    ("reporting", "augmentations"),
    ("simulated",),
    ("cpu",),
    ("encoders",),
    ("objectives",),
    ("models",),
    ("training",),
    ("evaluation",),
    ("evaluate",),
    ("tiling",),
    ("tasks",),
    ("prediction",),
    ("archive",),
    ("serving",),
    ("demo", "doctor"),
    ("cli",),
)
RANK = {package: rank for rank, packages in enumerate(ORDER) for package in packages}


class Edge(NamedTuple):
    """One import of a module of Swath, also inside functions and TYPE_CHECKING blocks."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, for every module of the package."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def public_names(package: str = "swath") -> dict[str, str]:
    """Public name -> its full dotted name, from a package's stub, which is also what loads them."""
    stub = PACKAGE.parent.joinpath(*package.split("."), "__init__.pyi")
    names = {}
    for node in syntax_tree(stub).body:
        if isinstance(node, ast.ImportFrom):
            source = f"{package}.{node.module}" if node.module else package
            names |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
    return names


def imports_of(name: str) -> Iterator[Edge]:
    for node in ast.walk(syntax_tree(modules()[name])):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: import absolutely"
            module = node.module or ""
            targets = []
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                inner = public_names().get(alias.name, inner) if module == "swath" else inner
                targets.append(inner if inner in modules() else inner.rpartition(".")[0])
        else:
            continue
        for target in dict.fromkeys(targets):
            if target.split(".")[0] == "swath" and target != name:
                yield Edge(name, target, node.lineno)


@cache
def edges() -> tuple[Edge, ...]:
    return tuple(edge for name in modules() for edge in imports_of(name))


def package_of(module: str) -> str:
    """The first part below `swath`: `swath.geo.gsd` -> `geo`; `swath` itself -> ``."""
    return module.split(".")[1] if "." in module else ""
