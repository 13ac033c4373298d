"""Public names that hold a word of tests/avoid_words.txt; run as a script, it lists them (of one package)."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers.source_tree import PACKAGE, modules, package_of, syntax_tree

# Names that may hold such a word, each with its reason.
EXCEPTIONS = {
    "query_by_place": "a search by what is at a place: geographic, not a record",
    "place": "the option of a search: longitude and latitude",
    "pixel_size_on_ground": "the standard phrase for ground sample distance",
    "kfold": "k-fold cross-validation",
    "looks": "the number of looks of a radar image",
    "side_by_side": "the standard phrase",
    "centre": "a buffer of CMID's loss: the name of a tensor in stored weights",
}

# The tables of old names.
RENAMED = {"swath.cli.renamed"}


class Use(NamedTuple):
    module: str
    line: int
    name: str
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.name} holds '{self.word}'; say {self.instead}"


def words() -> tuple[dict[str, str], dict[str, str]]:
    """Words refused as parts of a name, and names refused as a whole, with what to say instead."""
    parts: dict[str, str] = {}
    whole: dict[str, str] = {}
    text = (PACKAGE.parents[1] / "tests" / "avoid_words.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            refused, instead = line.split(" : ")
            for word in refused.split():
                (whole if word.startswith("=") else parts)[word.removeprefix("=")] = instead
    return parts, whole


def names_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Public functions, classes, their arguments and fields, and options of the command line."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not node.name.startswith("_"):
                yield node.lineno, node.name
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                yield from ((one.lineno, one.arg) for one in every)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.lineno, node.name
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    yield item.lineno, item.target.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for option in re.findall(r"^--([a-z][a-z-]+)(?:/--([a-z-]+))?$", node.value):
                yield from ((node.lineno, part.replace("-", "_")) for part in option if part)


def uses(package: str | None = None) -> Iterator[Use]:
    parts, whole = words()
    for module, path in modules().items():
        if module in RENAMED or (package is not None and package_of(module) != package):
            continue
        for line, name in names_in(syntax_tree(path)):
            if name in EXCEPTIONS or name.startswith("_"):
                continue
            if name in whole:
                yield Use(module, line, name, name, whole[name])
            for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name):
                if word.lower() in parts:
                    yield Use(module, line, name, word.lower(), parts[word.lower()])


if __name__ == "__main__":
    for use in uses(*sys.argv[1:2]):
        print(use)
