"""Data sets known by name: found in every layout that people have, fetched, and never taken for another."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import yaml
from PIL import Image

from helpers.range_server import serve
from swath.datasets.benchmarks import catalog as known_sets
from swath.datasets.benchmarks.catalog import BenchmarkDataset, get_benchmark, is_benchmark, list_benchmarks
from swath.datasets.benchmarks.fetch import fetch_benchmark
from swath.errors import ImageryError
from swath.sensors.registry import get_sensor

NAMES = [
    "aid", "airound", "cv-brct", "eurosat", "eurosat-ms", "mlrsnet", "optimal-31", "resisc45", "ucmerced",
    "whu-rs19",
]  # fmt: skip


def lay_out(folder: Path, known: BenchmarkDataset, count: int = 1, suffix: str = ".jpg") -> Path:
    """The set's class folders with tiny pictures in them."""
    for name in known.classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / name / f"{name.replace('&', '')}_{i}{suffix}")
    return folder


def test_the_sets_people_ask_for_are_known() -> None:
    assert list_benchmarks() == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_set_says_what_is_needed(name: str) -> None:
    known = get_benchmark(name)
    assert len(set(known.classes)) == len(known.classes)
    assert known.images > 0
    assert known.references[0].url.startswith("http")
    get_sensor(known.sensor)
    for archive in known.downloads:
        assert (archive.checksum_source is not None) == bool(archive.md5 or archive.sha256)
    advice = known.how_to_get("data")
    assert f"swath datasets fetch {name}" in advice
    assert "http" in advice


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("EuroSAT", "eurosat"), ("EuroSAT_MS", "eurosat-ms"), ("UC Merced", "ucmerced"),
        ("NWPU-RESISC45", "resisc45"), ("resisc", "resisc45"), ("WHU-RS19", "whu-rs19"),
        ("Optimal31", "optimal-31"), ("CVBrCT", "cv-brct"), ("MLRSNet", "mlrsnet"),
    ],
)  # fmt: skip
def test_names_that_people_use(text: str, name: str) -> None:
    assert get_benchmark(text).name == name


def test_unknown_names_get_a_suggestion() -> None:
    assert not is_benchmark("eurosta")
    with pytest.raises(ImageryError, match="Did you mean 'eurosat'"):
        get_benchmark("eurosta")


@pytest.mark.parametrize(
    "where",
    [
        ".", "EuroSAT_RGB", "2750", "eurosat/2750", "EuroSAT/EuroSAT_RGB", "deep/down/somewhere",
    ],
)  # fmt: skip
def test_found_wherever_it_lies(tmp_path: Path, where: str) -> None:
    known = get_benchmark("eurosat")
    folder = lay_out(tmp_path / where, known)
    found = known.find(tmp_path)
    assert found.folder.resolve() == folder.resolve()
    assert sorted(found.folders.values()) == sorted(known.classes)
    assert found.notes == []


def test_sets_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    """OPTIMAL-31's classes are RESISC45's, and both variants of EuroSAT have the same."""
    big, small = get_benchmark("resisc45"), get_benchmark("optimal-31")
    lay_out(tmp_path / "x" / "one", small)
    lay_out(tmp_path / "x" / "two", big)
    assert big.find(tmp_path).folder.name == "two"
    assert small.find(tmp_path).folder.name == "one"
    rgb, bands = get_benchmark("eurosat"), get_benchmark("eurosat-ms")
    lay_out(tmp_path / "e" / "a", bands, suffix=".tif")
    with pytest.raises(ImageryError, match=r"EuroSAT .RGB. is not in it"):
        rgb.find(tmp_path / "e")
    lay_out(tmp_path / "e" / "b", rgb)
    assert (rgb.find(tmp_path / "e").folder.name, bands.find(tmp_path / "e").folder.name) == ("b", "a")


def test_folders_may_be_spelled_otherwise(tmp_path: Path) -> None:
    known = get_benchmark("mlrsnet")
    lay_out(tmp_path / "Images", known)
    (tmp_path / "Images" / "swimming_pool").rename(tmp_path / "Images" / "swimmimg_pool")
    (tmp_path / "Images" / "wind_turbine").rename(tmp_path / "Images" / "Wind Turbine")
    found = known.find(tmp_path)
    assert found.folders["swimmimg_pool"] == "swimming_pool"
    assert found.folders["Wind Turbine"] == "wind_turbine"
    assert found.notes == []


