"""Sets known by name, opened as people have them, for models that know their sensor or another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.eval_scenes import draw, read_table, write_scenes, write_table
from swath.datasets.benchmarks.catalog import get_benchmark
from swath.errors import ImageryError
from swath.evaluation.data.opening import is_benchmark_name, native_sensor, open_eval_data
from swath.evaluation.features.opening import open_eval_model
from swath.evaluation.protocols.frozen import evaluate_knn
from swath.sensors.registry import get_sensor


@pytest.fixture
def eurosat(tmp_path: Path) -> Path:
    """EuroSAT's folders with six drawn pictures each."""
    random = np.random.default_rng(0)
    for i, name in enumerate(get_benchmark("eurosat").classes):
        folder = tmp_path / "2750" / name
        folder.mkdir(parents=True)
        for j in range(6):
            Image.fromarray(draw(("dark", "light")[i % 2], random, 64)).save(folder / f"{name}_{j}.jpg")
    return tmp_path


def test_a_table_without_gsd_serves_those_who_do_not_look_at_scale(tmp_path: Path) -> None:
    rows = [[row[0], row[1], row[3]] for row in read_table(write_scenes(tmp_path))]
    table = write_table(tmp_path / "bare.csv", rows, "file,class,split")
    split = open_eval_data(table, sensor="rgb_aerial")
    assert split.train.dataset[0]["gsd"] == 1.0
    with pytest.raises(ImageryError, match="GSD is unknown"):
        open_eval_data(table, sensor="rgb_aerial", gsd_mode="metres")
    summary = open_eval_data(tmp_path / "index.csv", sensor="rgb_aerial")
    assert summary.train.dataset[0]["gsd"] == 0.5, "a column of GSDs is taken along"


def test_a_set_is_opened_by_its_name_and_split_as_usual(eurosat: Path) -> None:
    assert is_benchmark_name("EuroSAT")
    assert native_sensor("EuroSAT") == "rgb_aerial"
    split = open_eval_data("EuroSAT", sensor="rgb_aerial", root=eurosat, gsd_mode="metres")
    assert (len(split.train.indices), len(split.test.indices)) == (50, 10)
    assert split.train.dataset[0]["gsd"] == 10.0
    assert any("60 images are here; 27,000 are published" in note for note in split.notes)
    relative = open_eval_data("EuroSAT", sensor="rgb_aerial", root=eurosat, gsd_mode="relative")
    assert relative.train.dataset[0]["gsd"] == 1.0
    assert relative.hash == split.hash


def test_published_lists_decide_where_they_lie_with_the_set(eurosat: Path) -> None:
    for split, numbers in (("train", (0, 1, 2)), ("val", (3,)), ("test", (4,))):
        lines = [f"{name}_{j}.jpg" for name in get_benchmark("eurosat").classes for j in numbers]
        (eurosat / f"eurosat-{split}.txt").write_text("\n".join(lines) + "\n")
    split = open_eval_data("eurosat", sensor="rgb_aerial", root=eurosat)
    assert (len(split.train.indices), len(split.test.indices)) == (30, 10)
    assert any("split by the lists eurosat-train.txt" in note for note in split.notes)
    assert any("10 images are in none of the lists" in note for note in split.notes)
    assert open_eval_data("eurosat", sensor="rgb_aerial", root=eurosat, test_split="test").test.name == "test"


def test_fold_folders_decide(eurosat: Path) -> None:
    known = get_benchmark("eurosat")
    for split in ("train", "test"):
        (eurosat / "divided" / "EuroSAT" / split).mkdir(parents=True)
    for name in known.classes:
        (eurosat / "2750" / name).rename(eurosat / "divided" / "EuroSAT" / "train" / name)
        other = eurosat / "divided" / "EuroSAT" / "test" / name
        other.mkdir()
        Image.new("RGB", (64, 64), (9, 9, 9)).save(other / "x.jpg")
    split = open_eval_data("eurosat", sensor="rgb_aerial", root=eurosat / "divided")
    assert (len(split.train.indices), len(split.test.indices)) == (60, 10)
    assert split.test.name == "test"


