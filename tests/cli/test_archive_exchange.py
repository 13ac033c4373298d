"""`swath archive export` and `swath archive import`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from helpers.archive_rows import make_rows
from swath.archive.archive import Archive
from swath.cli.main import build_app
from swath.errors import ArchiveError
from swath.geo.footprint import footprint_geometry


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = Archive.create(tmp_path / "chips.archive", "micro-1", 8)
    made.upsert(make_rows(3))
    return made


def swath(*words: str | Path) -> str:
    result = CliRunner().invoke(build_app(), [str(word) for word in words], catch_exceptions=False)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_there_and_back(archive: Archive, tmp_path: Path) -> None:
    assert "3 chips written" in swath("archive", "export", archive.path, tmp_path / "a.parquet")
    said = swath("archive", "import", tmp_path / "a.parquet", "--to", tmp_path / "copy.archive")
    assert "3 of them new" in said
    assert Archive.open(tmp_path / "copy.archive").count() == 3


def test_other_forms(archive: Archive, tmp_path: Path) -> None:
    swath("archive", "export", archive.path, tmp_path / "catalog", "--to", "stac")
    assert json.loads((tmp_path / "catalog" / "item.json").read_text())["assets"]["embeddings"]
    swath("archive", "export", archive.path, tmp_path / "a.geojson", "--to", "geojson")
    assert len(json.loads((tmp_path / "a.geojson").read_text())["features"]) == 3


def test_an_older_version(archive: Archive, tmp_path: Path) -> None:
    older = archive.version
    archive.upsert(make_rows(2, first=10))
    said = swath("archive", "export", archive.path, tmp_path / "a.parquet", "--version", str(older))
    assert "3 chips" in said


def test_a_model_for_a_format_without_one(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="--to stac"):
        swath("archive", "export", archive.path, tmp_path / "a.parquet", "--model", tmp_path)


PAGE = Path(__file__).parents[2] / "docs" / "howto" / "exchange.md"


def test_the_page_on_exchange_works_as_it_stands(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands and Python, top to bottom, beside an archive of this name that has a place."""
    ring = [(13.0, 52.0), (13.1, 52.0), (13.1, 52.5), (13.0, 52.5), (13.0, 52.0)]
    geometry, bbox = footprint_geometry(ring)
    archive.upsert(make_rows(3, geometry=[geometry] * 3, bbox=[bbox] * 3))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    ran = []
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(block, PAGE.name, "exec"), names)
        else:
            lines = [line.split() for line in block.splitlines() if not line.startswith("swath embed")]
            for _, *words in lines:
                swath(*words)
        ran.append(language)
    assert ran.count("python") == 5
    assert Archive.open("copy.archive").count() == Archive.open("fine.archive").count() == 3
    assert "micro-1" in capsys.readouterr().out
    assert pq.read_metadata("items.parquet").num_rows == 1
