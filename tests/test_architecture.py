"""The walls stand where ARCHITECTURE.md draws them, and what is committed speaks of Swath alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import swath

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "swath"

# Each room (folder or single module of the package) may import those before it and itself, never a later one.
# Names in one tuple are neighbours that do not know each other.
ORDER = (
    ("errors", "samples"),
    ("registry", "files", "keyed_random"),
    ("imagery",),
    ("simulated",),
    ("encoders",),
    ("objectives",),
    ("models",),
    ("training",),
    ("evaluation",),
    ("tasks",),
    ("archive",),
    ("serving",),
    ("demo", "doctor"),
    ("cli",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of every import of Swath in a module, also inside functions and TYPE_CHECKING blocks."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import absolutely, rooms are then plain to see"
            names = [node.module or ""]
            if node.module == "swath":  # from swath import imagery; from swath import __version__
                names = [f"swath.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "swath" and len(parts) > 1 and not parts[1].startswith("__"):
                yield node.lineno, swath._PUBLIC.get(parts[1], name).split(".")[1]


def test_every_room_has_its_place() -> None:
    unknown = {room_of(path) for path in modules()} - RANK.keys()
    assert not unknown, f"give {unknown} a place in ORDER and in ARCHITECTURE.md"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_room_imports_a_later_one(path: Path) -> None:
    here = room_of(path)
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {here} may not import {room}"
        for line, room in imported_rooms(path)
        if room != here and RANK[room] >= RANK[here]
    ]
    assert not wrong


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


PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_architecture_page_has_the_rooms_in_their_order() -> None:
    table = PAGE[PAGE.index("## Rooms") : PAGE.index("## Protocols")]
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
    within = [name for name in missing if not any(PACKAGE.glob(f"*/{name}"))]  # `sets/` of its own room
    assert not within


def test_models_train_without_geodata_libraries() -> None:
    """A GPU machine needs none of them: everything up to the engine, and a model saved, loaded and asked."""
    program = """
import sys, tempfile
for name in ("rasterio", "pyproj", "shapely", "pyarrow", "lancedb"):
    sys.modules[name] = None  # an import of it fails
import torch
import swath.training.engine
from swath.encoders import create_model
from swath.models import Contract, load_model, save_model
from swath.objectives.protocol import objectives
from swath.training.recipe import load_recipe

assert {"scale_mae", "csmae", "cmid", "unified"} <= set(objectives.names())
load_recipe("configs/unified_nano_cpu.yaml")
name, options = "vit_nano_patch8", {"bands": 3}
with tempfile.TemporaryDirectory() as folder:
    encoder = create_model(name, **options)
    contract = Contract.of("rgb_aerial")
    path = save_model(
        folder + "/m", encoder=encoder, encoder_name=name, encoder_options=options, contract=contract
    )
    assert load_model(path).embed(255 * torch.rand(2, 3, 16, 16), gsd=1.0).shape[0] == 2
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def committed_texts() -> list[Path]:
    """Text files under version control, and those that are about to be."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    endings = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".css", ".csv", ""}
    paths = [ROOT / line for line in listing.stdout.splitlines()]
    return [path for path in paths if path.suffix in endings and path.is_file()]


# Written in pieces, so that this file does not trip over itself.
FORBIDDEN = {
    "an absolute path of somebody's machine": r"(?<![\w.])/(?:work|root|home|Users)/\w" + r"",
    "a temporary folder": r"(?<![\w.])/" + r"tmp/\w",
    "a download host": r"\bfiles\.python"
    + r"hosted\b|\bpypi\."
    + r"org/simple\b|\bdownload\.py"
    + r"torch\b",
    "unfinished work": r"\bTO" + r"DO\b|\bFIX" + r"ME\b|\bX" + r"XX\b",
}


@pytest.mark.parametrize("what", sorted(FORBIDDEN))
def test_committed_files_are_free_of(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in committed_texts()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_every_test_file_has_a_name_of_its_own() -> None:
    # Test folders are no packages: of two files with one name pytest imports only the first.
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
