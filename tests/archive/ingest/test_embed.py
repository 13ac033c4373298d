"""Embedding runs: the rows are right, nothing is done twice, and a kill at any moment costs seconds only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from swath.archive.archive import Archive
from swath.archive.ingest.run import embed_archive
from swath.datasets.opening import open_dataset
from swath.errors import ArchiveError, ContractError, ImageryError
from swath.geo.grid import PixelWindow
from swath.models.model import Model
from swath.rasters.read import read_header, read_window


def pictures_dataset(folder: Path, **options: Any) -> Any:
    return open_dataset(folder, sensor="rgb_aerial", gsd=1.0, layout="images", **options)


class Counting:
    """A data set that counts the chips whose pixels are read (in this process: workers=0)."""

    def __new__(cls, dataset: Any) -> Any:
        plain = type(dataset).__getitem__

        def counted(self: Any, index: int) -> Any:
            self.read.append(index)
            return plain(self, index)

        dataset.__class__ = type("Counted", (type(dataset),), {"__getitem__": counted})
        dataset.read = []
        return dataset


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_hold_the_models_own_embeddings(
    model: Model, pictures: Path, tmp_path: Path, workers: int
) -> None:
    dataset = pictures_dataset(pictures)
    report = embed_archive(model, dataset, tmp_path / "archive", batch_size=5, workers=workers)
    assert (report.total, report.embedded, report.present, report.failures) == (12, 12, 0, [])
    table = Archive.open(tmp_path / "archive", model_id=model.id).rows()
    by_source = {row["source"]: row for row in table.to_pylist()}
    assert sorted(by_source) == sorted(str(path) for path in pictures.iterdir())
    images = torch.stack([dataset[i]["image"] for i in range(12)])
    expected = model.embed(images, gsd=1.0)
    for index, path in enumerate(dataset.paths):
        row = by_source[path]
        assert np.allclose(row["embedding"], expected[index], atol=1e-5)
        assert (row["gsd"], row["sensor"], row["valid_fraction"]) == (1.0, "rgb_aerial", 1.0)
        assert row["window"] == {"column": 0, "row": 0, "width": 32, "height": 32}
        assert row["geometry"] is None


def test_chips_of_scenes_know_their_place_and_time(model: Model, scenes: Path, tmp_path: Path) -> None:
    dataset = open_dataset(scenes, sensor="rgb_aerial", chip_size=32)
    report = embed_archive(model, dataset, tmp_path / "archive", workers=0, min_valid=0.5)
    assert (report.total, report.screened, report.embedded, report.failures) == (24, 2, 22, [])
    rows = Archive.open(tmp_path / "archive").rows().to_pylist()
    for row in rows:
        header = read_header(row["source"])
        _, valid = read_window(header, PixelWindow(**row["window"]))
        assert row["valid_fraction"] == pytest.approx(valid.mean())
        assert row["datetime"] == header.time
        assert row["gsd"] == pytest.approx(10, rel=1e-3)
        assert row["bbox"]["xmax"] - row["bbox"]["xmin"] == pytest.approx(320 / 78_700, rel=0.1)
    bounds = Archive.open(tmp_path / "archive").summary().bounds
    assert bounds is not None
    assert bounds[0] == pytest.approx(15.0, abs=0.01)


def test_a_second_run_reads_no_pixel(model: Model, scenes: Path, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    first = Counting(open_dataset(scenes, sensor="rgb_aerial", chip_size=32))
    embed_archive(model, first, path, workers=0, min_valid=0.0)
    version = Archive.open(path).version
    again = Counting(open_dataset(scenes, sensor="rgb_aerial", chip_size=32))
    report = embed_archive(model, again, path, workers=0, min_valid=0.0)
    assert len(first.read) == 24
    assert len(again.read) == report.screened  # only what was never stored
    assert (report.embedded, report.present) == (0, 24 - report.screened)
    assert Archive.open(path).version == version


def test_only_new_and_changed_files_are_embedded(model: Model, tmp_path: Path) -> None:
    from helpers.archive_images import make_pictures

    folder, path = make_pictures(tmp_path / "pictures", 6), tmp_path / "archive"
    embed_archive(model, pictures_dataset(folder), path, workers=0)
    before = {row["source"]: row for row in Archive.open(path).rows().to_pylist()}
    (folder / "new.png").write_bytes((folder / "000.png").read_bytes())
    make_pictures(tmp_path / "other", 2, seed=7)
    changed = folder / "001.png"
    changed.write_bytes((tmp_path / "other" / "001.png").read_bytes())
    report = embed_archive(model, pictures_dataset(folder), path, workers=0)
    assert (report.embedded, report.present, report.removed) == (2, 5, 0)
    after = {row["source"]: row for row in Archive.open(path).rows().to_pylist()}
    assert len(after) == 7
    assert after[str(changed)]["id"] == before[str(changed)]["id"]
    assert after[str(changed)]["embedding"] != before[str(changed)]["embedding"]


def test_a_file_that_was_only_touched_is_read_and_not_embedded_again(
    model: Model, pictures: Path, tmp_path: Path
) -> None:
    path = tmp_path / "archive"
    embed_archive(model, pictures_dataset(pictures), path, workers=0)
    before = Archive.open(path).rows().sort_by("id")
    for picture in pictures.iterdir():
        os.utime(picture, (1, 1))

    class Unused:
        id, contract = model.id, model.contract

        def embed(self, *_: Any, **__: Any) -> torch.Tensor:
            raise AssertionError("nothing has changed")

    report = embed_archive(Unused(), pictures_dataset(pictures), path, workers=0)
    assert (report.total, report.refreshed, report.embedded, report.present) == (12, 12, 0, 0)
    after = Archive.open(path).rows().sort_by("id")
    assert after.drop("fingerprint").equals(before.drop("fingerprint"))
    report = embed_archive(Unused(), pictures_dataset(pictures), path, workers=0)
    assert (report.refreshed, report.present) == (0, 12)


def test_of_a_changed_scene_only_the_changed_chips_are_embedded(
    model: Model, scenes: Path, tmp_path: Path
) -> None:
    import rasterio

    def run(path: Path) -> Any:
        return embed_archive(model, open_dataset(scenes, sensor="rgb_aerial", chip_size=32), path, workers=0)

    run(tmp_path / "archive")
    with rasterio.open(scenes / "scene_0.tif", "r+") as scene:
        pixels = scene.read()
        pixels[:, 70:80, 70:80] = 255
        scene.write(pixels)
    report = run(tmp_path / "archive")
    assert (report.embedded, report.refreshed, report.removed) == (1, 10, 0)
    run(tmp_path / "anew")
    found, anew = (Archive.open(tmp_path / name).rows().sort_by("id") for name in ("archive", "anew"))
    assert found.drop("embedding").equals(anew.drop("embedding"))
    vectors = [np.stack(table["embedding"].to_numpy()) for table in (found, anew)]
    assert np.allclose(*vectors, atol=1e-5)


def test_several_scales_of_the_same_places_in_one_run(model: Model, scenes: Path, tmp_path: Path) -> None:
    from swath.archive.query.filters import Filter

    path = tmp_path / "archive"
    scales = [
        open_dataset(scenes, sensor="rgb_aerial", chip_size=32, chip_metres=metres) for metres in (320, 640)
    ]
    seen: list[tuple[int, int]] = []
    report = embed_archive(
        model, scales, path, workers=0, min_valid=0.01, progress=lambda *now: seen.append(now)
    )
    assert report.total == len(scales[0]) + len(scales[1]) == seen[-1][0] == seen[-1][1]
    archive = Archive.open(path)
    gsd = np.array(archive.rows(["gsd"])["gsd"].to_pylist())
    assert len(gsd) == report.embedded == report.total - report.screened
    assert np.allclose(sorted(set(np.round(gsd))), [10, 20])
    answers = archive.search(archive.rows(["embedding"])["embedding"][0].as_py(), filter=Filter(gsd=(15, 25)))
    assert {round(answer.gsd) for answer in answers} == {20}
    assert embed_archive(model, scales, path, workers=0, min_valid=0.01).embedded == 0
    with pytest.raises(ArchiveError, match="requested twice"):
        embed_archive(model, [scales[0], scales[0]], path, workers=0)


def test_rows_of_files_that_are_gone_are_pruned(model: Model, pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    elsewhere = pictures.rename(tmp_path / "elsewhere")
    (tmp_path / "pictures").mkdir()
    for name in ("001.png", "002.png", "003.png"):
        (tmp_path / "pictures" / name).write_bytes((elsewhere / name).read_bytes())
    for folder in (elsewhere, tmp_path / "pictures"):
        embed_archive(model, pictures_dataset(folder), path, workers=0)
    (elsewhere / "005.png").unlink()
    (tmp_path / "pictures" / "001.png").unlink()
    dataset = pictures_dataset(tmp_path / "pictures")
    assert embed_archive(model, dataset, path, workers=0).pruned == 0
    assert Archive.open(path).count() == 15
    assert embed_archive(model, dataset, path, workers=0, prune_below=tmp_path / "pictures").pruned == 1
    left = Archive.open(path).rows(["source"])["source"].to_pylist()
    assert str(tmp_path / "pictures" / "001.png") not in left
    assert str(elsewhere / "005.png") in left  # elsewhere is not what was asked about
    with pytest.raises(ArchiveError, match="is not a folder"):
        embed_archive(model, dataset, path, workers=0, prune_below=tmp_path / "unmounted")


def test_chips_that_a_changed_scene_no_longer_has_are_removed(
    model: Model, scenes: Path, tmp_path: Path
) -> None:
    import rasterio

    path = tmp_path / "archive"

    def run() -> Any:
        dataset = open_dataset(scenes, sensor="rgb_aerial", chip_size=32)
        return embed_archive(model, dataset, path, workers=0, min_valid=0.0)

    run()
    shrunk = scenes / "scene_0.tif"
    with rasterio.open(shrunk) as scene:
        profile, pixels = scene.profile, scene.read()
    profile.update(width=64, height=64)
    with rasterio.open(shrunk, "w", **profile) as scene:
        scene.write(pixels[:, 32:, 64:])
    report = run()
    # Of 12 chips one was all nodata; of the 4 that are left one was that one, the others are replaced.
    assert (report.embedded, report.removed) == (4, 8)
    assert Archive.open(path).count() == 11 + 4


def test_a_chip_that_has_become_nodata_is_removed(model: Model, scenes: Path, tmp_path: Path) -> None:
    import rasterio

    def run() -> Any:
        dataset = open_dataset(scenes, sensor="rgb_aerial", chip_size=32)
        return embed_archive(model, dataset, tmp_path / "archive", workers=0)

    embedded = run().embedded
    with rasterio.open(scenes / "scene_0.tif", "r+") as scene:
        pixels = scene.read()
        pixels[:, 64:, 64:96] = 0
        scene.write(pixels)
    report = run()
    # What its file still shows elsewhere is as it was: nothing is computed again.
    assert (report.embedded, report.refreshed, report.removed) == (0, embedded // 2 - 1, 1)
    assert Archive.open(tmp_path / "archive").count() == embedded - 1


def test_another_gsd_replaces_the_rows(model: Model, pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    embed_archive(model, pictures_dataset(pictures), path, workers=0)
    dataset = open_dataset(pictures, sensor="rgb_aerial", gsd=3.0, layout="images")
    assert embed_archive(model, dataset, path, workers=0).embedded == 12
    assert set(Archive.open(path).rows(["gsd"])["gsd"].to_pylist()) == {3.0}


def test_one_place_at_two_chip_sizes(model: Model, scenes: Path, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    for size in (32, 64):
        dataset = open_dataset(scenes, sensor="rgb_aerial", chip_size=size)
        embed_archive(model, dataset, path, workers=0, min_valid=0.01)
    widths = [window["width"] for window in Archive.open(path).rows(["window"])["window"].to_pylist()]
    assert {32, 64} == set(widths)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_are_listed_and_the_rest_embedded(
    model: Model, pictures: Path, tmp_path: Path, workers: int
) -> None:
    """Broken before the headers are read, and broken after."""
    (pictures / "000.png").write_bytes(b"")
    dataset = pictures_dataset(pictures)
    whole = (pictures / "001.png").read_bytes()
    (pictures / "001.png").write_bytes(whole[: len(whole) // 2])
    report = embed_archive(model, dataset, tmp_path / "archive", batch_size=3, workers=workers)
    assert report.embedded == 10
    assert sorted(Path(path).name for path, _ in report.failures) == ["000.png", "001.png"]
    (pictures / "001.png").write_bytes(whole)
    again = embed_archive(model, pictures_dataset(pictures), tmp_path / "archive", workers=workers)
    assert (again.embedded, again.present, len(again.failures)) == (1, 10, 1)


class Picky:
    """A model that refuses bright images, and gives no finite embedding of dark ones."""

    id = "picky-1"

    def __init__(self, model: Model) -> None:
        self.contract = model.contract

    def embed(self, images: torch.Tensor, **_: Any) -> torch.Tensor:
        means = images.float().mean(dim=(1, 2, 3))
        if bool((means > 250).any()):
            raise ContractError("these values are no reflectance")
        return torch.where(means[:, None] < 5, torch.nan, means[:, None].expand(-1, 4))


def test_an_image_that_the_model_refuses_costs_no_other(model: Model, pictures: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32), (255, 255, 255)).save(pictures / "bright.png")
    Image.new("RGB", (32, 32), (0, 0, 0)).save(pictures / "dark.png")
    report = embed_archive(Picky(model), pictures_dataset(pictures), tmp_path / "archive", workers=0)
    assert report.embedded == 12
    reasons = {Path(path).name: reason for path, reason in report.failures}
    assert "no reflectance" in reasons["bright.png"]
    assert "not finite" in reasons["dark.png"]


def test_imagery_that_does_not_fit_at_all_stops_the_run(model: Model, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for name in "ab":
        Image.new("RGB", (32, 32), (255, 255, 255)).save(tmp_path / "pictures" / f"{name}.png")
    with pytest.raises(ContractError, match=r"a\.png: these values are no reflectance"):
        embed_archive(Picky(model), pictures_dataset(tmp_path / "pictures"), tmp_path / "archive", workers=0)


def test_images_of_all_nodata_are_left_out(model: Model, scenes: Path, tmp_path: Path) -> None:
    dataset = open_dataset(scenes, sensor="rgb_aerial", chip_size=32)
    report = embed_archive(model, dataset, tmp_path / "archive", workers=0, min_valid=0.0)
    assert report.screened == 2  # the two chips that lie wholly in the corner
    assert report.embedded == 22


def test_an_archive_of_another_model_is_refused_before_anything_is_read(
    model: Model, pictures: Path, tmp_path: Path
) -> None:
    Archive.create(tmp_path / "archive", "other-2", 192)
    dataset = Counting(pictures_dataset(pictures))
    with pytest.raises(ArchiveError, match=f"embedded with model other-2, not with {model.id}"):
        embed_archive(model, dataset, tmp_path / "archive", workers=0)
    assert dataset.read == []


def test_a_damaged_archive_is_refused_before_anything_is_read(
    model: Model, pictures: Path, tmp_path: Path
) -> None:
    path = tmp_path / "archive"
    embed_archive(model, pictures_dataset(pictures), path, workers=0)
    for data in (path / "chips.lance" / "data").iterdir():
        data.unlink()
    dataset = Counting(pictures_dataset(pictures))
    with pytest.raises(ArchiveError, match="damaged"):
        embed_archive(model, dataset, path, workers=0)
    assert dataset.read == []


def test_random_chips_are_refused(model: Model, scenes: Path, pictures: Path, tmp_path: Path) -> None:
    for dataset in (
        open_dataset(scenes, sensor="rgb_aerial", chip_size=32, sampling="random"),
        pictures_dataset(pictures, size=16, resize_mode="random_crop"),
    ):
        with pytest.raises(ArchiveError, match="random"):
            embed_archive(model, dataset, tmp_path / "archive", workers=0)


def test_missing_gsd_is_refused(pictures: Path) -> None:
    with pytest.raises(ImageryError, match="--gsd"):
        open_dataset(pictures, sensor="rgb_aerial", layout="images")


def test_progress_counts_to_the_end(model: Model, pictures: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    embed_archive(
        model,
        pictures_dataset(pictures),
        tmp_path / "archive",
        batch_size=5,
        workers=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 12), (5, 12), (10, 12), (12, 12)]


def test_relative_scale_by_width(model: Model, pictures: Path, tmp_path: Path) -> None:
    """As the official Scale-MAE weights are used: an image's GSD is the reference size over its width."""
    contract = model.contract.model_copy(update={"gsd_mode": "relative", "reference_size": 224})
    relative = Model(model.encoder, contract, name="relative", fingerprint="1" * 12)
    dataset = open_dataset(pictures, sensor="rgb_aerial", gsd="relative", layout="images")
    embed_archive(relative, dataset, tmp_path / "archive", workers=0, gsd_by_width=True)
    rows = Archive.open(tmp_path / "archive").rows(["gsd", "embedding", "source"]).to_pylist()
    assert {row["gsd"] for row in rows} == {7.0}
    expected = relative.embed(dataset[0]["image"])[0]
    first = next(row for row in rows if row["source"] == dataset.paths[0])
    assert np.allclose(first["embedding"], expected, atol=1e-5)
    with pytest.raises(ArchiveError, match="reference size"):
        embed_archive(model, dataset, tmp_path / "other", workers=0, gsd_by_width=True)


def test_killed_at_many_points_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    """SIGKILL between batches, inside commits and at the very end, again and again on one archive.

    The runs are children of one process that has imported torch already (see the script), which keeps
    this quick.
    """
    script = Path(__file__).parents[2] / "helpers" / "killed_runs.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True, text=True, timeout=300, check=False, env=environment,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    runs = [json.loads(line) for line in finished.stdout.splitlines()]
    *killed, last = runs
    assert len([run for run in killed if run["signal"] == 9]) >= 8
    counts = [run["rows"] for run in runs]
    assert counts == sorted(counts), "a commit was lost"
    for run in runs:
        assert run["rows"] == run["distinct"], "a chip was stored twice"
        assert run["rows"] >= run["acknowledged"], "a commit that had returned was lost"
    assert last["rows"] == 48
    assert last["equal_to_undisturbed"]
