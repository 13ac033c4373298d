from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from swath import doctor
from swath.cli.main import build_app
from swath.errors import EXTRA_OF

ROOT = Path(__file__).resolve().parents[2]
ALL = dict(doctor.LIBRARIES)
LIGHT = ("torch", "numpy", "rasterio", "pyproj", "safetensors")


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow-to-load libraries are left out; that they load is for other tests to show."""
    monkeypatch.setattr(doctor, "LIBRARIES", {key: doctor.LIBRARIES[key] for key in LIGHT})


FRESH = f"""
from swath import doctor
from swath.cli.main import build_app

doctor.LIBRARIES = {{key: doctor.LIBRARIES[key] for key in {LIGHT}}}
build_app()()
"""


def test_a_sound_machine(tmp_path: Path) -> None:
    # In a process of its own: GDAL keeps the drivers that whatever started it first has allowed.
    result = subprocess.run(
        [sys.executable, "-c", FRESH, "doctor", str(tmp_path), "--json"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert found["problems"] == []
    assert found["libraries"].keys() == set(LIGHT)
    assert found["imagery"]["Swath opens"] == "GTiff, JPEG, PNG, WEBP"
    assert "VRT, " in found["imagery"]["disabled in GDAL"]
    assert "(for the whole process)" in found["imagery"]["disabled in GDAL"]
    assert found["imagery"]["a read"].startswith("GeoTIFF right, GSD 10.0")
    losses = [float(value) for value in found["training step"]["losses"].split(", ")]
    assert losses[0] > losses[-1]
    assert "free of" in found["disk"]["here"]
    assert found["compute"]["threads"] >= 1


def test_it_looks_for_all_that_swath_depends_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["geo"], *extras["archive"], *extras["evaluate"]]
    names = {re.match(r"[\w.-]+", line)[0] for line in lines} - {"swath"}  # type: ignore[index]
    assert set(ALL.values()) == names


def test_each_package_of_an_extra_is_told_with_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRA_OF.values()) == extras.keys() - {"all"}


def test_extras_that_are_not_there_are_told_with_their_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2.6", 'safetensors>=0.4; extra == "here"', "no-such-one[x]>=2; extra == 'gone'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    found = doctor.run_diagnostics(step=False)
    assert found.sections["extras"]["here"].startswith("safetensors 0.")
    assert found.sections["extras"]["gone"] == "no no-such-one: pip install '.[gone]'"
    assert found.problems == []


def test_as_text_for_a_bug_report() -> None:
    result = CliRunner().invoke(build_app(), ["doctor", "--no-step"])
    assert result.exit_code == 0, result.output
    assert "training step" not in result.output
    assert result.output.rstrip().endswith("all is well")


def test_a_missing_library_is_a_problem_with_its_fix_and_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", {"no_such_library": "no-such-library"})
    result = CliRunner().invoke(build_app(), ["doctor", "--no-step"])
    assert result.exit_code == 1
    assert (
        "PROBLEM: no-such-library is missing: install it with `pip install no-such-library`" in result.output
    )


def test_a_missing_library_of_an_extra_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", {"lancedb": "lancedb"})
    monkeypatch.setitem(sys.modules, "lancedb", None)
    report = doctor.run_diagnostics(step=False)
    assert report.problems == []
    assert any("pip install '.[archive]'" in hint for hint in report.hints)


def test_a_library_that_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def broken(name: str, *rest: Any) -> Any:
        if name == "rasterio":
            raise ImportError("libgdal.so.34: cannot open shared object file")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    report = doctor.run_diagnostics(step=False)
    assert "libgdal.so.34" in report.sections["libraries"]["rasterio"]
    assert any("pip install --force-reinstall rasterio" in problem for problem in report.problems)


def test_whatever_fails_becomes_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("GDAL is upset")

    monkeypatch.setattr("swath.rasters.safe_open.rasterio_module", fail)
    report = doctor.run_diagnostics(step=False)
    assert report.sections["imagery"] == {"failed": "RuntimeError: GDAL is upset"}
    assert "imagery: RuntimeError: GDAL is upset" in report.problems


def test_little_disk_is_hinted_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    report = doctor.run_diagnostics(tmp_path, step=False)
    assert any("little free disk space for here" in hint for hint in report.hints)


def test_it_tells_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    monkeypatch.setenv("GDAL_DATA", str(Path.home() / "gdal"))
    text = doctor.format_diagnostics(doctor.run_diagnostics(step=False))
    assert "hunter2" not in text
    assert "~/gdal" in text
    assert str(Path.home()) not in text