def test_train_and_test_folders_and_lists_are_found(tmp_path: Path) -> None:
    known = get_benchmark("ucmerced")
    for split in ("train", "test"):
        lay_out(tmp_path / "UCMerced" / split, known)
    assert known.find(tmp_path).has_splits
    folder = lay_out(tmp_path / "other" / "UCMerced_LandUse" / "Images", known)
    for split in ("train", "val", "test"):
        (tmp_path / "other" / f"uc_merced-{split}.txt").write_text("airplane_0.jpg\n")
    found = known.find(tmp_path / "other")
    assert found.folder == folder
    assert sorted(found.lists) == ["test", "train", "val"]


@pytest.mark.parametrize(("name", "classes"), [("eurosat", 3), ("eurosat-ms", 3), ("ucmerced", 2)])
def test_real_files_in_the_published_layouts(data_dir: Path, name: str, classes: int) -> None:
    found = get_benchmark(name).find(data_dir / "fixtures_rico")
    assert len(found.folders) == classes
    assert f"{classes} of its {len(found.benchmark.classes)} classes are here" in found.notes[0]


def test_absence_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match=r"swath datasets fetch eurosat --out .*madm.dfki.de"):
        get_benchmark("eurosat").find(tmp_path)
    with pytest.raises(ImageryError, match=r"captain-whu.github.io/AID.*--url FILE"):
        get_benchmark("aid").find(tmp_path / "nowhere")


def test_fetch_unpack_and_find(tmp_path: Path) -> None:
    known = get_benchmark("whu-rs19")  # no published checksum
    lay_out(tmp_path / "made" / "WHU-RS19", known)
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "WHU-RS19.zip", "w") as archive:
        for path in sorted((tmp_path / "made").rglob("*.jpg")):
            archive.write(path, path.relative_to(tmp_path / "made"))
    steps: list[str] = []

    def watch(what: str):  # type: ignore[no-untyped-def]
        steps.append(what)
        return lambda done, total: None

    with serve(served) as server:
        got = fetch_benchmark(known, tmp_path / "out", url=f"{server.url}/WHU-RS19.zip", watch=watch)
        assert steps == ["downloading WHU-RS19.zip", "unpacking WHU-RS19.zip"]
        assert got.download is not None
        assert "no checksum is published" in got.download.checked
        assert known.find(tmp_path / "out").folder == got.local.folder
        again = fetch_benchmark(known, tmp_path / "out", url=f"{server.url}/WHU-RS19.zip")
        assert again.download is None
        assert len(server.requests) == 1


def test_another_set_in_the_archive_and_wrong_checksums_are_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "strange.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(ImageryError, match="UC Merced Land Use is not in it"):
        fetch_benchmark(get_benchmark("ucmerced"), tmp_path / "a", url=str(tmp_path / "strange.zip"))
    (tmp_path / "strange.zip").rename(tmp_path / "UCMerced_LandUse.zip")
    with pytest.raises(ImageryError, match="5b7ec56793786b6dc8a908e8854ac0e4 is published"):
        fetch_benchmark(get_benchmark("ucmerced"), tmp_path / "b", url=str(tmp_path / "UCMerced_LandUse.zip"))
    with pytest.raises(ImageryError, match="no address is known from which a program may fetch it"):
        fetch_benchmark(get_benchmark("aid"), tmp_path / "c")


def test_a_wrong_yaml_file_is_refused_by_key(tmp_path: Path) -> None:
    good = yaml.safe_load((Path(known_sets.__file__).parent / "aid.yaml").read_text(encoding="utf-8"))
    for change, said in (
        ({"licence": None}, "licence"),
        ({"imagesize": 3}, "imagesize"),
        ({"gsd": 1.0}, "gsd or gsd_range"),
        ({"class_aliases": {"x": "nothing"}}, "nothing"),
    ):
        path = tmp_path / "x.yaml"
        path.write_text(yaml.safe_dump({**good, **change}))
        with pytest.raises(ImageryError, match=said):
            known_sets.read_benchmark(path)
