"""Labeled images in the layouts that people have: several labels, tables of chips, BigEarthNet."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers.eval_scenes import draw, read_table, write_table
from swath.errors import ImageryError
from swath.evaluation.data.splits import open_split


def test_several_labels_are_split_by_fold_or_drawn(table: Path, tmp_path: Path) -> None:
    rows = [[str(table.parent / r[0]), f"{r[1]}|all", r[3]] for r in read_table(table)]
    several = write_table(tmp_path / "t.csv", rows, "file,labels,split")
    split = open_split(several, sensor="rgb_aerial", gsd=0.5, label_column="labels", label_separator="|")
    assert split.train.labels.shape == (48, 5)
    assert split.train.dataset.classes == ["all", "dark", "gray", "light", "spots"]
    assert split.test.labels.sum() == 40
    undivided = write_table(tmp_path / "u.csv", [r[:2] for r in rows], "file,labels")
    split = open_split(undivided, sensor="rgb_aerial", gsd=0.5, label_column="labels", label_separator="|")
    assert len(split.test.indices) == 14
    assert "20% of the images are queries" in split.notes[0]


def test_a_column_a_label(table: Path, tmp_path: Path) -> None:
    rows = [
        [str(table.parent / r[0]), str(int(r[1] == "dark")), "1", r[3]] for r in read_table(table)
    ]  # fmt: skip
    several = write_table(tmp_path / "t.csv", rows, "file,dark,ground,split")
    split = open_split(several, sensor="rgb_aerial", gsd=0.5, label_column="dark,ground")
    assert split.test.labels.sum(axis=0).tolist() == [5, 20]
    with pytest.raises(ImageryError, match="no column 'darkk'"):
        open_split(several, sensor="rgb_aerial", gsd=0.5, label_column="darkk,ground")


def test_a_label_that_the_bank_lacks_is_noted(table: Path, tmp_path: Path) -> None:
    rows = [
        [str(table.parent / r[0]), f"{r[1]}|{'late' if r[3] == 'val' else 'early'}", r[3]]
        for r in read_table(table)
    ]
    several = write_table(tmp_path / "t.csv", rows, "file,labels,split")
    split = open_split(several, sensor="rgb_aerial", gsd=0.5, label_column="labels", label_separator="|")
    assert any("no bank image with label late" in note for note in split.notes)
    assert any("no query with label early" in note for note in split.notes)


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    """A table of 40 chips of 16 px, cut from two mosaics of dark and light squares."""
    random = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for scene in ("a", "b"):
        mosaic = np.zeros((64, 80, 3), dtype=np.uint8)
        for i in range(20):
            top, left = 16 * (i // 5), 16 * (i % 5)
            kind = "dark" if i % 2 else "light"
            mosaic[top : top + 16, left : left + 16] = draw(kind, random, 16)
            window = {"column": left, "row": top, "width": 16, "height": 16}
            split = "val" if i >= 15 else "train"
            rows.append({"source": f"{scene}.png", "window": window, "label": kind, "split": split})
        Image.fromarray(mosaic).save(tmp_path / f"{scene}.png")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chips.parquet")
    return tmp_path / "chips.parquet"


def test_a_table_of_chips(chips: Path) -> None:
    split = open_split(chips, sensor="rgb_aerial", gsd="relative")
    assert (len(split.train.indices), len(split.test.indices)) == (30, 10)
    assert split.train.dataset.classes == ["dark", "light"]
    sample = split.train.dataset[6]
    assert sample["window"] == (16, 16, 16, 16)
    with Image.open(chips.parent / "a.png") as image:
        whole = np.asarray(image).transpose(2, 0, 1)
    assert np.array_equal(sample["image"].numpy(), whole[:, 16:32, 16:32])
    assert split.train.paths[6].endswith("a.png[16,16,16,16]")
    light = [i for i in range(len(split.train.dataset)) if split.train.dataset.labels[i] == 1]  # type: ignore[index]
    assert float(split.train.dataset[light[0]]["image"].float().mean()) > 150


def test_lists_of_labels_and_whole_images(chips: Path) -> None:
    rows = [
        {"file": "a.png", "class": ["dark", "light"], "split": "train"},
        {"file": "b.png", "class": ["dark"], "split": "val"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), chips.parent / "whole.parquet")
    split = open_split(chips.parent / "whole.parquet", sensor="rgb_aerial", gsd=1.0)
    assert split.train.labels.tolist() == [[1, 1]]
    assert split.test.labels.tolist() == [[1, 0]]
    assert split.train.dataset[0]["image"].shape == (3, 64, 80)


def test_chips_that_do_not_fit_are_told(chips: Path) -> None:
    def again(**change: object) -> Path:
        rows = [
            {**row, **(change if i == 3 else {})} for i, row in enumerate(pq.read_table(chips).to_pylist())
        ]
        pq.write_table(pa.Table.from_pylist(rows), chips.parent / "other.parquet")
        return chips.parent / "other.parquet"

    outside = again(window={"column": 70, "row": 0, "width": 16, "height": 16})
    with pytest.raises(ImageryError, match=r"row 3: window \[70, 0, 16, 16\] lies outside"):
        open_split(outside, sensor="rgb_aerial", gsd=1.0)
    larger = again(window={"column": 0, "row": 0, "width": 32, "height": 32})
    with pytest.raises(ImageryError, match="chips of 2 sizes"):
        open_split(larger, sensor="rgb_aerial", gsd=1.0)
    assert open_split(larger, sensor="rgb_aerial", gsd=1.0, size=16).train.dataset[3]["gsd"] == 2.0
    with pytest.raises(ImageryError, match=r"names 1 files that are not there, such as .*gone\.png"):
        open_split(again(source="gone.png"), sensor="rgb_aerial", gsd=1.0)
    with pytest.raises(ImageryError, match="wants 12"):
        open_split(chips, sensor="sentinel2_l2a", gsd=1.0, offset_dn=0)


def test_an_export_of_an_archive_can_be_scored(tmp_path: Path) -> None:
    """The columns of `swath.archive.exchange.geoparquet.write_geoparquet`."""
    from swath.archive.table.rows import schema

    random = np.random.default_rng(0)
    rows = []
    for i in range(12):
        kind = ("dark", "light")[i % 2]
        Image.fromarray(draw(kind, random, 16)).save(tmp_path / f"{i}.png")
        rows.append({
            "id": str(i), "embedding": [0.0, 0.0], "sensor": "rgb_aerial", "gsd": 0.5, "label": kind,
            "source": str(tmp_path / f"{i}.png"),
            "window": {"column": 0, "row": 0, "width": 16, "height": 16},
            "valid_fraction": 1.0, "model_id": "m", "preprocessing": "{}", "fingerprint": "f",
        })  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=schema(2)), tmp_path / "archive.parquet")
    split = open_split(tmp_path / "archive.parquet", sensor="rgb_aerial", gsd=0.5)
    assert split.native_gsd == 0.5
    assert len(split.test.indices) == 2


@pytest.fixture
def bigearthnet(data_dir: Path, tmp_path: Path) -> Path:
    """Real patches under several names, with v2's metadata."""
    source = data_dir / "fixtures_rico" / "BigEarthNet" / "BigEarthNet-S2"
    scene = next(source.iterdir())
    patch = next(scene.iterdir())
    rows = []
    for i in range(8):
        name = f"{scene.name}_{i}_0"
        folder = tmp_path / "BigEarthNet-S2" / scene.name / name
        folder.mkdir(parents=True)
        for file in patch.iterdir():
            shutil.copy(file, folder / file.name.replace(patch.name, name))
        labels = ["Pastures", "Arable land"] if i % 4 == 0 else ["Pastures"] if i % 2 else ["Arable land"]
        split = "train" if i < 4 else "test" if i == 7 else "validation"
        rows.append({"patch_id": name, "s1_name": "", "split": split, "labels": labels, "country": "Austria"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "metadata.parquet")
    return tmp_path


def test_bigearthnet_with_its_official_folds(bigearthnet: Path) -> None:
    split = open_split(bigearthnet, sensor="sentinel2_ben")
    assert (len(split.train.indices), len(split.test.indices)) == (4, 3)
    assert split.train.labels.shape == (4, 19)
    assert split.train.labels.sum(axis=1).tolist() == [2, 1, 1, 1]
    assert split.train.dataset[0]["image"].shape == (10, 120, 120)
    assert open_split(bigearthnet, sensor="sentinel2_ben", test_split="test").test.name == "test"
    assert split.train.dataset[0]["gsd"] == 10.0
    relative = open_split(bigearthnet, sensor="sentinel2_ben", gsd="relative")
    assert relative.train.dataset.get_batch([0, 1])["gsd"].tolist() == [1.0, 1.0]


def test_bigearthnet_as_single_label(bigearthnet: Path) -> None:
    split = open_split(bigearthnet, sensor="sentinel2_ben", labels="single")
    assert (len(split.train.indices), len(split.test.indices)) == (3, 2)
    assert split.train.labels.ndim == 1
    assert "6 of 8 places have one label" in split.notes[0]
    assert split.train.dataset[0]["label"] == split.train.labels[0]
    with pytest.raises(ImageryError, match="label_column='x' means nothing"):
        open_split(bigearthnet, sensor="sentinel2_ben", label_column="x")