def test_odd_sizes_are_brought_to_the_sets_own(tmp_path: Path) -> None:
    for i, name in enumerate(("airplane", "forest", "river")):
        (tmp_path / "UCMerced_LandUse" / "Images" / name).mkdir(parents=True)
        for j in range(3):
            image = Image.new("RGB", (256 - j, 240 + 8 * j), (40 * i, 0, 0))
            image.save(tmp_path / "UCMerced_LandUse" / "Images" / name / f"{j}.tif")
    split = open_eval_data("UC Merced", sensor="rgb_aerial", root=tmp_path, gsd_mode="metres")
    assert split.train.dataset[0]["image"].shape == (3, 256, 256)
    assert "3 of its 21 classes are here" in split.notes[0]


def test_unknown_gsd_is_refused_where_it_matters_and_assumed_with_a_note(tmp_path: Path) -> None:
    for name in ("airound", "resisc45"):
        for folder in get_benchmark(name).classes[:3]:
            path = tmp_path / name / folder
            path.mkdir(parents=True)
            for j in range(2):
                Image.new("RGB", (8, 8), (j, 0, 0)).save(path / f"{j}.jpg")
    with pytest.raises(ImageryError, match=r"airound: nothing says the GSD.*--gsd-mode relative"):
        open_eval_data("airound", sensor="rgb_aerial", root=tmp_path, gsd_mode="metres")
    blind = open_eval_data("airound", sensor="rgb_aerial", root=tmp_path)  # nobody looks at scale
    assert blind.train.dataset[0]["gsd"] == pytest.approx(8 / 500), "relative to the files' own pixels"
    split = open_eval_data("resisc45", sensor="rgb_aerial", root=tmp_path, gsd_mode="metres")
    assert any("varies from 0.2 to 30 m and no file says how: 2.45 m is assumed" in n for n in split.notes)


def test_real_eurosat_in_thirteen_bands(data_dir: Path) -> None:
    """The values say which band is which: the cirrus band is dark, B8A bright on crops."""
    from swath.evaluation.data.opening import open_benchmark

    found = get_benchmark("eurosat-ms").find(data_dir / "fixtures_rico")
    own = get_sensor("sentinel2_eurosat")
    opened = open_benchmark(found, own, "relative")
    crop = next(i for i, path in enumerate(opened.dataset.paths) if "AnnualCrop" in path)
    means = opened.dataset[crop]["image"].mean(dim=(1, 2))
    assert means[own.index("B10")] < 0.01
    assert means[own.index("B8A")] > 0.19
    other = get_sensor("sentinel2_ben")
    view = open_benchmark(found, other, "relative")
    seen = view.dataset[crop]["image"]
    assert seen.shape[0] == 10
    assert np.allclose(seen[9], opened.dataset[crop]["image"][own.index("B8A")])
    assert any("shown as sentinel2_ben" in note for note in view.notes)
    with pytest.raises(
        ImageryError, match=r"band R, G, B of sensor 'rgb_aerial'.*Sets of rgb_aerial: .*eurosat"
    ):
        open_benchmark(found, get_sensor("rgb_aerial"), "relative")


def test_real_ucmerced_is_scored(data_dir: Path) -> None:
    split = open_eval_data("ucmerced", sensor="rgb_aerial", root=data_dir / "fixtures_rico")
    found = evaluate_knn(open_eval_model("statistics").extractors, split, image_sizes=[64, 256], k=2)
    assert len(found.scores) == 6
    assert any("2 of its 21 classes" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "options", "prediction"),
    [
        ("eurosat", {}, "say below which folder it lies"),
        ("eurosta", {}, "no data set is known as that. Did you mean 'eurosat'"),
        ("eurosat", {"root": Path("nowhere")}, "swath datasets fetch eurosat"),
        ("eurosat", {"root": Path(), "label_column": "class"}, "label_column= means nothing"),
        ("eurosat", {"root": Path(), "gsd": "gsd_m"}, "is not in it|has no column 'gsd_m'"),
    ],
)
def test_errors_say_what_to_do(
    name: str, options: dict[str, object], prediction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageryError, match=prediction):
        open_eval_data(name, sensor="rgb_aerial", **options)  # type: ignore[arg-type]
