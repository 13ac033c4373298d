"""`import swath` and `swath --help` load nothing heavy, so they are quick; modules are counted, not time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "rasterio",
    "pyproj",
    "shapely",
    "pyarrow",
    "lancedb",
    "pydantic",
    "matplotlib",
    "PIL",
    "tensorboard",
}

HELP = """
import sys
from swath.cli.main import build_app
try:
    build_app()(["--help"], standalone_mode=True)
except SystemExit as leaving:
    assert leaving.code == 0
"""


def loaded_by(program: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `program`."""
    tail = (
        "\nimport json, sys\nprint('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program + tail], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "program",
    ["import swath", "import swath; swath.__version__; dir(swath)", HELP],
    ids=["import", "dir", "help"],
)
def test_loads_nothing_heavy(program: str) -> None:
    assert not loaded_by(program) & HEAVY


def test_help_names_every_verb() -> None:
    from swath.cli.main import COMMANDS

    result = subprocess.run(
        [sys.executable, "-m", "swath.cli.main", "--help"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    for verb in COMMANDS:
        assert verb in result.stdout


def test_version_is_printed_without_a_verb() -> None:
    import swath

    result = subprocess.run(
        [sys.executable, "-m", "swath.cli.main", "--version"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert result.stdout.strip() == f"swath {swath.__version__}"
