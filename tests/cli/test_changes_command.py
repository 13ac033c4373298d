"""`swath changes` from the outside: places, files, and words for what cannot be."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from swath.archive.archive import Archive
from swath.archive.table.rows import rows_from_vectors
from swath.cli.main import build_app
from swath.errors import ArchiveError, SwathError

SIDE = 8
CHANGED = 27


def swath(*words: object, code: int = 0) -> str:
    """Run a command; everything that it prints. User errors are raised, for the console script to catch."""
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 places of 0.01 degrees, two dates, two GSDs; one of them is another place at the second date."""
    path = tmp_path_factory.mktemp("changes") / "chips.archive"
    archive = Archive.create(path, "m-1", 16)
    random = np.random.default_rng(0)
    ground = random.standard_normal((SIDE * SIDE, 16))
    corners = [(13 + 0.01 * (i % SIDE), 52 + 0.01 * (i // SIDE)) for i in range(SIDE * SIDE)]
    for gsd in (10.0, 20.0):
        for year in (2018, 2021):
            look = ground + 0.1 * random.standard_normal(ground.shape) + year / 1000
            if year == 2021:
                look[CHANGED] = random.standard_normal(16)
            archive.append(
                rows_from_vectors(
                    "m-1",
                    [f"{year}-{gsd:.0f}-{i:03d}" for i in range(SIDE * SIDE)],
                    look,
                    sensor="sentinel2_l2a",
                    gsd=gsd,
                    bounds=[(x, y, x + 0.01, y + 0.01) for x, y in corners],
                    time=[datetime(year, 6, 1, tzinfo=UTC)] * len(look),
                )
            )
    return path


def test_places_on_the_terminal_and_in_files(archive: Path, tmp_path: Path) -> None:
    words = ("changes", archive, "--before", 2018, "--after", 2021, "-k", 3, "--gsd-range", 10)
    said = swath(
        *words, "--geojson", tmp_path / "a.geojson", "--heatmap", tmp_path / "a.tif", "--cell-size", 100
    )
    first = next(line for line in said.splitlines() if line.strip().startswith("1 "))
    assert f"2021-10-{CHANGED:03d}"[:12] in first
    assert "13.03500, 52.03500" in first
    assert "64 places are shown at both times" in said
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert [f["properties"]["rank"] for f in features] == [1, 2, 3]
    assert features[0]["properties"]["score"] > 4
    with rasterio.open(tmp_path / "a.tif") as drawn:
        assert drawn.res == (100, 100)
        values = drawn.read(1)
        row, column = np.unravel_index(np.nanargmax(values), values.shape)
        x, y = drawn.xy(row, column)
        assert drawn.crs.to_epsg() == 32633
        west, south, east, north = drawn.bounds
        assert 0.37 < (x - west) / (east - west) < 0.51  # the fourth of eight columns and rows
        assert 0.37 < (y - south) / (north - south) < 0.51


def test_some_places_only(archive: Path, tmp_path: Path) -> None:
    box = swath("changes", archive, "--before", 2018, "--after", 2021, "--bbox", "13,52,13.015,52.005")
    assert "4 places" in box  # two chips at two scales
    assert "scores are plain distances" in box
    area = tmp_path / "area.geojson"
    ring = [[13, 52], [13.015, 52], [13.015, 52.005], [13, 52.005], [13, 52]]
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    assert "4 places" in swath("changes", archive, "--before", 2018, "--after", 2021, "--intersects", area)


def test_user_errors(archive: Path, tmp_path: Path) -> None:
    said = swath("changes", archive, "--before", "yesterday", "--after", 2021, code=2)
    assert "Invalid value" in said
    said = swath("changes", archive, "--before", 2018, "--after", 2021, "--bbox", "1,2,3", code=2)
    assert "Invalid value" in said
    for words, error, message in (
        (("--before", 2021, "--after", 2018), ArchiveError, "has to end before the second begins"),
        (("--before", 2015, "--after", 2018), ArchiveError, "no place is shown both"),
        (("--before", 2018, "--after", 2021, "--cell-size", 5), SwathError, "give both"),
        (("--before", 2018, "--after", 2021, "--sensor", "naip"), ArchiveError, "holds no chip of sensor"),
        (
            ("--before", 2018, "--after", 2021, "--intersects", tmp_path / "none.geojson"),
            ArchiveError,
            "is no GeoJSON file",
        ),
    ):
        with pytest.raises(error, match=message):
            swath("changes", archive, *words)
