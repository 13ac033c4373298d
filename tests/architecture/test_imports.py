"""Packages import downwards only, modules form no circle, and training needs no geodata library."""

from __future__ import annotations

import subprocess
import sys

from helpers.source_tree import RANK, ROOT, Edge, edges, modules, package_of

# What a machine that trains has: none of these may import `geo`, `rasters` or `catalog`.
TRAINING = {"encoders", "objectives", "models", "training", "augmentations", "cpu"}
GEODATA = {"geo", "rasters", "catalog"}


def test_every_package_has_its_place() -> None:
    unknown = {package_of(name) for name in modules()} - RANK.keys() - {""}
    assert not unknown, f"give {unknown} a place in ORDER and in ARCHITECTURE.md"


def goes_up(edge: Edge) -> bool:
    here, there = package_of(edge.importer), package_of(edge.imported)
    return bool(here and there) and here != there and RANK[there] >= RANK[here]


def test_packages_import_downwards_only() -> None:
    assert not [str(edge) for edge in edges() if goes_up(edge)]


def test_training_imports_no_geodata() -> None:
    wrong = [
        str(edge)
        for edge in edges()
        if package_of(edge.importer) in TRAINING and package_of(edge.imported) in GEODATA
    ]
    assert not wrong


def circles() -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan's algorithm).

    A package's `__init__` counts as a module of its own: importing `swath.a.b` runs it, but only what it
    imports by name is an edge.
    """
    graph: dict[str, list[str]] = {name: [] for name in modules()}
    for edge in edges():
        if edge.imported in graph:
            graph[edge.importer].append(edge.imported)
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            component = []
            while not component or component[-1] != name:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for name in graph:
        if name not in number:
            visit(name)
    return found


def test_modules_form_no_circle() -> None:
    found = circles()
    report = [
        str(edge)
        for component in found
        for edge in edges()
        if edge.importer in component and edge.imported in component
    ]
    assert not found, "\n".join(report)


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
from swath.training.config.recipe import load_recipe

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


def test_modules_import_where_unix_modules_are_missing() -> None:
    """As on Windows; what needs them there says so when it is used."""
    program = f"""
import importlib, sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None  # an import of it fails
for name in {sorted(modules())}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
