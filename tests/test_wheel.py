"""The wheel holds every file of the package, and works from an environment that has never seen the clone."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from helpers.source_tree import PACKAGE, ROOT
from swath._version import __version__

# What only the wheel can tell: where the package lies, that its plug-ins are announced, and its data files.
PROGRAM = """
import runpy
import sys
from importlib.metadata import version
import swath
from swath.objectives.protocol import objectives
from swath.samples import __file__ as samples
assert swath.__file__.startswith(sys.argv[1]), swath.__file__
assert samples.startswith(sys.argv[1])
assert version("swath") == swath.__version__ == sys.argv[2]
assert objectives.get("cmid").build is not None
assert swath.get_sensor("sentinel2_l2a").bands
script = sys.argv[3]
sys.argv = [script, "doctor", "--no-step"]
runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("swath/")}
    there = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == there
    kinds = {Path(name).suffix for name in held}
    assert {".py", ".pyi", ".yaml", ".css", ".html", ".js", ".tif"} <= kinds
    assert "swath/py.typed" in held


def test_the_wheel_works_where_the_clone_is_not(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    scheme = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    # What the tests run with; its own .pth files are not read, so the clone stays out.
    others = [path for path in sys.path if "-packages" in Path(path).name]
    (packages / "others.pth").write_text("\n".join(others))
    scripts = Path(sysconfig.get_path("scripts", "venv", scheme))
    install = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", "--no-compile", wheel], check=True)
    command = [scripts / "python", "-c", PROGRAM, environment, __version__, scripts / "swath"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"swath {__version__}" in " ".join(done.stdout.split())


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
