"""ARCHITECTURE.md describes the tree that is there."""

from __future__ import annotations

import re

from helpers.source_tree import PACKAGE, RANK, ROOT

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_architecture_page_has_the_rooms_in_their_order() -> None:
    table = PAGE[PAGE.index("## Packages") : PAGE.index("## Protocols")]
    named = [
        name.rstrip("/")
        for row in re.findall(r"^\| (`[^|]*) \|", table, flags=re.MULTILINE)
        for name in re.findall(r"`([\w/]+)`", row)
    ]
    assert sorted(named) == sorted(RANK), "every room once"
    assert [RANK[name] for name in named] == sorted(RANK.values())


def test_architecture_page_names_every_folder_within_a_room() -> None:
    folders = [
        path.parent for path in PACKAGE.rglob("__init__.py") if len(path.relative_to(PACKAGE).parts) > 2
    ]
    missing = [folder for folder in folders if f"{folder.name}/`" not in PAGE]
    assert not missing


def test_architecture_page_names_only_files_that_are_there() -> None:
    names = re.findall(r"`((?:[\w.-]+/)+(?:[\w.-]+)?|[a-z_]+\.py)`", PAGE)
    assert len(names) > 30
    missing = [name for name in names if not ((ROOT / name).exists() or (PACKAGE / name).exists())]
    within = [name for name in missing if not any(PACKAGE.rglob(name))]
    assert not within
