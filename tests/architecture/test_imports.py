"""Packages import downwards only, modules form no circle, and training needs no geodata library."""

from __future__ import annotations

import ast
import subprocess
import sys

from helpers.source_tree import RANK, ROOT, Edge, edges, modules, package_of, syntax_tree

# What a machine that trains has: none of these may import `geo`, `rasters` or `catalog`.
TRAINING = {"encoders", "objectives", "models", "training", "augmentations", "cpu"}
GEODATA = {"geo", "rasters", "catalog"}
# Of the data sets, training knows samples, batches and what data sets promise; where a path is opened
# (a recipe's, `Model.embed_file`'s), the function imports what it needs.
OF_DATASETS = {"swath.datasets.chip", "swath.datasets.protocol", "swath.datasets.collation"}
OPENS_PATHS = {"swath.training.build", "swath.models.model"}


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
        if package_of(edge.importer) in TRAINING
        and (
            package_of(edge.imported) in GEODATA
            or (package_of(edge.imported) == "datasets" and edge.imported not in OF_DATASETS)
        )
        and not (package_of(edge.imported) == "datasets" and edge.importer in OPENS_PATHS)
    ]
    assert not wrong
    top = {
        target
        for name in OPENS_PATHS
        for node in syntax_tree(modules()[name]).body
        if isinstance(node, ast.ImportFrom) and (target := node.module or "").startswith("swath.datasets")
    }
    assert top <= OF_DATASETS, "import what opens files inside the function that needs it"


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
    """A GPU machine needs none of them: two steps on images in memory, and a model saved and loaded."""
    program = """
import sys, tempfile
for name in ("rasterio", "pyproj", "shapely", "pyarrow", "lancedb", "faiss", "sklearn", "matplotlib"):
    sys.modules[name] = None  # an import of it fails
import torch
from swath.datasets.chip import Batch
from swath.encoders import create_model
from swath.models import Contract, load_model, save_model
from swath.objectives.protocol import objectives
from swath.sensors import get_sensor
from swath.training.config.recipe import load_recipe, parse_recipe
from swath.training.pretraining import pretrain

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


class Pixels:
    # A data set of the user: random images in memory.

    sensor, classes, labels, problems = get_sensor("rgb_aerial"), None, None, []
    paths = [str(number) for number in range(8)]
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        raise NotImplementedError

    def get_batch(self, indices):
        indices = torch.as_tensor(indices)
        count = len(indices)
        return Batch(
            image=self.images[indices], gsd=torch.ones(count),
            valid=torch.ones(count, 16, 16, dtype=torch.bool),
            sensor="rgb_aerial", index=indices, key=indices,
        )

    def set_epoch(self, epoch):
        pass


encoder = {"name": "vit_micro_patch8", "options": {"depth": 1, "embed_dim": 16, "heads": 2}}
options = {"source_size": 16, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2, "fcn_dim": 16}
training = {"steps": 2, "batch_size": 4, "warmup_steps": 1, "log_every": 1, "device": "cpu", "workers": 0}
recipe = parse_recipe({
    "name": "tiny", "sensor": "rgb_aerial", "encoder": encoder,
    "objective": {"name": "scale_mae", "options": options}, "optimizer": {"lr": 0.01}, "training": training,
})
with tempfile.TemporaryDirectory() as folder:
    assert pretrain(recipe, Pixels(), folder + "/run").contract.sensors
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
