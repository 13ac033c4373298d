"""`swath archive` from the outside, and the options of `swath embed` that fill archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from swath.archive.archive import Archive
from swath.archive.table.rows import rows_from_vectors
from swath.cli.main import build_app
from swath.encoders import create_model
from swath.errors import ArchiveError
from swath.models import Contract, save_model
from swath.sensors.registry import get_sensor


def swath(*words: object, code: int = 0, answer: str | None = None) -> str:
    result = CliRunner().invoke(build_app(), [str(word) for word in words], input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Eight chips of two years, sensors and degrees of cloud, committed one by one."""
    from datetime import UTC, datetime

    made = Archive.create(tmp_path / "chips.archive", "micro-1", 4)
    for number in range(8):
        made.upsert(
            rows_from_vectors(
                "micro-1",
                [f"chip{number}"],
                np.full((1, 4), number, np.float32),
                sensor="naip" if number % 2 else "rgb_aerial",
                gsd=1.0,
                time=[datetime(2018 + number // 4, 6, 1, tzinfo=UTC)],
                source=f"/data/{2018 + number // 4}/{number}.tif",
                cloud_fraction=[None if number == 7 else number / 10],
            )
        )
    return tmp_path / "chips.archive"


def left(archive: Path) -> list[int]:
    return sorted(
        int(name.removeprefix("chip")) for name in Archive.open(archive).rows(["id"])["id"].to_pylist()
    )


def test_info_and_versions(archive: Path) -> None:
    said = swath("archive", "info", archive)
    for words in ("chips 8", "model micro-1 (4 dimensions)", "2018-06-01 to 2019-06-01", "data files 8"):
        assert words in said
    said = swath("archive", "versions", archive)
    number = Archive.open(archive).versions()[3].number
    assert len(Archive.open(archive).versions()) == 9
    assert "chips 3" in swath("archive", "info", archive, "--version", number)
    with pytest.raises(ArchiveError, match="no version 99"):
        swath("archive", "info", archive, "--version", 99)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--id", "chip3", "--id", "chip5", "--id", "x' OR 1=1 --"], [0, 1, 2, 4, 6, 7]),
        (["--source", "*/2018/*"], [4, 5, 6, 7]),
        (["--source", "/data/2019/6.tif"], [0, 1, 2, 3, 4, 5, 7]),
        (["--sensor", "naip", "--before", "2019-01-01"], [0, 2, 4, 5, 6, 7]),
        (["--cloudier-than", "0.35"], [0, 1, 2, 3, 7]),  # of 7 nothing is known
    ],
)
def test_delete_takes_what_meets_all_conditions(archive: Path, options: list[str], kept: list[int]) -> None:
    before = Archive.open(archive).version
    said = swath("archive", "delete", archive, *options, "--yes")
    assert left(archive) == kept
    assert f"{8 - len(kept)} chips deleted, {len(kept)} are left; version {before} still has them" in said
    assert Archive.open(archive, version=before).count() == 8


def test_delete_asks_and_needs_a_condition(archive: Path) -> None:
    assert "delete 4 of 8 chips" in swath(
        "archive", "delete", archive, "--sensor", "naip", answer="n\n", code=1
    )
    assert len(left(archive)) == 8
    with pytest.raises(ArchiveError, match="give a condition"):
        swath("archive", "delete", archive, "--yes")
    with pytest.raises(ArchiveError, match="no chip meets"):
        swath("archive", "delete", archive, "--sensor", "worldview", "--yes")


def test_compact(archive: Path) -> None:
    assert "8 data files are now 1; 0 old versions removed" in swath("archive", "compact", archive)
    said = swath("archive", "compact", archive, "--keep-days", 0)
    assert "old versions removed" in said
    assert len(Archive.open(archive).versions()) <= 2
    assert left(archive) == list(range(8))


def test_embed_at_several_sizes_and_pruning(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = save_model(
        tmp_path / "model",
        encoder_name="vit_micro_patch16",
        encoder_options={"bands": 3},
        encoder=create_model("vit_micro_patch16", bands=3),
        contract=Contract(sensors={"rgb_aerial": get_sensor("rgb_aerial")}),
    )
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(1, 255, (64, 64, 3), dtype=np.uint8)
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    embed = (
        "embed", model, tmp_path / "images", "--to", tmp_path / "archive", "--gsd", 0.5, "--layout", "chips",
        "--chip-size", "32,64", "--workers", 0, "--device", "cpu", "--max-cloud", 0.5,
    )  # fmt: skip
    said = swath(*embed)
    assert "10 chips embedded" in said
    assert "10 kept although nothing says how cloudy they are" in said
    (tmp_path / "images" / "b.png").unlink()
    assert "0 chips embedded" in swath(*embed)
    assert "5 removed: their file is gone (--prune)" in swath(*embed, "--prune")
    assert Archive.open(tmp_path / "archive").count() == 5
    assert "positive numbers" in swath(*embed, "--chip-size", "0,32", code=2)
    assert "is no number" in swath(*embed, "--chip-size", "small", code=2)
    with pytest.raises(ArchiveError, match="prune deletes rows"):
        swath("embed", model, tmp_path / "images" / "a.png", *embed[3:], "--prune")
