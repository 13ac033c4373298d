"""A command whose extra is not installed says which, and how to install it from the clone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swath.errors import missing_extra

BLOCKED = """
import sys
sys.modules[sys.argv[1]] = None  # an import of it fails
sys.argv[:2] = ["swath"]
from swath.cli.main import run
run()
"""


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("rasterio", "geo", ["inspect", "scene.tif"]),
        ("lancedb", "archive", ["archive", "info", "chips.archive"]),
    ],
)
def test_the_command_names_its_extra(package: str, extra: str, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "chips.archive" / "chips.lance" / "_versions").mkdir(parents=True)
    (tmp_path / "chips.archive" / "chips.lance" / "_versions" / "1.manifest").touch()
    (tmp_path / "scene.tif").write_bytes(b"II*\0" + bytes(60))
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, package, *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert f"pip install '.[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_failures_of_imports_keep_their_traceback() -> None:
    assert missing_extra(ModuleNotFoundError("no", name="swath.geo.nowhere"), "it") is None
    assert missing_extra(ImportError("libgdal.so", name="rasterio"), "it") is None
    told = missing_extra(ModuleNotFoundError("no", name="rasterio.warp"), "`swath predict`")
    assert str(told).startswith("`swath predict` needs the package rasterio, which is not installed.")
