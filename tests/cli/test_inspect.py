"""`swath inspect` as a newcomer meets it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import typer
from typer.testing import CliRunner

from swath.catalog.catalog import Catalog
from swath.cli.inspect import command
from swath.errors import ImageryError
from swath.sensors.registry import get_sensor

app = typer.Typer()
app.command()(command)


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    folder = tmp_path / "flights"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        profile = {"driver": "GTiff", "count": 3, "height": 40, "width": 50, "dtype": "uint8"}
        transform = rasterio.transform.Affine(0.2, 0, 500_000, 0, -0.2, 5_000_000)
        with rasterio.open(folder / f"{i}.tif", "w", crs="EPSG:32633", transform=transform, **profile) as to:
            to.write(rng.integers(0, 255, (3, 40, 50)).astype(np.uint8))
    (folder / "broken.tif").write_bytes(b"")
    (folder / "also_broken.tif").write_bytes(b"")
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_it_says_what_is_there_and_writes_it(flights: Path, tmp_path: Path) -> None:
    output = run(flights, "--out", tmp_path / "c.parquet")
    assert "3 x uint8" in output
    assert "0.2 m" in output
    assert "3 scenes, 2 problems" in output
    assert output.count("0 bytes") == 1  # the same trouble is told once
    assert "and 1 more like it" in output
    assert len(Catalog.read(tmp_path / "c.parquet").scenes) == 3


def test_statistics_of_a_sensor_that_nobody_knows_yet(flights: Path, tmp_path: Path) -> None:
    target = tmp_path / "My Drone.yaml"
    arguments = ("--statistics", target, "--bands", "red,green,blue", "--unit", "uint8")
    output = run(flights, "--out", tmp_path / "c.parquet", *arguments)
    sensor = get_sensor(target)
    assert sensor.name == "my_drone"
    assert sensor.band_names == ("red", "green", "blue")
    assert sensor.mean == pytest.approx([127, 127, 127], abs=3)
    assert "6,000 valid pixels (100.0% of those read) of 3 scenes" in output


def test_statistics_of_a_known_sensor_keep_its_name(flights: Path, tmp_path: Path) -> None:
    target = tmp_path / "here.yaml"
    run(flights, "--out", tmp_path / "c.parquet", "--statistics", target, "--sensor", "rgb_aerial")
    assert get_sensor(target).name == "rgb_aerial"
    assert get_sensor(target).mean != get_sensor("rgb_aerial").mean
    assert get_sensor(target).description.startswith(
        "Bands, unit, scale and nodata of the built-in sensor rgb"
    )
    assert "by swath inspect" in (get_sensor(target).statistics_source or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--statistics", "x.yaml"], "--statistics needs to know what the bands are.*rgb_aerial.*--bands"),
        (["--bands", "a,b,c"], "--bands means nothing without --statistics"),
        (["--statistics", "x.yaml", "--sensor", "naip", "--bands", "a"], "--sensor has them already"),
        (["--statistics", "x.yaml", "--bands", "a,b,c", "--unit", "unit8"], "Did you mean 'uint8'"),
    ],
)
def test_contradictions_are_explained(
    flights: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(ImageryError, match=message):
        run(flights, "--out", tmp_path / "c.parquet", *options)


@pytest.fixture
def two_sensors(tmp_path: Path) -> tuple[Path, Path]:
    """A radar and an aerial image of one place, three days apart, and an aerial one of somewhere else."""
    random = np.random.default_rng(0)
    for name, pixel, dtype, bands, day, east in (
        ("radar", 10, "float32", ("VV", "VH"), 1, 0),
        ("aerial", 3, "uint8", ("red", "green", "blue"), 4, 7),
        ("aerial_away", 3, "uint8", ("red", "green", "blue"), 4, 9000),
    ):
        folder = tmp_path / name.split("_")[0]
        folder.mkdir(exist_ok=True)
        size = 900 // pixel
        transform = rasterio.transform.Affine(pixel, 0, 500_000 + east, 0, -pixel, 5_000_000)
        profile = {"driver": "GTiff", "count": len(bands), "height": size, "width": size, "dtype": dtype}
        path = folder / f"{name}.tif"
        with rasterio.open(path, "w", crs="EPSG:32633", transform=transform, **profile) as to:
            values = random.normal(-14, 3, (2, size, size)) if len(bands) == 2 else 90
            to.write(np.broadcast_to(values, (len(bands), size, size)).astype(dtype))
            to.descriptions = bands
            to.update_tags(ACQUISITION_DATE=f"2020-06-0{day}T10:00:00")
    return tmp_path / "radar", tmp_path / "aerial"


def test_two_archives_become_pairs_and_a_report(two_sensors: tuple[Path, Path], tmp_path: Path) -> None:
    from swath.datasets.pairs.opening import open_pairs

    names = ("sentinel1_grd", "rgb_aerial")
    chosen = ("--sensor", names[0], "--sensor", names[1], "--chip-size", 30, "--grid", 10)
    output = run("--pair", *two_sensors, *chosen, "--out", tmp_path / "p.parquet")
    assert "4 pairs of sentinel1_grd and rgb_aerial, 30 x 30 pixels of 10 m, 3.0 days apart" in output
    assert "1 images are in no pair" in output
    assert "no scene of sentinel1_grd overlaps it" in output
    assert "aerial_away.tif" in (tmp_path / "p_unpaired.csv").read_text()
    pairs = open_pairs(tmp_path / "p.parquet", sensors=names)
    assert len(pairs) == 4
    assert float(pairs[3]["sensors"]["rgb_aerial"]["image"].float().mean()) == 90


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sensor", "sentinel1_grd"], "--pair wants --sensor twice"),
        (
            ["--sensor", "sentinel1_grd", "--sensor", "rgb_aerial", "--max-days", "soon"],
            "--max-days soon: a number",
        ),
        (
            ["--sensor", "sentinel1_grd", "--sensor", "rgb_aerial", "--max-days", "1"],
            r"3\.0 days apart.*--max-days 3",
        ),
        (["--sensor", "sentinel1_grd", "--sensor", "rgb_aerial", "--grid", "naip"], "neither of the sensors"),
        (["--sensor", "a", "--sensor", "b", "--unit", "dB"], "--unit means nothing with --pair"),
        (["--sensor", "sentinel1_grd", "--sensor", "rgb_aerial", "--pattern", "*"], "wants --pattern twice"),
    ],
)
def test_pairing_says_what_it_needs(
    two_sensors: tuple[Path, Path], tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(ImageryError, match=message):
        run("--pair", *two_sensors, "--out", tmp_path / "p.parquet", *options)


def test_options_of_pairing_mean_nothing_without_it(flights: Path) -> None:
    with pytest.raises(ImageryError, match="--chip-size means nothing without --pair"):
        run(flights, "--chip-size", 30)
    with pytest.raises(ImageryError, match="two with --pair"):
        run(flights, flights)
